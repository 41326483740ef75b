"""What the parts of Tunesmith say to each other survives the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.evaluation import MAX_GATES, MAX_REFERENCES, MAX_RESULTS, MAX_SUITES
from tunesmith_contract.exit_codes import RETRYABLE, ExitCode, FailureCategory, category_of, exit_code_of
from tunesmith_contract.layout import (
    artifact_uri,
    checkpoint_name,
    checkpoint_step,
    is_checkpoint,
    work_of_checkpoint,
)
from tunesmith_contract.report import (
    MAX_DATA_ISSUES,
    MAX_EXPERTS,
    MAX_LINEAR_NAME,
    MAX_LINEARS,
    TERMINATION_MESSAGE_BYTES,
    Artifact,
    ComparedSide,
    DatasetReport,
    EvaluationReport,
    Failure,
    GateEvidence,
    GateProblem,
    GenerationReport,
    Interval,
    IssueCount,
    Linear,
    MetricResult,
    ModelReport,
    ModelShape,
    Outcome,
    RunReport,
    SideUsage,
    SuiteCounts,
    TokenStatistics,
    TrainingReport,
    parse_report,
)
from tunesmith_contract.run_config import GenerateConfig, PrepareConfig, parse_run_config
from tunesmith_contract.uris import (
    InvalidUri,
    Scheme,
    mount_path,
    names_one_file,
    parse_uri,
    parse_uri_or_none,
)

DIGEST = "sha256:" + "f" * 64
WIDE = "\N{GRINNING FACE}"
BIG = 10**15 - 1
LONG = -0.12345678901234567e-100


@pytest.mark.parametrize(
    ("uri", "name", "path", "revision"),
    [
        ("pvc://data/a/b.jsonl", "data", "a/b.jsonl", None),
        ("pvc://artifacts", "artifacts", "", None),
        ("pvc://data/parts/rows-*.parquet", "data", "parts/rows-*.parquet", None),
        ("pvc://data/*", "data", "*", None),
        ("configmap://rows/train.jsonl", "rows", "train.jsonl", None),
        ("hf://org/repo@main", "org/repo", "", "main"),
        ("hf://org/repo/data/train-*.parquet@v1", "org/repo", "data/train-*.parquet", "v1"),
        ("s3://bucket/a/rows-*.jsonl", "bucket", "a/rows-*.jsonl", None),
        ("hf://org/repo/data/x.jsonl@v1.0", "org/repo", "data/x.jsonl", "v1.0"),
    ],
)
def test_uri_round_trip(uri: str, name: str, path: str, revision: str | None) -> None:
    parsed = parse_uri(uri)
    assert (parsed.name, parsed.path, parsed.revision) == (name, path, revision)
    assert str(parsed) == uri


@pytest.mark.parametrize(
    ("uri", "one"),
    [
        ("pvc://data/a.jsonl", True),
        ("configmap://rows/a.jsonl", True),
        ("s3://bucket/a/b.jsonl", True),
        ("hf://org/repo/a.jsonl@refs/pr/1", True),
        ("pvc://data/", False),
        ("pvc://data/a/", False),
        ("pvc://data/*.jsonl", False),
        ("gs://bucket/", False),
        ("az://container/rows.jsonl", True),
        ("hf://org/repo", False),
        ("hf://org/repo/data/@refs/pr/1", False),
        ("hf://org/repo/data/*@main", False),
    ],
)
def test_rows_are_a_file_a_folder_or_a_pattern(uri: str, one: bool) -> None:
    assert names_one_file(uri) is one


@pytest.mark.parametrize(
    "uri",
    [
        "data.jsonl",
        "s3://b/k",
        "pvc://",
        "pvc://c/../d",
        "pvc://c/*/d",
        "s3://bucket/*/d",
        "hf://org/repo/*/d",
        "pvc://c*/d",
        "configmap://x",
        "configmap://x/..",
        "hf://repo",
        "hf://a/../b",
    ],
)
def test_bad_uri_says_what_to_write(uri: str) -> None:
    assert parse_uri_or_none(uri) is None
    with pytest.raises(InvalidUri, match="write"):
        parse_uri(uri)


@given(st.text())
def test_no_path_leaves_its_volume(text: str) -> None:
    try:
        uri = parse_uri(f"pvc://claim/{text}")
    except InvalidUri:
        return
    assert ".." not in mount_path(uri).parts
    assert mount_path(uri).parts[:5] == ("/", "mnt", "tunesmith", Scheme.PVC, "claim")


@given(st.integers(0))
def test_a_checkpoints_name_tells_its_step(step: int) -> None:
    assert checkpoint_step(checkpoint_name(step)) == step


@pytest.mark.parametrize("name", ["checkpoint-", "checkpoint--1", "checkpoint-1.tmp", "staging-1", "1"])
def test_other_folders_are_no_checkpoints(name: str) -> None:
    assert checkpoint_step(name) is None


@pytest.mark.parametrize(
    ("uri", "work"),
    [
        ("pvc://artifacts/team/ns/uid/checkpoints/checkpoint-7", "pvc://artifacts/team/ns/uid"),
        ("s3://bucket/ns/uid/checkpoints/checkpoint-7", "s3://bucket/ns/uid"),
        ("s3://bucket/copies/checkpoint-7", None),
        ("s3://bucket/ns/uid/checkpoints/best", None),
        ("oci://registry.example/team/checkpoints:1", None),
    ],
)
def test_work_files_lie_beside_a_checkpoint(uri: str, work: str | None) -> None:
    found = work_of_checkpoint(parse_uri(uri))
    assert (found and str(found)) == work
    assert is_checkpoint(parse_uri(uri)) is uri.endswith("checkpoint-7")


def test_artifacts_are_content_addressed() -> None:
    assert (
        str(artifact_uri(parse_uri("pvc://artifacts/team"), DIGEST))
        == f"pvc://artifacts/team/sha256/{'f' * 64}"
    )


@pytest.mark.parametrize("category", FailureCategory)
def test_exit_codes_and_categories_agree(category: FailureCategory) -> None:
    assert category_of(exit_code_of(category)) is category


def test_crashes_may_be_tried_again_and_preemption_is_no_failure() -> None:
    assert category_of(1) in RETRYABLE
    assert category_of(137) in RETRYABLE
    assert category_of(ExitCode.PREEMPTED) is None


def _largest_shape() -> ModelShape:
    return ModelShape(
        hidden_size=BIG,
        intermediate_size=BIG,
        layers=BIG,
        attention_heads=BIG,
        key_value_heads=BIG,
        head_size=BIG,
        vocabulary_size=BIG,
        tied_embeddings=True,
        linears=(Linear("n" * MAX_LINEAR_NAME, BIG, BIG, BIG),) * MAX_LINEARS,
        experts=(Linear("n" * MAX_LINEAR_NAME, BIG, BIG, BIG),) * MAX_EXPERTS,
    )


def _artifact() -> Artifact:
    return Artifact(uri="pvc://" + "a" * 506, digest=DIGEST, size_bytes=BIG)


def _largest_generation() -> GenerationReport:
    return GenerationReport(
        rows=BIG,
        made=BIG,
        filtered=BIG,
        duplicates=BIG,
        leaked=BIG,
        unusable=BIG,
        calls=BIG,
        prompt_tokens=BIG,
        completion_tokens=BIG,
        amount="9" * 24,
        currency="EUR",
        warnings=(WIDE * 200,) * 2,
        generated=_artifact(),
        manifest=_artifact(),
    )


def _largest_dataset() -> DatasetReport:
    return DatasetReport(
        digest=DIGEST,
        format="x" * 32,
        rows=BIG,
        train_rows=BIG,
        validation_rows=BIG,
        duplicates=BIG,
        near_duplicates=BIG,
        leaked_rows=BIG,
        dropped_rows=BIG,
        truncated_rows=BIG,
        tokens=TokenStatistics(p50=BIG, p95=BIG, max=BIG, total=BIG),
        warnings=(WIDE * 200,) * 4,
        issues=(IssueCount("c" * 40, BIG),) * MAX_DATA_ISSUES,
        recommendation=WIDE * 300,
        page="pvc://" + "a" * 506,
    )


def _largest_model() -> ModelReport:
    return ModelReport(
        revision="r" * 80,
        architecture="a" * 64,
        parameters=BIG,
        max_position_embeddings=BIG,
        shape=_largest_shape(),
        quantization="q" * 32,
        template_changed=True,
    )


def _largest_evaluation() -> EvaluationReport:
    interval = Interval(value=LONG, low=LONG, high=LONG)
    result = MetricResult(
        suite="s" * 32,
        metric="m" * 40,
        items=BIG,
        scores=(interval,) * (2 + MAX_REFERENCES),
        delta=interval,
        p_value=1.2345678901234567e-100,
    )
    evidence = GateEvidence(BIG, LONG, 1.234567e-100, 1.234567e-100, BIG, GateProblem.TOO_MANY_BROKEN, False)
    return EvaluationReport(
        sides=("s" * 32,) * (2 + MAX_REFERENCES),
        results=(result,) * MAX_RESULTS,
        gates=(evidence,) * MAX_GATES,
        suites=(SuiteCounts(BIG, BIG, BIG, BIG, BIG),) * MAX_SUITES,
        usage=(SideUsage("r" * 80, BIG, BIG, LONG),) * (2 + MAX_REFERENCES),
        compared=(ComparedSide("d" * 80, "a" * 96, False),) * 2,
        policy_digest=DIGEST,
        base_model_revision="r" * 80,
        amount="9" * 24,
        currency="EUR",
        details=_artifact(),
        report_digest=DIGEST,
        report_bytes=BIG,
    )


def _largest(stage: str) -> RunReport:
    training = TrainingReport(artifact=_artifact(), steps=BIG, epochs=LONG, precision=WIDE * 8)
    members: dict[str, dict[str, Any]] = {
        "generate": {"generation": _largest_generation()},
        "prepare": {"dataset": _largest_dataset(), "model": _largest_model()},
        "train": {"training": training},
        "evaluate": {"evaluation": _largest_evaluation()},
    }
    return RunReport(stage=stage, outcome=Outcome.SUCCEEDED, **members[stage])


@pytest.mark.parametrize("stage", ["generate", "prepare", "train", "evaluate"])
def test_largest_legal_report_fits_the_termination_message(stage: str) -> None:
    report = _largest(stage)
    message = report.to_termination_message()
    assert len(message) <= TERMINATION_MESSAGE_BYTES
    reread = parse_report(message)
    assert reread is not None and reread.outcome is Outcome.SUCCEEDED


def _prepared(**dataset: Any) -> RunReport:
    """A success of prepare whose model leaves room for nothing but this of the data."""
    report = _largest("prepare")
    assert report.dataset is not None
    bare = {"warnings": (), "issues": (), "recommendation": None, "page": None}
    return report.model_copy(update={"dataset": report.dataset.model_copy(update=bare | dataset)})


def _told_of_the_data(**dataset: Any) -> DatasetReport:
    reread = parse_report(_prepared(**dataset).to_termination_message())
    assert reread is not None
    assert reread.dataset is not None
    return reread.dataset


ISSUES = tuple(IssueCount(f"{index:02}_" + "c" * 37, BIG) for index in range(MAX_DATA_ISSUES))


def test_a_long_report_of_the_data_keeps_the_gravest_issues() -> None:
    told = _told_of_the_data(issues=ISSUES, recommendation="sft with LoRA", page="pvc://a/report.html")
    assert told.issues == ISSUES[: len(told.issues)]
    assert 0 < len(told.issues) < len(ISSUES)
    assert (told.recommendation, told.page) == ("sft with LoRA", "pvc://a/report.html")


def test_a_long_report_of_the_data_keeps_its_address_to_the_last() -> None:
    page = "pvc://" + "a" * 200
    told = _told_of_the_data(issues=ISSUES, warnings=("w" * 200,) * 4, recommendation="r" * 300, page=page)
    assert (told.issues, told.warnings, told.recommendation) == ((), (), None)
    assert told.page == page


def test_a_report_that_fits_is_told_as_it_is() -> None:
    tokens = TokenStatistics(p50=1, p95=2, max=3, total=4)
    dataset = DatasetReport(
        digest=DIGEST,
        format="Chat",
        rows=1,
        train_rows=1,
        validation_rows=0,
        tokens=tokens,
        warnings=("few rows",),
        issues=ISSUES,
        recommendation="r" * 300,
        page="pvc://a/report.html",
    )
    report = RunReport(stage="prepare", outcome=Outcome.SUCCEEDED, dataset=dataset)
    assert parse_report(report.to_termination_message()) == report


def test_a_long_failure_keeps_its_reason_and_the_end_of_its_log() -> None:
    failure = Failure(
        category=FailureCategory.DATA_ERROR,
        reason="r" * 64,
        message=WIDE * 2048,
        log=WIDE * 4095 + "!",
        exit_code=11,
    )
    report = parse_report(
        RunReport(stage="train", outcome=Outcome.FAILED, failure=failure).to_termination_message()
    )
    assert report is not None and report.failure is not None
    assert report.failure.reason == failure.reason
    assert report.failure.message and failure.message.startswith(report.failure.message)
    assert failure.log.endswith(report.failure.log)


@pytest.mark.parametrize(
    "message", ["", "Killed", "{}", '{"schemaVersion": 99, "stage": "train", "outcome": "Succeeded"}']
)
def test_no_report_is_none(message: str) -> None:
    assert parse_report(message) is None


def test_a_report_of_a_newer_release_is_read_a_config_is_not() -> None:
    later = {"schemaVersion": 1, "stage": "train", "outcome": "Preempted", "unheardOf": 1}
    assert parse_report(json.dumps(later)) is not None
    rest = {"owner": {"kind": "EvalRun", "namespace": "n", "name": "e", "uid": "u"}, "schemaVersion": 1}
    with pytest.raises(ValidationError, match="unheardOf"):
        parse_run_config(json.dumps({"stage": "evaluate", "unheardOf": 1} | rest))
    with pytest.raises(ValidationError):
        parse_run_config('{"stage": "unheard-of"}')


def test_rows_to_prepare_come_from_somewhere() -> None:
    owner = {"kind": "FineTuneJob", "namespace": "n", "name": "j", "uid": "u"}
    run = {"stage": "prepare", "owner": owner, "baseModel": "pvc://m/x", "validation": {}, "seed": 1}
    run |= {"method": {"sft": {}}, "output": "pvc://o"}
    made = parse_run_config(json.dumps(run | {"generated": "pvc://o/generated.jsonl"}))
    assert isinstance(made, PrepareConfig) and made.train == ()
    with pytest.raises(ValidationError, match="there is nothing to train on"):
        parse_run_config(json.dumps(run))


def test_rows_are_generated_in_one_way() -> None:
    owner = {"kind": "FineTuneJob", "namespace": "n", "name": "j", "uid": "u"}
    generation = {"endpoint": {"url": "http://t/v1", "model": "m"}, "budget": {"calls": 1}}
    run = {"stage": "generate", "owner": owner, "seed": 1, "output": "pvc://o"}
    task = {"answers": {"prompts": "pvc://d/p"}}
    config = parse_run_config(json.dumps(run | {"generation": generation | task}))
    assert isinstance(config, GenerateConfig) and config.generation.task == "answers"
    assert parse_run_config(config.to_json()) == config
    for tasks in ({}, task | {"paraphrases": {"rows": "pvc://d/r"}}):
        with pytest.raises(ValidationError, match="exactly one task"):
            parse_run_config(json.dumps(run | {"generation": generation | tasks}))


def test_a_manifest_is_its_digest() -> None:
    body = {
        "rank": 8,
        "targetModules": ["q_proj"],
        "files": [{"path": "adapter_model.safetensors", "sizeBytes": 1, "sha256": DIGEST}],
        "probes": [{"tokenIds": [1, 2, 3], "promptLength": 1, "baseLogProb": -3.5, "tunedLogProb": -0.25}],
        "lineage": {
            "namespace": "n",
            "job": "j",
            "uid": "u",
            "baseModel": "pvc://m/x",
            "baseModelRevision": DIGEST,
            "datasetDigest": DIGEST,
            "image": "i",
            "parameters": {"learningRate": 2e-4},
            "versions": {},
        },
    }
    manifest = Manifest.model_validate(body)
    assert Manifest.model_validate_json(manifest.to_bytes()).digest == manifest.digest
    assert manifest.model_copy(update={"rank": 16}).digest != manifest.digest
