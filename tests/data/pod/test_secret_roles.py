"""Secret roles of each URI of a run."""

from typing import Any

from tunesmith_contract.evaluation import Metric, Side, Suite
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import Method, SFTMethod
from tunesmith_contract.run_config import EvaluateConfig, HeldOut, Owner, PrepareConfig, ValidationSource
from tunesmith_data.pod.secret_roles import roles_of

OWNER = Owner(kind="FineTuneJob", namespace="team", name="a", uid="u")
TASK = "hf://org/rows/task.jsonl@main"


def prepare(held_out: str, validation: str | None = None) -> PrepareConfig:
    return PrepareConfig(
        owner=OWNER,
        base_model="hf://org/model@r1",
        train=("hf://org/rows/train.jsonl@main",),
        validation=ValidationSource(uri=validation),
        held_out=(HeldOut(name="task", uri=held_out),),
        method=Method(sft=SFTMethod(max_length=64)),
        seed=1,
        output="pvc://out",
    )


def test_what_training_is_kept_free_of_is_opened_as_its_evaluation_opens_it() -> None:
    evaluation = EvaluateConfig(
        owner=OWNER,
        base_model="hf://org/model@r1",
        sides=(Side(name="candidate"), Side(name="baseline")),
        suites=(Suite(name="task", dataset=TASK, metrics=(Metric.EXACT_MATCH,)),),
        policy="{}",
        output="pvc://out",
    )
    assert roles_of(prepare(TASK))[TASK] == roles_of(evaluation)[TASK]


def test_rows_to_validate_on_keep_their_own_secret() -> None:
    assert roles_of(prepare(TASK, validation=TASK))[TASK][0] == SecretRole.VALIDATION


def compare(**more: Any) -> EvaluateConfig:
    suites = [{"name": "task", "dataset": "s3://rows/task.jsonl", "metrics": ["ExactMatch"]}]
    config = {
        "owner": OWNER,
        "sides": [{"name": "a"}, {"name": "b"}],
        "suites": suites,
        "output": "s3://out/team",
    }
    return EvaluateConfig.model_validate(config | more)


def test_each_source_of_an_evaluation_has_a_secret_of_its_own() -> None:
    digest = f"sha256:{'a' * 64}"
    artifact = {"uri": "s3://artifacts/x/sha256/aa", "digest": digest}
    rows = {"side": "a", "uri": "s3://work/team/u/prepared/train.parquet", "generation": 1}
    roles = roles_of(
        compare(
            sides=[
                {"name": "a", "adapter": artifact, "model": "hf://org/other@r1"},
                {"name": "b", "answers": {"uri": "gs://old/items.jsonl", "digest": digest, "side": "a"}},
                {
                    "name": "c",
                    "checkpoint": {"uri": "s3://work/u/checkpoints/checkpoint-1", "digest": digest},
                },
                {"name": "d", "model": "s3://models/big"},
            ],
            trainedRows=[rows],
            fewShotFrom="s3://examples/few.jsonl",
        )
    )
    assert roles["s3://artifacts/x/sha256/aa"] == ("side-a",)
    assert roles["hf://org/other@r1"] == ("model-of-a",)
    assert roles["gs://old/items.jsonl"] == ("side-b",)
    assert roles["s3://work/u/checkpoints/checkpoint-1"] == ("side-c",)
    assert roles["s3://models/big"] == ("side-d",)
    assert roles["s3://rows/task.jsonl"][0] == "suite-task"
    assert roles["s3://examples/few.jsonl"][0] == "examples"
    for name in ("train.parquet", "validation.parquet"):
        assert roles[f"s3://work/team/u/prepared/{name}"][0] == "rows-1-of-a"


def test_keys_of_the_output_are_not_sent_to_another_store() -> None:
    digest = f"sha256:{'a' * 64}"
    here, elsewhere = "s3://out/other/sha256/aa", "s3://foreign/sha256/aa"
    sides = [
        {"name": "a", "adapter": {"uri": here, "digest": digest}},
        {"name": "b", "adapter": {"uri": elsewhere, "digest": digest}},
    ]
    roles = roles_of(compare(sides=sides))
    assert roles[here] == ("side-a", "output")
    assert roles[elsewhere] == ("side-b",)
