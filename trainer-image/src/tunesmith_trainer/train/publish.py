"""Publication of a trained model as the primary artifact of its run."""

import uuid
from pathlib import Path

from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.report import Artifact
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.storage import link_folder
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.train.artifact.files import artifact_kind, publish_folder
from tunesmith_trainer.train.artifact.probes import MeasuredProbes


def publish_trained(
    trained: Path,
    config: TrainConfig,
    probes: MeasuredProbes,
    workspace: Workspace,
    chat: ChatFormat | None = None,
) -> Artifact:
    """Publish the adapter or model in a folder, which stays.

    Args:
        trained: the folder, with model card and metrics.
        config: the run.
        probes: token sequences by which a server verifies what it serves.
        workspace: the run's workspace.
        chat: form of its conversations and answers; None without a chat template.

    Raises:
        StorageError: the place holds other bytes, or can't be written.
    """
    staged = workspace.staging / uuid.uuid4().hex
    staged.parent.mkdir(parents=True, exist_ok=True)
    link_folder(trained, staged)
    return publish_folder(staged, artifact_kind(config), config, workspace, probes, chat)
