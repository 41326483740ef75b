"""Tokens that clients have used on all pods: counts that outlive agents, pods and operators.

Each run of an agent tells counts that only grow, so the largest one that was heard is right, however often it is
folded. The counts of runs that have ended are kept as a sum.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import AwareDatetime, Field, ValidationError

from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_config_maps import USAGE_KEY
from tunesmith_contract.agent import MAX_USAGE, AgentReport, CountedTokens, UsageOfOthers
from tunesmith_contract.base import Report

#: Time for which counts of a period that is over are kept, for reports and clocks that are late.
LATE = timedelta(hours=1)
#: Interval between writes of counts of runs that go on: they can be heard again.
WRITE_SECONDS = 10.0
#: Most bytes of the record, of a ConfigMap's 1 MiB.
MAX_BYTES = 700_000

#: Client and period.
_Key = tuple[str, str]


class CountingRun(Report):
    """Run of an agent's counts, and the pod that it is in."""

    run: str
    pod_uid: str


class ClientTokens(Report):
    """Tokens of one client in one period.

    Attributes:
        budget: its budget, as agents said last.
        ended: counted by runs that have ended.
        counts: counted by the runs of the record, in their order.
    """

    client: str
    period: str
    budget: int
    ended: int = 0
    counts: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """Counted by all."""
        return self.ended + sum(self.counts)


class UsageRecord(Report):
    """Tokens of all clients with budgets.

    Attributes:
        runs: runs of agents that may go on.
        tokens: by client and period, ordered.
        written: time at which it was written.
    """

    runs: tuple[CountingRun, ...] = ()
    tokens: tuple[ClientTokens, ...] = Field((), max_length=MAX_USAGE)
    written: AwareDatetime | None = None

    def fold(self, reports: Iterable[AgentReport], pod_uids: frozenset[str], now: datetime) -> "UsageRecord":
        """This record with the counts of the reports.

        Args:
            reports: the latest one of each run of an agent that is known.
            pod_uids: UIDs of all existing pods.
        """
        reports = [report for report in reports if report.access is not None]
        pods = {run.run: run.pod_uid for run in self.runs}
        counts: dict[_Key, dict[str, int]] = {
            (each.client, each.period): dict(zip(pods, each.counts, strict=False)) for each in self.tokens
        }
        ended = {(each.client, each.period): each.ended for each in self.tokens}
        budgets = {(each.client, each.period): each.budget for each in self.tokens}
        for report in reports:
            assert report.access is not None
            run = report.access.run
            pods[run] = report.pod_uid
            for usage in report.access.usage:
                key = usage.client, usage.period
                if key not in counts and (len(counts) >= MAX_USAGE or is_over(usage.period, now)):
                    continue
                known = counts.setdefault(key, {})
                known[run] = max(known.get(run, 0), usage.tokens)
                budgets[key] = usage.budget
        going_on = _going_on(pods, reports, pod_uids)
        for key, known in counts.items():
            ended[key] = ended.get(key, 0) + sum(n for run, n in known.items() if run not in going_on)
        tokens = (
            ClientTokens(
                client=client,
                period=period,
                budget=budgets[client, period],
                ended=ended[client, period],
                counts=tuple(known.get(run, 0) for run in going_on),
            )
            for (client, period), known in sorted(counts.items())
            if not is_over(period, now)
        )
        runs = tuple(CountingRun(run=run, pod_uid=uid) for run, uid in going_on.items())
        return UsageRecord(runs=runs, tokens=tuple(tokens), written=self.written)

    def within_limit(self, connected: Collection[str]) -> "UsageRecord":
        """This record as it is stored: where it is too large, without counts that can be heard again.

        What is left out is lost only if a pod ends while no operator hears it; and where not even the latest counts of
        agents that have just ended have room, with these. Sums of earlier runs always stay.

        Args:
            connected: runs of the agents that are connected.
        """
        lasting = [place for place, run in enumerate(self.runs) if run.run not in connected]
        for places in (range(len(self.runs)), lasting):
            record = self._with_runs(places)
            if len(record.to_json()) <= MAX_BYTES:
                return record
        return self._with_runs(())

    def _with_runs(self, places: Iterable[int]) -> "UsageRecord":
        """This record with these of its runs."""
        places = tuple(places)
        tokens = (
            each.model_copy(update={"counts": tuple(each.counts[place] for place in places)})
            for each in self.tokens
        )
        runs = tuple(self.runs[place] for place in places)
        return self.model_copy(update={"runs": runs, "tokens": tuple(tokens)})

    def must_be_written(self, before: "UsageRecord", pod_uids: frozenset[str], now: datetime) -> bool:
        """True if this differs from what was written, and it is time, or something could be lost."""
        if (self.runs, self.tokens) == (before.runs, before.tokens):
            return False
        if self._lasting(pod_uids) != before._lasting(pod_uids) or before.written is None:
            return True
        # The clock may have been set back since.
        return abs((now - before.written).total_seconds()) >= WRITE_SECONDS

    def _lasting(self, pod_uids: frozenset[str]) -> tuple[object, ...]:
        """The part that can't be heard again: clients, runs, and counts of pods that are gone."""
        gone = [place for place, run in enumerate(self.runs) if run.pod_uid not in pod_uids]
        counts = (
            (each.client, each.period, each.ended, *(each.counts[place] for place in gone))
            for each in self.tokens
        )
        return self.runs, tuple(counts)

    def messages(self, reports: Iterable[AgentReport]) -> Mapping[str, UsageOfOthers]:
        """What agents are to be told of the others, by the UID of their pod; nothing to those that know it."""
        by_key = {(each.client, each.period): each for each in self.tokens}
        places = {run.run: place for place, run in enumerate(self.runs)}
        messages = {}
        for report in reports:
            if report.access is None or report.access.run not in places:
                continue
            place = places[report.access.run]
            known = {(usage.client, usage.period): usage.others for usage in report.access.usage}
            others = {key: each.total - each.counts[place] for key, each in by_key.items() if key in known}
            if any(known[key] != tokens for key, tokens in others.items()):
                counted = (
                    CountedTokens(client=client, period=period, tokens=tokens)
                    for (client, period), tokens in others.items()
                )
                messages[report.pod_uid] = UsageOfOthers(counted_by_others=tuple(counted))
        return messages

    def current(self, now: datetime) -> tuple[ClientTokens, ...]:
        """Tokens in the current periods, by the client's name."""
        names = {f"{now:%Y-%m-%d}", f"{now:%Y-%m}"}
        latest = {each.client: each for each in self.tokens if each.period in names}
        return tuple(latest.values())


def read_usage(config_map: Body | None) -> UsageRecord | None:
    """The record in its ConfigMap; empty without one, None if it can't be read."""
    if config_map is None:
        return UsageRecord()
    try:
        return UsageRecord.model_validate_json(config_map["data"][USAGE_KEY])
    except (KeyError, ValidationError):
        return None


def is_over(period: str, now: datetime) -> bool:
    """True for a day or month that is over since a while."""
    then = now - LATE
    return period < (f"{then:%Y-%m}" if len(period) == len("2030-01") else f"{then:%Y-%m-%d}")


def _going_on(
    pods: Mapping[str, str], reports: Iterable[AgentReport], pod_uids: frozenset[str]
) -> dict[str, str]:
    """Runs that are reported, or whose pod exists and has not been heard of; with the UIDs of their pods."""
    reported = {report.access.run for report in reports if report.access}
    heard = {report.pod_uid for report in reports}
    return {
        run: uid
        for run, uid in sorted(pods.items())
        if run in reported or (uid in pod_uids and uid not in heard)
    }
