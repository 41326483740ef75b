"""Pods that answer requests for each other, and the aliases that are at home on each."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.decide.serving.pods.fleet import Fleet, ServingPod
from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.manifests.engine_container import loaded_adapters
from tunesmith.manifests.serving_deployment import AGENT_PORT
from tunesmith_contract.agent import PEERS, Peer

from .placement import SLOTS_OF_ALIAS, HomePod, PlacedAlias, Placement, place

#: Most bytes that the names of all homes may take in the mounted ConfigMap, of its 1 MiB.
MAX_HOME_BYTES = 300_000


@dataclass(frozen=True, slots=True)
class NextPeers:
    """Peers after this pass.

    Attributes:
        is_settled: no home is about to move.
    """

    peers: tuple[Peer, ...]
    is_settled: bool = True


def next_peers(
    deployment: AdapterDeployment, records: Iterable[AliasRecord], fleet: Fleet, before: tuple[Peer, ...]
) -> NextPeers:
    """Peers that follow from the ready pods; none where only one pod can be one.

    An agent that has not reported to this operator yet is taken to hold what it held.

    Args:
        before: the peers that were published last.
    """
    published = {peer.name: peer for peer in before}
    pods = [pod for pod in fleet.ready if _host(pod) and _is_peer(pod, pod.name in published)]
    if len(pods) < 2:
        return NextPeers(())
    aliases = [
        PlacedAlias(
            record.name,
            _requests(record.name, fleet),
            frozenset(pod.name for pod in pods if _has_proven(pod, record, published.get(pod.name))),
        )
        for record in records
    ]
    slots = loaded_adapters(deployment.spec.engine)
    room = [HomePod(pod.name, _slots(pod) or slots) for pod in pods]
    homes = {record.name: [peer.name for peer in before if record.name in peer.homes] for record in aliases}
    placement = place(aliases, room, homes) if _fit(aliases, room) else Placement({})
    peers = (
        Peer(
            name=pod.name,
            host=_host(pod),
            port=AGENT_PORT,
            homes=tuple(sorted(alias for alias, names in placement.homes.items() if pod.name in names)),
        )
        for pod in pods
    )
    return NextPeers(tuple(sorted(peers, key=lambda peer: peer.name)), placement.is_settled)


def _fit(aliases: Iterable[PlacedAlias], pods: Iterable[HomePod]) -> bool:
    """True if the names of as many homes as there can be leave room in the mounted ConfigMap.

    Where they don't, each pod is at home to all, and its engine keeps what is asked for.
    """
    longest = max((len(json.dumps([alias.name])) for alias in aliases), default=0)
    return sum(pod.slots // SLOTS_OF_ALIAS for pod in pods) * longest <= MAX_HOME_BYTES


def _host(pod: ServingPod) -> str:
    host: str = pod.body.get("status", {}).get("podIP", "")
    return host


def _is_heard(pod: ServingPod) -> bool:
    return pod.agent is not None and pod.agent.connected


def _is_peer(pod: ServingPod, was_peer: bool) -> bool:
    if pod.agent is None or not pod.agent.connected:
        return was_peer
    return PEERS in pod.agent.report.features


def _slots(pod: ServingPod) -> int:
    return pod.agent.report.adapter_slots if pod.agent is not None else 0


def _has_proven(pod: ServingPod, record: AliasRecord, before: Peer | None) -> bool:
    """True if all versions that get requests of the alias are active on the pod."""
    if not _is_heard(pod):
        return before is not None and record.name in before.homes
    return all(pod.has_active(record.name, digest) for digest in _answering(record))


def _answering(record: AliasRecord) -> Iterator[str]:
    if record.stable is not None:
        yield record.stable.digest
    if record.candidate is not None and record.candidate.weight:
        yield record.candidate.version.digest


def _requests(alias: str, fleet: Fleet) -> int:
    """Requests of all versions of the alias of late."""
    return sum(
        counters.recent
        for (name, _), found in fleet.counters.items()
        if name == alias
        for _, counters in found
    )
