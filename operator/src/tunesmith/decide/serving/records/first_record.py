"""Record of all aliases in the form of the first release: read once, and written for an operator that is rolled back.

It lacks the counted requests of a step, the window after a promotion, actions, and all rejections but the last one of
each alias. Of other rejections there is an annotation at the ControllerRevision, which the first release reads.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from tunesmith.decide.serving.evidence import Arm, Counts, Evidence
from tunesmith_contract.agent import Version
from tunesmith_contract.base import Report

from .record import AliasRecord, Rejection, RolloutCandidate


class FirstCounts(Report):
    """Numbers of requests and of failed requests."""

    requests: int = 0
    errors: int = 0


class FirstTally(Report):
    """Requests of a candidate in its step, of pods that are gone; those of others are counted from their agents."""

    finished: FirstCounts = FirstCounts()

    def to_counts(self) -> Counts:
        """These requests, each of a key of its own."""
        requests, errors = self.finished.requests, self.finished.errors
        return Counts(
            requests=requests,
            errors=errors,
            keys=requests,
            requests_squared=requests,
            failures_squared=errors,
            requests_failures=errors,
        )


class FirstTrial(Report):
    """Version that is being rolled out."""

    version: Version
    weight: int = Field(0, ge=0, le=100)
    began: AwareDatetime
    looked: AwareDatetime
    failed_looks: int = 0
    tally: FirstTally = FirstTally()


class FirstRejection(Report):
    """Version that was rolled back."""

    version: Version
    reason: str
    message: str
    time: AwareDatetime


class FirstAliasRecord(Report):
    """Rollout state of one alias."""

    name: str
    stable: Version | None = None
    promoted: AwareDatetime | None = None
    trial: FirstTrial | None = None
    rejection: FirstRejection | None = None


class FirstRecord(Report):
    """Rollout state of all aliases."""

    schema_version: Literal[1] = 1
    aliases: tuple[FirstAliasRecord, ...] = ()


def split_first_record(text: str, generation: int) -> dict[str, AliasRecord]:
    """Records of all aliases by name, from the one of the first release.

    Args:
        generation: generation of the desired state beside it.

    Raises:
        ValueError: the text is no such record.
    """
    document = FirstRecord.model_validate_json(text)
    return {record.name: _split(record, generation) for record in document.aliases}


def _split(record: FirstAliasRecord, generation: int) -> AliasRecord:
    update: dict[str, Any] = {}
    if trial := record.trial:
        update["candidate"] = RolloutCandidate(
            version=trial.version,
            weight=trial.weight,
            began=trial.began,
            step_seconds=max((trial.looked - trial.began).total_seconds(), 0),
            evidence=Evidence(candidate=Arm(total=trial.tally.to_counts())),
            failed_checks=trial.failed_looks,
        )
    if record.rejection:
        update["rejections"] = (Rejection.model_validate(record.rejection.model_dump()),)
    named = (
        record.stable,
        trial.version if trial else None,
        record.rejection.version if record.rejection else None,
    )
    return AliasRecord(
        name=record.name,
        generation=generation,
        split_from=generation,
        last_number=max((version.version for version in named if version), default=0),
        stable=record.stable,
        promoted=record.promoted,
        **update,
    )


def build_first_record(records: Iterable[AliasRecord]) -> str:
    """JSON of the records in the form of the first release; pauses go on from the start of their step."""
    return FirstRecord(aliases=tuple(map(_join, records))).to_json()


def _join(record: AliasRecord) -> FirstAliasRecord:
    candidate, rejection = record.candidate, next(iter(record.effective_rejections), None)
    return FirstAliasRecord(
        name=record.name,
        stable=record.stable,
        promoted=record.promoted,
        trial=FirstTrial(
            version=candidate.version, weight=candidate.weight, began=candidate.began, looked=candidate.began
        )
        if candidate
        else None,
        rejection=FirstRejection.model_validate(rejection.model_dump()) if rejection else None,
    )
