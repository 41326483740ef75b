"""Check ``other_language``: answers in another language than their prompts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunesmith_data.rows.findings import MAX_EXAMPLES, Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import IssueDraft, share_of
from tunesmith_data.rows.quality.quality_check import ColumnCheck
from tunesmith_data.rows.quality.row_views import RowKind, SampledRow

#: Minimum letters to detect a language.
_MIN_LETTERS = 40
#: Characters of a text that are examined.
_CHARACTERS = 400
#: Text of fewer letters and spaces is code, a table or JSON.
_PROSE = 0.85
_SURE = 0.9
#: A pair of languages in this share of the rows is what the data is about: translation.
_NORM = 0.1
#: From this share of the answers on a language is that of the data: a prompt too short to tell its own has it too.
_COMMON = 0.95
#: Groups of languages that are easily confused.
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
class _LanguagePair:
    """Detected languages of a row's prompt and answer."""

    position: int
    prompt_language: str
    answer_language: str
    certainty: float

    @property
    def differs(self) -> bool:
        return not _are_alike(self.prompt_language, self.answer_language)


class OtherLanguage(ColumnCheck):
    """``other_language``: prompt and answer are prose of some length, and surely of two languages.

    A prompt that is too short to tell is taken for one in the language that nearly all answers have, unless it looks
    like its answer's. Prompts that name a language or ask for a translation are left aside, and so is a pair of
    languages that 10 % of the rows have. Languages are detected by py3langid, on a sample.
    """

    def finish(self, columns: Columns) -> Iterator[IssueDraft]:
        """Issue draft from the rows of the sample."""
        if columns.kind is RowKind.TEXT:
            return
        language_pairs = _detect_pairs([row for row in columns.sample if row.label is not False])
        pairs = Counter((pair.prompt_language, pair.answer_language) for pair in language_pairs)
        odd = {
            pair.position: pair
            for pair in language_pairs
            if pair.differs
            and pairs[pair.prompt_language, pair.answer_language] < _NORM * len(language_pairs)
        }
        if not odd:
            return
        positions = np.array(list(odd), dtype=np.int64)
        flagged = columns.rank(positions, np.array([pair.certainty for pair in odd.values()]))
        yield IssueDraft(
            check="other_language",
            severity=Severity.WARNING,
            message=f"{share_of(len(odd), len(language_pairs), 'rows whose languages can be language_pairs')} "
            "have an answer in another language than the prompt",
            advice="write the answers in the language of their prompts, or say in the prompt which language is wanted",
            flagged=flagged,
            details={
                int(
                    position
                ): f"prompt {odd[int(position)].prompt_language}, answer {odd[int(position)].answer_language}"
                for position in flagged.positions[:MAX_EXAMPLES]
            },
        )


def _detect_pairs(rows: Sequence[SampledRow]) -> list[_LanguagePair]:
    """Language pairs of rows whose answers are prose in a clearly detected language."""
    answered = [(row, *language) for row in rows if (language := _language_of(row.answer[:_CHARACTERS]))]
    common = _common_language([language for _, language, _ in answered])
    pairs = (
        _compare(row, language, sure, common)
        for row, language, sure in answered
        if not _asks_for_language(row.question)
    )
    return [pair for pair in pairs if pair is not None]


def _compare(row: SampledRow, answered: str, sure: float, common: str | None) -> _LanguagePair | None:
    question = row.question[-_CHARACTERS:]
    if question_language := _language_of(question):
        return _LanguagePair(row.position, question_language[0], answered, min(question_language[1], sure))
    if common is None or len(question) >= _MIN_LETTERS:
        return None
    perhaps, _ = _identifier().classify(question)
    return None if _are_alike(perhaps, answered) else _LanguagePair(row.position, common, answered, sure)


def _common_language(languages: Sequence[str]) -> str | None:
    """Language of nearly all texts, if there is one."""
    ((language, count),) = Counter(languages).most_common(1) or [("", 0)]
    return language if count and count >= _COMMON * len(languages) else None


def _language_of(text: str) -> tuple[str, float] | None:
    """Language of a text and its probability; None if it is not clear."""
    if not _is_prose(text):
        return None
    language, sure = _identifier().classify(text)
    return (language, float(sure)) if sure >= _SURE else None


def _are_alike(one: str, other: str) -> bool:
    return one == other or any({one, other} <= languages for languages in _ALIKE)


@cache
def _identifier() -> Any:
    """The model, which takes a second to load; data without prose doesn't need it."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _is_prose(text: str) -> bool:
    if len(text) < _MIN_LETTERS or text.lstrip().startswith(("{", "[", "<", "```")):
        return False
    letters = sum(map(str.isalpha, text))
    return letters >= _MIN_LETTERS and letters + text.count(" ") >= _PROSE * len(text)


def _asks_for_language(question: str) -> bool:
    lowered = question.casefold()
    return any(phrase in lowered for phrase in _ASKS_FOR_LANGUAGE)
