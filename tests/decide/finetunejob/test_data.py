"""The data of a FineTuneJob: what prepare is told, what it needs, and what status says of what it found."""

from typing import Any

import pytest
from simulation.simulated_cluster import ENVIRONMENT, EVALUATION, START, fine_tune_job, success
from simulation.training_world import World, world

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.data_status import describe_dataset
from tunesmith.decide.finetunejob.inputs import data_fields
from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith.decide.plan import Plan
from tunesmith_contract.report import DatasetReport, IssueCount, RunReport
from tunesmith_contract.run_config import (
    Deduplicate,
    HeldOut,
    PersonalData,
    PrepareConfig,
    ValidationSource,
    parse_run_config,
)
from tunesmith_contract.sources import DataFormat

PAGE = "pvc://artifacts/team/team/uid/data-report/report.html"
ISSUES = (
    IssueCount("contradicting_answers", 1_012),
    IssueCount("copied_answers", 1),
    IssueCount("other_language", 7),
    IssueCount("class_balance", 40),
)


def found(**dataset: Any) -> RunReport:
    """A success of prepare that found this."""
    report = success("prepare")
    assert report.dataset is not None
    return report.model_copy(update={"dataset": report.dataset.model_copy(update=dataset)})


def dataset(**changes: Any) -> DatasetReport:
    report = found(**changes).dataset
    assert report is not None
    return report


def prepared(**changes: Any) -> tuple[World, Plan]:
    """A job whose data was found to be so, and the plan that said it."""
    cluster = world()
    return cluster, cluster.end(0, found(**changes))


def told(**spec: Any) -> PrepareConfig:
    """What prepare reads."""
    cluster = world(**spec)
    config = parse_run_config(cluster.objects[("ConfigMap", "expenses-0f3c9d-inputs")]["data"]["run.json"])
    assert isinstance(config, PrepareConfig)
    return config


def test_prepare_is_told_all_that_is_written() -> None:
    config = told(
        dataset={
            "train": {"uris": ["pvc://data/b.csv", "pvc://data/parts/", "pvc://data/a-*.parquet"]},
            "validation": {"fraction": "0.2", "groupField": "meta.customer", "stratifyField": "label"},
            "format": "ShareGPT",
            "deduplicate": "Near",
            "nearThreshold": "0.7",
            "personalData": "Mask",
            "templateArguments": {"enable_thinking": "false", "level": '"low"'},
        },
        evaluation=EVALUATION,
    )
    assert config.template_arguments == {"enable_thinking": False, "level": "low"}
    assert config.train == ("pvc://data/b.csv", "pvc://data/parts/", "pvc://data/a-*.parquet")
    assert config.validation == ValidationSource(
        fraction=0.2, group_field="meta.customer", stratify_field="label"
    )
    assert config.held_out == (HeldOut(name="task", uri="pvc://data/test.jsonl"),)
    assert config.format is DataFormat.SHAREGPT
    assert (config.deduplicate, config.near_threshold) == (Deduplicate.NEAR, 0.7)
    assert config.personal_data is PersonalData.MASK


def test_what_is_left_out_comes_to_the_contracts_own_defaults() -> None:
    config = told()
    assert config.train == ("configmap://rows/train.jsonl",)
    assert config.held_out == ()
    assert (config.deduplicate, config.near_threshold) == (Deduplicate.EXACT, 0.8)
    assert config.personal_data is PersonalData.REPORT
    assert config.template_arguments is None


def test_each_uri_has_the_field_that_names_it() -> None:
    spec = {"train": {"uris": ["pvc://a/1", "pvc://b/2"]}, "validation": {"uri": "pvc://c/3"}}
    job = FineTuneJob.parse(fine_tune_job(dataset=spec, evaluation=EVALUATION))
    assert data_fields(job.spec) == {
        "spec.dataset.train.uris[0]": "pvc://a/1",
        "spec.dataset.train.uris[1]": "pvc://b/2",
        "spec.dataset.validation.uri": "pvc://c/3",
        "spec.evaluation.suites[task].dataset.uri": "pvc://data/test.jsonl",
    }
    assert data_fields(FineTuneJob.parse(fine_tune_job()).spec) == {
        "spec.dataset.train.uri": "configmap://rows/train.jsonl"
    }


@pytest.mark.parametrize(
    ("missing", "field"),
    [("extra", "spec.dataset.train.uris[1]"), ("tests", "spec.evaluation.suites[task].dataset.uri")],
)
def test_rows_that_are_not_there_are_named_by_their_field(missing: str, field: str) -> None:
    suite = EVALUATION["suites"][0] | {"dataset": {"uri": "configmap://tests/task.jsonl"}}
    cluster = world(
        dataset={"train": {"uris": ["configmap://rows/train.jsonl", "configmap://extra/more.jsonl"]}},
        evaluation=EVALUATION | {"suites": [suite]},
    )
    waits = {"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}
    cluster.pod_of(cluster.job())["status"]["containerStatuses"] = [waits]
    cluster.related = RelatedObjects(missing_config_maps=(missing,))
    cluster.reconcile()
    ready = cluster.condition("Ready")
    assert ready["reason"] == "ConfigMapNotFound"
    assert ready["message"] == (
        f'ConfigMap "{missing}" does not exist in namespace team: create it, or correct {field}.'
    )


def test_status_has_what_was_found() -> None:
    cluster, _ = prepared(
        near_duplicates=3, leaked_rows=4, issues=ISSUES, recommendation="sft with LoRA: one task", page=PAGE
    )
    status = cluster.status["dataset"]
    assert (status["nearDuplicates"], status["leakedRows"]) == (3, 4)
    assert status["issues"][:2] == [
        {"check": "contradicting_answers", "rows": 1012},
        {"check": "copied_answers", "rows": 1},
    ]
    assert (status["recommendation"], status["report"]) == ("sft with LoRA: one task", PAGE)


def test_the_condition_says_what_is_there_what_is_not_and_what_to_look_at() -> None:
    cluster, _ = prepared(
        rows=9_642,
        train_rows=9_120,
        validation_rows=480,
        duplicates=31,
        near_duplicates=5,
        leaked_rows=4,
        dropped_rows=2,
        issues=ISSUES[:2],
        page=PAGE,
    )
    ready = cluster.condition("DataReady")
    assert (ready["status"], ready["reason"]) == ("True", "Prepared")
    assert ready["message"] == (
        "9,120 training and 480 validation rows; left out: 31 duplicates, 5 near duplicates, 4 leaked and 2 dropped; "
        "2 checks find something to look at: contradicting_answers (1,012 rows), copied_answers (1 row); "
        f"report at {PAGE}."
    )


def test_clean_data_needs_few_words() -> None:
    cluster, plan = prepared()
    assert cluster.condition("DataReady")["message"] == "540 training and 60 validation rows."
    assert "DataIssues" not in [event.reason for event in plan.events]
    assert (
        describe_dataset(dataset(leaked_rows=1)) == "540 training and 60 validation rows; left out: 1 leaked."
    )


def test_the_gravest_issues_are_told_once() -> None:
    warnings = ("40 training rows are few: 100 to 500 good ones suit most tasks",)
    cluster, plan = prepared(issues=ISSUES, warnings=warnings, page=PAGE)
    (event,) = [event for event in plan.events if event.reason == "DataIssues"]
    assert event.type == "Warning"
    assert event.message == (
        "4 checks find something to look at: contradicting_answers (1,012 rows), copied_answers (1 row), "
        f"other_language (7 rows), and 1 more; {warnings[0]}; more in {PAGE}."
    )
    cluster.reconcile()
    assert cluster.events.count("DataIssues") == 1


def test_a_warning_alone_is_told_too() -> None:
    _, plan = prepared(warnings=("no rows are held out for validation: set dataset.validation",))
    (event,) = [event for event in plan.events if event.reason == "DataIssues"]
    assert event.message == "no rows are held out for validation: set dataset.validation."


def test_a_snapshot_of_the_last_release_still_prepares() -> None:
    cluster = World(fine_tune_job())
    cluster.reconcile()
    snapshot = cluster.objects[("ConfigMap", "expenses-0f3c9d-inputs")]["data"]
    one, several = '"train":"configmap://rows/train.jsonl"', '"train":["configmap://rows/train.jsonl"]'
    assert several in snapshot["run.json"]
    snapshot["run.json"] = snapshot["run.json"].replace(several, one)
    cluster.succeed("prepare")
    assert cluster.status["phase"] == "Training"
    assert ENVIRONMENT.trainer_image == cluster.status["resolved"]["image"]
    assert cluster.status["startTime"] == START.isoformat().replace("+00:00", "Z")
