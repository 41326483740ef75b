"""Filters for generated rows: held-out questions, duplicates, rewards; and the outcome of each row."""

import pytest

from tunesmith_data.generate.row_filter import (
    OutcomeCounts,
    RewardFilter,
    RowOutcome,
    SeenQuestions,
    filter_drafts,
)
from tunesmith_data.generate.similar_questions import HeldOutQuestions
from tunesmith_data.generate.tasks import DraftRow
from tunesmith_data.rewards.reward_function import Batch, RewardFunction
from tunesmith_data.rows.schema.formats import Row

NO_REWARDS = RewardFilter([], [], minimum=0)
NO_HELD_OUT = HeldOutQuestions([])
#: 1 for a long answer, nothing to say about an empty one.
LENGTH = RewardFunction("length", lambda batch: [len(text) / 10 if text else None for text in batch.texts])


def row(prompt: str, answer: str = "an answer") -> Row:
    return {"prompt": prompt, "completion": answer}


def chat(system: str, question: str) -> Row:
    messages = [("system", system), ("user", question), ("assistant", "an answer")]
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def filtered(
    rows: list[Row], held_out: HeldOutQuestions = NO_HELD_OUT, rewards: RewardFilter = NO_REWARDS
) -> tuple[list[Row], dict[str, int]]:
    outcomes = OutcomeCounts()
    kept = filter_drafts([DraftRow(each) for each in rows], SeenQuestions(None), held_out, rewards, outcomes)
    return [draft.row for draft in kept], {name: count for name, count in outcomes.to_dict().items() if count}


def test_of_duplicates_the_first_is_kept_whatever_case_and_punctuation() -> None:
    first, again, other = row("How far is it?", "1"), row("how far IS it", "2"), row("How far was it?", "3")
    assert filtered([first, again, other]) == ([first, other], {"duplicates": 1, "made": 1})


def test_the_same_question_under_another_system_message_is_no_duplicate() -> None:
    rows = [chat("Be brief.", "How far?"), chat("Be kind.", "How far?"), chat("Be brief.", "How far?")]
    assert filtered(rows)[0] == rows[:2]


def test_held_out_questions_are_left_out_before_duplicates_are_counted() -> None:
    held_out = HeldOutQuestions([row("How far is it from here to the next town?")])
    rows = [row("How far is it from here to the next town?")] * 2 + [row("What is the capital of Peru?")]
    assert filtered(rows, held_out) == (rows[2:], {"leaked": 2, "made": 2})


def test_rows_need_the_weighted_sum_of_rewards() -> None:
    rewards = RewardFilter([LENGTH, LENGTH], [0.5, 0.25], minimum=0.75)
    rows = [row("a", "x" * 10), row("b", "x" * 9), row("c", "")]
    assert filtered(rows, rewards=rewards) == (rows[:1], {"filtered": 2, "made": 2})


def test_rewards_compare_with_the_reference_answer_of_the_source() -> None:
    seen: list[Batch] = []

    def score(batch: Batch) -> list[float]:
        seen.append(batch)
        return [1.0] * len(batch.texts)

    rewards = RewardFilter([RewardFunction("exact", score)], [1.0], minimum=1)
    assert rewards.passes([DraftRow(row("a", "made"), "reference")]) == [True]
    assert [(batch.texts, batch.answers) for batch in seen] == [(["made"], ["reference"])]


@pytest.mark.parametrize(("limit", "contained"), [(0.7, True), (0.9, False), (None, False)])
def test_similar_questions_count_as_duplicates_from_the_limit_on(
    limit: float | None, contained: bool
) -> None:
    questions = SeenQuestions(limit)
    questions.add(row("one two three four five six seven eight"))
    assert questions.contains(row("one two three four five six seven nine")) is contained


def test_outcomes_add_up_to_the_rows_made() -> None:
    outcomes = OutcomeCounts()
    for number, outcome in enumerate(RowOutcome, start=1):
        outcomes.add(outcome, number)
    counts = outcomes.to_dict()
    assert counts.pop("made") == sum(counts.values()) == 15
