"""Prepare stage with labels: agreement in report, page and status."""

from collections.abc import Mapping
from typing import Any

import pytest
from rows.data_reports import make_agreement
from rows.labeled_rows import labels_left
from stages.stage_world import RowBuilders, World

from tunesmith_contract.report import DatasetReport
from tunesmith_data.prepare.annotator_agreement import agreement_issues
from tunesmith_data.rows.findings import Severity
from tunesmith_data.rows.page.report_files import read_report
from tunesmith_data.rows.report.data_report import DataReport

ARGILLA = {"url": "http://argilla.labels.svc:6900", "dataset": "tone"}


def prepared(world: World, make: RowBuilders, **changes: Any) -> tuple[DatasetReport, DataReport]:
    """What prepare says of labels with an agreement like that of ``make_agreement``."""
    agreement = make_agreement().model_copy(update=changes)
    labels_left(world.output / "ns/uid", make.rows(60), agreement)
    dataset = world.prepare(world.prepare_config([], argilla=ARGILLA)).dataset
    return dataset, read_report(world.output / "ns/uid/data-report")


def test_low_agreement_reaches_report_page_and_status(world: World, make: RowBuilders) -> None:
    dataset, report = prepared(world, make)
    assert report.agreement == make_agreement()
    (issue,) = (issue for issue in report.issues if issue.check == "low_agreement")
    assert (issue.severity, issue.rows) == (Severity.WARNING, 31)
    assert "alpha is 0.47 on 120 items" in issue.message
    assert [(str(each.place), each.detail) for each in issue.examples] == [
        ("pairs.jsonl:17", "A by 1, B by 1, tie by 1"),
        ("pairs.jsonl:204", "A by 2, B by 1"),
    ]
    assert ("low_agreement", 31) in dataset.issues
    (warning,) = (each for each in dataset.warnings if "Krippendorff" in each)
    assert warning.endswith("label the disputed items again")
    page = (world.output / "ns/uid/data-report/report.html").read_text()
    assert "Agreement of annotators" in page
    assert "moderate" not in page and "substantial" in page


def test_comments_are_quoted_without_personal_data(world: World, make: RowBuilders) -> None:
    (first, *_) = make_agreement().disputed
    said = first.model_copy(update={"comments": ("ask anna.bolt@example.org",)})
    _, report = prepared(world, make, disputed=(said,))
    assert report.agreement is not None
    assert report.agreement.disputed[0].comments == ("ask <EMAIL>",)


def test_rows_of_files_have_no_agreement(world: World, make: RowBuilders) -> None:
    world.prepare(world.prepare_config(world.write_rows("t.jsonl", make.rows(30))))
    assert read_report(world.output / "ns/uid/data-report").agreement is None
    assert "annotators" not in (world.output / "ns/uid/data-report/report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"alpha": 0.1}, [("low_agreement", Severity.WARNING, 31)]),
        ({"alpha": 0.666}, [("low_agreement", Severity.WARNING, 31)]),
        ({"alpha": 0.667}, [("low_agreement", Severity.NOTE, 31)]),
        ({"alpha": 0.8}, []),
        ({"alpha": None, "disputed_items": 0}, []),
        ({"alpha": None, "shared_items": 0}, [("unknown_agreement", Severity.NOTE, 240)]),
    ],
)
def test_what_is_said_goes_by_krippendorffs_thresholds(
    changes: Mapping[str, Any], found: list[tuple[str, Severity, int]]
) -> None:
    agreement = make_agreement().model_copy(update=changes)
    said = [(issue.check, issue.severity, issue.rows) for issue in agreement_issues(agreement)]
    assert said == found
    assert list(agreement_issues(None)) == []
