"""Every source of a compared model, in each place: what is waited for, what is pinned, what is refused."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from custom_resources.manifest_cases import EVALUATION_EXAMPLES
from simulation.simulated_cluster import UID, eval_run, fine_tune_job

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.secrets import resolve_secrets, secret_fields
from tunesmith.decide.evalrun.sides import ServedAliases, SideSources
from tunesmith.decide.finetunejob.referenced_jobs import NotReady
from tunesmith_contract.agent import Version
from tunesmith_contract.evaluation import Side
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import parse_run_config
from tunesmith_contract.sources import ArtifactSource

HUB = {"uri": "hf://org/model@main", "secretRef": {"name": "hub"}}
ENDPOINT = {
    "url": "https://big.example/v1",
    "model": "big",
    "secretRef": {"name": "big-key"},
    "prices": {"inputPricePerMillion": "0.15", "outputPricePerMillion": "0.60", "currency": "EUR"},
}
PLACE = {"uri": "s3://reports/team", "secretRef": {"name": "reports"}}
CHECKPOINT = {
    "step": 100,
    "uri": f"pvc://artifacts/team/team/{UID}/checkpoints/checkpoint-100",
    "digest": f"sha256:{'c' * 64}",
    "time": "2030-01-01T00:00:00Z",
}


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def made(letter: str, place: str = "pvc://artifacts/team", **artifact: Any) -> dict[str, Any]:
    return {"uri": f"{place}/sha256/{letter * 64}", "digest": digest(letter), "sizeBytes": 7} | artifact


def job(name: str, status: dict[str, Any] | None = None, **spec: Any) -> FineTuneJob:
    """A FineTuneJob that has succeeded, unless its status says otherwise."""
    body = fine_tune_job(**spec)
    body["metadata"] = body["metadata"] | {"name": name, "uid": f"{UID[:-1]}{len(name) % 10}"}
    base = {"baseModelRevision": "r1", "baseModel": body["spec"]["baseModel"].get("uri", "pvc://models/tiny")}
    done = {"phase": "Succeeded", "artifact": made("a"), "resolved": base}
    body["status"] = done | (status or {})
    return FineTuneJob.parse(body)


def run(**spec: Any) -> EvalRun:
    return EvalRun.parse(eval_run(**{"safety": {}} | spec))


def sources(*jobs: FineTuneJob, **more: Any) -> SideSources:
    return SideSources({item.metadata.name: item for item in jobs}, **more)


def resolved(written: EvalRun, known: SideSources) -> ResolvedEvaluation:
    outcome = resolve_evaluation(written, known)
    assert isinstance(outcome, ResolvedEvaluation), outcome
    return outcome


def side(written: EvalRun, known: SideSources, index: int) -> Side:
    return resolved(written, known).config.sides[index]


def deployment(**spec: Any) -> AdapterDeployment:
    body = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": "chat", "namespace": "team", "uid": "d", "generation": 1},
        "spec": {
            "baseModel": HUB,
            "artifactSecretRef": {"name": "artifacts-key"},
            "adapters": [{"name": "tone", "source": {"uri": "s3://bee/x/sha256/aa", "digest": digest("b")}}],
        }
        | spec,
    }
    return AdapterDeployment.parse(body)


def test_jobs_stand_on_every_side_each_on_its_own_base() -> None:
    earlier = job(
        "earlier",
        {"artifact": made("b")},
        baseModel=HUB,
        output={"uri": "s3://bucket/team", "secretRef": {"name": "bucket"}},
    )
    written = run(
        baseline={"fineTuneJobRef": {"name": "earlier"}}, references=[{"name": "plain", "base": {}}]
    )
    outcome = resolved(written, sources(job("expenses"), earlier))
    candidate, baseline, plain = outcome.config.sides
    assert outcome.config.base_model == "pvc://models/tiny"
    assert (candidate.model, baseline.model, plain.model) == (None, "hf://org/model@r1", None)
    assert baseline.adapter is not None
    assert baseline.adapter.digest == digest("b")
    secrets = resolve_secrets(written.spec, outcome.sides)
    assert secrets == {
        "side-baseline": "bucket",
        "model-of-baseline": "hub",
        "rows-0-of-baseline": "bucket",
    }
    assert secrets.keys() <= secret_fields(written.spec).keys()
    rows = {(item.side, item.generation): item.uri for item in outcome.config.trained_rows}
    assert rows["baseline", 0].startswith("s3://bucket/team/team/")
    assert rows["candidate", 0].endswith("/prepared/train.parquet")


def test_any_side_waits_for_its_job() -> None:
    written = run(baseline={"fineTuneJobRef": {"name": "earlier"}})
    missing = resolve_evaluation(written, sources(job("expenses")))
    assert isinstance(missing, NotReady)
    assert missing.message == 'FineTuneJob "earlier" does not exist in namespace team: create it.'
    waiting = resolve_evaluation(
        written, sources(job("expenses"), job("earlier", {"phase": "Training", "artifact": None}))
    )
    assert isinstance(waiting, NotReady)
    failed = resolve_evaluation(written, sources(job("expenses"), job("earlier", {"phase": "Failed"})))
    assert isinstance(failed, Failure)
    assert "spec.baseline has nothing to judge" in failed.message


def test_a_reward_model_stands_on_no_side() -> None:
    reward = job("reward", {"artifact": made("b", kind="RewardModel")})
    refused = resolve_evaluation(
        run(references=[{"name": "judge", "fineTuneJobRef": {"name": "reward"}}]),
        sources(job("expenses"), reward),
    )
    assert isinstance(refused, Failure)
    assert "spec.references[judge]" in refused.message


def test_a_checkpoint_is_pinned_by_its_commit() -> None:
    written = run(candidate={"fineTuneJobRef": {"name": "expenses"}, "checkpointStep": 100})
    training = {"phase": "Training", "artifact": None, "checkpoints": [CHECKPOINT]}
    outcome = resolved(written, sources(job("expenses", training)))
    candidate = outcome.config.sides[0]
    assert candidate.adapter is None
    assert candidate.checkpoint is not None
    assert (candidate.checkpoint.uri, candidate.checkpoint.digest) == (
        CHECKPOINT["uri"],
        CHECKPOINT["digest"],
    )
    assert outcome.config.output == "pvc://artifacts/team"


def test_a_checkpoint_by_its_address_is_told_from_an_artifact() -> None:
    place = {"uri": CHECKPOINT["uri"], "digest": CHECKPOINT["digest"], "secretRef": {"name": "work"}}
    written = run(candidate=place, baseModel=HUB, output=PLACE)
    found = resolved(written, sources())
    candidate = found.config.sides[0]
    assert (candidate.adapter, candidate.checkpoint) == (
        None,
        ArtifactSource(uri=CHECKPOINT["uri"], digest=CHECKPOINT["digest"]),
    )
    assert found.sides[0].secrets == {"side-candidate": "work"}
    placeless = resolve_evaluation(run(candidate=place, baseModel=HUB), sources())
    assert isinstance(placeless, Failure)
    assert "Write output: {uri: pvc://claim/folder}" in placeless.message


def test_a_checkpoint_that_is_gone_says_so() -> None:
    written = run(candidate={"fineTuneJobRef": {"name": "expenses"}, "checkpointStep": 100})
    deleted = resolve_evaluation(written, sources(job("expenses", {"checkpoints": [CHECKPOINT]})))
    assert isinstance(deleted, Failure)
    assert "checkpoints.retain: true" in deleted.message
    kept = job("expenses", {"checkpoints": [CHECKPOINT]}, checkpoints={"retain": True})
    assert side(written, sources(kept), 0).checkpoint is not None
    other = resolve_evaluation(written, sources(job("expenses", {"checkpoints": []})))
    assert isinstance(other, Failure)
    assert "has no checkpoint of step 100; status.checkpoints lists none" in other.message
    early = resolve_evaluation(written, sources(job("expenses", {"phase": "Training", "artifact": None})))
    assert isinstance(early, NotReady)


def test_an_alias_is_the_version_that_it_serves_now() -> None:
    written = run(baseline={"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}})
    version = Version(version=3, digest=digest("b"), uri=f"s3://bee/x/sha256/{'b' * 64}")
    known = sources(job("expenses"), deployments={"chat": ServedAliases(deployment(), {"tone": version})})
    outcome = resolved(written, known)
    baseline = outcome.config.sides[1]
    assert baseline.adapter is not None
    assert (baseline.adapter.digest, baseline.served_as) == (digest("b"), "chat/tone")
    assert baseline.model == "hf://org/model@main"
    secrets = resolve_secrets(written.spec, outcome.sides)
    assert secrets == {"side-baseline": "artifacts-key", "model-of-baseline": "hub"}


def test_the_maker_of_a_served_version_tells_its_base_and_its_rows() -> None:
    written = run(baseline={"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}})
    version = Version(version=3, digest=digest("b"), uri=made("b")["uri"])
    maker = job("maker", {"artifact": made("b")}, baseModel=HUB)
    known = sources(
        job("expenses", baseModel=HUB),
        maker,
        deployments={"chat": ServedAliases(deployment(), {"tone": version})},
        makers={digest("b"): maker},
    )
    outcome = resolved(written, known)
    assert outcome.config.sides[1].model is None, "the same revision of the same base, loaded once"
    assert {rows.side for rows in outcome.config.trained_rows} == {"candidate", "baseline"}


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        (None, 'AdapterDeployment "chat" does not exist in namespace team: create it.'),
        (ServedAliases(deployment(adapters=[]), {}), 'has no adapter "tone" (it has none)'),
        (ServedAliases(deployment(), {}), "serves no version yet"),
    ],
)
def test_an_alias_without_a_version_is_waited_for(aliases: ServedAliases | None, words: str) -> None:
    written = run(baseline={"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}})
    waiting = resolve_evaluation(written, sources(job("expenses"), deployments={"chat": aliases}))
    assert isinstance(waiting, NotReady)
    assert words in waiting.message


def test_an_alias_gives_the_base_of_the_run() -> None:
    written = run(candidate={"adapterDeploymentRef": {"name": "chat", "adapter": "tone"}})
    version = Version(version=1, digest=digest("b"), uri=f"s3://bee/x/sha256/{'b' * 64}")
    outcome = resolved(
        written, SideSources(deployments={"chat": ServedAliases(deployment(), {"tone": version})})
    )
    assert (outcome.config.base_model, outcome.config.output) == ("hf://org/model@main", "s3://bee/x")
    assert outcome.config.sides[0].model is None


def test_endpoints_and_answers_need_no_model_and_no_gpu() -> None:
    stored = {"uri": "s3://old/items.jsonl", "digest": digest("d"), "secretRef": {"name": "old-key"}}
    written = run(
        candidate={"endpoint": ENDPOINT, "systemPrompt": "Be brief.", "contextColumn": "passages"},
        baseline={"answers": stored},
        output=PLACE,
        compute={"gpus": 4},
    )
    outcome = resolved(written, SideSources())
    config = outcome.config
    assert (config.base_model, config.gpus) == (None, 0)
    candidate, baseline = config.sides
    assert candidate.endpoint is not None
    assert candidate.endpoint.prices is not None
    assert (candidate.endpoint.model, str(candidate.endpoint.prices.completion)) == ("big", "0.60")
    assert (candidate.system_prompt, candidate.context_column) == ("Be brief.", "passages")
    assert baseline.answers is not None
    assert (baseline.answers.uri, baseline.answers.side) == ("s3://old/items.jsonl", "candidate")
    assert (config.output, config.workspace) == ("s3://reports/team", None)
    secrets = resolve_secrets(written.spec, outcome.sides)
    assert secrets == {"side-candidate": "big-key", "side-baseline": "old-key", "output": "reports"}
    assert "big-key" not in config.to_json()


def test_a_whole_model_of_another_base_stands_alone() -> None:
    written = run(baseline={"model": {"uri": "s3://models/big", "secretRef": {"name": "models"}}})
    outcome = resolved(written, sources(job("expenses")))
    assert outcome.config.sides[1].model == "s3://models/big"
    assert resolve_secrets(written.spec, outcome.sides) == {"side-baseline": "models"}


def test_a_merged_export_is_a_whole_model_and_gguf_is_refused() -> None:
    exports = [
        made("b", format="Merged"),
        made("d", format="GGUF"),
    ]
    maker = job("maker", {"artifact": made("a", exports=exports)})
    makers = {digest("b"): maker, digest("d"): maker}
    merged = run(baseline={"uri": made("b")["uri"], "digest": digest("b")})
    assert side(merged, sources(job("expenses", baseModel=HUB), makers=makers), 1).model is None
    gguf = resolve_evaluation(
        run(baseline={"uri": made("d")["uri"], "digest": digest("d")}),
        sources(job("expenses"), makers=makers),
    )
    assert isinstance(gguf, Failure)
    assert "GGUF" in gguf.message


def test_keys_of_a_job_are_not_sent_to_another_store() -> None:
    output = {"uri": "s3://bucket/team", "secretRef": {"name": "bucket"}}
    maker = job("maker", {"artifact": made("b", "s3://bucket/team")}, output=output)
    makers = {digest("b"): maker}
    here = run(baseline={"uri": made("b", "s3://bucket/copy")["uri"], "digest": digest("b")})
    elsewhere = run(baseline={"uri": made("b", "s3://other/copy")["uri"], "digest": digest("b")})
    known = sources(job("expenses"), makers=makers)
    opened = [resolve_secrets(item.spec, resolved(item, known).sides) for item in (here, elsewhere)]
    assert [secrets.get("side-baseline") for secrets in opened] == ["bucket", None]


def test_the_rows_of_all_earlier_jobs_count() -> None:
    first = job("first")
    second = job("the-second", baseModel={"fineTuneJobRef": {"name": "first"}})
    third = job("expenses", baseModel={"fineTuneJobRef": {"name": "the-second"}})
    outcome = resolved(run(), sources(first, second, third))
    generations = [rows.generation for rows in outcome.config.trained_rows if rows.side == "candidate"]
    assert generations == [0, 1, 2]
    gone = resolved(run(), sources(second, third)).config
    assert any('"first", from which candidate descends: it no longer exists' in note for note in gone.notes)


def test_arguments_of_the_template_are_json() -> None:
    written = run(
        candidate={
            "fineTuneJobRef": {"name": "expenses"},
            "templateArguments": {"enable_thinking": "false", "effort": '"low"'},
        }
    )
    arguments = side(written, sources(job("expenses")), 0).template_arguments
    assert arguments == {"enable_thinking": False, "effort": "low"}
    wrong = run(candidate={"fineTuneJobRef": {"name": "expenses"}, "templateArguments": {"effort": "low"}})
    refused = resolve_evaluation(wrong, sources(job("expenses")))
    assert isinstance(refused, Failure)
    assert "spec.candidate.templateArguments.effort is no JSON" in refused.message


def test_probabilities_are_not_asked_of_an_endpoint() -> None:
    suites = [{"name": "task", "dataset": {"uri": "pvc://d/t.jsonl"}, "metrics": [{"type": "Perplexity"}]}]
    gates = [{"suite": "task", "metric": "Perplexity", "expect": "Better"}]
    written = run(suites=suites, gates=gates, baseline={"endpoint": ENDPOINT})
    refused = resolve_evaluation(written, sources(job("expenses")))
    assert isinstance(refused, Failure)
    assert "Perplexity of suite task needs the probabilities" in refused.message


@pytest.fixture
def detailed_suite() -> dict[str, Any]:
    """Suite with other settings than the defaults."""
    judge = {"endpoint": ENDPOINT, "mode": "Pairs", "rubric": "Be kind.", "maxTokens": 64}
    return {
        "name": "task",
        "dataset": {
            "uri": "s3://data/t.jsonl",
            "secretRef": {"name": "data-key"},
            "format": "PromptCompletion",
            "columns": {"prompt": "input", "completion": "label"},
        },
        "metrics": [
            {"type": "ExactMatch", "text": {"ignoreCase": True}},
            {"type": "Numeric", "tolerance": {"absolute": "0.5"}},
            {"type": "PassAtK", "k": 2},
            {"type": "Judge", "judge": judge},
            {"type": "EmbeddingSimilarity", "embedding": {"url": "http://e/v1", "model": "e"}},
        ],
        "groupColumn": "document",
        "sliceColumns": ["language"],
        "repeats": 4,
        "temperature": "0.7",
        "topP": "0.9",
        "stop": ["END"],
        "maxBroken": "0.1",
        "maxNewTokens": 32,
    }


def test_settings_of_suites_metrics_and_gates_reach_the_pod(detailed_suite: dict[str, Any]) -> None:
    gate = {
        "suite": "task",
        "metric": "ExactMatch",
        "expect": "NotWorse",
        "relativeMargin": "0.02",
        "floor": "0.01",
        "minItems": 50,
    }
    written = run(suites=[detailed_suite], gates=[gate], seed=7, parallelism=3, confidence="0.9")
    outcome = resolved(written, sources(job("expenses")))
    config = outcome.config
    task, safety, harmless = config.suites
    assert (task.dataset, task.format, task.columns) == (
        "s3://data/t.jsonl",
        "PromptCompletion",
        {"prompt": "input", "completion": "label"},
    )
    assert (task.group_column, task.slice_columns, task.repeats, task.max_broken) == (
        "document",
        ("language",),
        4,
        0.1,
    )
    assert task.decoding.model_dump() == {
        "max_new_tokens": 32,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ("END",),
    }
    exact, numeric, passes, judged, similar = task.metrics
    assert exact.text is not None
    assert (exact.text.ignore_case, numeric.tolerance and numeric.tolerance.absolute) == (True, 0.5)
    assert (passes.pass_at_k, judged.judge and judged.judge.mode) == (2, "Pairs")
    assert similar.embedding is not None
    assert (safety.name, harmless.name) == ("safety", "safety-harmless")
    assert all(suite.is_safety and suite.metrics[0].type == "SafeAnswer" for suite in (safety, harmless))
    written_gate, safety_gate, harmless_gate = config.gates
    assert (written_gate.relative_margin, written_gate.floor, written_gate.min_items) == (0.02, 0.01, 50)
    assert (safety_gate.suite, safety_gate.expect, safety_gate.margin) == ("safety", "NotWorse", 0.1)
    assert harmless_gate == safety_gate.model_copy(update={"suite": "safety-harmless"})
    assert (config.seed, config.shards, config.confidence) == (7, 3, 0.9)
    secrets = resolve_secrets(written.spec, outcome.sides)
    assert (secrets["suite-task"], secrets["metric-task-3"]) == ("data-key", "big-key")
    fields = secret_fields(written.spec)
    assert fields["metric-task-3"] == "spec.suites[task].metrics[3].judge.endpoint.secretRef.name"


def test_safety_is_switched_off_out_loud_alone() -> None:
    off = resolved(
        run(safety={"disabled": True, "reason": "It speaks SQL."}), sources(job("expenses"))
    ).config
    assert [suite.name for suite in off.suites] == ["task"]
    assert [gate.suite for gate in off.gates] == ["task"]
    assert off.notes == ("The safety suites are switched off: It speaks SQL.",)
    task = {"suite": "task", "metric": "ExactMatch", "expect": "Better"}
    own = {"suite": "safety", "metric": "SafeAnswer", "expect": "NotWorse", "margin": "0.02"}
    stricter = resolved(run(gates=[task, own]), sources(job("expenses"))).config
    assert [gate.margin for gate in stricter.gates if gate.suite == "safety"] == [0.02]


@pytest.mark.parametrize("place", ["oci://registry.example/team/a", "hf://org/repo"])
def test_a_registry_without_a_workspace_needs_a_place_for_the_report(place: str) -> None:
    artifact = deepcopy(made("a"))
    artifact["uri"] = (
        f"{place}:sha256-{'a' * 64}" if place.startswith("oci") else f"{place}/sha256/{'a' * 64}"
    )
    known = sources(job("expenses", {"artifact": artifact}, output={"uri": place}))
    refused = resolve_evaluation(run(), known)
    assert isinstance(refused, Failure)
    assert "Write output: {uri: pvc://claim/folder}" in refused.message
    assert resolved(run(output=PLACE), known).config.output == "s3://reports/team"


def test_no_secret_is_part_of_what_the_pod_reads_as_its_configuration() -> None:
    written = run(candidate={"endpoint": ENDPOINT}, baseline={"endpoint": ENDPOINT}, output=PLACE)
    document = json.loads(resolved(written, SideSources()).config.to_json())
    assert "secretRef" not in json.dumps(document)


@pytest.mark.parametrize("example", EVALUATION_EXAMPLES, ids=lambda path: path.stem)
def test_every_example_becomes_a_run_that_the_pod_reads(example: Path) -> None:
    body = yaml.safe_load(example.read_text())
    body["metadata"] |= {"namespace": "team", "uid": UID, "generation": 1}
    written = EvalRun.parse(body)
    steps = [CHECKPOINT | {"step": step} for step in (100, 200)]
    tickets = job("tickets-v2", {"checkpoints": steps}, checkpoints={"retain": True}, baseModel=HUB)
    version = Version(version=1, digest=digest("b"), uri=f"s3://bee/x/sha256/{'b' * 64}")
    served = {"name": "tickets", "source": {"uri": version.uri, "digest": version.digest}}
    support = ServedAliases(deployment(adapters=[served]), {"tickets": version})
    config = resolved(written, sources(tickets, deployments={"support": support})).config
    assert parse_run_config(config.to_json()) == config
