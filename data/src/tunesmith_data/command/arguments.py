"""Command-line arguments of ``prepare``, and the prepare configuration made from them."""

import argparse
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.answer_formats import Switch
from tunesmith_contract.methods import Method
from tunesmith_contract.run_config import (
    Deduplicate,
    HeldOut,
    OnInvalidRow,
    Owner,
    PersonalData,
    PrepareConfig,
    ValidationSource,
)
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import UserError

from .estimate import EPOCHS, TrainingPlan, require_product
from .host_files import data_uri, host_uri, model_uri

USAGE = "%(prog)s FILE [FILE …] --model MODEL [options]"
OUTPUT = Path("tunesmith-data")
SEED = 42

#: Rows of these methods are checked; GRPO and RLOO need a reward, but no check depends on which.
METHODS = ("sft", "dpo", "kto", "reward", "pretraining", "grpo", "rloo")
#: Name, and most characters of a value, of an argument of a chat template.
_TEMPLATE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TEMPLATE_VALUE = 256
_ONLINE = frozenset({"grpo", "rloo"})
_REWARD = {"name": "length", "length": {"maxTokens": 256}}


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """A prepare run as requested on the command line.

    Attributes:
        model: the model as written on the command line.
        folder: output folder.
        strict: warnings count as failures.
        open_page: the page is shown in a browser.
    """

    config: PrepareConfig
    plan: TrainingPlan
    model: str
    folder: Path
    strict: bool
    open_page: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments and options of ``prepare FILE --model …``."""
    parser.usage = USAGE
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="rows to check: files, folders, or URIs such as s3://…")
    add("--model", metavar="MODEL", help="a model's folder, or a hub's model such as org/name")
    _add_choice(add, "--method", METHODS, "sft", "training method")
    _add_choice(add, "--format", DataFormat, "Auto", "format of the rows")
    add("--validation", metavar="FILE|FRACTION", default="0.1", help="validation rows (0.1)")
    add("--held-out", metavar="NAME=FILE", action="append", default=[], help="rows of an evaluation suite")
    _add_choice(add, "--deduplicate", Deduplicate, "Exact", "duplicates to remove")
    _add_choice(add, "--personal-data", PersonalData, "Report", "action for personal data")
    _add_choice(add, "--on-invalid-row", OnInvalidRow, "Fail", "action for rows that fail a check")
    add(
        "--max-invalid-fraction",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="share of dropped rows (0.01)",
    )
    add("--max-length", type=int, metavar="TOKENS", help="maximum row length (the method's default)")
    add(
        "--template-arguments",
        metavar="NAME=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="arguments of the chat template, with values in JSON, such as enable_thinking=false",
    )
    add("--group-field", metavar="FIELD", help="rows with the same value stay together")
    add("--stratify-field", metavar="FIELD", help="each value is held out in the same proportion")
    add("--epochs", type=int, metavar="N", default=EPOCHS, help=f"for the estimate ({EPOCHS})")
    add("--batch-size", type=int, metavar="N", help="for the estimate (Auto)")
    add("--gpu", help="for the estimate, such as H100")
    add("--price-per-gpu-hour", type=float, metavar="PRICE", help="for the estimate")
    add("--currency", default="EUR", help="of the price (EUR)")
    add("--output", type=Path, default=OUTPUT, metavar="DIR", help=f"output folder (./{OUTPUT})")
    add("--strict", action="store_true", help="warnings fail too, for checks before a merge")
    add("--open", action="store_true", help="show the page in a browser")


def _add_choice(
    add: Callable[..., object], option: str, choices: Iterable[str], default: str, text: str
) -> None:
    names = [*map(str, choices)]
    add(
        option, choices=names, default=default, metavar="WORD", help=f"{text}: {', '.join(names)} ({default})"
    )


def read_request(options: argparse.Namespace) -> PrepareRequest:
    """The run that the options ask for.

    Raises:
        UserError: a file is missing, or options contradict each other; the message has the correction.
    """
    if not options.files:
        raise UserError("NoFiles", "no file is named: write prepare FILE --model MODEL")
    if not options.model:
        raise UserError("NoModel", "no model is named: add --model with a folder, or a hub's org/name")
    if options.output.exists() and not options.output.is_dir():
        raise UserError("OutputNotAFolder", f"{options.output} is a file: write --output with a folder")
    try:
        config = _config(options)
    except ValidationError as error:
        raise UserError("InvalidOption", _first_problem(error)) from None
    return PrepareRequest(
        config=config,
        plan=_plan(options, config.method),
        model=options.model,
        folder=options.output,
        strict=options.strict,
        open_page=options.open,
    )


def _config(options: argparse.Namespace) -> PrepareConfig:
    return PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace="", name=_title(options.files), uid=""),
        base_model=model_uri(options.model),
        train=tuple(map(data_uri, options.files)),
        validation=_validation(options),
        held_out=tuple(map(_held_out, options.held_out)),
        format=options.format,
        on_invalid_row=options.on_invalid_row,
        max_invalid_fraction=options.max_invalid_fraction,
        deduplicate=options.deduplicate,
        personal_data=options.personal_data,
        method=_method(options.method, options.max_length),
        template_arguments=dict(map(_template_argument, options.template_arguments)) or None,
        seed=SEED,
        output=host_uri(options.output),
    )


def _title(files: list[str]) -> str:
    name = Path(files[0]).name
    return name if len(files) == 1 else f"{name} and {len(files) - 1} more"


def _validation(options: argparse.Namespace) -> ValidationSource:
    fields = {"group_field": options.group_field, "stratify_field": options.stratify_field}
    try:
        fraction = float(options.validation)
    except ValueError:
        return ValidationSource(uri=data_uri(options.validation), **fields)
    if not 0 <= fraction < 1:
        message = f"--validation {options.validation}: write a file, or a fraction from 0 on and below 1"
        raise UserError("InvalidOption", message)
    return ValidationSource(fraction=fraction, **fields)


def _held_out(written: str) -> HeldOut:
    name, separator, file = written.partition("=")
    if not separator:
        raise UserError(
            "InvalidOption", f"--held-out {written}: write NAME=FILE, such as refunds=refunds.jsonl"
        )
    try:
        return HeldOut(name=name, uri=data_uri(file))
    except ValidationError:
        message = f"--held-out {written}: write a name of at most 32 lower-case letters, digits and hyphens"
        raise UserError("InvalidOption", message) from None


def _template_argument(written: str) -> tuple[str, Switch]:
    """Name and value of one argument of the chat template, as ``templateArguments`` of a job has them."""
    name, _, text = written.partition("=")
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if (
        _TEMPLATE_NAME.fullmatch(name)
        and len(text) <= _TEMPLATE_VALUE
        and type(value) in {bool, int, float, str}
    ):
        return name, value
    message = (
        f"--template-arguments {written}: write NAME=VALUE with true, false, a number, or a string in two pairs of "
        "quotes, such as enable_thinking=false or 'reasoning_effort=\"low\"'"
    )
    raise UserError("InvalidOption", message)


def _method(key: str, max_length: int | None) -> Method:
    member: dict[str, object] = {} if max_length is None else {"maxLength": max_length}
    if key in _ONLINE:
        member["rewards"] = [_REWARD]
    return Method.model_validate({key: member})


def _plan(options: argparse.Namespace, method: Method) -> TrainingPlan:
    """Training plan from the options.

    Raises:
        UserError: unknown GPU, or a number out of range.
    """
    if options.epochs < 1 or (options.batch_size is not None and options.batch_size < 1):
        raise UserError("InvalidOption", "--epochs and --batch-size: write a number from 1 on")
    if options.price_per_gpu_hour is not None and options.gpu is None:
        raise UserError(
            "InvalidOption", "--price-per-gpu-hour needs to know the GPU: add --gpu, such as H100"
        )
    if options.gpu is not None:
        require_product(options.gpu)
    return TrainingPlan(
        method=method,
        epochs=options.epochs,
        batch_size=options.batch_size,
        gpu=options.gpu,
        price_per_gpu_hour=options.price_per_gpu_hour,
        currency=options.currency,
    )


def _first_problem(error: ValidationError) -> str:
    """Message about the first invalid option, by its name."""
    first = error.errors()[0]
    member = next((part for part in reversed(first["loc"]) if isinstance(part, str)), "")
    words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in member)
    return f"--{words.replace('_', '-')}: {first['input']!r} is not valid: {first['msg'].lower()}"
