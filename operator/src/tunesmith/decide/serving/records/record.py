"""Persistent record of the rollout of one alias, from which status can be rebuilt.

Each alias has a record of its own, written with the version that was read. Versions, with their promotion and
rejection, are also stored in ControllerRevisions (``manifests.version_revision``), and what must outlive the resource
in its history (``history``).

Times that decide are elapsed seconds: each pass adds what has passed since the record was written, within limits
(``elapsed``). Wall times are for people.
"""

import json
from datetime import timedelta
from typing import Any, Self

from pydantic import AwareDatetime, Field

from tunesmith.decide.serving.evidence import Counts, Evidence
from tunesmith_contract.agent import MAX_REJECTED_DIGESTS, DesiredAlias, Version
from tunesmith_contract.base import Digest, Report, canonical_json
from tunesmith_contract.shared_rules.verdict import Verdict

from .compact import compact, expand

MAX_RECORDED_ACTIONS = 10


class RolloutCandidate(Report):
    """Version that is being rolled out.

    Attributes:
        weight: its share of requests in percent; 0 while pods load and verify it.
        began: the time at which it received this weight.
        step_seconds: elapsed time since then.
        check_seconds: elapsed time since its latest check.
        waiting_seconds: time without progress: the pause of the step is over, or the version is loading, and no
            further pod has it.
        most_active: the highest number of pods on which it was active in this step.
        evidence: requests of both versions in this step, up to the latest check.
        seen: requests of the candidate at the check before that one.
        engine_lost: requests of both versions that had lost their engine at the latest check.
        verdict, reason, message: result of the latest check.
        is_last: that check came after the pause of the step.
        failed_checks: number of checks in this step with new evidence against the version.
        unmeasured_checks: number of checks in a row that no agent answered.
        inconclusive_checks: number of checks after the pause that had too few requests.
        skips_steps: a person wants that it gets all requests as soon as it is active.
    """

    version: Version
    weight: int = Field(0, ge=0, le=100)
    began: AwareDatetime
    step_seconds: float = 0
    check_seconds: float = 0
    waiting_seconds: float = 0
    most_active: int = 0
    evidence: Evidence = Evidence()
    seen: Counts = Counts()
    engine_lost: int = 0
    verdict: Verdict = Verdict.INCONCLUSIVE
    reason: str = ""
    message: str = ""
    is_last: bool = False
    failed_checks: int = 0
    unmeasured_checks: int = 0
    inconclusive_checks: int = 0
    skips_steps: bool = False


class Watch(Report):
    """Observation of the stable version after its promotion.

    Attributes:
        previous: the version that was stable before. It stays loaded until the rollback window is over.
        seconds: elapsed time since the promotion, later since the counts began anew.
        check_seconds: elapsed time since the counts were folded.
        evidence: requests of the stable version as the candidate's arm, beside those of the previous version in its
            last step.
    """

    previous: Version | None = None
    seconds: float = 0
    check_seconds: float = 0
    evidence: Evidence = Evidence()


class Rejection(Report):
    """Version that was rolled back; ``by`` is empty if the operator did it."""

    version: Version
    reason: str
    message: str = ""
    time: AwareDatetime
    by: str = ""


class Lift(Report):
    """Permission to try a rejected digest again: rejections up to this time don't count."""

    digest: Digest
    time: AwareDatetime
    by: str = ""
    reason: str = ""


class Undo(Report):
    """Switch back to a version that has to be loaded first.

    Attributes:
        version: the version that is to be stable.
        left: digests of the versions that the alias served and the source named when the undo was asked for. The
            undo ends if the source names another one.
    """

    version: Version
    left: tuple[Digest, ...] = ()
    by: str = ""
    reason: str = ""


class ActionOutcome(Report):
    """Result of an action that a person asked for; one with a known ID is not done again.

    Attributes:
        fingerprint: short form of the ID and of what was asked.
        by: the person, as the action says.
        manager: the program that wrote the annotation, as the API server says.
    """

    id: str
    fingerprint: str = ""
    verb: str
    digest: str = ""
    to_version: int | None = None
    by: str = ""
    manager: str = ""
    reason: str = ""
    time: AwareDatetime
    done: bool = True
    message: str = ""


class AliasRecord(Report):
    """Rollout state of one alias.

    Attributes:
        generation: generation of the desired state in which this alias was changed last.
        split_from: generation of the record of the first release from which this one was made.
        written: the wall time at which the elapsed times held.
        last_number: the highest version number that was ever given.
        stable: the version that the alias stands for.
        promoted: the time at which that version was promoted.
        restored: the stable version is that of an earlier resource of this name, and was not active here yet.
        watch: observation of the stable version.
        candidate: the version that is being rolled out.
        rejections: versions that were rolled back, the latest first.
        lifts: rejected digests that may be tried again, the latest first.
        paused: a person asked by an action that the rollout stays at its step.
        undo: switch back to a version that is being loaded.
        actions: results of the latest actions, the latest first.
        model: URI of the base model that the versions are for; empty: not known yet.
    """

    name: str
    generation: int = 0
    split_from: int | None = None
    written: AwareDatetime | None = None
    last_number: int = 0
    stable: Version | None = None
    promoted: AwareDatetime | None = None
    restored: bool = False
    watch: Watch = Watch()
    candidate: RolloutCandidate | None = None
    rejections: tuple[Rejection, ...] = Field((), max_length=MAX_REJECTED_DIGESTS)
    lifts: tuple[Lift, ...] = Field((), max_length=MAX_REJECTED_DIGESTS)
    paused: bool = False
    undo: Undo | None = None
    actions: tuple[ActionOutcome, ...] = Field((), max_length=MAX_RECORDED_ACTIONS)
    model: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """The record that ``to_json`` wrote.

        Raises:
            ValueError: the text holds none.
        """
        try:
            return cls.model_validate(expand(json.loads(text)))
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"the counters of the record can't be read: {error}") from error

    def to_json(self) -> str:
        """Compact JSON without members that have their default value."""
        document = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return canonical_json(compact(document)).decode()

    def to_desired(self) -> DesiredAlias:
        """Desired state of the alias, as sent to the pods."""
        return DesiredAlias(
            name=self.name,
            stable=self.stable,
            candidate=self.candidate.version if self.candidate else None,
            weight=self.candidate.weight if self.candidate else 0,
            previous=self.watch.previous,
            rejected=tuple(
                dict.fromkeys(rejection.version.digest for rejection in self.effective_rejections)
            ),
        )

    @property
    def effective_rejections(self) -> tuple[Rejection, ...]:
        """Rejections that were not lifted, the latest first."""
        return tuple(rejection for rejection in self.rejections if not self.is_lifted(rejection))

    def is_lifted(self, rejection: Rejection) -> bool:
        """True if a person allowed the digest of this rejection to be tried again."""
        digest = rejection.version.digest
        return any(lift.digest == digest and lift.time >= rejection.time for lift in self.lifts)

    def is_rejected(self, digest: str) -> bool:
        """True if the digest was rolled back, and the rejection was not lifted."""
        return any(rejection.version.digest == digest for rejection in self.effective_rejections)

    def with_rejection(self, rejection: Rejection) -> "AliasRecord":
        """Record that remembers this rejection as the latest one; it comes after each lift of its digest."""
        digest = rejection.version.digest
        lifted = [lift.time + timedelta(seconds=1) for lift in self.lifts if lift.digest == digest]
        rejection = rejection.model_copy(update={"time": max([rejection.time, *lifted])})
        others = tuple(other for other in self.rejections if other.version.digest != digest)
        kept = (rejection, *others)[:MAX_REJECTED_DIGESTS]
        previous, watch = self.watch.previous, self.watch
        if previous is not None and previous.digest == digest:
            watch = watch.model_copy(update={"previous": None})
        return self.model_copy(update={"rejections": kept, "watch": watch})

    def versions(self) -> tuple[Version, ...]:
        """All versions that the record names, each once."""
        candidate = self.candidate.version if self.candidate else None
        rejected = (rejection.version for rejection in reversed(self.rejections))
        named = (*rejected, self.watch.previous, self.stable, candidate)
        return tuple({version.digest: version for version in named if version}.values())

    def without_times(self) -> "AliasRecord":
        """Record without the values that change by themselves."""
        update: dict[str, Any] = {
            "written": None,
            "watch": self.watch.model_copy(update={"seconds": 0, "check_seconds": 0}),
        }
        if self.candidate:
            zeros = dict.fromkeys(("step_seconds", "check_seconds", "waiting_seconds"), 0)
            update["candidate"] = self.candidate.model_copy(update=zeros)
        return self.model_copy(update=update)
