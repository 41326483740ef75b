"""All that a FineTuneJob's status is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.decide.fit.admission import Admission
from tunesmith.decide.fit.estimate import Expected
from tunesmith.decide.run.stage import Step
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith.manifests.train_job import STAGE as TRAIN
from tunesmith_contract.progress import TrainerStatus
from tunesmith_contract.report import TrainingReport
from tunesmith_contract.run_config import TrainConfig


@dataclass(frozen=True, slots=True)
class TrainingView:
    """What a status is made of.

    Attributes:
        inputs, run: the snapshots; ``run`` is None until the data is prepared, ``inputs`` where the job was refused
            before it began.
        step: where the current stage stands.
        stage: ``generate``, ``prepare`` or ``train``.
        eval_run: name of the EvalRun that was made.
        progress: the latest news from the current attempt.
        admission: the verdicts on what training takes and makes, where they were not in status before.
        expected: what the whole of training is expected to take, as seen before it began; likewise.
    """

    inputs: Inputs | None
    run: TrainConfig | None
    step: Step
    stage: str
    eval_run: str | None
    progress: TrainerStatus | None
    admission: Admission | None = None
    expected: Expected | None = None

    @property
    def training(self) -> TrainingReport | None:
        """How training went, once it has succeeded."""
        report = self.step.report(TRAIN)
        return report.training if report else None

    @property
    def metrics(self) -> Mapping[str, str]:
        """What the pods said last, by name."""
        return {item.name: item.value for item in self.progress.metrics} if self.progress else {}
