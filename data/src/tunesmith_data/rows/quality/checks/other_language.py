"""Answers in another language than their prompts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import Kind
from tunesmith_data.rows.quality.samples import SampledRow

#: Fewer letters don't tell a language.
_FEWEST_LETTERS = 40
#: How much of a text is looked at.
_CHARACTERS = 400
#: Text of fewer letters and spaces is code, a table or JSON.
_PROSE = 0.85
_SURE = 0.9
#: A pair of languages in this share of the rows is what the data is about: translation.
_NORM = 0.1
#: From this share of the answers on a language is that of the data: a prompt too short to tell its own has it too.
_COMMON = 0.95
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
        return not _are_alike(self.asked, self.answered)


class OtherLanguage(ColumnCheck):
    """``other_language``: prompt and answer are prose of some length, and surely of two languages.

    A prompt that is too short to tell is taken for one in the language that nearly all answers have, unless it looks
    like its answer's. Prompts that name a language or ask for a translation are left aside, and so is a pair of
    languages that 10 % of the rows have. Languages are told by py3langid, on a sample.
    """

    def finish(self, columns: Columns) -> Iterator[Evidence]:
        """What there is to say of the rows of the sample."""
        if columns.kind is Kind.TEXT:
            return
        told = _tell([row for row in columns.sample if row.label is not False])
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


def _tell(rows: Sequence[SampledRow]) -> list[_Told]:
    """Of the rows whose answers are prose in a language that is sure, both languages."""
    answered = [(row, *language) for row in rows if (language := _language_of(row.answer[:_CHARACTERS]))]
    common = _common_language([language for _, language, _ in answered])
    told = (
        _compare(row, language, sure, common)
        for row, language, sure in answered
        if not _asks_for_language(row.question)
    )
    return [each for each in told if each is not None]


def _compare(row: SampledRow, answered: str, sure: float, common: str | None) -> _Told | None:
    question = row.question[-_CHARACTERS:]
    if asked := _language_of(question):
        return _Told(row.position, asked[0], answered, min(asked[1], sure))
    if common is None or len(question) >= _FEWEST_LETTERS:
        return None
    perhaps, _ = _identifier().classify(question)
    return None if _are_alike(perhaps, answered) else _Told(row.position, common, answered, sure)


def _common_language(languages: Sequence[str]) -> str | None:
    """The language that nearly all have, where there is one."""
    ((language, count),) = Counter(languages).most_common(1) or [("", 0)]
    return language if count and count >= _COMMON * len(languages) else None


def _language_of(text: str) -> tuple[str, float] | None:
    """The language of a text, and how sure that is; None where it can't be told."""
    if not _is_prose(text):
        return None
    language, sure = _identifier().classify(text)
    return (language, float(sure)) if sure >= _SURE else None


def _are_alike(one: str, other: str) -> bool:
    return one == other or any({one, other} <= each for each in _ALIKE)


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
