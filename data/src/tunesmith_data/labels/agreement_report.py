"""How far people agree on a task, as one document."""

from tunesmith_data.rows.report.label_agreement import Agreement

from .tasks import Task

#: Beside the data report of a job that learns from labels.
AGREEMENT_FILE = "agreement.json"


class AgreementReport(Agreement):
    """What people were asked, and how far they agree."""

    task: Task

    @property
    def agreement_alone(self) -> Agreement:
        """Without the task."""
        return Agreement.model_validate(self.model_dump(exclude={"task"}))
