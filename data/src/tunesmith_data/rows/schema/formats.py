"""Row formats: detection, and the formats that each purpose accepts.

=====================  ==============================================================================
format                 canonical row
=====================  ==============================================================================
``Chat``               ``{"messages": [message, …], "tools"?: […]}``
``PromptCompletion``   ``{"prompt", "completion", "tools"?}``
``Preference``         ``{"prompt", "chosen", "rejected", "tools"?}``
``UnpairedPreference``  ``{"prompt", "completion", "label": bool, "tools"?}``
``Prompt``             ``{"prompt", "answer"?: text, "tools"?}``
``Text``               ``{"text"}``
``ShareGPT``           as ``Chat``, ``Preference`` or ``UnpairedPreference``; see ``imports``
``Alpaca``             the same
=====================  ==============================================================================

``prompt``, ``completion``, ``chosen`` and ``rejected`` are text, or lists of messages: one or the other in a whole
row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tunesmith_contract.formats import ANSWERED, LEARNED_FORMATS
from tunesmith_contract.methods import Method
from tunesmith_contract.sources import DataFormat

Row = dict[str, Any]

#: Formats of others, which become one of the formats above.
IMPORTED = (DataFormat.SHAREGPT, DataFormat.ALPACA)

#: All members that any format uses.
KNOWN_MEMBERS = (
    *("messages", "tools", "prompt", "completion", "chosen", "rejected", "label", "answer", "text"),
    *("conversations", "system", "kto_tag", "instruction", "input", "output", "history"),
)

#: Members that rows may lack in every format.
OPTIONAL_MEMBERS = frozenset({"tools", "system", "input", "history", "answer"})


def _is_sharegpt(row: Row) -> bool:
    return "conversations" in row and "messages" not in row and "prompt" not in row


def _is_alpaca(row: Row) -> bool:
    return "instruction" in row and "prompt" not in row and ("output" in row or "chosen" in row)


_SHAPES: Mapping[DataFormat, Callable[[Row], bool]] = MappingProxyType(
    {
        DataFormat.SHAREGPT: _is_sharegpt,
        DataFormat.ALPACA: _is_alpaca,
        DataFormat.CHAT: lambda row: "messages" in row,
        DataFormat.PREFERENCE: lambda row: (
            "chosen" in row and "rejected" in row and not _is_sharegpt(row) and not _is_alpaca(row)
        ),
        DataFormat.UNPAIRED_PREFERENCE: lambda row: (
            {"prompt", "completion"} <= row.keys() and isinstance(row.get("label"), bool)
        ),
        DataFormat.PROMPT_COMPLETION: lambda row: {"prompt", "completion"} <= row.keys(),
        DataFormat.PROMPT: lambda row: "prompt" in row,
        DataFormat.TEXT: lambda row: "text" in row,
    }
)

_MEMBERS: Mapping[DataFormat, str] = MappingProxyType(
    {
        DataFormat.CHAT: '"messages"',
        DataFormat.PREFERENCE: '"prompt", "chosen" and "rejected"',
        DataFormat.UNPAIRED_PREFERENCE: '"prompt", "completion" and "label"',
        DataFormat.PROMPT_COMPLETION: '"prompt" and "completion"',
        DataFormat.PROMPT: '"prompt"',
        DataFormat.TEXT: '"text"',
        DataFormat.SHAREGPT: '"conversations"',
        DataFormat.ALPACA: '"instruction" and "output"',
    }
)


@dataclass(frozen=True, slots=True)
class Purpose:
    """Purpose for which rows are read: an evaluation, or a training method.

    Attributes:
        name: name in messages.
        formats: the formats it takes; a row that could be of two counts as the first.
        prompts_only: conversations and completions are read as prompts, their last answer as ``answer``.
        trains: rows are trained on, so that another method may suit rows of another format.
    """

    name: str
    formats: tuple[DataFormat, ...]
    prompts_only: bool = False
    trains: bool = False

    def learned(self, data_format: DataFormat) -> DataFormat:
        """The format of the canonical rows that rows of ``data_format`` become."""
        return DataFormat.PROMPT if self.prompts_only else data_format


#: Purpose that accepts any row.
ANY = Purpose("reading", tuple(_SHAPES))

EVALUATION = Purpose("an evaluation", ANSWERED)


def purpose_of(method: Method) -> Purpose:
    """Purpose of a training method."""
    formats = LEARNED_FORMATS[method.key]
    return Purpose(f"method {method.key}", formats, prompts_only=DataFormat.PROMPT in formats, trains=True)


def detect_format(row: object, purpose: Purpose = ANY) -> DataFormat | None:
    """The format that a row is written in: one that the purpose accepts, else any other; None if no format matches."""
    if not isinstance(row, dict):
        return None
    order = (*purpose.formats, *_SHAPES)
    return next((data_format for data_format in order if _SHAPES[data_format](row)), None)


def describe_members(formats: tuple[DataFormat, ...]) -> str:
    """Members of the formats as a phrase: ``"messages", or "prompt" and "completion"``.

    Formats of others are named where no other one is asked for.
    """
    own = [data_format for data_format in formats if data_format not in IMPORTED] or formats
    phrases = list(dict.fromkeys(_MEMBERS[data_format] for data_format in own))
    return ", or ".join(phrases)


def methods_for(data_format: DataFormat) -> list[str]:
    """The methods that learn from a format."""
    return [key for key, formats in LEARNED_FORMATS.items() if data_format in formats]


def is_conversational(row: Row) -> bool:
    """True if a canonical row consists of messages."""
    return "messages" in row or isinstance(row.get("prompt"), list)
