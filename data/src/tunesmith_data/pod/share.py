"""Share of an evaluation's items that one of several pods answers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith_contract.layout import ATTEMPT_ENV
from tunesmith_contract.run_config import AnyConfig, EvaluateConfig

#: Index of a pod in its Job, as Kubernetes sets it.
INDEX_ENV = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True, slots=True)
class Share:
    """Share of one pod.

    Attributes:
        index: place of the pod among those of its Job, from 0.
        count: number of pods.
        attempt: number of the Job's attempt.
    """

    index: int = 0
    count: int = 1
    attempt: int = 1

    @property
    def is_first(self) -> bool:
        """True for the pod that scores the answers of all and writes the report."""
        return self.index == 0

    def holds(self, item: str) -> bool:
        """True if an item, given by its digest, is of this share: all models answer it in the same pod."""
        place = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8])
        return place % self.count == self.index


def read_share(config: AnyConfig, environment: Mapping[str, str]) -> Share:
    """Share of this pod; the whole of a run that has one pod, or that isn't divided by items."""
    if not isinstance(config, EvaluateConfig) or config.shards == 1:
        return Share()
    return Share(int(environment.get(INDEX_ENV, "0")), config.shards, int(environment.get(ATTEMPT_ENV, "1")))
