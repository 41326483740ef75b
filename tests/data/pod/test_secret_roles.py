"""Secret roles of each URI of a run."""

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
