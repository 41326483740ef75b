"""The note that a FineTuneJob's EvalRun was made: it is made once, even if somebody deletes it later."""

from .names import Owner, child_metadata, child_name
from .objects import Body, KubernetesObject

STAGE = "evaluation"
NAME_KEY = "evalRun"


def evaluation_name(owner: Owner) -> str:
    """The note's name."""
    return child_name(owner, STAGE)


def build_evaluation_config_map(owner: Owner, eval_run: str | None) -> KubernetesObject:
    """The note; None where the name was taken by somebody else's EvalRun."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(owner, STAGE),
        "immutable": True,
        "data": {NAME_KEY: eval_run or ""},
    }


def parse_evaluation(manifest: Body) -> str | None:
    """The name in the note."""
    return manifest["data"][NAME_KEY] or None
