"""Agreement of annotators: known values, undefined values, verdicts."""

from collections.abc import Mapping, Sequence

import pytest

from tunesmith_data.labels.agreement import measure_agreement
from tunesmith_data.labels.agreement_report import AgreementReport
from tunesmith_data.labels.agreement_table import render
from tunesmith_data.labels.task_items import LabelItem, build_item
from tunesmith_data.labels.tasks import LabelTask, TaskKind
from tunesmith_data.labels.votes import Vote, count_votes
from tunesmith_data.rows.report.label_agreement import describe_kappa

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part C: four observers, twelve units.
OBSERVERS = {"a": "123321412...", "b": "1233224125.3", "c": ".3332342251.", "d": "12332441251."}


def report_agreement(
    task: LabelTask, said: Mapping[str, str | Sequence[str]], seed: int = 0
) -> AgreementReport:
    """Agreement of annotators, each with an answer an item; a dot is no answer, a dash a skip."""
    count = max(len(values) for values in said.values())
    items: list[LabelItem] = []
    for number in range(count):
        row = {"prompt": f"question {number}", "completion": "x"}
        if task.kind is TaskKind.PREFERENCE:
            row = {"prompt": f"question {number}", "chosen": "x", "rejected": "y"}
        items.append(build_item(row, task, "rows.jsonl", number + 1, seed))
    votes = [
        Vote(item.id, name, None if value == "-" else value, comment=f"{name} on {value}")
        for name, values in said.items()
        for item, value in zip(items, values, strict=False)
        if value != "."
    ]
    return measure_agreement({item.id: item for item in items}, votes, count_votes(votes), seed)


def test_alpha_is_krippendorffs_own() -> None:
    classes = LabelTask(kind=TaskKind.CLASSIFICATION, labels=tuple("12345"))
    assert report_agreement(classes, OBSERVERS).alpha == pytest.approx(0.743, abs=5e-4)
    assert report_agreement(LabelTask(kind=TaskKind.RATING), OBSERVERS).alpha == pytest.approx(
        0.815, abs=5e-4
    )


def test_the_interval_holds_alpha_and_shrinks_with_items() -> None:
    classes = LabelTask(kind=TaskKind.CLASSIFICATION, labels=tuple("12345"))
    few = report_agreement(classes, OBSERVERS)
    many = report_agreement(classes, {name: values * 8 for name, values in OBSERVERS.items()})
    assert few.alpha_low is not None and few.alpha is not None and few.alpha_high is not None
    assert few.alpha_low < few.alpha < few.alpha_high
    assert many.alpha_low is not None and many.alpha_high is not None
    assert many.alpha_high - many.alpha_low < 0.6 * (few.alpha_high - few.alpha_low)
    assert report_agreement(classes, OBSERVERS) == few


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"a": "12" * 20, "b": "12" * 20}, "the labels are reliable"),
        ({"a": "12" * 20, "b": "12" * 17 + "21" * 3}, "the labels allow tentative conclusions"),
        ({"a": "12" * 20, "b": "1122" * 10}, "the labels are not reliable"),
        ({"a": "1" * 20, "b": "1" * 20}, "All answers to 20 shared items are the same"),
        ({"a": "12.", "b": "..1"}, "No item has two answers"),
        ({"a": "-"}, "No item has two answers"),
    ],
)
def test_the_verdict_goes_by_the_usual_thresholds(said: dict[str, str], verdict: str) -> None:
    classes = LabelTask(kind=TaskKind.CLASSIFICATION, labels=("1", "2"))
    report = report_agreement(classes, said)
    assert verdict in report.verdict
    assert (report.alpha is None) == ("alpha" not in report.verdict)
    assert render(report).startswith(report.verdict)


def test_pairs_agree_as_cohens_kappa_says() -> None:
    # Cohen (1960) on 50 applications: both yes 20, both no 15, only a 5, only b 10: 0.7 agree, 0.5 by chance.
    said = {"a": "1" * 25 + "2" * 25, "b": "1" * 20 + "2" * 5 + "1" * 10 + "2" * 15}
    report = report_agreement(LabelTask(kind=TaskKind.CLASSIFICATION, labels=("1", "2")), said)
    (pair,) = report.pairs
    assert (pair.items, pair.agreement) == (50, 0.7)
    assert pair.kappa == pytest.approx(0.4)
    assert (report.shared_items, report.disputed_items) == (50, 15)
    assert [line.split()[-4:] for line in render(report).splitlines() if line.startswith("a, b")] == [
        ["50", "70%", "0.40", "fair"]
    ]


@pytest.mark.parametrize(
    ("kappa", "words"),
    [
        (1.0, "almost perfect"),
        (0.81, "almost perfect"),
        (0.7, "substantial"),
        (0.5, "moderate"),
        (0.21, "fair"),
        (0.2, "slight"),
        (0.0, "slight"),
        (-0.004, "slight"),
        (-0.01, "poor"),
    ],
)
def test_kappa_is_said_in_the_usual_words(kappa: float, words: str) -> None:
    assert describe_kappa(kappa) == words


def test_annotators_are_compared_with_what_most_say() -> None:
    classes = LabelTask(kind=TaskKind.CLASSIFICATION, labels=("1", "2"))
    report = report_agreement(classes, {"anna": "1111", "ben": "1112", "carl": "222-"})
    found = {each.name: (each.answers, each.skipped, each.with_majority) for each in report.annotators}
    # On the last item anna and ben differ: nobody is with a majority there.
    assert found == {"anna": (4, 0, 1.0), "ben": (4, 0, 1.0), "carl": (3, 1, 0.0)}
    assert report.answers == 11
    assert report.skipped == 1


def test_the_most_disputed_come_first() -> None:
    classes = LabelTask(kind=TaskKind.CLASSIFICATION, labels=("1", "2", "3"))
    report = report_agreement(classes, {"a": "111", "b": "112", "c": "123", "d": "111"})
    assert [item.line for item in report.disputed] == [3, 2]
    assert report.disputed[0].answer_counts == {"1": 2, "2": 1, "3": 1}
    assert "a on 1" in report.disputed[0].comments
    assert "most disputed:\n  rows.jsonl:3: 1 by 2, 2 by 1, 3 by 1: question 2" in render(report)


def test_a_preference_for_the_left_is_found() -> None:
    task = LabelTask(kind=TaskKind.PREFERENCE)
    said = {"a": [*"A" * 40, *"B" * 10, "tie"], "b": [*"A" * 45, *"B" * 5, "tie"]}
    report = report_agreement(task, said)
    assert report.position_bias is not None
    assert report.position_bias.answers == 100
    assert report.position_bias.share_of_a == 0.85
    assert report.position_bias.p_value < 1e-10
    assert "Answer A is chosen in 85% of the answers" in report.verdict
    assert [each.share_of_a for each in report.annotators] == [0.8, 0.9]
    fair = report_agreement(task, {"a": "AB" * 20, "b": "AB" * 20})
    assert fair.position_bias is not None
    assert fair.position_bias.p_value == 1.0
    assert "stands first" not in fair.verdict


def test_corrections_agree_on_whether_there_is_anything_to_correct() -> None:
    report = report_agreement(
        LabelTask(kind=TaskKind.CORRECTION), {"a": ["x", "y", "x "], "b": ["x", "z", "w"]}
    )
    assert report.values == {"changed": 3, "unchanged": 3}
    assert report.agreement == pytest.approx(2 / 3)
