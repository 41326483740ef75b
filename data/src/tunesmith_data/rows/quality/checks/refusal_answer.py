"""Check ``refusal_answer``: answers in which a model refuses."""

from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.issue_draft import FlaggedRows, IssueDraft
from tunesmith_data.rows.quality.quality_check import Flag, RowCheck, warn_unless_common
from tunesmith_data.rows.quality.row_views import RowView

_HEAD = 240
_PHRASES = (
    "as an ai language model",
    "as a large language model",
    "as an ai assistant, i",
    "as an ai, i",
    "i'm just an ai",
    "i am just an ai",
    "i'm sorry, but i can",
    "i am sorry, but i can",
    "i'm sorry, but as",
    "i apologize, but i can",
    "i cannot fulfill",
    "i can't fulfill",
    "i cannot assist with",
    "i can't assist with",
    "i can't help with that",
    "i cannot provide assistance",
    "als ki-sprachmodell",
    "als ki-modell",
    "als künstliche intelligenz kann ich",
    "en tant que modèle de langage",
    "como modelo de lenguaje",
    "como modelo de linguagem",
    "come modello linguistico",
)


class RefusalAnswer(RowCheck):
    """``refusal_answer``: the answer begins as models do that won't answer ("As an AI language model…")."""

    def flag(self, row: RowView) -> Flag | None:
        """Flag of an answer that begins with a refusal phrase."""
        head = row.learned[:_HEAD].casefold().replace("\u2019", "'")
        phrase = next((phrase for phrase in _PHRASES if phrase in head), None)
        return Flag(f"the answer says {phrase!r}") if phrase else None

    def draft_issue(self, flagged: FlaggedRows, columns: Columns) -> IssueDraft:
        """Warning for a few refusals, left over from a teacher; a note for many, which are a policy."""
        return warn_unless_common(
            "refusal_answer",
            flagged,
            columns,
            problem="have an answer in which a model refuses",
            advice="write the answer that you want, or leave these rows out: a few refusals teach many",
            advice_if_common="if the model is to refuse, test that it still answers harmless questions",
        )
