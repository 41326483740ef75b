"""Observation of the trials of a FineTuneJob's search, and of the search that a trial belongs to."""

from collections.abc import Mapping, Sequence

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.controller_runtime.bodies import Key
from tunesmith.controller_runtime.client import Client
from tunesmith.decide.finetunejob.planning import TERMINAL
from tunesmith.decide.finetunejob.trial import TrialSource
from tunesmith.decide.plan import owned_by
from tunesmith.decide.search.observed import EndedTrialJob
from tunesmith.decide.search.settings import runs_trial_jobs
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_snapshots import inputs_name, parse_run, run_name
from tunesmith.manifests.trial_job import search_of, trial_name
from tunesmith.manifests.trial_records import parse_proposal, parse_trial_record
from tunesmith_contract.search import MAX_TRIALS

from .children import observe_children
from .reconciler import Reader
from .related import find_job, parse_or_none


def trial_names(job: FineTuneJob) -> tuple[str, ...]:
    """Names of all FineTuneJobs that the search may make."""
    search = job.spec.search
    if search is None or not runs_trial_jobs(search):
        return ()
    return tuple(trial_name(job, number + 1) for number in range(search.budget.trials or MAX_TRIALS))


def observe_trial_jobs(reader: Reader, job: FineTuneJob, config_maps: Sequence[Body]) -> dict[int, Body]:
    """FineTuneJobs of the names of trials that have not ended, by number of the trial."""
    if not runs_trial_jobs(job.spec.search):
        return {}
    proposals = (proposal for body in config_maps if (proposal := parse_proposal(body)))
    ended = {record.trial.number for body in config_maps if (record := parse_trial_record(body))}
    numbers = (proposal.number for proposal in proposals if proposal.number not in ended)
    namespace = job.metadata.namespace
    bodies = {
        number: reader.bodies.get(Key("FineTuneJob", namespace, trial_name(job, number)))
        for number in numbers
    }
    return {number: body for number, body in bodies.items() if body is not None}


async def observe_ended_trials(
    client: Client, job: FineTuneJob, jobs: Mapping[int, Body]
) -> dict[int, EndedTrialJob]:
    """Records of the job's own trials that have ended, by number.

    Raises:
        ApiError: a read failed.
    """
    ended: dict[int, EndedTrialJob] = {}
    for number, body in jobs.items():
        if not owned_by(body, job.metadata.uid):
            continue
        child = parse_or_none(FineTuneJob, body)
        if child is None or child.status.phase not in TERMINAL:
            continue
        config_maps = await observe_children(client, "v1", "ConfigMap", child.metadata)
        runs = [parse_run(item) for item in config_maps if item["metadata"]["name"] == run_name(child)]
        records = tuple(record for item in config_maps if (record := parse_result(item)))
        ended[number] = EndedTrialJob(records, runs[0] if runs else None)
    return ended


async def observe_trial_source(reader: Reader, job: FineTuneJob) -> TrialSource | None:
    """The job with the search that this one is a trial of; None for any other job, or where it is not there.

    Raises:
        ApiError: a read failed.
    """
    search = search_of(job)
    if search is None:
        return None
    parent = find_job(reader, job.metadata.namespace, search.name)
    if parent is None or parent.metadata.uid != search.uid:
        return None
    config_maps = await observe_children(reader.client, "v1", "ConfigMap", parent.metadata)
    inputs = [item for item in config_maps if item["metadata"]["name"] == inputs_name(parent)]
    records = tuple(record for item in config_maps if (record := parse_result(item)))
    return TrialSource(inputs[0] if inputs else None, records)
