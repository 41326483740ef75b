"""Table and plot of a search, and the command that makes them."""

import io
import json
from typing import Any

import pytest

from tunesmith_contract.search import SearchSettings, Trial
from tunesmith_search.__main__ import main
from tunesmith_search.page import render_html, render_markdown

PARAMETERS: list[dict[str, Any]] = [
    {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"},
    {"name": "rank", "values": ["8", "16"]},
]
SEARCH = SearchSettings.model_validate({"parameters": PARAMETERS, "trials": 4})


def trial(number: int, state: str, loss: float | None, rate: str, **fields: Any) -> dict[str, Any]:
    parameters = {"learningRate": rate, "rank": "8"}
    return {
        "number": number,
        "state": state,
        "parameters": parameters,
        "loss": loss,
        "gpuSeconds": 60,
    } | fields


FOUND = [
    trial(1, "Completed", 0.5, "1e-4"),
    trial(2, "Completed", 0.25, "1e-3"),
    trial(3, "Pruned", 0.9, "1e-5", message="behind <others>", compared=[{"percent": 10, "loss": "0.9"}]),
    trial(4, "Failed", None, "1e-2"),
]
TRIALS = [Trial.model_validate(item) for item in FOUND]
JOB = {
    "kind": "FineTuneJob",
    "metadata": {"name": "expenses"},
    "spec": {"search": {"parameters": PARAMETERS, "budget": {"trials": 4}}},
    "status": {"search": {"trials": FOUND}},
}


def test_the_best_trial_comes_first_in_the_table() -> None:
    table = render_markdown("Search", SEARCH, TRIALS)
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["2", "1", "3", "4"]
    assert "4 trials (2 completed, 1 pruned, 1 failed), 0.0667 GPU hours." in table
    assert "Best: trial 2 with a validation loss of 0.25 (learningRate 0.001, rank 8)" not in table
    assert "Best: trial 2 with a validation loss of 0.25 (learningRate 1e-3, rank 8)." in table


def test_the_page_has_a_plot_for_each_parameter_and_escapes_text() -> None:
    page = render_html("Search <b>", SEARCH, TRIALS)
    assert page.count("<svg") == 2
    assert page.count("<circle") == 2 * 3
    assert page.count('class="best"') == 2
    assert "&lt;others&gt;" in page
    assert "<b>" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_page_of_a_search_that_has_just_begun() -> None:
    assert "none yet" in render_html("Search", SEARCH, [])


@pytest.mark.parametrize(("form", "start"), [("HTML", "<!doctype"), ("Markdown", "# Search"), ("JSON", "{")])
def test_the_command(
    form: str, start: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(JOB)))
    assert main(["--format", form]) == 0
    written = capsys.readouterr().out
    assert written.startswith(start)
    if form == "JSON":
        assert json.loads(written)["best"] == 2
        assert json.loads(written)["trials"][2]["measurements"] == [{"percent": 10, "loss": 0.9}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ("[]", "not one FineTuneJob"),
        (json.dumps(JOB | {"spec": {}}), "no spec.search"),
        (json.dumps(JOB | {"status": {"search": {"trials": [{}]}}}), "can't be read"),
    ],
)
def test_unusable_input_is_told(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main([]) == 1
    assert told in capsys.readouterr().err
