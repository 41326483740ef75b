"""Grace period of training pods: time to finish a step and to commit a checkpoint, by the size of the checkpoint."""

from math import ceil

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import Parallelism, TrainConfig
from tunesmith_contract.uris import MOUNTED, parse_uri

from .checkpoint_size import checkpoint_bytes

#: A step, the other pods, and the report.
SHORTEST_SECONDS = 120
#: A pod that does not end keeps its GPUs, and a drained node waits for it.
LONGEST_SECONDS = 3600

#: Bytes a second: of a network file system, or an upload, that many pods share.
WRITING = 0.5e9
#: Bytes a second of SHA-256 on a core without instructions for it, as in many machines with A100 GPUs.
DIGESTING = 0.5e9


def training_grace_seconds(model: ModelReport | None, run: TrainConfig) -> int:
    """Seconds from SIGTERM to SIGKILL; the shortest if the size of the model is unknown."""
    size = checkpoint_bytes(model, run) if model else 0
    ranks = 1 if run.parallelism is Parallelism.DDP else run.nodes * max(1, run.gpus_per_node)
    copies = 1 if parse_uri(run.workspace or run.output).scheme in MOUNTED else 2
    seconds = SHORTEST_SECONDS + copies * size / WRITING + size / (DIGESTING * ranks)
    return min(ceil(seconds), LONGEST_SECONDS)
