"""One trial of a search: training on the loaded base model, and the artifact of it."""

import gc
import math
import time
from dataclasses import dataclass

import torch
from pydantic import ValidationError

from tunesmith_contract.report import Artifact, Failure
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.search import Measurement, Trial, TrialState
from tunesmith_contract.shared_rules.defaults import answers_to_a_prompt, count_sequences, is_packed
from tunesmith_contract.shared_rules.trials import configure_trial
from tunesmith_data.failures import Preempted, describe
from tunesmith_data.models.chat_format import find_chat_format
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_search.halving import falls_behind
from tunesmith_search.results import best_trial
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.artifact.probes import NO_PROBES
from tunesmith_trainer.train.callbacks.early_stopping import CheckpointSelection
from tunesmith_trainer.train.callbacks.tracking import end_tracked_run
from tunesmith_trainer.train.distributed.control_group import broadcast_from_first, wait_for_all
from tunesmith_trainer.train.distributed.parallel import is_first_of_node, is_first_rank, world_size
from tunesmith_trainer.train.finish import choose_probes, measures_in_place
from tunesmith_trainer.train.loaded_base import LoadedBase
from tunesmith_trainer.train.publish import publish_trained
from tunesmith_trainer.train.resume import ResumableTraining
from tunesmith_trainer.train.trained_files import TrainedFiles
from tunesmith_trainer.train.training_run import TrainedModel, TrainingPlace, train_on_base

from .journal import JournalEntry, TrialJournal
from .progress import ReportSteps, SearchProgress
from .pruning import MeasureTrial, Pruned, StopAtBudget

#: Reasons of failures that the parameters of a trial bring about: others may do better.
_OWN_REASONS = frozenset({"BatchSize", "Diverged", "NoEffect", "OutOfMemory"})
_MESSAGE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """End of a trial.

    Attributes:
        loss: validation loss of its artifact, or the last one measured.
        message: cause of an early end.
    """

    state: TrialState
    loss: float | None
    message: str = ""
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class TrialPlace:
    """The pod of a search: where trials read and write, and who may stop them.

    Attributes:
        storage: resolves URIs.
        workspace: the run's workspace; each trial has one of its own below it.
        preemption: SIGTERM of this pod.
    """

    storage: Storage
    workspace: Workspace
    preemption: Preemption


class TrialRunner:
    """Runner of trials on one loaded base model; all workers have one, and call it alike.

    Args:
        config: the run, with its search.
        base: base model and rows.
        journal: the search's trials; only the first worker writes it.
        place: the pod.
    """

    def __init__(
        self, config: TrainConfig, base: LoadedBase, journal: TrialJournal, place: TrialPlace
    ) -> None:
        assert config.search is not None
        self._config = config
        self._settings = config.search
        self._base = base
        self._journal = journal
        self._place = place
        self._progress = SearchProgress(config.search, journal)

    def run(self, entry: JournalEntry) -> None:
        """Run a trial to its end, and record it.

        Raises:
            Preempted: a pod received SIGTERM; the trial goes on from its checkpoint in the next pod.
            StageError: no trial of the search could succeed.
        """
        number, started = entry.trial.number, time.monotonic()
        if is_first_rank():
            self._journal.write(entry)
            self._progress.announce_trials()
        try:
            end = self._train(entry.trial)
        except Preempted:
            if is_first_rank():
                self._journal.write(self._counted(number, started).model_copy(update={"starts": 0}))
            raise
        except Exception as error:  # what a trainer may raise is known to the table of failures alone
            end = self._failed(error)
        self._base.loaded.restore()
        end_tracked_run(self._config)
        _free_memory()
        if is_first_rank():
            self._record(self._counted(number, started), end)
        wait_for_all()

    def _train(self, trial: Trial) -> TrialEnd:
        """Train with a fresh adapter, and publish it.

        Raises:
            Preempted: a pod received SIGTERM.
            StageError: training failed.
        """
        try:
            config = configure(self._config, trial, self._base)
        except ValueError as error:
            return TrialEnd(TrialState.FAILED, None, _describe_invalid(error))
        workspace = Workspace(self._place.storage, config, trial.number)
        if is_first_of_node():
            BucketCheckpoints(workspace).pull()
        wait_for_all()
        files = TrainedFiles(workspace)
        if not broadcast_from_first(_is_saved(files, config)):
            try:
                trained = self._train_on_base(config, trial.number, workspace)
            except Pruned as pruned:
                return TrialEnd(TrialState.PRUNED, self._last_loss(trial.number), str(pruned))
            self._save(trained, config, files)
        return self._publish(config, workspace, files) if is_first_rank() else _ELSEWHERE

    def _train_on_base(self, config: TrainConfig, number: int, workspace: Workspace) -> TrainedModel:
        place = self._place
        loop = ResumableTraining(config, workspace, place.preemption, self._progress)
        measure = MeasureTrial(
            CheckpointSelection(config.method, config.early_stopping),
            measured=lambda measurements: self._compare(number, measurements),
            saved=lambda: self._note_checkpoint(number),
            pruner=self._settings.pruner,
        )
        logs = place.workspace.logs / f"trial-{number}"
        return train_on_base(
            self._base,
            config,
            loop,
            TrainingPlace(place.storage, logs, reports_steps=False),
            [measure, ReportSteps(self._progress), *self._limits()],
        )

    def _limits(self) -> list[StopAtBudget]:
        """The end of the budget; none without one, and without GPUs."""
        gpus = self._config.nodes * self._config.gpus_per_node
        if self._settings.gpu_seconds is None or not gpus:
            return []
        spent = broadcast_from_first(sum(trial.gpu_seconds for trial in self._journal.trials))
        return [StopAtBudget((self._settings.gpu_seconds - spent) / gpus)]

    def _save(self, trained: TrainedModel, config: TrainConfig, files: TrainedFiles) -> None:
        """Save a trained model with its probes, on the first worker.

        Raises:
            UserError: training diverged, or changed nothing.
        """
        measured = trained.measure() if measures_in_place(config) else None
        if is_first_rank():
            probes = choose_probes(trained.record, measured) if measured else None
            trained.save(files)
            if probes:
                files.save_probes(probes)

    def _publish(self, config: TrainConfig, workspace: Workspace, files: TrainedFiles) -> TrialEnd:
        """Publish a saved model; one that has to be measured on another base model is published if it is the best."""
        record = files.load()
        loss = record.training["eval_loss"]
        if not math.isfinite(loss):
            return TrialEnd(TrialState.FAILED, None, "Diverged: the validation loss is not a number")
        probes = NO_PROBES if config.method.reward is not None else files.load_probes()
        artifact = None
        if probes is not None:
            based = self._base.start.as_base_of(config)
            chat = find_chat_format(self._base.renderer.tokenizer, config.template_arguments or {})
            artifact = publish_trained(files.weights, based, probes, workspace, chat)
        return TrialEnd(TrialState.COMPLETED, loss, artifact=artifact)

    def _failed(self, error: Exception) -> TrialEnd:
        """End of a trial that raised an error, where the next one may do better; else raises it again."""
        failure = describe(error)
        # The other workers wait for one that ran out of memory: only a new attempt can free them.
        alone = world_size() == 1 or failure.reason != "OutOfMemory"
        if failure.reason not in _OWN_REASONS or not alone:
            raise error
        return TrialEnd(TrialState.FAILED, None, _shorten(failure))

    def _compare(self, number: int, measurements: tuple[Measurement, ...]) -> bool:
        """Record a trial's validation losses; true if it falls behind. All workers call it."""
        behind = False
        if is_first_rank():
            entry = self._entry(number)
            trial = entry.trial.model_copy(
                update={"measurements": measurements, "loss": measurements[-1].loss if measurements else None}
            )
            self._journal.write(entry.model_copy(update={"trial": trial}))
            behind = falls_behind(self._settings, self._journal.trials, number)
        return bool(broadcast_from_first(behind))

    def _note_checkpoint(self, number: int) -> None:
        """A trial that makes progress after a restart is not at fault for it."""
        entry = self._entry(number)
        if entry.starts > 1:
            self._journal.write(entry.model_copy(update={"starts": 1}))

    def _counted(self, number: int, started: float) -> JournalEntry:
        """The trial's entry, with the GPU time since ``started`` added."""
        entry = self._entry(number)
        gpus = self._config.nodes * self._config.gpus_per_node
        seconds = entry.trial.gpu_seconds + (time.monotonic() - started) * gpus
        return entry.model_copy(
            update={"trial": entry.trial.model_copy(update={"gpu_seconds": round(seconds, 1)})}
        )

    def _record(self, entry: JournalEntry, end: TrialEnd) -> None:
        """Write the end of a trial, and remove files that are no longer needed."""
        trial = entry.trial.model_copy(update={"state": end.state, "loss": end.loss, "message": end.message})
        before = best_trial(self._journal.trials)
        self._journal.write(entry.model_copy(update={"trial": trial, "artifact": end.artifact}))
        best = best_trial(self._journal.trials)
        for other in {trial.number, before.number if before else trial.number}:
            if best is None or other != best.number:
                Workspace(self._place.storage, self._config, other).prune()
        self._progress.announce_trials()

    def _entry(self, number: int) -> JournalEntry:
        return next(entry for entry in self._journal.entries if entry.trial.number == number)

    def _last_loss(self, number: int) -> float | None:
        return self._entry(number).trial.loss if is_first_rank() else None


#: End of a trial on a worker that does not record it.
_ELSEWHERE = TrialEnd(TrialState.COMPLETED, None)


def _is_saved(files: TrainedFiles, config: TrainConfig) -> bool:
    """True if an earlier process has saved the trained model, with its probes where the model in training is measured.

    Without them training goes on from its last checkpoint, after which no steps are left.
    """
    return files.exist() and (not measures_in_place(config) or files.load_probes() is not None)


def configure(config: TrainConfig, trial: Trial, base: LoadedBase) -> TrainConfig:
    """Configuration of a trial, whose checkpoints are at the points of comparison.

    Raises:
        ValueError: the trial's parameters can't be used together.
    """
    sequences = _count_sequences(config, base)
    batch = configure_trial(config, trial.parameters).hyperparameters.batch_size
    steps = math.ceil(sequences * answers_to_a_prompt(config.method) / batch)
    return configure_trial(config, trial.parameters, steps)


def _count_sequences(config: TrainConfig, base: LoadedBase) -> int:
    """Sequences of an epoch: rows, or packed sequences."""
    rows, tokens = base.rows.train, 0
    if is_packed(config.method):
        tokens = sum(length for length in base.renderer.lengths(rows) if isinstance(length, int))
    return count_sequences(config.method, len(rows), tokens)


def _describe_invalid(error: ValueError) -> str:
    """Message of a trial whose parameters can't be used together."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())[:_MESSAGE_CHARACTERS]
    return str(error)[:_MESSAGE_CHARACTERS]


def _shorten(failure: Failure) -> str:
    return f"{failure.reason}: {failure.message}"[:_MESSAGE_CHARACTERS]


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
