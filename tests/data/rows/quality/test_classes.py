"""Classes among answers, and the classification task that a small model learns from them."""

import numpy as np
import pytest

from tunesmith_data.rows.quality.arrays import Counts
from tunesmith_data.rows.quality.classes import CLASS_CHARACTERS, Classes, build_task, find_classes
from tunesmith_data.rows.quality.row_views import SampledRow


def classes_of(answers: list[int], characters: int = 4) -> Classes | None:
    digests = np.arange(1, len(answers) + 1, dtype=np.uint64)
    return find_classes(np.array(answers, np.uint64), np.full(len(answers), characters), digests)


def test_answers_that_recur_are_classes_the_largest_first() -> None:
    classes = classes_of([7] * 20 + [9] * 40)
    assert classes
    assert classes.counts.tolist() == [40, 20]
    assert classes.first.tolist() == [20, 0]
    assert classes.codes.tolist() == [1] * 20 + [0] * 40


def test_other_answers_among_classes_have_no_class() -> None:
    classes = classes_of([7] * 30 + [9] * 30 + [1, 2, 3])
    assert classes
    assert classes.codes.tolist()[-3:] == [-1, -1, -1]


@pytest.mark.parametrize(
    ("answers", "characters"),
    [
        (list(range(1, 61)), 4),  # all different
        ([7] * 30 + [9] * 19, 4),  # too few rows
        ([7] * 30 + [9] * 30, CLASS_CHARACTERS + 1),  # too long to name a class
        ([7] * 30 + [9] * 20 + list(range(10, 20)), 4),  # a sixth of the answers is free text
        ([0] * 60, 4),  # no answers
    ],
)
def test_free_text_and_few_rows_are_no_classes(answers: list[int], characters: int) -> None:
    assert classes_of(answers, characters) is None


def sample(count: int) -> list[SampledRow]:
    return [SampledRow(position, f"question {position}", "", "", None) for position in range(count)]


def task_labels(labels: Counts, names: list[str]) -> tuple[list[str], list[int]] | None:
    task = build_task(sample(len(labels)), labels, names)
    return (task.names, task.labels.tolist()) if task else None


def test_a_task_leaves_out_rows_without_a_label_and_rare_labels() -> None:
    labels = np.array([0] * 5 + [-1] * 5 + [1] * 4 + [2] * 5)
    assert task_labels(labels, ["low", "middle", "high"]) == (["low", "high"], [0] * 5 + [1] * 5)


def test_one_label_is_no_task() -> None:
    assert task_labels(np.array([0] * 9 + [1] * 4), ["low", "high"]) is None


def test_a_judged_answer_is_part_of_what_its_label_depends_on() -> None:
    labels = np.array([0, 1] * 5)
    plain = [SampledRow(n, "same question", f"answer {n % 2}", "", None) for n in range(10)]
    judged = [SampledRow(n, "same question", f"answer {n % 2}", "", bool(n % 2)) for n in range(10)]
    without, with_answer = (build_task(rows, labels, ["bad", "good"]) for rows in (plain, judged))
    assert without
    assert with_answer
    assert abs(without.features[0] - without.features[1]).sum() == 0
    assert abs(with_answer.features[0] - with_answer.features[1]).sum() > 0
