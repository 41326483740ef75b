"""The AdapterDeployment of end-to-end tests, and what it is asked."""

from typing import Any

from invoices import MODEL, NAMESPACE, QUESTION
from openai.types.chat import ChatCompletionMessageParam

SERVING_SECONDS = 400


def question(number: int) -> list[ChatCompletionMessageParam]:
    """A question that was not trained on; another number is another client to the rollout."""
    return [{"role": "user", "content": QUESTION.format(number=number)}]


ASKED = question(999)


def build_deployment(job: str) -> dict[str, Any]:
    """An AdapterDeployment that serves the job's adapter as ``clerk``."""
    adapter = {
        "name": "clerk",
        "source": {"fineTuneJobRef": {"name": job}},
        "rollout": {"steps": [{"weight": 50, "pause": "10s"}, {"weight": 100}]},
    }
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": "office", "namespace": NAMESPACE},
        "spec": {
            "baseModel": {"uri": f"pvc://models/{MODEL}"},
            "replicas": 1,
            "engine": {"gpus": 0, "residentAdapters": 2, "maxRank": 8, "maxModelLength": 256},
            "artifactVolumes": [{"claim": "artifacts"}],
            "adapters": [adapter],
        },
    }


def stable_digest(status: dict[str, Any]) -> str | None:
    """Digest of clerk's stable version, while no other is on its way."""
    (clerk,) = status.get("adapters") or [{}]
    return clerk["stable"]["digest"] if clerk.get("phase") == "Stable" else None
