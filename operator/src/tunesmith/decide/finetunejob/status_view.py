"""Values from which the status of a FineTuneJob is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunesmith.decide.fit.admission import Admission
from tunesmith.decide.fit.estimate import Expected
from tunesmith.decide.run.stage import Step
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.progress import TrainerStatus
from tunesmith_contract.report import TrainingReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_contract.search import SearchSettings, Trial
from tunesmith_contract.stages import Stage


@dataclass(frozen=True, slots=True)
class SearchView:
    """Trials of a search that status shows.

    Attributes:
        in_jobs: each trial is a FineTuneJob, with GPU time of its own.
        folder: URI of table and plot that a shared pod has left.
    """

    settings: SearchSettings
    trials: tuple[Trial, ...]
    in_jobs: bool
    folder: str | None = None

    @property
    def gpu_seconds(self) -> float:
        """GPU time of ended trials beside that of the job's own pods."""
        return sum(trial.gpu_seconds for trial in self.trials) if self.in_jobs else 0.0


@dataclass(frozen=True, slots=True)
class TrainingView:
    """State of a FineTuneJob that its status shows.

    Attributes:
        inputs, run: the snapshots; ``run`` is None until the data is prepared, ``inputs`` where the job was refused
            before it began.
        step: step of the current stage.
        stage: ``generate``, ``prepare`` or ``train``.
        eval_run: name of the EvalRun that was made.
        progress: the latest update of the current attempt.
        admission: the verdicts on memory and servability, where status does not have them yet.
        expected: estimated cost of the training before it begins, where status does not have it yet.
        requests: default requests of each training pod.
        evaluation_gpu_seconds: GPU time of the EvalRun that the job made; None where there is none.
        search: the trials of a search.
    """

    inputs: Inputs | None
    run: TrainConfig | None
    step: Step
    stage: Stage
    eval_run: str | None
    progress: TrainerStatus | None
    admission: Admission | None = None
    expected: Expected | None = None
    requests: Mapping[str, str] = field(default_factory=dict)
    evaluation_gpu_seconds: float | None = None
    search: SearchView | None = None

    @property
    def training(self) -> TrainingReport | None:
        """Report of the training, once it has succeeded."""
        report = self.step.report(Stage.TRAIN)
        return report.training if report else None

    @property
    def metrics(self) -> Mapping[str, str]:
        """Metrics of the latest update, by name."""
        return {item.name: item.value for item in self.progress.metrics} if self.progress else {}
