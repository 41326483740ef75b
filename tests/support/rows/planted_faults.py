"""Clean corpora of varied rows, drawn from a seed, and faults to plant in them.

Each ``plant_*`` returns a ``Planted``: rows with the fault, and the numbers of the rows that have it.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith_data.rows.quality import QualitySurvey
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.table.record import Record

#: What rows are made of: words, and sentences with gaps for them.
WORDS = json.loads(Path(__file__).with_name("planted_words.json").read_text())

SYSTEM = "You advise people who keep a house, a workshop and a garden. Be brief and concrete."


Rows = list[Row]


class Planted(NamedTuple):
    """Rows with a fault.

    Attributes:
        check: the name of what has to be found.
        method: what the rows are for.
        rows: all of them.
        at: the numbers of those that have the fault; empty where the fault is of the whole.
    """

    check: str
    method: str
    rows: Rows
    at: frozenset[int] = frozenset()


def survey(
    rows: Sequence[Row], method: str, order: Sequence[int] | None = None, batch: int = 100
) -> QualitySurvey:
    """A survey that has seen the rows; row ``n`` stands in line ``n``, wherever it comes in ``order``."""
    numbers = range(len(rows)) if order is None else order
    records = [
        Record(index, "rows.jsonl", n, rows[n], tokens=_tokens(rows[n])) for index, n in enumerate(numbers)
    ]
    asked = QualitySurvey(method, lambda indexes: [records[each] for each in indexes])
    for start in range(0, len(records), batch):
        asked.update(records[start : start + batch])
    return asked


def _tokens(row: Row) -> int:
    return len(str(row)) // 4


def chat_rows(count: int = 400, seed: int = 0) -> Rows:
    """Conversations: a question about a household thing, and an answer of some sentences."""
    chance = random.Random(seed)
    return [chat_row(question, advice(chance)) for question in _questions(count, chance)]


def chat_row(question: str, answer: str, system: str | None = SYSTEM) -> Row:
    """One conversation."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages}


def class_rows(count: int = 500, seed: int = 0, shares: Sequence[float] | None = None) -> Rows:
    """Messages of customers and the department that they are for."""
    chance = random.Random(seed)
    departments = chance.choices(list(WORDS["tickets"]), weights=shares, k=count)
    return [
        chat_row(_ticket(department, chance), department, "Name the department.")
        for department in departments
    ]


def preference_rows(count: int = 5_000, seed: int = 0) -> Rows:
    """Pairs of a concrete and a vague answer, of like length."""
    chance = random.Random(seed)
    return [
        {"prompt": question, "chosen": advice(chance), "rejected": vagueness(chance)}
        for question in _questions(count, chance)
    ]


def judged_rows(count: int = 5_000, seed: int = 0) -> Rows:
    """Concrete answers that are judged good, and vague ones that are judged bad."""
    chance = random.Random(seed)
    rows = []
    for question in _questions(count, chance):
        good = chance.random() < 0.5
        answer = advice(chance) if good else vagueness(chance)
        rows.append({"prompt": question, "completion": answer, "label": good})
    return rows


def text_rows(count: int = 1_200, seed: int = 0) -> Rows:
    """Passages of text."""
    chance = random.Random(seed)
    return [{"text": " ".join(advice(chance) for _ in range(3))} for _ in range(count)]


def prompt_rows(count: int = 600, seed: int = 0) -> Rows:
    """Prompts with a short answer that can be compared."""
    chance = random.Random(seed)
    rows = []
    for question in _questions(count, chance):
        price, pieces = chance.randrange(3, 90), chance.randrange(2, 40)
        asked = f"{question} And what do {pieces} of them cost at {price} euros each?"
        rows.append({"prompt": asked, "answer": f"{price * pieces} euros"})
    return rows


def advice(chance: random.Random) -> str:
    """A concrete answer."""
    return _answer(WORDS["sentences"], chance)


def vagueness(chance: random.Random) -> str:
    """An answer that says little, as long as the concrete ones."""
    sentences = [_fill(frame, chance) for frame in chance.sample(WORDS["vague"], 8)]
    wanted, text = len(advice(chance)), ""
    while len(text) < wanted - 20 and sentences:
        text = f"{text} {sentences.pop()}".strip()
    return text


def _answer(frames: Sequence[str], chance: random.Random) -> str:
    return " ".join(_fill(frame, chance) for frame in chance.sample(frames, chance.randint(2, 5)))


def _questions(count: int, chance: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < count:
        question = _fill(chance.choice(WORDS["questions"]), chance)
        if question not in seen:
            seen.add(question)
            yield question


def _fill(frame: str, chance: random.Random) -> str:
    matter, other = chance.sample(WORDS["matters"], 2)
    return frame.format(
        thing=chance.choice(WORDS["things"]),
        deed=chance.choice(WORDS["deeds"]),
        matter=matter,
        matter2=other,
        time=chance.choice(WORDS["times"]),
        danger=chance.choice(WORDS["dangers"]),
        person=chance.choice(WORDS["people"]),
    )


def _ticket(department: str, chance: random.Random) -> str:
    a, b = chance.sample(WORDS["tickets"][department], 2)
    frame = chance.choice(WORDS["ticket_frames"])
    ticket = frame.format(
        a=a,
        b=b,
        person=chance.choice(WORDS["people"]),
        time=chance.choice(WORDS["times"]),
        time2=chance.choice(("Monday", "Easter", "last week", "the holidays", "this morning", "May")),
        number=chance.randrange(10_000, 99_999),
    )
    return f"{ticket} It is about a {chance.choice(WORDS['things'])}."


def _replaced(rows: Rows, at: Sequence[int], change: Callable[[Row, int], Row]) -> Rows:
    return [change(row, at.index(number)) if number in at else row for number, row in enumerate(rows)]


def _answered(answers: Sequence[str]) -> Callable[[Row, int], Row]:
    def change(row: Row, number: int) -> Row:
        return {"messages": [*row["messages"][:-1], _assistant(answers[number % len(answers)])]}

    return change


def _assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _question_of(row: Row) -> str:
    return str(row["messages"][-2]["content"])


def _answer_of(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def _chosen(count: int, of: int, seed: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(of), count))


def _plant(check: str, change: Callable[[Row, int], Row], count: int = 12, seed: int = 1) -> Planted:
    """A fault in some rows of the clean conversations."""
    rows = chat_rows()
    at = _chosen(count, len(rows), seed)
    return Planted(check, "sft", _replaced(rows, at, change), frozenset(at))


def plant_contradicting_answers() -> Planted:
    """Questions that are answered with yes in one row and with no in another."""
    rows = chat_rows()
    asked = [f"Is the {thing} still under warranty?" for thing in WORDS["things"][:6]]
    added = [
        chat_row(each, answer) for each in asked for answer in ("Yes, it still is.", "No, not any more.")
    ]
    return Planted(
        "contradicting_answers", "sft", rows + added, frozenset(range(len(rows), len(rows) + len(added)))
    )


def plant_several_long_answers() -> Planted:
    """A question with several answers that may all be good."""
    chance, rows = random.Random(5), chat_rows()
    added = [
        chat_row("Write some lines on patience.", _answer(WORDS["sentences"], chance) + 60 * "!")
        for _ in range(4)
    ]
    return Planted(
        "contradicting_answers", "sft", rows + added, frozenset(range(len(rows), len(rows) + len(added)))
    )


def plant_contradicting_pairs() -> Planted:
    """Pairs that are preferred the other way round, too."""
    rows = preference_rows()
    at = _chosen(10, len(rows), 1)
    added = [rows[each] | {"chosen": rows[each]["rejected"], "rejected": rows[each]["chosen"]} for each in at]
    planted = frozenset([*at, *range(len(rows), len(rows) + len(added))])
    return Planted("contradicting_answers", "dpo", rows + added, planted)


def plant_contradicting_judgements() -> Planted:
    """Answers that are judged good and bad."""
    rows = judged_rows()
    at = _chosen(10, len(rows), 1)
    added = [rows[each] | {"label": not rows[each]["label"]} for each in at]
    planted = frozenset([*at, *range(len(rows), len(rows) + len(added))])
    return Planted("contradicting_answers", "kto", rows + added, planted)


def plant_near_empty_answers() -> Planted:
    """Placeholders, punctuation, two characters."""
    return _plant("near_empty_answer", _answered(["N/A", "...", "ok", "TODO", "I don't know.", "-"]))


def plant_copied_answers() -> Planted:
    """The question itself, alone or with a word more."""

    def change(row: Row, number: int) -> Row:
        question = _question_of(row)
        return _answered([question, f"  {question.upper()}"])(row, number)

    return _plant("copied_answer", change)


def plant_refusals() -> Planted:
    """What a teacher says that won't answer."""
    refusals = [
        "As an AI language model, I have no hands and cannot repair anything for you.",
        "I'm sorry, but I can't give advice on that. Please ask a professional near you.",
    ]
    return _plant("refusal_answer", _answered(refusals))


def plant_truncated_answers() -> Planted:
    """Answers that end within a word."""

    def change(row: Row, number: int) -> Row:
        answer = _answer_of(row)
        end = next(at for at in range(len(answer) - 9, 0, -1) if answer[at - 1 : at + 1].isalpha())
        return _answered([answer[:end].lower()])(row, number)

    return _plant("truncated_answer", change)


def plant_answers_at_a_limit() -> Planted:
    """Answers in which half end without a mark, and some were cut off at 400 characters."""
    chance, rows = random.Random(9), chat_rows()
    rows = [
        _answered([_answer_of(row)[:390].rstrip(".") if number % 2 else _answer_of(row)[:390]])(row, 0)
        for number, row in enumerate(rows)
    ]
    at = _chosen(12, len(rows), 1)
    long = ["".join(advice(chance) for _ in range(6)).lower().replace(".", "")[:399] + "x" for _ in at]
    return Planted("truncated_answer", "sft", _replaced(rows, at, _answered(long)), frozenset(at))


def plant_placeholders() -> Planted:
    """Places that nobody filled in."""
    places = [
        "Dear {{customer_name}}, ",
        "Call [INSERT PHONE NUMBER] first. ",
        "Lorem ipsum dolor sit amet. ",
    ]

    def change(row: Row, number: int) -> Row:
        return _answered([places[number % 3] + _answer_of(row)])(row, number)

    return _plant("unresolved_placeholder", change)


def plant_encoding_damage() -> Planted:
    """UTF-8 that was read as Windows-1252, and what decoders leave for bytes that they can't read."""
    words = [
        "Use a crème brûlée torch. ".encode().decode("cp1252"),
        "It\u2019s fine. ".encode().decode("cp1252"),
        "A caf\ufffd. ",
    ]

    def change(row: Row, number: int) -> Row:
        return _answered([words[number % 3] + _answer_of(row)])(row, number)

    return _plant("encoding_damage", change)


def plant_other_language() -> Planted:
    """German answers to English questions of some length."""

    def change(row: Row, number: int) -> Row:
        question = f"{_question_of(row)} Please answer in two or three sentences that a beginner can follow."
        answer = f"{WORDS['german'][number % 5]} {WORDS['german'][(number + 2) % 5]}"
        return chat_row(question, answer)

    return _plant("other_language", change)


def plant_missing_system_prompt() -> Planted:
    """Rows without the message that all others begin with."""
    return _plant("missing_system_prompt", lambda row, _: {"messages": row["messages"][1:]})


def plant_wrong_labels() -> Planted:
    """Messages that are given to another department."""
    chance, rows = random.Random(3), class_rows(600)
    at = _chosen(24, len(rows), 1)

    def change(row: Row, number: int) -> Row:
        others = [each for each in WORDS["tickets"] if each != _answer_of(row)]
        return _answered([chance.choice(others)])(row, number)

    return Planted("suspected_wrong_label", "sft", _replaced(rows, at, change), frozenset(at))


def plant_wrong_judgements() -> Planted:
    """Good answers that are judged bad, and the other way round."""
    rows = judged_rows()
    at = _chosen(60, len(rows), 1)
    changed = _replaced(rows, at, lambda row, _: row | {"label": not row["label"]})
    return Planted("suspected_wrong_label", "kto", changed, frozenset(at))


def plant_class_imbalance() -> Planted:
    """Nine of ten messages are for one department."""
    rows = class_rows(800, shares=(0.9, 0.025, 0.025, 0.025, 0.025))
    return Planted("class_imbalance", "sft", rows, frozenset(_other_than("billing", rows)))


def plant_judged_imbalance() -> Planted:
    """Hardly any bad answers."""
    rows = judged_rows(10_000)
    bad = [row for row in rows if not row["label"]][:250]
    kept = [row for row in rows if row["label"]] + bad
    return Planted("class_imbalance", "kto", kept, frozenset(range(len(kept) - 250, len(kept))))


def _other_than(department: str, rows: Rows) -> Iterator[int]:
    return (number for number, row in enumerate(rows) if _answer_of(row) != department)


def plant_same_openings() -> Planted:
    """Seven of ten answers begin alike."""

    def change(row: Row, number: int) -> Row:
        return _answered([f"Great question, dear friend! {_answer_of(row)}"])(row, number)

    return _plant("low_diversity", change, count=280)


def plant_one_pattern() -> Planted:
    """Seven of ten questions follow one pattern."""
    chance = random.Random(4)

    def change(row: Row, number: int) -> Row:
        question = _fill("Please tell me whether the {thing} of mine suffers from {danger}, number", chance)
        return chat_row(f"{question} {number}.", _answer_of(row))

    return _plant("low_diversity", change, count=280)


def plant_length_bias() -> Planted:
    """Nine of ten chosen answers go on for some sentences."""
    chance, rows = random.Random(6), preference_rows()
    longer = [
        row | {"chosen": f"{row['chosen']} {advice(chance)}"} if number % 10 else row
        for number, row in enumerate(rows)
    ]
    at = (number for number, row in enumerate(longer) if len(row["chosen"]) > len(row["rejected"]))
    return Planted("length_bias", "dpo", longer, frozenset(at))


def plant_judged_length_bias() -> Planted:
    """Good answers go on for some sentences."""
    chance, rows = random.Random(6), judged_rows()
    longer = [
        row | {"completion": f"{row['completion']} {advice(chance)}"} if row["label"] else row for row in rows
    ]
    return Planted("length_bias", "kto", longer)


def plant_too_few_rows() -> Planted:
    """Forty conversations."""
    return Planted("too_few_rows", "sft", chat_rows(40))


#: Rows without a fault, by a name for them, and what they are for.
CLEAN: dict[str, tuple[str, Callable[[], Rows]]] = {
    "chat": ("sft", chat_rows),
    "classes": ("sft", class_rows),
    "preference": ("dpo", preference_rows),
    "reward": ("reward", preference_rows),
    "judged": ("kto", judged_rows),
    "text": ("pretraining", text_rows),
    "prompts": ("grpo", prompt_rows),
}

FAULTS: tuple[Callable[[], Planted], ...] = (
    plant_answers_at_a_limit,
    plant_class_imbalance,
    plant_contradicting_answers,
    plant_contradicting_judgements,
    plant_contradicting_pairs,
    plant_copied_answers,
    plant_encoding_damage,
    plant_judged_imbalance,
    plant_judged_length_bias,
    plant_length_bias,
    plant_missing_system_prompt,
    plant_near_empty_answers,
    plant_one_pattern,
    plant_other_language,
    plant_placeholders,
    plant_refusals,
    plant_same_openings,
    plant_several_long_answers,
    plant_too_few_rows,
    plant_truncated_answers,
    plant_wrong_judgements,
    plant_wrong_labels,
)
