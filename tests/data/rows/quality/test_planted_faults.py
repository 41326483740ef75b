"""Planted faults are found by their checks, in the right rows; clean rows are not flagged."""

from collections.abc import Callable

import pytest
from rows import planted_faults
from rows.planted_faults import CLEAN, FAULTS, Planted, Rows, survey

#: Faults that are found in most of their rows only, since a model or a pattern tells them.
STATISTICAL = {"suspected_wrong_label", "low_diversity"}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_rows_raise_no_issue(name: str) -> None:
    method, make = CLEAN[name]
    assert survey(make(), method).issues() == ()


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__.removeprefix("plant_"))
def test_each_fault_is_found_by_its_name_and_nothing_else(plant: Callable[[], Planted]) -> None:
    planted = plant()
    (issue,) = survey(planted.rows, planted.method).issues()
    assert issue.check == planted.check
    lines = {example.place.line for example in issue.examples}
    if not planted.at:
        return
    if planted.check in STATISTICAL:
        assert 0.75 * len(planted.at) <= issue.rows <= 1.1 * len(planted.at)
        assert len(lines & planted.at) >= 0.9 * len(lines)
    else:
        assert issue.rows == len(planted.at)
        assert lines <= planted.at
    assert len(lines) == min(20, issue.rows)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("make", [planted_faults.chat_rows, planted_faults.class_rows])
def test_other_seeds_are_clean_too(make: Callable[..., Rows], seed: int) -> None:
    assert survey(make(600, seed), "sft").issues() == ()


def test_several_faults_are_all_named_the_gravest_first() -> None:
    contradicting = planted_faults.plant_several_long_answers()
    rows = list(contradicting.rows)
    for planted in (planted_faults.plant_refusals(), planted_faults.plant_encoding_damage()):
        rows += [planted.rows[number] for number in sorted(planted.at)]
    issues = survey(rows, "sft").issues()
    named = [(issue.check, issue.severity.value) for issue in issues]
    assert [severity for _, severity in named] == ["Warning", "Warning", "Note"]
    assert {check for check, _ in named} == {"refusal_answer", "encoding_damage", "contradicting_answers"}
    assert issues[0].rows >= issues[1].rows
