"""Worker process: runs one stage and writes its report to a file for the launcher.

``python -m tunesmith_trainer.worker --config run.json --mount-root DIR --report-file FILE``
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tunesmith_contract.exit_codes import ExitCode, exit_code_of
from tunesmith_contract.report import Outcome, RunReport
from tunesmith_contract.run_config import (
    AnyConfig,
    EvaluateConfig,
    GenerateConfig,
    PrepareConfig,
    TrainConfig,
    parse_run_config,
)
from tunesmith_data.failures import Preempted, describe
from tunesmith_data.pod.finished import read_finished
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.share import INDEX_ENV, read_share
from tunesmith_data.pod.storage import Storage, write_atomically
from tunesmith_data.pod.workspace import Workspace

from .gpu.device import hide_unrequested_gpus, uses_gpu, worker_device
from .preemption import InterruptibleProgress, Preemption

# Files are shared through group 0: the next pod may run as another user.
_UMASK = 0o002

#: Stages whose work files are input of the next stage.
_STAGES_WITH_SUCCESSOR = frozenset({"generate", "prepare"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage named on the command line; return the contract's exit code."""
    parser = argparse.ArgumentParser(prog="tunesmith_trainer.worker")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--mount-root", type=Path, required=True)
    parser.add_argument("--report-file", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs thousands of requests
    os.umask(_UMASK)
    rank = int(os.environ.get("RANK", os.environ.get(INDEX_ENV, "0")))
    report, code = _run(options.stage, options.config, Storage(options.mount_root), rank)
    if report is not None:
        write_atomically(options.report_file, report.to_json().encode())
    return code


def _run(stage: str, config_file: Path, storage: Storage, rank: int) -> tuple[RunReport | None, ExitCode]:
    """Run a stage; its report and exit code, with any exception turned into one of the contract's failures."""
    try:
        config = parse_run_config(config_file.read_bytes())
        if config.stage != stage:
            raise ValueError(f"{config_file} is for the stage {config.stage}, not {stage}")
        return run_stage(config, storage.for_run(config)), ExitCode.SUCCEEDED
    except Preempted:
        return RunReport.model_validate({"stage": stage, "outcome": Outcome.PREEMPTED}), ExitCode.PREEMPTED
    except Exception as error:  # the outermost frame of the process
        traceback.print_exc()
        failure = describe(error)
        code = exit_code_of(failure.category)
        failure = failure.model_copy(update={"rank": rank, "exit_code": int(code)})
        report = RunReport.model_validate({"stage": stage, "outcome": Outcome.FAILED, "failure": failure})
        return report, code


def run_stage(config: AnyConfig, storage: Storage) -> RunReport | None:
    """Run a stage, or return the report that an earlier attempt committed.

    Work files are removed after the last stage of a run. None on all ranks but the first, and in all pods but the first
    that share the items of an evaluation.

    Raises:
        Preempted: the pod received SIGTERM; what was done is saved.
        StageError: the stage failed, or the GPUs that it asks for can't be used.
    """
    hide_unrequested_gpus(config, os.environ)
    preemption = Preemption()
    if not isinstance(config, PrepareConfig):
        preemption.listen()
    share = read_share(config, os.environ)
    workspace = Workspace(storage, config, share=share)
    report = workspace.committed_report()
    if report is not None and not share.is_first:
        return None
    if report is None:
        if uses_gpu(config):
            from .gpu.preflight import check_gpus

            check_gpus(config, os.environ)
        workspace.pull()
        try:
            report = _dispatch(config, storage, workspace, preemption)
        except Exception:
            workspace.save_unfinished()
            raise
    if report is not None and config.stage not in _STAGES_WITH_SUCCESSOR:
        workspace.prune()
    return report


def _dispatch(
    config: AnyConfig,
    storage: Storage,
    workspace: Workspace,
    preemption: Preemption,
) -> RunReport | None:
    """Run the stage of a configuration; each imports its own libraries, since torch alone takes seconds."""
    match config:
        case GenerateConfig():
            from tunesmith_data.generate.rate_limiter import Clock
            from tunesmith_data.generate.stage import generate

            from .rewards.model_scorer import build_model_scorer

            build_model = partial(build_model_scorer, device=worker_device(config))
            clock, progress = Clock(sleep=preemption.sleep), InterruptibleProgress(preemption)
            return generate(config, storage, workspace, progress, clock, build_model)
        case PrepareConfig():
            from tunesmith_data.prepare import prepare

            return prepare(config, storage, workspace, ProgressReporter(), read_finished(os.environ))
        case TrainConfig():
            from tunesmith_trainer.train.stage import train

            return train(config, storage, workspace, preemption)
        case EvaluateConfig():
            from tunesmith_evaluation.stage.evaluate import evaluate

            finished = read_finished(os.environ)
            return evaluate(config, storage, workspace, InterruptibleProgress(preemption), finished)


if __name__ == "__main__":
    sys.exit(main())
