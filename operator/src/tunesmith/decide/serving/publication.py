"""Writing of records and of the state that the pods serve, the most urgent first.

1. records of aliases whose candidate loses its requests, or whose stable version is switched back
2. push of these changes alone
3. all other records
4. the ConfigMap that the pods mount
5. push of the whole state

A state is sent once its records are written. An alias whose record can't be written keeps the state that it had, and
keeps no other alias waiting. So does one whose raised weight waits for agents to connect (``raised_weights``), though
its record has that weight already.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.decide.plan import Action, Mount, Publication, Push, Replace
from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.decide.serving.records.elapsed import must_be_written
from tunesmith.decide.serving.records.first_record import build_first_record
from tunesmith.decide.serving.records.record import AliasRecord, Watch
from tunesmith.decide.serving.records.stored import StoredServing
from tunesmith.decide.serving.rollout.raised_weights import Waiting, find_waiting
from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_config_maps import build_alias_record, build_desired_config_map
from tunesmith_contract.agent import (
    DESIRED_FILE,
    STATE_FILE,
    DesiredAlias,
    DesiredState,
    OtherModel,
    Peer,
    first_generation,
)
from tunesmith_contract.layout import CA_FILE


@dataclass(frozen=True, slots=True)
class SharedState:
    """Part of the desired state that concerns all aliases.

    Attributes:
        peers: pods that answer requests for each other.
        other: what pods on another base model serve.
        pods: number of pods that share the limits of clients; None where clients need no keys.
    """

    peers: tuple[Peer, ...] = ()
    other: OtherModel | None = None
    pods: int | None = None

    @classmethod
    def of(cls, state: DesiredState) -> "SharedState":
        """This part of a state."""
        return cls(state.peers, state.other, state.pods)

    def to_state(self, generation: int, aliases: tuple[DesiredAlias, ...]) -> DesiredState:
        """The whole state."""
        return DesiredState(
            generation=generation, aliases=aliases, peers=self.peers, other=self.other, pods=self.pods
        )


@dataclass(frozen=True, slots=True)
class NextState:
    """Desired state after this pass.

    Attributes:
        urgent: names of the aliases whose change is sent first.
        first: the state that was published last, with the urgent changes alone; None if nothing is urgent.
        whole: the state with all changes but those that wait.
        waiting: what waits for agents to connect.
    """

    urgent: frozenset[str]
    first: DesiredState | None
    whole: DesiredState
    waiting: Waiting


def next_state(
    stored: StoredServing,
    records: tuple[AliasRecord, ...],
    fleet: Fleet,
    term: int,
    shared: SharedState = SharedState(),
    leading_seconds: float = float("inf"),
    refused: Collection[str] = (),
) -> NextState:
    """Desired state that follows from the records.

    Its generation grows whenever the content changes, and where pods may hold another content or a higher generation.

    Args:
        records: the records of the aliases of the resource, ordered by name.
        term: number of times that the operator's lease changed hands.
        shared: the part of the state that concerns all aliases.
        leading_seconds: time for which agents could connect to this operator.
        refused: names of aliases that a rule refuses now: they stay as they are, without rollouts.
    """
    published = {alias.name: alias for alias in stored.published.aliases}
    waiting = find_waiting(stored, records, fleet, leading_seconds)
    following = [
        published[record.name] if record.name in waiting.withheld else record.to_desired()
        for record in records
    ]
    kept = (_without_rollout(published[name]) for name in refused if name in published)
    aliases = tuple(sorted((*following, *kept), key=lambda alias: alias.name))
    wanted = {alias.name: alias for alias in aliases}
    urgent = frozenset(
        name for name in published if name in wanted and _is_urgent(published[name], wanted[name])
    )
    is_sent = (
        stored.is_current
        and aliases == stored.published.aliases
        and shared == SharedState.of(stored.published)
        and fleet.generation <= stored.generation
        and stored.published.generation == stored.generation
        and not fleet.disagrees(stored.published)
    )
    if is_sent:
        return NextState(frozenset(), None, stored.published, waiting)
    number = 1 + max(stored.generation, fleet.generation, first_generation(term))
    if not urgent:
        return NextState(urgent, None, shared.to_state(number, aliases), waiting)
    partly = tuple(wanted[name] if name in urgent else published[name] for name in published)
    first = shared.to_state(number, partly)
    generation = number if partly == aliases else number + 1
    return NextState(urgent, first, shared.to_state(generation, aliases), waiting)


def _without_rollout(alias: DesiredAlias) -> DesiredAlias:
    """The alias with its stable version alone: nobody would look at the requests of a candidate."""
    return alias.model_copy(update={"candidate": None, "weight": 0, "previous": None})


def needed_by_pods(state: NextState, published: DesiredState) -> int:
    """Generation that a pod must have applied to answer with the right versions and weights.

    Other peers or another number of pods alone make no new one: that comes with each pod that gets ready, or stops to
    be.
    """
    without_pods = {"generation": 0, "peers": (), "pods": None}
    before, after = (each.model_copy(update=without_pods) for each in (published, state.whole))
    return published.generation if before == after else state.whole.generation


def generations_of(
    records: tuple[AliasRecord, ...], stored: StoredServing, state: NextState
) -> dict[str, int]:
    """Generation that a pod must have applied to answer as the record of an alias says, by the alias's name."""
    withheld = dict.fromkeys(state.waiting.withheld, state.whole.generation + 1)
    numbered = (_with_generation(record, stored, state) for record in records)
    return {record.name: record.generation for record in numbered} | withheld


def _is_urgent(before: DesiredAlias, after: DesiredAlias) -> bool:
    """True if a version must not get requests any more that may get some now."""
    if before.stable and after.stable != before.stable and before.stable.digest in after.rejected:
        return True
    if before.candidate is None:
        return False
    stays = after.candidate is not None and after.candidate.digest == before.candidate.digest
    is_promoted = after.stable is not None and after.stable.digest == before.candidate.digest
    return not is_promoted and (not stays or after.weight < before.weight)


def plan_publication(
    deployment: AdapterDeployment,
    stored: StoredServing,
    records: tuple[AliasRecord, ...],
    state: NextState,
    fleet: Fleet,
    ca_bundle: str,
) -> tuple[Action, ...]:
    """Actions that write the records and publish the state."""
    numbered = [_with_generation(record, stored, state) for record in records]
    adapters = {adapter.name: adapter for adapter in deployment.spec.adapters}
    writes = {
        record.name: Replace.of(
            stored.record_maps.get(record.name),
            build_alias_record(deployment, record.name, record.to_json()),
            record.name,
        )
        for record in numbered
        if must_be_written(stored.written.get(record.name), record, adapters[record.name])
    }
    writes |= _plan_removed(deployment, stored, frozenset(adapters))
    urgent = [write for name, write in writes.items() if name in state.urgent]
    others = [write for name, write in writes.items() if name not in state.urgent]
    first: tuple[Action, ...] = ()
    if state.first is not None:
        first = (Push(Publication(state.first, stored.published)),)
    publication = Publication(state.whole, stored.published)
    config_map = build_desired_config_map(deployment, state.whole, build_first_record(numbered), ca_bundle)
    mount: tuple[Action, ...] = ()
    if stored.mounted is None or _mounted_files(stored.mounted) != _mounted_files(config_map):
        mount = (Mount(Replace.of(stored.mounted, config_map).manifest, publication),)
    is_applied = fleet.is_told and not fleet.is_behind(state.whole.generation)
    is_sent = state.whole == stored.published and is_applied
    push: tuple[Action, ...] = () if is_sent or state.waiting.is_unheard else (Push(publication),)
    return (*urgent, *first, *others, *mount, *push)


def _with_generation(record: AliasRecord, stored: StoredServing, state: NextState) -> AliasRecord:
    """The record, with the generation in which the alias changes now, or changed last."""
    published: Mapping[str, DesiredAlias] = {alias.name: alias for alias in stored.published.aliases}
    if record.name in state.waiting.withheld or published.get(record.name) == record.to_desired():
        return record
    sent = state.first if state.first is not None and record.name in state.urgent else state.whole
    return record.model_copy(update={"generation": sent.generation})


def _plan_removed(
    deployment: AdapterDeployment, stored: StoredServing, present: frozenset[str]
) -> dict[str, Replace]:
    """Records of aliases that the resource has no more: of these only the stable version is kept.

    Those of aliases that a rule refuses now are left alone: no object may have the name of some.
    """
    writes = {}
    for name, record in stored.records.items():
        if name in present or name in deployment.refused_aliases:
            continue
        kept = record.model_copy(
            update={
                "candidate": None,
                "watch": Watch(),
                "undo": None,
                "restored": record.stable is not None,
            }
        )
        if kept != stored.written.get(name):
            manifest = build_alias_record(deployment, name, kept.to_json())
            writes[name] = Replace.of(stored.record_maps.get(name), manifest, name)
    return writes


def _mounted_files(config_map: Body) -> tuple[str | None, ...]:
    """The files that pods read; all are missing where somebody removed the data."""
    data = config_map.get("data") or {}
    return tuple(data.get(name) for name in (DESIRED_FILE, STATE_FILE, CA_FILE))
