"""Page of a search in a real browser, also with hostile text."""

from pathlib import Path
from typing import Any

import pytest
from browser import PAPER_WIDTH, Browser

from tunesmith_contract.search import SearchSettings, Trial
from tunesmith_search.page import draw_curves, render_html

HOSTILE = '<script>document.title = "taken"</script><img src=x onerror="document.title=1">'
SETTINGS = SearchSettings.model_validate(
    {
        "parameters": [
            {"name": "learningRate", "min": "1e-5", "max": "1e-2", "scale": "Log"},
            {"name": "rank", "values": ["8", "16", "32"]},
            {"name": "scheduler", "values": ["Linear", "Cosine"]},
        ],
        "trials": 16,
    }
)


def trial(number: int) -> Trial:
    state = ("Completed", "Pruned", "Completed", "Failed")[number % 4]
    loss = 0.2 + (number * 7 % 11) / 10
    ends = {"Completed": (10, 30, 90, 100), "Pruned": (10, 30), "Failed": ()}[state]
    fields: dict[str, Any] = {
        "number": number,
        "state": state,
        "parameters": {"learningRate": f"{number}e-4", "rank": "16", "scheduler": "Linear"},
        "measurements": [{"percent": at, "loss": loss + 1 - at / 100} for at in ends],
        "loss": loss if ends else None,
        "gpuSeconds": 60.0 * number,
        "message": HOSTILE if state == "Failed" else "",
    }
    return Trial.model_validate(fields)


TRIALS = [trial(number) for number in range(1, 17)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a search with trials in every state."""
    file = tmp_path_factory.mktemp("search") / "search.html"
    file.write_text(render_html(f"Search {HOSTILE}", SETTINGS, TRIALS))
    return file


def test_a_page_asks_for_nothing_and_runs_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert {url for url in browser.requests() if not url.startswith("data:")} == {page.as_uri()}
    assert browser.complaints() == []
    assert browser.driver.title.startswith("Search <script>")
    assert browser.all("script, main img") == []


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_can_be_read_on_any_screen(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width, dark=dark)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    contrast, text = browser.lowest_contrast()
    assert contrast >= 4.5, text
    for figure in browser.all("figure"):
        assert figure.size["height"] > 100


def test_a_page_loses_nothing_on_paper(browser: Browser, page: Path) -> None:
    browser.open(page, PAPER_WIDTH, dark=True, media="print")
    assert browser.lost_on_paper() == []
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    contrast, text = browser.lowest_contrast()
    assert contrast >= 4.5, text
    assert browser.print_pages() >= 1


def test_the_best_trial_is_first_and_marked_everywhere(browser: Browser, page: Path) -> None:
    browser.open(page)
    best = min((each for each in TRIALS if each.state == "Completed"), key=lambda each: each.loss or 0)
    first, *others = browser.all("tbody tr")
    assert first.text.startswith(f"{best.number} Completed {best.loss:.4g}")
    assert len(others) == len(TRIALS) - 1
    assert len(browser.all("circle.best")) == 3
    assert len(browser.all("polyline.best")) == 1
    assert browser.find(".figures dd").text == f"{best.loss:.4g}"
    inside = browser.run(
        "return [...document.querySelectorAll('circle')].every(c => c.cx.baseVal.value >= 0 && c.cx.baseVal.value"
        " <= 320 && c.cy.baseVal.value >= 0 && c.cy.baseVal.value <= 200)"
    )
    assert inside


def test_a_trial_of_one_measurement_has_no_curve() -> None:
    single = TRIALS[0].model_copy(update={"measurements": TRIALS[0].measurements[:1]})
    assert draw_curves([single, TRIALS[2]]) is None
    plot = draw_curves([single, TRIALS[1]])
    assert plot
    assert [curve.trial.number for curve in plot.curves] == [2]
    assert plot.curves[0].points.split()[0] == "60.8,36.0"
