"""Answers in which another model excuses itself."""

from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.quality.columns import Columns
from tunesmith_data.rows.quality.evidence import Evidence, Suspects, share_of
from tunesmith_data.rows.quality.quality_check import Look, RowCheck
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
#: From this share on, refusing is what the data teaches.
_NORM = 0.2


class RefusalAnswer(RowCheck):
    """``refusal_answer``: the answer begins as models do that won't answer ("As an AI language model…")."""

    def look(self, row: RowView) -> Look | None:
        """Whether such a phrase stands at the beginning."""
        head = row.learned[:_HEAD].casefold().replace("\u2019", "'")
        phrase = next((each for each in _PHRASES if each in head), None)
        return Look(f"the answer says {phrase!r}") if phrase else None

    def judge(self, suspects: Suspects, columns: Columns) -> Evidence:
        """Few are left over from a teacher; many are a policy."""
        norm = suspects.count >= _NORM * columns.rows
        return Evidence(
            check="refusal_answer",
            severity=Severity.NOTE if norm else Severity.WARNING,
            message=f"{share_of(suspects.count, columns.rows)} have an answer in which a model refuses",
            advice=(
                "if the model is to refuse, test that it still answers harmless questions"
                if norm
                else "write the answer that you want, or leave these rows out: a few refusals teach many"
            ),
            suspects=suspects,
        )
