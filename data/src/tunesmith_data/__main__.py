"""Console command ``tunesmith-data prepare|labels``, for a computer without a cluster."""

import argparse
import sys
from collections.abc import Sequence

from .command.arguments import add_arguments
from .command.prepare_command import prepare_here

_PREPARE = "read, check, clean and split rows; show what was found on one page"
_LABELS = "take rows to people, and back with their answers"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the contract's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["labels"]:
        # Imported here: checking rows needs no Argilla.
        from .labels.command import main as run_labels

        return run_labels(arguments[1:])
    return int(prepare_here(build_parser().parse_args(arguments)))


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line; ``labels`` has a separate one."""
    parser = argparse.ArgumentParser(prog="tunesmith-data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_arguments(commands.add_parser("prepare", help=_PREPARE, description=f"{_PREPARE.capitalize()}."))
    commands.add_parser("labels", help=_LABELS, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
