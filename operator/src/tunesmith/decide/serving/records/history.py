"""History of an AdapterDeployment's name, which outlives the resource: what its aliases served, what was rejected."""

from collections.abc import Iterable, Mapping

from pydantic import AwareDatetime, Field

from tunesmith_contract.agent import MAX_REJECTED_DIGESTS, Version
from tunesmith_contract.base import Report, canonical_json

from .record import AliasRecord, Lift, Rejection, Undo

#: Of a ConfigMap's 1 MiB.
MAX_HISTORY_BYTES = 600_000
MAX_MESSAGE = 200
MAX_KNOWN_ACTIONS = 50


class AliasHistory(Report):
    """History of one alias.

    Attributes:
        last_number: the highest version number that was ever given.
        stable: the version that was stable last.
        promoted: the time at which it was promoted.
        rejections: versions that were rolled back, the latest first.
        lifts: rejected digests that may be tried again, the latest first.
        paused: an action keeps rollouts at their steps.
        undo: switch back to a version that is being loaded.
        actions: fingerprints of the actions that were done or refused, the latest first.
    """

    name: str
    last_number: int = 0
    stable: Version | None = None
    promoted: AwareDatetime | None = None
    rejections: tuple[Rejection, ...] = Field((), max_length=MAX_REJECTED_DIGESTS)
    lifts: tuple[Lift, ...] = Field((), max_length=MAX_REJECTED_DIGESTS)
    paused: bool = False
    undo: Undo | None = None
    actions: tuple[str, ...] = Field((), max_length=MAX_KNOWN_ACTIONS)

    @property
    def latest(self) -> float:
        """POSIX time of the latest entry, 0 without one."""
        times = [rejection.time for rejection in self.rejections] + [lift.time for lift in self.lifts]
        times += [self.promoted] if self.promoted else []
        return max((time.timestamp() for time in times), default=0.0)


class History(Report):
    """Histories of all aliases that the name ever had, ordered by name."""

    aliases: tuple[AliasHistory, ...] = ()

    def find(self, alias: str) -> AliasHistory:
        """History of this alias, empty if the name never had it."""
        return next((known for known in self.aliases if known.name == alias), AliasHistory(name=alias))

    def to_json(self) -> str:
        """Compact JSON without members that have their default value."""
        document = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        return canonical_json(document).decode()


def update_history(
    history: History, records: Iterable[AliasRecord], annotated: frozenset[str] = frozenset()
) -> History:
    """History with what these records say; the aliases that changed longest ago are left out where it is too large.

    Args:
        annotated: fingerprints of the actions that the resource has now, which are forgotten last.
    """
    known = {alias.name: alias for alias in history.aliases}
    for record in records:
        before = known.get(record.name, AliasHistory(name=record.name))
        known[record.name] = _updated(before, record, annotated)
    return _bounded(known)


def _updated(history: AliasHistory, record: AliasRecord, annotated: frozenset[str]) -> AliasHistory:
    done = (outcome.fingerprint for outcome in record.actions if outcome.fingerprint)
    actions = list(dict.fromkeys([*done, *history.actions]))
    if len(actions) > MAX_KNOWN_ACTIONS:
        actions.sort(key=lambda known: known not in annotated)
    return AliasHistory(
        name=history.name,
        last_number=max(history.last_number, record.last_number),
        stable=record.stable or history.stable,
        promoted=(record.promoted if record.stable else None) or history.promoted,
        rejections=merge_rejections(map(_shortened, record.rejections), history.rejections),
        lifts=merge_lifts(record.lifts, history.lifts),
        paused=record.paused,
        undo=record.undo,
        actions=tuple(actions[:MAX_KNOWN_ACTIONS]),
    )


def _shortened(rejection: Rejection) -> Rejection:
    return rejection.model_copy(update={"message": rejection.message[:MAX_MESSAGE]})


def _bounded(aliases: Mapping[str, AliasHistory]) -> History:
    """The histories that fit, in the order of their names."""
    kept, size = [], 0
    for alias in sorted(aliases.values(), key=lambda alias: (-alias.latest, alias.name)):
        size += len(History(aliases=(alias,)).to_json().encode())
        if size <= MAX_HISTORY_BYTES:
            kept.append(alias)
    return History(aliases=tuple(sorted(kept, key=lambda alias: alias.name)))


def merge_rejections(*known: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """The latest rejection of each digest, the latest first."""
    latest: dict[str, Rejection] = {}
    for rejection in (rejection for rejections in known for rejection in rejections):
        before = latest.get(rejection.version.digest)
        if before is None or before.time < rejection.time:
            latest[rejection.version.digest] = rejection
    ordered = sorted(latest.values(), key=lambda rejection: rejection.time, reverse=True)
    return tuple(ordered[:MAX_REJECTED_DIGESTS])


def merge_lifts(*known: Iterable[Lift]) -> tuple[Lift, ...]:
    """The latest lift of each digest, the latest first."""
    latest: dict[str, Lift] = {}
    for lift in (lift for lifts in known for lift in lifts):
        before = latest.get(lift.digest)
        if before is None or before.time < lift.time:
            latest[lift.digest] = lift
    ordered = sorted(latest.values(), key=lambda lift: lift.time, reverse=True)
    return tuple(ordered[:MAX_REJECTED_DIGESTS])
