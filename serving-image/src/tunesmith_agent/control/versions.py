"""State of each version on this pod, and the routes that follow from it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from tunesmith_agent.metrics import VersionStats
from tunesmith_agent.routing.gate import Gate
from tunesmith_agent.routing.homes import Homes
from tunesmith_agent.routing.stickiness import threshold
from tunesmith_agent.routing.table import Route, Target, build_distant_target, build_target
from tunesmith_contract.agent import DesiredAlias, DesiredState, LoadedVersion, LoadState, Version
from tunesmith_contract.answer_formats import Switch
from tunesmith_contract.base import short_digest

#: Alias and digest: identity of a version between operator and agent.
Key = tuple[str, str]

#: Reason and message of a version whose breaker is open.
BREAKER_OPEN = ("BreakerOpen", "This pod stopped sending requests to it after errors in a row.")


@dataclass
class TrackedVersion:
    """One version on this pod.

    Attributes:
        reason, message: why it failed, or what is uncertain about it while it is active.
        permanent: it failed for a reason that no other try can mend.
        settled: the version was active or failed since this start of the engine.
        task: loads or drains it.
        gate: open while the engine holds it.
        switches: arguments of the chat template that it was trained with; None in artifacts of earlier releases.
    """

    alias: str
    version: Version
    stats: VersionStats
    state: LoadState = LoadState.FETCHING
    reason: str = ""
    message: str = ""
    permanent: bool = False
    settled: bool = False
    task: asyncio.Task[None] | None = None
    gate: Gate = field(default_factory=Gate)
    switches: Mapping[str, Switch] | None = None

    @property
    def key(self) -> Key:
        """Alias and digest."""
        return self.alias, self.version.digest

    @property
    def active(self) -> bool:
        """Proven, and loaded or loaded again when a request asks for it."""
        return self.state is LoadState.ACTIVE

    @property
    def busy(self) -> bool:
        """True while a task loads or drains it."""
        return self.task is not None and not self.task.done()

    def to_report(self, breaker_clients: int | None) -> LoadedVersion:
        """Report of this version to the operator.

        Args:
            breaker_clients: clients that saw the errors that opened its breaker; None while that is closed.
        """
        reason, message = self.reason, self.message
        if breaker_clients is not None and not reason:
            reason, message = BREAKER_OPEN
        return LoadedVersion(
            alias=self.alias,
            digest=self.version.digest,
            state=self.state,
            reason=reason[:64],
            message=message[:512],
            breaker_open=breaker_clients is not None,
            breaker_clients=breaker_clients or 0,
            permanent=self.permanent and self.state is LoadState.FAILED,
        )


def desired_versions(desired: DesiredState | None) -> Iterator[tuple[str, Version]]:
    """Versions to be loaded, each with its alias."""
    for alias in desired.aliases if desired else ():
        digests = set()
        for version in (alias.stable, alias.candidate, alias.previous):
            if version is not None and version.digest not in digests:
                digests.add(version.digest)
                yield alias.name, version


def answering_versions(alias: DesiredAlias) -> Iterator[Version]:
    """Versions that the alias gives requests."""
    if alias.stable is not None:
        yield alias.stable
    if alias.candidate is not None and alias.weight and alias.candidate.digest not in alias.rejected:
        yield alias.candidate


def fallback_version(
    alias: DesiredAlias, tracked: Mapping[Key, TrackedVersion], last_stable: str
) -> Key | None:
    """Previous stable version, which answers until the desired one is active or failed on this pod."""
    if alias.stable is None or not last_stable or last_stable == alias.stable.digest:
        return None
    stable, previous = tracked.get((alias.name, alias.stable.digest)), tracked.get((alias.name, last_stable))
    if previous is None or not previous.active or (stable is not None and stable.settled):
        return None
    return previous.key


def build_alias_route(
    alias: DesiredAlias,
    tracked: Mapping[Key, TrackedVersion],
    fallback: Key | None,
    breaker_open: bool,
    homes: Homes | None = None,
) -> Route:
    """Route of one alias: the candidate gets its share only while it is active and its breaker is closed.

    Args:
        homes: pods that answer its requests, also those for versions that are not active here; None: this pod alone.
    """
    stable = tracked.get((alias.name, alias.stable.digest)) if alias.stable else None
    candidate = tracked.get((alias.name, alias.candidate.digest)) if alias.candidate else None
    answering = tracked[fallback] if fallback and not (stable and stable.active) else stable
    here = _target(answering)
    route = Route(
        alias.name,
        here,
        unavailable_reason=_unavailable_reason(stable),
        uses_keys=alias.candidate is not None or alias.previous is not None or homes is not None,
        homes=homes,
        substitute=here,
    )
    if homes is not None and alias.stable is not None and not (stable and stable.active):
        route = replace(route, stable=build_distant_target(alias.name, alias.stable.digest))
    if alias.candidate is None or breaker_open or alias.candidate.digest in alias.rejected:
        return route
    digest = alias.candidate.digest
    target = _target(candidate)
    if target is None and homes is not None:
        target = build_distant_target(alias.name, digest)
    if target is None:
        return route
    return replace(route, candidate=target, candidate_digest=digest, threshold=threshold(alias.weight))


def build_pinned_route(
    tracked: TrackedVersion, homes: Homes | None = None, instead: Target | None = None
) -> Route:
    """Route of one version under its own name.

    Args:
        homes: pods that answer its requests; None: this pod alone.
        instead: see ``Route``.
    """
    name = f"{tracked.alias}@{short_digest(tracked.version.digest)}"
    target = _target(tracked)
    if target is None and homes is not None:
        target = build_distant_target(*tracked.key)
    reason = _unavailable_reason(tracked)
    uses_keys = homes is not None
    return Route(name, target, unavailable_reason=reason, uses_keys=uses_keys, homes=homes, instead=instead)


def is_complete(alias: DesiredAlias, tracked: Mapping[Key, TrackedVersion]) -> bool:
    """True if all versions of the alias that get requests are active on this pod."""
    versions = (tracked.get((alias.name, version.digest)) for version in answering_versions(alias))
    return all(version is not None and version.active for version in versions)


def _target(tracked: TrackedVersion | None) -> Target | None:
    if tracked is None or not tracked.active:
        return None
    return build_target(*tracked.key, tracked.stats, tracked.gate, tracked.switches)


def _unavailable_reason(tracked: TrackedVersion | None) -> str:
    if tracked is None:
        return "no version of it is stable yet."
    version = f"version {short_digest(tracked.version.digest)}"
    if tracked.state is LoadState.FAILED:
        return f"{version} failed to load ({tracked.reason})."
    return f"{version} is not active yet ({tracked.state})."
