"""What there is of a FineTuneJob, sorted into what it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.plan import Manifest as Body
from tunesmith.decide.run.children import Children
from tunesmith.manifests.evaluation_config_map import evaluation_name
from tunesmith.manifests.inputs_config_map import inputs_name
from tunesmith.manifests.result_config_map import parse_result
from tunesmith.manifests.run_config_map import run_name
from tunesmith_contract.progress import TrainerStatus


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """What a pod said of its progress: kept nowhere but in the operator's memory."""

    stage: str
    attempt: int
    status: TrainerStatus


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is not the job's own, and matters to it.

    Attributes:
        eval_run: the EvalRun of the job's name, whoever made it.
        earlier: the FineTuneJobs that it names, None for one that is not there; read until the inputs are taken.
        claims: access modes of the claims that pods on several nodes would mount; read until training begins.
        gpu_nodes: the cluster's nodes, read once: when prepare has ended and GPUs will be asked for.
        missing_config_maps: ConfigMaps that the pods wait for.
        mount_failures: what nodes say of volumes that they can't mount.
    """

    eval_run: Body | None = None
    earlier: Mapping[str, FineTuneJob | None] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpu_nodes: tuple[Body, ...] = ()
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedTraining:
    """What there is of a FineTuneJob.

    Attributes:
        inputs, run: the snapshots.
        evaluation: the note that the EvalRun was made.
        children: records, Jobs, pods, Services and Workloads.
        progress: the latest news from a pod.
        around: what is not the job's own.
    """

    inputs: Body | None = None
    run: Body | None = None
    evaluation: Body | None = None
    children: Children = field(default=Children())
    progress: LiveProgress | None = None
    around: Surroundings = field(default=Surroundings())


def assemble_training(
    job: FineTuneJob,
    config_maps: Sequence[Body],
    children: Children,
    around: Surroundings,
    progress: LiveProgress | None = None,
) -> ObservedTraining:
    """What was read, sorted into what it is.

    Args:
        config_maps: the job's.
        children: its other children; the records are found among the ConfigMaps.
    """
    by_name = {body["metadata"]["name"]: body for body in config_maps}
    records = (parse_result(body) for body in config_maps)
    return ObservedTraining(
        inputs=by_name.get(inputs_name(job)),
        run=by_name.get(run_name(job)),
        evaluation=by_name.get(evaluation_name(job)),
        children=children.with_records(tuple(filter(None, records))),
        progress=progress,
        around=around,
    )
