"""What teachers and judges are told. The manifest of generated rows holds these words."""

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


def told(text: str | None) -> str:
    """What people add to a template, as a paragraph of its own."""
    return f"\n{text.strip()}\n" if text and text.strip() else ""


def listed_answers(answers: Sequence[str], letters: str) -> str:
    """Answers below their letters."""
    return "\n\n".join(f"Answer {letter}:\n{answer}" for letter, answer in zip(letters, answers, strict=True))
