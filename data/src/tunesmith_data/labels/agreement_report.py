"""Agreement of annotators with their labeling task, as in ``agreement.json``."""

from tunesmith_data.rows.report.label_agreement import LabelAgreement

from .tasks import LabelTask

#: Beside the data report of a job that learns from labels.
AGREEMENT_FILE = "agreement.json"


class AgreementReport(LabelAgreement):
    """Agreement of annotators together with their task."""

    task: LabelTask

    @property
    def agreement_alone(self) -> LabelAgreement:
        """The agreement without the task."""
        return LabelAgreement.model_validate(self.model_dump(exclude={"task"}))
