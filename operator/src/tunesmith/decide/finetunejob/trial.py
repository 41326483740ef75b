"""Preparation of a trial: it trains on the rows that the job with the search has prepared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.plan import Action, Create
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, build_result_config_map
from tunesmith.manifests.run_snapshots import Inputs, build_inputs_config_map, parse_inputs
from tunesmith_contract.run_config import Owner, PrepareConfig
from tunesmith_contract.stages import Stage

from .inputs import CHANGEABLE
from .referenced_jobs import NotReady

_BEFORE_TRAINING = frozenset({Stage.GENERATE, Stage.PREPARE})


@dataclass(frozen=True, slots=True)
class TrialSource:
    """The job with the search that a trial belongs to.

    Attributes:
        inputs: its inputs; None before they are taken.
        records: records of its attempts.
    """

    inputs: Body | None = None
    records: Sequence[AttemptRecord] = ()


@dataclass(frozen=True, slots=True)
class Adoption:
    """Inputs and preparation of the job with the search, taken over by a trial.

    Attributes:
        actions: the records first, so that inputs are never there without them.
    """

    inputs: Inputs
    records: tuple[AttemptRecord, ...]
    actions: tuple[Action, ...]


def adopt_preparation(job: FineTuneJob, search: str, source: TrialSource | None) -> Adoption | NotReady:
    """What the trial takes over; or the reason why it can't yet.

    Args:
        search: name of the job with the search.
        source: that job; None where it is not there.
    """
    if source is None:
        return NotReady(
            f'FineTuneJob "{search}", whose search this is a trial of, does not exist.', missing=True
        )
    prepared = tuple(_without_cost(record) for record in source.records if _is_preparation(record))
    if source.inputs is None or not any(record.stage is Stage.PREPARE for record in prepared):
        return NotReady(
            f'FineTuneJob "{search}", whose search this is a trial of, has not prepared its data yet.'
        )
    inputs = _inputs_of_trial(job, parse_inputs(source.inputs))
    records = (build_result_config_map(job, record) for record in prepared)
    snapshot = build_inputs_config_map(job, inputs)
    return Adoption(inputs, prepared, tuple(Create(body) for body in (*records, snapshot)))


def _is_preparation(record: AttemptRecord) -> bool:
    return record.stage in _BEFORE_TRAINING and record.outcome is AttemptOutcome.SUCCEEDED


def _without_cost(record: AttemptRecord) -> AttemptRecord:
    return record.model_copy(update={"ran_seconds": 0.0, "gpu_seconds": 0.0})


def _inputs_of_trial(job: FineTuneJob, inputs: Inputs) -> Inputs:
    config, meta = inputs.config, job.metadata
    assert isinstance(config, PrepareConfig)
    owner = Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid)
    spec = job.spec.to_snapshot(without=CHANGEABLE)
    return replace(inputs, spec=spec, config=config.model_copy(update={"owner": owner}))
