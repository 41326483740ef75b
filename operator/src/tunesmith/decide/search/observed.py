"""Observed state of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptRecord
from tunesmith.manifests.trial_records import (
    TrialProposal,
    TrialRecord,
    parse_proposal,
    parse_trial_record,
    parse_trial_run,
)
from tunesmith_contract.run_config import TrainConfig


@dataclass(frozen=True, slots=True)
class EndedTrialJob:
    """Records of the FineTuneJob of a trial that has ended.

    Attributes:
        records: those of its attempts.
        run: configuration that it was trained with; None where it has not come so far.
    """

    records: tuple[AttemptRecord, ...] = ()
    run: TrainConfig | None = None


@dataclass(frozen=True, slots=True)
class ObservedSearch:
    """Observed state of a search.

    Attributes:
        proposals: values of all trials, by number.
        records: ends of trials, by number.
        runs: configurations of completed trials, by number.
        jobs: FineTuneJobs of the names of trials, whoever made them, by number.
        ended_jobs: records of FineTuneJobs that have ended, by number of the trial.
    """

    proposals: Mapping[int, TrialProposal] = field(default_factory=dict)
    records: Mapping[int, TrialRecord] = field(default_factory=dict)
    runs: Mapping[int, TrainConfig] = field(default_factory=dict)
    jobs: Mapping[int, Body] = field(default_factory=dict)
    ended_jobs: Mapping[int, EndedTrialJob] = field(default_factory=dict)

    def with_record(self, record: TrialRecord) -> "ObservedSearch":
        """With the end of one more trial."""
        return replace(self, records={**self.records, record.trial.number: record})

    @property
    def unfinished(self) -> tuple[TrialProposal, ...]:
        """Trials that have not ended, in the order of their numbers."""
        return tuple(
            self.proposals[number] for number in sorted(self.proposals) if number not in self.records
        )


def assemble_search(
    config_maps: Sequence[Body],
    jobs: Mapping[int, Body],
    ended_jobs: Mapping[int, EndedTrialJob],
) -> ObservedSearch:
    """Group what was read by its role.

    Args:
        config_maps: those of the job with the search.
    """
    proposals = [found for body in config_maps if (found := parse_proposal(body))]
    records = [
        (record, parse_trial_run(body)) for body in config_maps if (record := parse_trial_record(body))
    ]
    return ObservedSearch(
        proposals={proposal.number: proposal for proposal in proposals},
        records={record.trial.number: record for record, _ in records},
        runs={record.trial.number: run for record, run in records if run},
        jobs=jobs,
        ended_jobs=ended_jobs,
    )
