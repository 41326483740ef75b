"""End of the train stage: measurement, publication and export of a trained model that is saved.

All of it works from files, in one process without other workers and without a DeepSpeed configuration: the trained
model's process and its memory on the GPUs are gone, except where nothing large is left to do.
"""

import math
import os

from tunesmith_contract.progress import PART, TrainPart
from tunesmith_contract.report import Outcome, RunReport, TrainingReport
from tunesmith_contract.run_config import AdapterType, OutputFormat, TrainConfig
from tunesmith_data.failures import UserError
from tunesmith_data.models.chat_format import find_chat_format
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.writer_lease import WriterLease, new_holder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.artifact.probes import (
    NO_PROBES,
    MeasuredProbes,
    Measurement,
    largest_effect,
    pair_probes,
    select_probes,
)
from tunesmith_trainer.train.artifact.reference_model import measure_stored_adapter, measure_stored_model
from tunesmith_trainer.train.callbacks.step_callbacks import raise_diverged
from tunesmith_trainer.train.exports import ExportSources, build_exports

from .publish import publish_trained
from .starting_point import StartingPoint
from .trained_files import TrainedFiles, TrainedRecord

#: Difference in nats per token below which two models count as equal.
MIN_EFFECT = 1e-4


def measures_in_place(config: TrainConfig) -> bool:
    """True if the model in training, with its adapter on and off, is what a server has: no other needs to be loaded."""
    adapter = config.adapter
    return config.method.reward is None and adapter is not None and adapter.type is not AdapterType.QLORA


def needs_new_process(config: TrainConfig) -> bool:
    """True if the end of the stage loads a model, for which the memory of the training process has to be free."""
    loads_for_probes = config.method.reward is None and not measures_in_place(config)
    return loads_for_probes or _exports(config)


def finish(
    config: TrainConfig, start: StartingPoint, workspace: Workspace, preemption: Preemption
) -> RunReport:
    """Finish the stage from the files of its trained model, and commit its report.

    Args:
        config: the run.
        start: weights that it was trained from.
        workspace: workspace with the trained model.
        preemption: SIGTERM of this pod, which ends the process from now on.

    Raises:
        Preempted: SIGTERM has arrived before.
        StageError: the model can't be measured, published or exported.
    """
    training = finish_training(config, start, workspace, preemption)
    report = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=training)
    workspace.commit(report)
    return report


def finish_training(
    config: TrainConfig, start: StartingPoint, workspace: Workspace, preemption: Preemption
) -> TrainingReport:
    """Measure, publish and export the trained model whose files are in the workspace.

    It can be interrupted at any point: what is published or measured by then is not done again.

    Args:
        config: the run.
        start: weights that it was trained from.
        workspace: workspace with the trained model.
        preemption: SIGTERM of this pod, which ends the process from now on.

    Raises:
        Preempted: SIGTERM has arrived before.
        StageError: the model can't be measured, published or exported.
    """
    preemption.end_process()
    lease = WriterLease(workspace.checkpoints, new_holder(os.environ))
    lease.take()
    BucketCheckpoints(workspace).take_lease()
    files = TrainedFiles(workspace)
    record = files.load()
    based = start.as_base_of(config)

    probes = find_probes(config, start, files, record)
    lease.check()
    tokenizer = load_tokenizer(start.folder)
    chat = find_chat_format(tokenizer, config.template_arguments or {})
    artifact = publish_trained(files.weights, based, probes, workspace, chat)

    if _exports(config):
        _announce(record, TrainPart.EXPORTING)
    set_padding(tokenizer)
    sources = ExportSources(start.folder, files.weights, tokenizer)
    exports = build_exports(based, sources, workspace)
    return TrainingReport.model_validate({**record.training, "artifact": artifact, "exports": exports})


def choose_probes(record: TrainedRecord, measured: Measurement) -> MeasuredProbes:
    """Probes of a model that training has changed.

    Raises:
        UserError: training diverged, or changed nothing.
    """
    candidates = pair_probes(record.sequences, measured)
    effect = largest_effect(candidates)
    if not math.isfinite(effect):
        raise_diverged("the tuned model's probabilities are not numbers")
    if effect < MIN_EFFECT:
        message = "training changes nothing: raise learningRate or epochs, or check warmupRatio"
        raise UserError("NoEffect", message)
    return MeasuredProbes(probes=select_probes(candidates, measured.noise), noise=measured.noise)


def find_probes(
    config: TrainConfig, start: StartingPoint, files: TrainedFiles, record: TrainedRecord
) -> MeasuredProbes:
    """Probes that are saved beside the trained model, or measured and saved now; none for a reward model."""
    if config.method.reward is not None:
        return NO_PROBES  # it has no token probabilities to probe
    probes = files.load_probes()
    if probes is None:
        _announce(record, TrainPart.MEASURING)
        measure = measure_stored_model if config.adapter is None else measure_stored_adapter
        probes = choose_probes(record, measure(start.folder, files.weights, record.sequences))
        files.save_probes(probes)
    return probes


def _exports(config: TrainConfig) -> bool:
    return any(name is not OutputFormat.ADAPTER for name in config.formats)


def _announce(record: TrainedRecord, part: TrainPart) -> None:
    steps = record.training["steps"]
    ProgressReporter().announce(steps, steps, **{PART: part})
