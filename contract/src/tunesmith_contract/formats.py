"""Data formats that each method learns from."""

from collections.abc import Mapping
from types import MappingProxyType

from .sources import DataFormat

#: Formats with an answer, for training and evaluation.
ANSWERED = (DataFormat.CHAT, DataFormat.PROMPT_COMPLETION, DataFormat.SHAREGPT, DataFormat.ALPACA)
_PROMPTS = (DataFormat.PROMPT, *ANSWERED)
_PAIRS = (DataFormat.PREFERENCE, DataFormat.SHAREGPT, DataFormat.ALPACA)

#: By method; a row that could be of two counts as the first.
LEARNED_FORMATS: Mapping[str, tuple[DataFormat, ...]] = MappingProxyType(
    {
        "sft": ANSWERED,
        "dpo": _PAIRS,
        "kto": (DataFormat.UNPAIRED_PREFERENCE, *_PAIRS),
        "grpo": _PROMPTS,
        "rloo": _PROMPTS,
        "reward": _PAIRS,
        "pretraining": (DataFormat.TEXT,),
        "distillation": _PROMPTS,
    }
)
