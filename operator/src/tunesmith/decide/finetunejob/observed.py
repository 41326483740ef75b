"""Observed state of a FineTuneJob, grouped by role."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.run.children import Children
from tunesmith.decide.search.observed import EndedTrialJob, ObservedSearch, assemble_search
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_snapshots import eval_run_note_name, inputs_name, run_name
from tunesmith_contract.progress import TrainerStatus

from .trial import TrialSource


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """Latest progress of a pod; kept in the operator's memory alone."""

    stage: str
    attempt: int
    status: TrainerStatus


@dataclass(frozen=True, slots=True)
class RelatedObjects:
    """Objects that are not the job's own, but matter to it.

    Attributes:
        eval_run: the EvalRun of the job's name, whoever made it.
        earlier: the FineTuneJobs that it names, None for one that is not there; read until the inputs are taken.
        claims: access modes of the claims that pods on several nodes mount; read until training begins.
        gpu_nodes: the cluster's nodes, read once: when prepare has ended and GPUs will be asked for.
        missing_config_maps: ConfigMaps that the pods need and that do not exist.
        mount_failures: messages of nodes about volumes that they can't mount.
        creation_failures: messages about pods that a Job could not create, by the Job's name.
        trial_source: the job with the search that this one is a trial of; read until the inputs are taken.
    """

    eval_run: Body | None = None
    earlier: Mapping[str, FineTuneJob | None] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpu_nodes: tuple[Body, ...] = ()
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()
    creation_failures: Mapping[str, str] = field(default_factory=dict)
    trial_source: TrialSource | None = None


@dataclass(frozen=True, slots=True)
class ObservedTraining:
    """Observed state of a FineTuneJob.

    Attributes:
        inputs, run: the snapshots.
        evaluation: the note that the EvalRun was created.
        children: records, Jobs, pods, Services and Workloads.
        progress: the latest update of a pod.
        related: objects that are not the job's own.
        search: the trials of the job's search.
        finished: the ConfigMap with finished work of jobs of this name; read before the job begins and after its end.
    """

    inputs: Body | None = None
    run: Body | None = None
    evaluation: Body | None = None
    children: Children = field(default=Children())
    progress: LiveProgress | None = None
    related: RelatedObjects = field(default=RelatedObjects())
    search: ObservedSearch = field(default=ObservedSearch())
    finished: tuple[Body, ...] = ()


def assemble_training(
    job: FineTuneJob,
    config_maps: Sequence[Body],
    children: Children,
    related: RelatedObjects,
    progress: LiveProgress | None = None,
    trial_jobs: Mapping[int, Body] | None = None,
    ended_trials: Mapping[int, EndedTrialJob] | None = None,
    finished: tuple[Body, ...] = (),
) -> ObservedTraining:
    """Group what was read by its role.

    Args:
        config_maps: the job's.
        children: its other children; the records are found among the ConfigMaps.
        trial_jobs: FineTuneJobs of the names of its trials, by number.
        ended_trials: records of those that have ended, by number.
        finished: the ConfigMap with finished work of jobs of this name.
    """
    by_name = {body["metadata"]["name"]: body for body in config_maps}
    records = (parse_result(body) for body in config_maps)
    return ObservedTraining(
        inputs=by_name.get(inputs_name(job)),
        run=by_name.get(run_name(job)),
        evaluation=by_name.get(eval_run_note_name(job)),
        children=children.with_records(tuple(filter(None, records))),
        progress=progress,
        related=related,
        search=assemble_search(config_maps, trial_jobs or {}, ended_trials or {}),
        finished=finished,
    )
