"""Work that an earlier resource of the same name and spec has finished, told to a pod that may find it unchanged."""

from .base import Digest, Report
from .report import EvaluationReport
from .sources import ArtifactSource


class FinishedWork(Report):
    """Finished work that a pod compares with what it finds, in the environment variable ``FINISHED_ENV``.

    A variable, not a member of ``run.json``: an image of an earlier release does not know it, and does the work again.

    Attributes:
        uid: UID of the resource that did the work.
        artifacts: the artifact of a training and its exports, all of which must still be stored.
        dataset_digest: digest of the rows that were trained on; None for an evaluation.
        base_model_revision: revision of the model that was trained.
        evaluation: report of an evaluation; None for a training.
    """

    uid: str
    artifacts: tuple[ArtifactSource, ...] = ()
    dataset_digest: Digest | None = None
    base_model_revision: str = ""
    evaluation: EvaluationReport | None = None
