"""Trials of a search that runs in the training pod of its job, from what the pod sends."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.plan import Action, Create
from tunesmith.manifests.trial_records import TrialRecord, build_trial_record
from tunesmith_contract.progress import TRIAL_PREFIX
from tunesmith_contract.report import SearchReport
from tunesmith_contract.search import SearchSettings, Trial, TrialState, from_line

from .observed import ObservedSearch


@dataclass(frozen=True, slots=True)
class PodTrials:
    """Trials of a shared pod.

    Attributes:
        trials: all that are known, by number.
        actions: records of those that have ended since.
        folder: URI of the folder with table and plot, once the pod has ended.
    """

    settings: SearchSettings
    trials: tuple[Trial, ...] = ()
    actions: tuple[Action, ...] = ()
    folder: str | None = None


def collect_pod_trials(
    job: FineTuneJob,
    settings: SearchSettings,
    observed: ObservedSearch,
    metrics: Mapping[str, str],
    report: SearchReport | None,
    now: datetime,
) -> PodTrials:
    """Trials by their records, the latest update and the final report of the pod; the first record wins.

    Args:
        metrics: metrics of the latest update, by name.
        report: report of the pod, once it has succeeded.
    """
    sent = [value for name, value in metrics.items() if name.startswith(TRIAL_PREFIX)]
    lines = (*sent, *(report.trials if report else ()))
    found = {trial.number: trial for line in lines if (trial := from_line(settings, line))}
    recorded = {number: record.trial for number, record in observed.records.items()}
    ended = [
        trial
        for trial in found.values()
        if trial.state is not TrialState.RUNNING and trial.number not in recorded
    ]
    trials = found | recorded
    return PodTrials(
        settings,
        tuple(trials[number] for number in sorted(trials)),
        tuple(Create(build_trial_record(job, TrialRecord(trial=trial, ended_at=now))) for trial in ended),
        report.folder if report else None,
    )
