"""The policy's digest: what changes it, what does not, and how to recompute it by hand."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reports.evaluation_documents import make_document

from tunesmith_contract.evaluation import (
    Decoding,
    EvaluationJudge,
    Gate,
    HarnessTask,
    MetricSettings,
    Side,
    Suite,
)
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_evaluation.policy.record import (
    ResolvedSide,
    ResolvedSuite,
    build_policy_record,
    policy_digest,
)
from tunesmith_evaluation.report.document import PolicyReport
from tunesmith_evaluation.report.files import write_report

PAGE = Path(__file__).parents[3] / "docs/policy-digest.md"
DATA, ADAPTER, OTHER = (f"sha256:{digit * 64}" for digit in "012")
OWNER = Owner(kind="EvalRun", namespace="team", name="run", uid="u")
BASELINE = ResolvedSide(model="main")


def make_config(**changes: Any) -> EvaluateConfig:
    """A run with one suite and one gate."""
    members: dict[str, Any] = {
        "owner": OWNER,
        "base_model": "pvc://models/base",
        "sides": (
            make_side("candidate", adapter={"uri": "pvc://a/b", "digest": ADAPTER}),
            make_side("baseline"),
        ),
        "suites": (make_suite(),),
        "gates": (Gate(suite="task", metric="ExactMatch", expect="Better", margin=0.05),),
        "output": "pvc://artifacts",
    }
    return EvaluateConfig(**(members | changes))


def make_side(name: str, **members: Any) -> Side:
    return Side(name=name, **members)


def make_suite(**changes: Any) -> Suite:
    members: dict[str, Any] = {
        "name": "task",
        "dataset": "pvc://data/task.jsonl",
        "metrics": (MetricSettings(type="ExactMatch"),),
    }
    return Suite(**(members | changes))


def digest_of(
    config: EvaluateConfig,
    data: str = DATA,
    scorer: str = "1",
    baseline: ResolvedSide = BASELINE,
    examples: tuple[str, ...] = (),
) -> str:
    suites = {
        suite.name: ResolvedSuite(data, {metric.key: scorer for metric in suite.metrics}, "definition")
        for suite in config.suites
    }
    return policy_digest(build_policy_record(config, suites, baseline, "main", examples))


def test_the_digest_by_hand() -> None:
    written = (
        '{"baseModel":"main","baseline":{"model":"main"},"candidate":{},"confidence":0.95,'
        '"gates":[{"expect":"Better","margin":0.05,"metric":"ExactMatch","suite":"task"}],'
        '"seed":42,"statistics":1,"suites":{"task":{'
        f'"data":"{DATA}",'
        '"metrics":{"ExactMatch":{"type":"ExactMatch","version":"1"}}}},"version":1}'
    )
    assert digest_of(make_config()) == "sha256:" + hashlib.sha256(written.encode()).hexdigest()


def test_the_command_of_the_page_gives_the_digest_of_a_report(tmp_path: Path) -> None:
    """Also with whole numbers that are written as 1.0, small ones, and characters that other programs escape."""
    metric = MetricSettings(type="Numeric", tolerance={"absolute": 1.0, "relative": 1e-5})
    suite = make_suite(decoding=Decoding(temperature=1.0, top_p=0.9), metrics=(metric,))
    prompt = 'Größe 数字 \u2028\x7f \U0001f600 </script> "q" \\ \t'
    switches = {"enable_thinking": None, "budget": 2.0}
    asked = make_side("candidate", system_prompt=prompt, template_arguments=switches)
    config = make_config(suites=(suite,), sides=(asked, make_side("baseline")))
    resolved = {"task": ResolvedSuite(DATA, {metric.key: "1"})}
    record = build_policy_record(config, resolved, BASELINE, "main", ())
    policy = PolicyReport(digest=policy_digest(record), record=record)
    write_report(tmp_path, make_document(policy=policy))
    (command,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shown = subprocess.run(
        ["sh", "-ec", command], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"{policy.digest}\n"


HARNESS = HarnessTask(task="arc_easy", data="pvc://data/arc")
JUDGE = {"endpoint": {"url": "http://judge/v1", "model": "large"}}


@pytest.mark.parametrize(
    "change",
    [
        {"confidence": 0.9},
        {"seed": 7},
        {"gates": (Gate(suite="task", metric="ExactMatch", expect="Better", margin=0.04),)},
        {"gates": (Gate(suite="task", metric="ExactMatch", expect="Better", margin=0.05, tier="Advisory"),)},
        {"gates": (Gate(suite="task", metric="ExactMatch", expect="Better", margin=0.05, min_items=5),)},
        {"sides": (make_side("candidate", system_prompt="Answer yes."), make_side("baseline"))},
        {"sides": (make_side("candidate", few_shot=3), make_side("baseline"))},
        {"sides": (make_side("candidate", context_column="passages"), make_side("baseline"))},
        {
            "sides": (
                make_side("candidate", template_arguments={"enable_thinking": False}),
                make_side("baseline"),
            )
        },
        {"sides": (make_side("candidate"), make_side("baseline", system_prompt="Answer no."))},
        {"sides": (make_side("candidate"), make_side("baseline", served_as="models/support"))},
        {
            "sides": (
                make_side("candidate"),
                make_side("baseline", endpoint={"url": "http://large/v1", "model": "70b"}),
            )
        },
        {"suites": (make_suite(decoding=Decoding(max_new_tokens=64)),)},
        {"suites": (make_suite(decoding=Decoding(stop=("\n",))),)},
        {"suites": (make_suite(decoding=Decoding(temperature=0.7), repeats=4),)},
        {"suites": (make_suite(limit=10),)},
        {"suites": (make_suite(max_broken=0.5),)},
        {"suites": (make_suite(group_column="document"),)},
        {"suites": (make_suite(is_safety=True),)},
        {"suites": (make_suite(metrics=(MetricSettings(type="Contains"),)),)},
        {"suites": (make_suite(metrics=(MetricSettings(type="ExactMatch", text={"ignore_case": True}),)),)},
        {"suites": (make_suite(metrics=(MetricSettings(type="Regex", pattern="a"),)),)},
        {"suites": (make_suite(metrics=(MetricSettings(type="Judge", judge=JUDGE),)),)},
        {"suites": (make_suite(dataset=None, harness=HARNESS),)},
    ],
)
def test_everything_that_decides_changes_the_digest(change: dict[str, Any]) -> None:
    assert digest_of(make_config(**change)) != digest_of(make_config())


def test_what_was_read_changes_the_digest() -> None:
    config = make_config()
    digests = {
        digest_of(config),
        digest_of(config, data=OTHER),
        digest_of(config, scorer="2"),
        digest_of(config, baseline=ResolvedSide(ADAPTER, "main")),
        digest_of(config, baseline=ResolvedSide(model="other")),
        digest_of(config, examples=(DATA, OTHER)),
        digest_of(config, examples=(OTHER, DATA)),
    }
    assert len(digests) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"output": "s3://bucket/reports"},
        {"workspace": "pvc://work"},
        {"gpus": 4},
        {"shards": 3},
        {"engine": "VLLM"},
        {"base_model": "hf://org/model"},
        {"few_shot_from": "pvc://data/train.jsonl"},
        {"policy": "earlier"},
        {"trained_rows": ({"side": "candidate", "uri": "pvc://data/prepared/train.parquet"},)},
        {
            "sides": (
                make_side("candidate", adapter={"uri": "pvc://c/d", "digest": OTHER}),
                make_side("baseline"),
            )
        },
        {"sides": (make_side("candidate"), make_side("baseline"), make_side("reference", few_shot=2))},
        {"suites": (make_suite(dataset="s3://bucket/task.jsonl"),)},
        {"suites": (make_suite(slice_columns=("language",)),)},
    ],
)
def test_what_decides_nothing_leaves_the_digest(change: dict[str, Any]) -> None:
    assert digest_of(make_config(**change)) == digest_of(make_config())


def test_stored_answers_of_another_side_are_another_baseline() -> None:
    def stored(side: str) -> str:
        answers = {"uri": "pvc://a/items.jsonl", "digest": OTHER, "side": side}
        sides = (make_side("candidate"), make_side("baseline", answers=answers))
        return digest_of(make_config(sides=sides), baseline=ResolvedSide(OTHER, "main"))

    assert stored("baseline") != stored("weakest")


def test_items_left_out_because_of_a_reference_change_the_digest() -> None:
    def left_out(*items: str) -> str:
        suites = {"task": ResolvedSuite(DATA, {"ExactMatch": "1"})}
        return policy_digest(build_policy_record(make_config(), suites, BASELINE, "main", (), items))

    assert len({left_out(), left_out(DATA), left_out(DATA, OTHER)}) == 3
    assert left_out(DATA, OTHER) == left_out(OTHER, DATA)


def test_prices_of_a_judge_leave_the_digest() -> None:
    def judged(**endpoint: Any) -> str:
        judge = EvaluationJudge.model_validate({"endpoint": JUDGE["endpoint"] | endpoint})
        return digest_of(
            make_config(suites=(make_suite(metrics=(MetricSettings(type="Judge", judge=judge),)),))
        )

    assert judged() == judged(prices={"prompt": "1", "completion": "2", "currency": "EUR"})


def test_every_member_of_a_run_is_known_to_decide_or_not() -> None:
    """A new member must be placed: here, and in one of the two lists above."""
    assert set(EvaluateConfig.model_fields) == {
        *("confidence", "seed", "suites", "gates", "sides"),
        *(
            "schema_version",
            "stage",
            "owner",
            "output",
            "workspace",
            "gpus",
            "shards",
            "engine",
            "base_model",
        ),
        *("advice", "few_shot_from", "notes", "policy", "trained_rows"),
    }
    assert set(Side.model_fields) == {
        *("system_prompt", "few_shot", "context_column", "template_arguments"),
        *("served_as", "endpoint", "adapter", "checkpoint", "model", "answers", "name"),
        # They belong to the artifact, as its weights do.
        "switches",
    }


def test_the_order_of_gates_and_suites_decides_nothing() -> None:
    gates = (
        Gate(suite="task", metric="ExactMatch", expect="Better"),
        Gate(suite="other", metric="ExactMatch", expect="NotWorse", margin=0.02),
    )
    suites = (make_suite(), make_suite(name="other"))
    assert digest_of(make_config(gates=gates, suites=suites)) == digest_of(
        make_config(gates=gates[::-1], suites=suites[::-1])
    )
