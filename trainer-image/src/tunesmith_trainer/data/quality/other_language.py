"""Answers in another language than their prompts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunesmith_trainer.data.findings import MAX_EXAMPLES, Severity

from .base import ColumnCheck
from .columns import Columns
from .evidence import Evidence, share_of
from .samples import SampledRow
from .views import Kind

#: Fewer letters don't tell a language.
_FEWEST_LETTERS = 40
#: How much of a text is looked at.
_CHARACTERS = 400
#: Text of fewer letters and spaces is code, a table or JSON.
_PROSE = 0.85
_SURE = 0.9
#: A pair of languages in this share of the rows is what the data is about: translation.
_NORM = 0.1
#: Languages that are taken for each other.
_ALIKE = (
    {"da", "no", "nb", "nn", "sv"},
    {"hr", "bs", "sr", "sl"},
    {"id", "ms", "jv"},
    {"cs", "sk"},
    {"es", "gl", "pt", "ca", "an", "oc"},
    {"nl", "af"},
    {"ru", "uk", "be", "bg", "mk"},
)
_ASKS_FOR_LANGUAGE = (
    "translat", "übersetz", "tradui", "traduc", "traduz", "tradur", "vertaal", "перевед", "перевод", "翻译", "翻訳",
    "in english", "in german", "in french", "in spanish", "in italian", "in portuguese", "in dutch", "in russian",
    "in chinese", "in japanese", "into english", "into german", "into french", "into spanish", "auf deutsch",
    "auf englisch", "auf französisch", "en français", "en anglais", "en inglés", "en español", "in italiano",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Told:
    """A row whose two languages could be told."""

    position: int
    asked: str
    answered: str
    sure: float

    @property
    def differs(self) -> bool:
        return self.asked != self.answered and not any({self.asked, self.answered} <= each for each in _ALIKE)


class OtherLanguage(ColumnCheck):
    """``other_language``: prompt and answer are prose of some length, and surely of two languages.

    Prompts that name a language or ask for a translation are left aside, and so is a pair of languages that 10 % of the
    rows have. Languages are told by py3langid, on a sample.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows of the sample."""
        if columns.kind is Kind.TEXT:
            return
        told = list(_tell(row for row in columns.sample if row.label is not False))
        pairs = Counter((each.asked, each.answered) for each in told)
        odd = {
            each.position: each
            for each in told
            if each.differs and pairs[each.asked, each.answered] < _NORM * len(told)
        }
        if not odd:
            return
        positions = np.array(list(odd), dtype=np.int64)
        suspects = columns.rank(positions, np.array([each.sure for each in odd.values()]))
        yield Evidence(
            check="other_language",
            severity=Severity.WARNING,
            message=f"{share_of(len(odd), len(told), 'rows whose languages can be told')} "
            "have an answer in another language than the prompt",
            advice="write the answers in the language of their prompts, or say in the prompt which language is wanted",
            suspects=suspects,
            details={
                int(each): f"prompt {odd[int(each)].asked}, answer {odd[int(each)].answered}"
                for each in suspects.positions[:MAX_EXAMPLES]
            },
        )


def _tell(rows: Iterator[SampledRow]) -> Iterator[_Told]:
    for row in rows:
        question, answer = row.question[-_CHARACTERS:], row.answer[:_CHARACTERS]
        if not _is_prose(answer) or not _is_prose(question) or _asks_for_language(row.question):
            continue
        asked, sure_of_question = _identifier().classify(question)
        answered, sure_of_answer = _identifier().classify(answer)
        if min(sure_of_question, sure_of_answer) >= _SURE:
            yield _Told(row.position, asked, answered, float(min(sure_of_question, sure_of_answer)))


@cache
def _identifier() -> Any:
    """The model, which takes a second to load; data without prose doesn't need it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _is_prose(text: str) -> bool:
    if len(text) < _FEWEST_LETTERS or text.lstrip().startswith(("{", "[", "<", "```")):
        return False
    letters = sum(map(str.isalpha, text))
    return letters >= _FEWEST_LETTERS and letters + text.count(" ") >= _PROSE * len(text)


def _asks_for_language(question: str) -> bool:
    lowered = question.casefold()
    return any(each in lowered for each in _ASKS_FOR_LANGUAGE)
