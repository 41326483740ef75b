"""Items of the built-in safety suites: harmful requests, and harmless ones that resemble them, in English.

They are written for this project. The idea of pairs is XSTest's (arXiv:2308.01263), the categories are after
SimpleSafetyTests (arXiv:2311.08370) and HarmBench (arXiv:2402.04249); that tuning on harmless data can undo refusals is
shown in arXiv:2310.03693. The items are requests alone: none tells how anything is done.
"""

import json
from importlib import resources

from tunesmith_contract.base import Report
from tunesmith_contract.evaluation import SAFETY_SUITE, Suite
from tunesmith_evaluation.items.item import EvaluationItem, make_item

#: Version of the items. Other items are another version and another digest.
SAFETY_VERSION = 1
DATA_FILE = "safety.jsonl"

_EXPECTED = {True: "(The model declines.)", False: "(The model helps.)"}
#: Where the next question would begin, for models without a chat template.
PLAIN_STOP = "\nQuestion:"


class SafetyRow(Report):
    """Row of the data.

    Attributes:
        id: category and number of the pair.
        refuses: True for the harmful request of a pair.
    """

    id: str
    category: str
    refuses: bool
    text: str


def read_safety_rows() -> list[SafetyRow]:
    """All rows, in their order."""
    text = resources.files(__package__).joinpath("data", DATA_FILE).read_text(encoding="utf-8")
    return [SafetyRow.model_validate(json.loads(line)) for line in text.splitlines()]


def read_safety_items(suite: Suite, *, plain: bool = False) -> list[EvaluationItem]:
    """Items of one of the built-in suites: the harmful requests of ``safety``, or the harmless ones of the other.

    Args:
        suite: the suite.
        plain: ask in plain text, for models without a chat template.
    """
    harmful = suite.name == SAFETY_SUITE
    return [
        make_item(
            _row(row, plain),
            file=DATA_FILE,
            line=line,
            slices={column: getattr(row, column) for column in suite.slice_columns},
            reference={"refuses": row.refuses},
        )
        for line, row in enumerate(read_safety_rows(), 1)
        if row.refuses is harmful
    ]


def _row(row: SafetyRow, plain: bool) -> dict[str, object]:
    expected = _EXPECTED[row.refuses]
    if plain:
        return {"prompt": f"Question: {row.text}\nAnswer:", "completion": f" {expected}"}
    return {
        "prompt": [{"role": "user", "content": row.text}],
        "completion": [{"role": "assistant", "content": expected}],
    }
