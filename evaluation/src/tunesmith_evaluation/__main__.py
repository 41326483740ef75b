"""Console command ``tunesmith-eval run|report``, for a computer without a cluster and for pipelines."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from tunesmith_contract.exit_codes import ExitCode

from .command.report_command import add_report_arguments, report_here
from .command.run_command import add_run_arguments, evaluate_here

_RUN = "compare models by the manifest of an EvalRun; the exit code is 0 for Pass, 1 for Fail, 2 for Inconclusive"
_REPORT = "render reports again, and list them on one page"


class _Parser(argparse.ArgumentParser):
    """Parser whose errors don't look like the verdict Inconclusive, which is exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and end the process."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USER_ERROR, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 or 2 for Pass, Fail and Inconclusive, and one of the contract's codes for an error."""
    options = build_parser().parse_args(arguments)
    return int(options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    parser = _Parser(
        prog="tunesmith-eval",
        description="Evaluate models without a cluster, on a computer or in a pipeline.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help=_RUN, description=_sentence(_RUN))
    add_run_arguments(run)
    run.set_defaults(run=evaluate_here)
    report = commands.add_parser("report", help=_REPORT, description=_sentence(_REPORT))
    add_report_arguments(report)
    report.set_defaults(run=report_here)
    return parser


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


if __name__ == "__main__":
    sys.exit(main())
