"""Prompt templates for teachers and judges; the manifest of generated rows quotes them."""

from collections.abc import Sequence

PARAPHRASE = """\
Rewrite the request below in {count} different ways. Keep its meaning, its facts, its language and everything that an \
answer depends on; change its wording, tone and structure.
{instructions}
Write JSON alone, a list of {count} objects: [{{"question": "…"}}, …]

Request:
{question}"""

SELF_INSTRUCT = """\
Below are examples of a task. Write {count} new ones of the same kind: other topics, other wording, other details, and \
answers that are right and in the form of the examples' answers.
{instructions}
Write JSON alone, a list of {count} objects: [{{"question": "…", "answer": "…"}}, …]

Examples:
{examples}"""

COMPARE = """\
Compare the answers below to one request. Look at whether they are right, helpful and do as they are asked; neither \
their order nor their length counts.
{criteria}
Write JSON alone, with the letter of the best and of the worst answer: {{"best": "…", "worst": "…"}}

Request:
{question}

{answers}"""

SCORE = """\
Judge the answer below. Give a whole number from 1 (wrong or useless) to 10 (right, complete, as it was asked for); \
length alone counts for nothing.
{criteria}
Write JSON alone: {{"score": …}}

Request:
{question}

Answer:
{answer}"""

TEMPLATES = {
    "paraphrases": PARAPHRASE,
    "selfInstruct": SELF_INSTRUCT,
    "comparison": COMPARE,
    "score": SCORE,
}


def as_paragraph(text: str | None) -> str:
    """User's addition to a template as a separate paragraph; empty without one."""
    return f"\n{text.strip()}\n" if text and text.strip() else ""


def listed_answers(answers: Sequence[str], letters: str) -> str:
    """Answers, each under its letter."""
    return "\n\n".join(f"Answer {letter}:\n{answer}" for letter, answer in zip(letters, answers, strict=True))
