"""Train stage: prepared rows in, published artifact and committed report out."""

from dataclasses import replace

from tunesmith_contract.report import RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.distributed.control_group import broadcast_from_first, wait_for_all
from tunesmith_trainer.train.distributed.parallel import gang, is_first_rank, world_size

from .finish import choose_probes, finish, measures_in_place, needs_new_process
from .search.stage import search
from .starting_point import find_starting_point
from .trained_files import TrainedFiles
from .training_run import run_training


def train(
    config: TrainConfig, storage: Storage, workspace: Workspace, preemption: Preemption
) -> RunReport | None:
    """Run the stage, from the trained model of an earlier process if that has saved one.

    Returns:
        The report. None on all ranks but the first; and on that too if a new process, which has the memory of all
        workers, has to finish the stage by calling this function again.

    Raises:
        Preempted: a pod received SIGTERM; the state is committed as a checkpoint.
        StageError: the run can't succeed.
    """
    if config.search is not None:
        return search(config, storage, workspace, preemption)
    files = TrainedFiles(workspace)
    is_trained = files.exist()
    if is_trained and world_size() == 1:
        return finish(config, find_starting_point(config, storage, verify=True), workspace, preemption)
    with gang(config, preemption):
        if broadcast_from_first(is_trained):
            return None
        # Other nodes fetch the one that is resumed from.
        if is_first_rank():
            BucketCheckpoints(workspace).pull()
        wait_for_all()
        start = find_starting_point(config, storage, verify=is_first_rank())
        # Reading all bytes of a large base takes minutes: the others wait before they load it in parts.
        start = replace(start, revision=broadcast_from_first(start.revision))
        trained = run_training(config, start, storage, workspace, preemption)
        if measures_in_place(config):
            trained.save(files)
            measured = trained.measure()
    # The other workers have left as well: none of them waits while the first one goes on alone.
    if not is_first_rank():
        return None
    if measures_in_place(config):
        files.save_probes(choose_probes(trained.record, measured))
    else:
        trained.save(files)
    return None if needs_new_process(config) else finish(config, start, workspace, preemption)
