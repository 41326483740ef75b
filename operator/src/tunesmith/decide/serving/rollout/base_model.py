"""Change of the base model: the next set serves versions for it, and takes over all aliases at once.

While it warms up, the pods that answer go on with their versions, and no rollout begins or continues. The state also
has what the pods on the other model serve. Once the Service selects the next set, its versions are the stable ones.
Those of the former pods stay in the state until these pods are gone, so that connections which are still open to them
get answers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith.api.adapterdeployment import AdapterDeploymentSpec
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.admission.targets import TargetVersion
from tunesmith.decide.serving.pods.pod_sets import PodSets
from tunesmith.decide.serving.records.record import AliasRecord, Watch
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_deployment import pod_base_model_uri
from tunesmith_contract.agent import DesiredAlias, DesiredState, OtherModel, Version

from .transition import describe


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Base model of the pods that answer, and the one of the spec, as URIs."""

    current: str
    wanted: str

    @property
    def is_changing(self) -> bool:
        """True until pods on the wanted model answer."""
        return self.current != self.wanted


def find_served_model(
    spec: AdapterDeploymentSpec, sets: PodSets, records: Iterable[AliasRecord]
) -> ServedModel:
    """Base models by the pods that answer; pods of the first release do not tell theirs, but records do."""
    wanted = spec.base_model.uri
    known = sets.serving.model if sets.serving else wanted
    if not known:
        known = next((record.model for record in records if record.model), wanted)
    return ServedModel(known, wanted)


def follow_model(
    record: AliasRecord, model: ServedModel, published: DesiredState, now: datetime
) -> tuple[AliasRecord, tuple[Event, ...]]:
    """Record for the pods that answer now; it follows them to another base model, and rests before that.

    Args:
        published: the state that was published last, with the versions of the other model.
    """
    events: list[Event] = []
    if record.model and record.model != model.current:
        record = _take_over(record, published.other, model.current, now)
        if record.stable is not None:
            message = f"{record.name}: {describe(record.stable)} answers all requests, on {model.current}"
            events.append(Event(Reason.PROMOTED, message))
    # A person wants the version of an undo at once; the source is not asked for it.
    if model.is_changing and record.candidate is not None and record.undo is None:
        version = describe(record.candidate.version)
        message = f"{record.name}: {version} is left, because the base model is changed"
        record = record.model_copy(update={"candidate": None})
        events.append(Event(Reason.WITHDRAWN, message))
    return record.model_copy(update={"model": model.current}), tuple(events)


def _take_over(record: AliasRecord, other: OtherModel | None, model: str, now: datetime) -> AliasRecord:
    """Record of the versions that the pods on this model were told to serve."""
    aliases = other.aliases if other is not None and other.base_model == model else ()
    stable = next((alias.stable for alias in aliases if alias.name == record.name), None)
    numbers = [stable.version] if stable else []
    update = {
        "stable": stable,
        "promoted": now if stable else None,
        "restored": False,
        "candidate": None,
        "undo": None,
        "watch": Watch(),
        "last_number": max([record.last_number, *numbers]),
    }
    return record.model_copy(update=update)


def rest(target: TargetVersion, record: AliasRecord, model: ServedModel) -> TargetVersion:
    """The target as the pods that answer now may serve it: another version waits for the pods on its model."""
    if not model.is_changing or target.version is None or not target.admitted:
        return target
    if record.stable is not None and record.stable.digest == target.version.digest:
        return target
    message = f"{describe(target.version)} answers once the pods on {model.wanted} take over"
    return replace(target, admitted=False, reason=Reason.WAITING_FOR_SWITCH, message=message)


@dataclass(frozen=True, slots=True)
class NextVersions:
    """Versions of all aliases on the wanted base model.

    Attributes:
        aliases: what the pods on it serve, ordered by name.
        blocked: reason and sentence about an alias that is served now, and would not be; None if there is none.
    """

    aliases: tuple[DesiredAlias, ...]
    blocked: tuple[str, str] | None = None

    @property
    def versions(self) -> tuple[tuple[str, Version], ...]:
        """The versions, with their aliases."""
        return tuple((alias.name, alias.stable) for alias in self.aliases if alias.stable)


def find_next_versions(
    records: Iterable[AliasRecord], targets: Mapping[str, TargetVersion], model: ServedModel
) -> NextVersions:
    """Versions that the sources name now.

    Args:
        targets: the version that the source of each alias names, by name.
    """
    aliases, missing = [], []
    for record in records:
        target = targets[record.name]
        is_ready = target.admitted and target.version is not None
        rejected = record.to_desired().rejected
        stable = target.version if is_ready else None
        aliases.append(DesiredAlias(name=record.name, stable=stable, rejected=rejected))
        if record.stable is not None and not is_ready:
            missing.append((str(target.reason), f"{record.name}: {target.message}"))
    if not missing:
        return NextVersions(tuple(aliases))
    names = f" ({len(missing)} aliases have none)" if len(missing) > 1 else ""
    reason, message = missing[0]
    sentence = f"each alias needs a version for {model.wanted} before its pods start{names}: {message}"
    return NextVersions(tuple(aliases), (reason, sentence))


def find_other_model(
    model: ServedModel, upcoming: NextVersions, published: DesiredState, sets: PodSets, pods: Iterable[Body]
) -> OtherModel | None:
    """What pods on another base model than the current one serve.

    Args:
        pods: all pods, also those that end.
    """
    if model.is_changing:
        return OtherModel(base_model=model.wanted, aliases=upcoming.aliases, current=model.current)
    models = {*(each.model for each in sets.others), *map(pod_base_model_uri, pods)}
    other = published.other
    if other is None:
        return None
    if other.base_model in models - {model.current}:
        return other
    if other.base_model == model.current and other.current in models - {model.current}:
        return OtherModel(base_model=other.current, aliases=published.aliases, current=model.current)
    return None
