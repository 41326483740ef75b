"""Quality checks for each training method."""

from tunesmith_data.rows.quality.quality_check import QualityCheck

from .class_imbalance import ClassImbalance
from .contradicting_answers import ContradictingAnswers
from .copied_answer import CopiedAnswer
from .encoding_damage import EncodingDamage
from .length_bias import LengthBias
from .low_diversity import LowDiversity
from .missing_system_prompt import MissingSystemPrompt
from .near_empty_answer import NearEmptyAnswer
from .other_language import OtherLanguage
from .refusal_answer import RefusalAnswer
from .suspected_wrong_label import SuspectedWrongLabel
from .too_few_rows import TooFewRows
from .truncated_answer import TruncatedAnswer
from .unresolved_placeholder import UnresolvedPlaceholder

_PREFERENCES = ("dpo", "reward", "kto")


def build_checks(method: str) -> list[QualityCheck]:
    """The checks for a method, named as in a FineTuneJob; a new one of each, since they count."""
    checks: list[QualityCheck] = [TooFewRows(), EncodingDamage(), UnresolvedPlaceholder(), LowDiversity()]
    if method == "pretraining":
        return checks
    checks += [
        ContradictingAnswers(),
        NearEmptyAnswer(),
        CopiedAnswer(),
        RefusalAnswer(),
        TruncatedAnswer(),
        MissingSystemPrompt(),
        OtherLanguage(),
        SuspectedWrongLabel(),
        ClassImbalance(),
    ]
    return [*checks, LengthBias()] if method in _PREFERENCES else checks
