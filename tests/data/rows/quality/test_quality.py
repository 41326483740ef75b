"""Quality checks: data that must not be flagged, issues of whole sets, independence of row order."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows import planted_faults
from rows.planted_faults import chat_row, chat_rows, class_rows, judged_rows, preference_rows, survey
from stages.stage_world import RowBuilders

from tunesmith_data.rows.findings import MAX_EXAMPLES, Issue, Severity
from tunesmith_data.rows.quality import QualitySurvey
from tunesmith_data.rows.quality.checks.too_few_rows import NEEDED
from tunesmith_data.rows.report.data_report import MAX_WORST
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.table.record import Record

QUICKSTART = Path(__file__).parents[4] / "examples/quickstart/data/train.jsonl"


def issues_of(rows: list[Row], method: str = "sft") -> dict[str, Issue]:
    return {issue.check: issue for issue in survey(rows, method).issues()}


def answered(answers: list[str], seed: int = 0) -> list[Row]:
    """Varied questions with these answers."""
    return [
        chat_row(row["messages"][1]["content"], answer)
        for row, answer in zip(chat_rows(len(answers), seed), answers, strict=True)
    ]


def test_no_rows_say_nothing() -> None:
    asked = QualitySurvey("sft", lambda _: [])
    assert asked.issues() == ()
    assert asked.finish() is None


def test_the_quickstart_is_left_alone() -> None:
    rows = [json.loads(line) for line in QUICKSTART.read_text().splitlines()]
    assert issues_of(rows) == {}


def test_short_commands_are_left_alone(make: RowBuilders) -> None:
    assert issues_of(make.rows(400)) == {}


def test_rows_of_one_template_are_warned_of_and_nothing_else(make: RowBuilders) -> None:
    rows = make.rows(400)
    for row in rows:
        row["messages"][0]["content"] = f"Put these two numbers in order: {row['messages'][0]['content']}"
    (issue,) = issues_of(rows).values()
    assert (issue.check, issue.severity, issue.rows) == ("low_diversity", Severity.WARNING, 400)
    assert issue.message.startswith(
        "100 % of the prompts have the same pattern: 'put these two numbers in order: sort"
    )


def test_answers_that_all_begin_alike_have_no_openings_to_choose_from() -> None:
    rows = chat_rows()
    for row in rows:
        row["messages"][-1]["content"] = f"Please open the settings first. {row['messages'][-1]['content']}"
    issue = issues_of(rows)["low_diversity"]
    assert "'please open the settings" in issue.message
    assert "openings 0.0 bits" in issue.message


@pytest.mark.parametrize("labels", [["yes", "no"], ["A", "B", "C", "D"], ["1", "2", "3"], ["none", "some"]])
def test_short_labels_are_not_empty(labels: list[str]) -> None:
    chance = random.Random(1)
    found = issues_of(answered([chance.choice(labels) for _ in range(300)]))
    assert "near_empty_answer" not in found
    assert "suspected_wrong_label" not in found


def test_short_numbers_are_not_empty() -> None:
    chance = random.Random(1)
    assert issues_of(answered([str(chance.randrange(3_000)) for _ in range(300)])) == {}


def test_a_call_of_a_tool_is_not_empty() -> None:
    rows = chat_rows()
    for row in rows[::9]:
        row["messages"][-1] = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}],
        }
    assert issues_of(rows) == {}


def test_copies_are_no_fault_where_the_task_is_correction() -> None:
    rows = []
    for number, row in enumerate(chat_rows()):
        words = row["messages"][2]["content"].split()
        wrong = words if number % 3 else [*words[:3], "teh", *words[4:]]
        rows.append(chat_row(" ".join(wrong), " ".join(words)))
    assert "copied_answer" not in issues_of(rows)


def test_many_refusals_are_a_policy() -> None:
    rows = chat_rows()
    for row in rows[: len(rows) // 3]:
        row["messages"][-1]["content"] = f"I'm sorry, but I can't. {row['messages'][-1]['content']}"
    assert issues_of(rows)["refusal_answer"].severity is Severity.NOTE


@pytest.mark.parametrize(
    "ending", ["\n- one\n- two things", "\n```\nx = value", "\n3. the last of them", " です", " 好的"]
)
def test_lists_code_and_other_scripts_are_not_cut_off(ending: str) -> None:
    rows = chat_rows()
    for row in rows[:12]:
        row["messages"][-1]["content"] += ending
    assert "truncated_answer" not in issues_of(rows)


@pytest.mark.parametrize(
    "text",
    ["Press <Enter>.", "Echo ${HOME}.", "Mail [EMAIL_ADDRESS] or <PERSON>.", "A [note] in {curly} braces."],
)
def test_keys_variables_and_masks_are_no_placeholders(text: str) -> None:
    rows = chat_rows()
    rows[0]["messages"][-1]["content"] += f" {text}"
    assert issues_of(rows) == {}


@pytest.mark.parametrize(
    "text", ["Über Änderungen, naïve São Paulo.", "Ça coûte 5 € \u2013 d\u2019accord…", "Łódź, Ærø, 日本。"]
)
def test_accents_are_no_damage(text: str) -> None:
    rows = chat_rows()
    rows[0]["messages"][-1]["content"] += f" {text}"
    assert issues_of(rows) == {}


def test_halves_of_characters_are_read() -> None:
    rows = chat_rows()
    whole = survey(rows, "sft").finish()
    rows[0]["messages"][-1]["content"] += " \ud83d."
    halved = survey(rows, "sft").finish()
    assert whole
    assert halved
    assert halved.issues == whole.issues == ()
    assert halved.learning_curve
    assert halved.recommendation.method == whole.recommendation.method


def test_translations_are_in_another_language_on_purpose() -> None:
    german = planted_faults.WORDS["german"]
    rows = chat_rows()
    for number, row in enumerate(rows[:120]):
        row["messages"][-1]["content"] = f"{german[number % 5]} {number} {german[(number + 1) % 5]}"
    assert "other_language" not in issues_of(rows)
    few = [
        chat_row(f"Translate: {advice} Please.", german[number]) for number, advice in enumerate(_advice(5))
    ]
    assert "other_language" not in issues_of(chat_rows() + few)


def test_languages_of_sets_in_one_other_language() -> None:
    german = planted_faults.WORDS["german"]
    rows = [chat_row(f"{german[n % 5]} {n}", f"{german[(n + 2) % 5]} {n}") for n in range(200)]
    assert "other_language" not in issues_of(rows)


def test_a_short_question_is_in_the_language_of_the_data() -> None:
    german = planted_faults.WORDS["german"]
    rows = chat_rows()
    for number, row in enumerate(rows[:200]):
        row["messages"][1]["content"] = f"Why {number}?"
    for number, row in enumerate(rows[:8]):
        row["messages"][-1]["content"] = f"{german[number % 5]} {number} {german[(number + 1) % 5]}"
    found = issues_of(rows)["other_language"]
    assert found.rows == 8
    assert found.examples[0].detail == "prompt en, answer de"
    for number, row in enumerate(rows[:8]):
        row["messages"][1]["content"] = f"Warum ist das so, {number}?"
    assert "other_language" not in issues_of(rows)


def _advice(count: int) -> list[str]:
    chance = random.Random(5)
    return [planted_faults.advice(chance) for _ in range(count)]


def test_judgements_all_alike_teach_nothing() -> None:
    rows = [row | {"label": True} for row in judged_rows()]
    issue = issues_of(rows, "kto")["class_imbalance"]
    assert issue.severity is Severity.ERROR
    assert "add bad answers" in issue.advice


def test_rare_classes_are_noted() -> None:
    rows = class_rows(600, shares=(1, 1, 1, 1, 0.05))
    issue = issues_of(rows)["class_imbalance"]
    assert issue.severity is Severity.NOTE
    assert "1 of 5 classes" in issue.message


@pytest.mark.parametrize("method", NEEDED)
def test_too_few_rows_names_the_number(method: str) -> None:
    makers = {"dpo": preference_rows, "reward": preference_rows, "kto": judged_rows}
    makers |= {"pretraining": planted_faults.text_rows, "grpo": planted_faults.prompt_rows}
    makers |= {"rloo": planted_faults.prompt_rows, "distillation": planted_faults.prompt_rows}
    fewest = NEEDED[method][0]
    issue = issues_of(makers.get(method, chat_rows)(60), method)["too_few_rows"]
    assert (issue.severity, issue.rows) == (Severity.WARNING, 60)
    assert f"60 rows are few for {method}" in issue.message
    assert f"at least {fewest - 60:,} rows" in issue.advice


def test_many_contradictions_are_an_error() -> None:
    rows = chat_rows(100)
    rows = [
        chat_row(row["messages"][1]["content"], answer)
        for row in rows
        for answer in ("Yes, it is.", "No way.")
    ]
    assert issues_of(rows)["contradicting_answers"].severity is Severity.ERROR


def test_long_answers_that_differ_are_told_beside_short_ones() -> None:
    long = [
        chat_row("How?", " ".join(_advice(3)[number:]) + f" {'And so on. ' * 12}{number}")
        for number in (0, 1)
    ]
    short = [chat_row("Is it open?", "Yes."), chat_row("Is it open?", "No.")]
    found = issues_of(chat_rows() + long + short)["contradicting_answers"]
    assert (found.rows, found.severity) == (2, Severity.WARNING)
    assert "so do 2 rows with long answers" in found.message
    assert "long answers" not in issues_of(chat_rows() + short)["contradicting_answers"].message


def test_another_system_message_or_tool_is_another_question() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    twice = [chat_row("Is it open?", "Yes."), chat_row("Is it open?", "No.", "Answer for Sunday.")]
    assert "contradicting_answers" not in issues_of(chat_rows() + twice)
    twice = [chat_row("Is it open?", "Yes."), chat_row("Is it open?", "No.") | {"tools": tools}]
    assert "contradicting_answers" not in issues_of(chat_rows() + twice)


def test_shorter_chosen_answers_are_a_bias_too() -> None:
    rows = [
        row | {"chosen": row["rejected"], "rejected": f"{row['chosen']} {row['rejected']}"}
        for row in preference_rows()
    ]
    issue = issues_of(rows, "dpo")["length_bias"]
    assert issue.severity is Severity.WARNING
    assert "shorter in 5,000 of 5,000 pairs (100 %" in issue.message


def test_a_row_with_two_faults_is_the_worst() -> None:
    rows = chat_rows()
    rows[7]["messages"][-1]["content"] = "As an AI language model, I can't help. Ask {{support_name}} for it."
    rows[9]["messages"][-1]["content"] = "TODO"
    found = survey(rows, "sft").finish()
    assert found
    assert [(example.place.line, example.detail) for example in found.worst] == [
        (7, "refusal_answer, unresolved_placeholder"),
        (9, "near_empty_answer"),
    ]
    assert found.worst[0].score == 1.0


def test_what_is_said_is_bounded() -> None:
    rows = chat_rows(300)
    for row in rows[:60]:
        row["messages"][-1]["content"] = "A caf\ufffd " * 2_000
    found = survey(rows, "sft").finish()
    assert found
    assert all(len(issue.examples) <= MAX_EXAMPLES for issue in found.issues)
    assert len(found.worst) == MAX_WORST
    assert all(len(example.excerpt) <= 240 for example in found.worst)


def _faulty_rows() -> list[Row]:
    rows = chat_rows(120)
    rows[3]["messages"][-1]["content"] = "N/A"
    rows[5]["messages"][-1]["content"] = rows[5]["messages"][1]["content"]
    rows[8] = {"messages": rows[8]["messages"][1:]}
    rows += [chat_row("Is it open?", answer) for answer in ("Yes.", "No.")]
    return rows


FAULTY = _faulty_rows()


@settings(max_examples=cases(8, 160))
@given(order=st.permutations(range(len(FAULTY))), batch=st.integers(1, 200))
def test_the_order_of_rows_changes_nothing(order: list[int], batch: int) -> None:
    assert survey(FAULTY, "sft", order, batch).finish() == survey(FAULTY, "sft").finish()


def test_the_order_of_classes_and_judgements_changes_nothing() -> None:
    for planted in (planted_faults.plant_wrong_labels(), planted_faults.plant_class_imbalance()):
        order = random.Random(1).sample(range(len(planted.rows)), len(planted.rows))
        assert survey(planted.rows, "sft", order).finish() == survey(planted.rows, "sft").finish()


def test_rows_are_read_again_in_small_parts_only() -> None:
    rows = chat_rows(600)
    records = [Record(index, "rows.jsonl", index, row, 10) for index, row in enumerate(rows)]
    asked: list[int] = []

    def fetch_records(indexes: Sequence[int]) -> list[Record]:
        asked.append(len(indexes))
        return [records[each] for each in indexes]

    seen = QualitySurvey("sft", fetch_records)
    seen.update(records)
    assert not asked
    seen.finish()
    assert max(asked) <= 256


ODD_ROWS: dict[str, list[Row]] = {
    "sft": [
        {"prompt": "", "completion": "x"},
        {"messages": [{"role": "assistant", "content": "Hello."}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "only asked"}]},
        {
            "prompt": [{"role": "user", "content": "\x00"}],
            "completion": [{"role": "assistant", "content": "ok\n" * 90}],
        },
    ],
    "dpo": [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "b", "rejected": "a"}],
    "kto": [
        {"prompt": "p", "completion": "c", "label": False},
        {"prompt": "p", "completion": "c", "label": True},
    ],
    "grpo": [{"prompt": "p"}, {"prompt": "p", "answer": "4"}, {"prompt": "p", "answer": "5"}],
    "pretraining": [{"text": "\n"}, {"text": "€" * 5_000}],
}


@pytest.mark.parametrize("times", [1, 3, 40])
@pytest.mark.parametrize("method", ODD_ROWS)
def test_odd_rows_are_looked_at_like_others(method: str, times: int) -> None:
    found = survey(ODD_ROWS[method] * times, method).finish()
    assert found
    assert "too_few_rows" in {issue.check for issue in found.issues} or len(ODD_ROWS[method]) * times >= 100
    assert found.recommendation.method
