"""``python -m tunesmith_trainer <generate|prepare|train|evaluate>``: PID 1 of a training pod."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tunesmith_contract.layout import CONFIG_DIR, RUN_FILE, TERMINATION_LOG
from tunesmith_contract.run_config import TrainConfig, parse_run_config
from tunesmith_contract.uris import MOUNT_ROOT
from tunesmith_trainer.launcher.launcher import Gang, Launcher, read_gang

STAGES = {
    "generate": "let a teacher make rows, within a budget",
    "prepare": "read, check, clean and split the data",
    "train": "train on what was prepared",
    "evaluate": "let contestants answer the same items",
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
    """The gang that a run asks for; a file that can't be read is left to the worker, which reports it."""
    try:
        config = parse_run_config(config_file.read_bytes())
    except (OSError, ValueError):
        return Gang()
    if not isinstance(config, TrainConfig):
        return Gang()
    return read_gang(max(1, config.gpus_per_node), config.nodes, os.environ)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tunesmith_trainer", description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, text in STAGES.items():
        stage = stages.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_pod_arguments(stage)
    return parser


def _add_pod_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path(CONFIG_DIR / RUN_FILE), help="the run's run.json")
    parser.add_argument("--mount-root", type=Path, default=Path(MOUNT_ROOT), help="where volumes are mounted")
    parser.add_argument(
        "--termination-log", type=Path, default=Path(TERMINATION_LOG), help="where the last word goes"
    )


if __name__ == "__main__":
    sys.exit(main())
