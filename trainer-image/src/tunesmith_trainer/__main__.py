"""Command line of a training pod: ``python -m tunesmith_trainer <generate|prepare|train|evaluate>``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tunesmith_contract.layout import CONFIG_DIR, RUN_FILE, TERMINATION_LOG
from tunesmith_contract.run_config import TrainConfig, parse_run_config
from tunesmith_contract.uris import MOUNT_ROOT
from tunesmith_data.pod.share import read_share
from tunesmith_trainer.launcher.launcher import Gang, Launcher, read_gang

STAGES = {
    "generate": "generate rows with a teacher model, within a budget",
    "prepare": "read, check, clean and split the data",
    "train": "train on the prepared data",
    "evaluate": "score the answers of all sides to the same items",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage in worker processes; return the contract's exit code."""
    options = build_parser().parse_args(arguments)
    gang = find_gang(options.config)
    command = [
        *(sys.executable, "-m", "tunesmith_trainer.worker"),
        *("--stage", options.stage),
        *("--config", str(options.config)),
        *("--mount-root", str(options.mount_root)),
    ]
    return int(Launcher(options.stage, command, gang, options.termination_log).run())


def find_gang(config_file: Path) -> Gang:
    """Gang of worker processes that a run needs; one worker if the file is unreadable, which the worker reports.

    Pods that share the items of an evaluation don't connect: each is a gang of one, of which the first reports.
    """
    try:
        config = parse_run_config(config_file.read_bytes())
    except (OSError, ValueError):
        return Gang()
    if not isinstance(config, TrainConfig):
        return Gang(node_rank=read_share(config, os.environ).index)
    return read_gang(max(1, config.gpus_per_node), config.nodes, os.environ)


def build_parser() -> argparse.ArgumentParser:
    """Argument parser with one subcommand per stage."""
    parser = argparse.ArgumentParser(prog="tunesmith_trainer", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, text in STAGES.items():
        stage = stages.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        stage.add_argument(
            "--config", type=Path, default=Path(CONFIG_DIR / RUN_FILE), help="the run's run.json"
        )
        stage.add_argument(
            "--mount-root", type=Path, default=Path(MOUNT_ROOT), help="folder in which volumes are mounted"
        )
        stage.add_argument(
            "--termination-log",
            type=Path,
            default=Path(TERMINATION_LOG),
            help="file for the termination message",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
