"""Page of a data report in a real browser, also with hostile rows."""

from pathlib import Path

import pytest
from browser import PAPER_WIDTH, Browser
from rows.data_reports import HOSTILE, make_agreement, make_clean_report, make_largest_report, make_report
from selenium.webdriver.common.keys import Keys

from tunesmith_data.html_pages.text_filters import (
    amount,
    compact,
    duration,
    heading,
    number,
    percent,
    reveal_controls,
    shorten,
)
from tunesmith_data.rows.page.charts import PLOT_HEIGHT, draw_counts, draw_curve, draw_histogram
from tunesmith_data.rows.page.render import MAX_PAGE_BYTES, render_page
from tunesmith_data.rows.page.report_files import read_report, write_report
from tunesmith_data.rows.page.verdict import Readiness, report_verdict
from tunesmith_data.rows.report.data_report import Histogram, RowCounts

REPORT = make_report()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rich report's page."""
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, REPORT)
    return folder / "report.html"


def test_the_report_is_read_back_equal(page: Path) -> None:
    assert read_report(page.parent) == REPORT


def test_a_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert {url for url in browser.requests() if not url.startswith("data:")} == {page.as_uri()}
    assert browser.complaints() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0


def test_all_parts_are_there_in_their_order(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert [title.text for title in browser.all("h2")] == [
        "Look at this first",
        "Issues",
        "Worst rows",
        "Lengths",
        "Duplicates",
        "Leaks",
        "Dropped rows",
        "Agreement of annotators",
        "What next",
        "Source",
    ]
    assert browser.find("h1").text == REPORT.title
    assert len(browser.all("article.issue")) == len(REPORT.issues)
    assert len(browser.all("#worst-rows tbody tr")) == len(REPORT.worst)
    assert len(browser.all("#leaks .pair")) == len(REPORT.leaks)
    assert len(browser.all("#duplicates .cluster")) == len(REPORT.clusters)
    assert len(browser.all("#learning-curve circle.point")) == 5
    assert REPORT.agreement
    assert len(browser.all("#annotators tbody tr")) == len(REPORT.agreement.annotators)
    assert len(browser.all("#annotator-pairs tbody tr")) == len(REPORT.agreement.pairs)
    assert len(browser.all("#disputed tbody tr")) == len(REPORT.agreement.disputed)
    assert "0.88 EUR" in browser.find("#next").text
    assert REPORT.digest in browser.find("#source").text
    for link in browser.all("nav a"):
        address = link.get_attribute("href")
        assert address is not None
        assert browser.all("#" + address.rpartition("#")[2])


def test_what_became_of_the_rows_adds_up(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = [int(element.text.replace(",", "")) for element in browser.all(".legend b")]
    assert sum(shown) == REPORT.counts.rows
    widths = browser.run(
        "return [...document.querySelectorAll('.counts rect')].map((r) => r.width.baseVal.value)"
    )
    assert sum(widths) == pytest.approx(1000, abs=0.1)
    assert widths[0] == pytest.approx(1000 * REPORT.counts.train / REPORT.counts.rows, abs=0.01)


@pytest.mark.parametrize("name", ["tokens", "answer", "turns"])
def test_bars_are_as_high_as_their_counts(browser: Browser, page: Path, name: str) -> None:
    browser.open(page)
    bars = browser.run(
        f"return [...document.querySelectorAll('#histogram-{name} .bar')]"
        ".map((bar) => [Number(bar.dataset.count), bar.getBoundingClientRect().height])"
    )
    histogram = {"tokens": REPORT.tokens, "answer": REPORT.answer_characters, "turns": REPORT.turns}[name]
    assert [count for count, _ in bars] == list(histogram.counts)
    highest, tallest = max(histogram.counts), max(height for _, height in bars)
    assert tallest > 80
    for count, height in bars:
        assert height == pytest.approx(tallest * count / highest, abs=0.1)


def test_the_limit_stands_where_it_is(browser: Browser, page: Path) -> None:
    browser.open(page)
    line, left, right = browser.run(
        "const x = (e) => e.getBoundingClientRect();"
        "const bar = [...document.querySelectorAll('#histogram-tokens .bar')]"
        ".find((bar) => bar.textContent.startsWith('1,000'));"
        "return [x(document.querySelector('#histogram-tokens line.limit')).left, x(bar).left, x(bar).right]"
    )
    assert left < line < right
    assert "maxLength 1,024" in browser.find("#histogram-tokens").text


def test_issues_are_filtered_by_severity_and_by_words(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert len(browser.shown("article.issue")) == 4
    browser.find("[data-choice-for] option:nth-child(3)").click()
    assert [title.text for title in browser.shown("article.issue h3")] == ["Answer language", "Personal data"]
    assert browser.find("[data-status-for=issue-list]").text == "2 of 4 shown"
    browser.find("[data-filter-for=issue-list]").send_keys("PERSONAL")
    assert [title.text for title in browser.shown("article.issue h3")] == ["Personal data"]


@pytest.mark.parametrize("width", [1280, 390])
def test_rows_are_filtered(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    browser.find("[data-filter-for=worst-rows]").send_keys("ticket 1")
    assert len(browser.shown("#worst-rows tbody tr")) == 3
    browser.find("[data-filter-for=worst-rows]").send_keys(Keys.BACKSPACE * 8)
    assert len(browser.shown("#worst-rows tbody tr")) == len(REPORT.worst)


def test_rows_are_sorted_by_keyboard_both_ways(browser: Browser, page: Path) -> None:
    browser.open(page)
    places = "#worst-rows tbody td:first-child .place"
    for order in ("ascending", "descending"):
        browser.find("#worst-rows thead button").send_keys(Keys.ENTER)
        assert browser.find("#worst-rows thead th").get_attribute("aria-sort") == order
        texts = [element.text for element in browser.all(places)]
        lines = [int(text.rpartition(":")[2]) for text in texts if text.startswith("escalations")]
        assert lines == sorted(lines, reverse=order == "descending")


def test_details_open_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    summary = browser.find("#duplicates summary")
    assert not browser.shown("#duplicates .places")
    summary.send_keys(Keys.ENTER)
    assert "support-2026.jsonl:17 kept" in browser.find("#duplicates .places").text


def test_agreement_is_said_in_numbers_and_words(browser: Browser, page: Path) -> None:
    browser.open(page)
    text = browser.find("#agreement").text
    assert text.startswith(f"Agreement of annotators\n{make_agreement().verdict}")
    for said in (
        "0.47 not reliable",
        "0.36 to 0.58",
        "71 %",
        "chosen in 62 % of 384 answers: more than chance",
    ):
        assert said in text
    rows = [
        [cell.text for cell in row.find_elements("css selector", "td")]
        for row in browser.all("#annotator-pairs tr")
    ]
    assert rows[1:] == [
        ["100", "82 %", "0.63", "substantial"],
        ["40", "45 %", "−0.04", "poor"],  # noqa: RUF001
        ["12", "100 %", "–", "undefined"],  # noqa: RUF001
    ]
    assert browser.find("#disputed td:nth-child(3)").text.startswith("A by 1, B by 1, tie by 1")
    assert browser.find("nav a[href='#agreement']").text == "Agreement"


def test_agreement_that_is_not_known_is_a_dash() -> None:
    nothing = make_agreement().model_copy(
        update={
            "alpha": None,
            "alpha_low": None,
            "alpha_high": None,
            "agreement": None,
            "position_bias": None,
        }
    )
    page = render_page(make_report(agreement=nothing))
    assert page.count("<dd>–</dd>") == 2  # noqa: RUF001
    assert "95 % interval of alpha" not in page
    assert "stands first by chance" not in page


def test_hostile_rows_are_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return window.harmed") is None
    assert browser.driver.title == f"{REPORT.title} · data report"
    assert browser.run("return document.scripts.length + document.styleSheets.length") == 2
    assert browser.all("img, iframe, object, embed, form") == []
    quotations = [element.text for element in browser.all("#worst-rows .quotation")]
    assert set(HOSTILE) <= set(quotations)


def test_the_pages_policy_stops_what_escaping_would_not(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'harmed = 3'; document.body.append(s)"
    )
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"harmed = 4\">')")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<p style=\"display:none\" id=styled>x</p>')")
    assert browser.run("return window.harmed") is None
    assert browser.find("#styled").is_displayed()
    assert len(browser.complaints()) >= 2


def test_without_scripts_all_can_be_read(browser: Browser, page: Path) -> None:
    browser.open(page, scripts=False)
    assert browser.shown(".tools") == []
    assert len(browser.shown("#worst-rows tbody tr")) == len(REPORT.worst)
    browser.find("#duplicates summary").click()
    assert browser.shown("#duplicates .places")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, page: Path, tmp_path: Path, width: int) -> None:
    longest = tmp_path / "long.html"
    longest.write_text(render_page(make_largest_report("m")))
    for each in (page, longest):
        browser.open(each, width)
        wide, beyond = browser.run(
            "const root = document.documentElement;"
            "const right = (e) => e.getBoundingClientRect().right;"
            "return [[...document.querySelectorAll('main *')].filter((e) => right(e) > root.clientWidth"
            " && !e.closest('thead, caption')).map((e) => e.outerHTML.slice(0, 80)), "
            "root.scrollWidth - root.clientWidth]"
        )
        assert (wide[:3], beyond) == ([], 0)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out(browser: Browser, page: Path, dark: bool, width: int) -> None:
    browser.open(page, width, dark=dark)
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 21)") is dark
    ratio, text = browser.lowest_contrast()
    assert ratio >= 4.5, text


@pytest.mark.parametrize("scripts", [True, False])
def test_a_page_loses_nothing_on_paper(browser: Browser, page: Path, tmp_path: Path, scripts: bool) -> None:
    """Printed from a dark screen, with all that is folded on it."""
    longest = tmp_path / "long.html"
    longest.write_text(render_page(make_largest_report("m")))
    for each in (page, longest):
        browser.open(each, PAPER_WIDTH, dark=True, scripts=scripts, media="print")
        assert browser.lost_on_paper() == []
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        ratio, text = browser.lowest_contrast()
        assert ratio >= 4.5, text
        assert browser.print_pages() >= 1


def test_a_screen_reader_finds_its_way(browser: Browser, page: Path) -> None:
    browser.open(page)
    for landmark in ("header", "nav[aria-label]", "main", "footer"):
        assert len(browser.all(f"body > {landmark}")) == 1
    assert browser.run(
        "return [...document.querySelectorAll('section, article')]"
        ".every((e) => document.getElementById(e.getAttribute('aria-labelledby')))"
    )
    drawings = browser.all("svg:not([aria-hidden])")
    assert len(drawings) == 5
    assert all(drawing.accessible_name for drawing in drawings)
    assert all(table.get_attribute("scope") for table in browser.all("th"))
    assert browser.run("return [...document.querySelectorAll('table')].every((t) => t.caption.textContent)")
    ids = browser.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    inputs = browser.all("input, select")
    assert all(each.accessible_name for each in inputs)


def test_a_clean_report_says_so(browser: Browser, tmp_path: Path) -> None:
    write_report(tmp_path, make_clean_report())
    browser.open(tmp_path / "report.html")
    assert browser.find("#verdict h2").text == "Ready to train"
    assert browser.all("#agreement, nav a[href='#agreement']") == []
    assert [part.text for part in browser.all(".none-found")] == [
        "No check found an issue.",
        "No row has issues.",
        "No row repeats another.",
        "No training row is in a held-out set.",
        "No row was dropped.",
        "No estimate.",
    ]
    assert browser.complaints() == []


@pytest.mark.parametrize("character", ["a", "&", "'", "漢", "😀"])
def test_the_largest_report_is_a_small_page(character: str) -> None:
    page = render_page(make_largest_report(character))
    assert 50_000 < len(page.encode()) < MAX_PAGE_BYTES
    assert "The first 40 of 200 are shown." in page


def test_the_verdict_goes_by_the_gravest_issue() -> None:
    assert report_verdict(make_report()).level is Readiness.STOP
    warnings = make_report(issues=make_report().issues[1:])
    assert report_verdict(warnings).level is Readiness.CARE
    assert report_verdict(warnings).title == "Ready, with 2 warnings"
    notes = make_report(issues=make_report().issues[3:])
    assert report_verdict(notes).level is Readiness.READY
    nothing = make_report(issues=(), counts=RowCounts(rows=5, train=0, validation=0, dropped=5))
    assert report_verdict(nothing).title == "Nothing is left to train on"


def test_what_is_counted_but_not_listed_is_not_denied() -> None:
    page = render_page(make_clean_report().model_copy(update={"counts": make_report().counts}))
    assert "1,245 rows repeat others; they are counted, not listed." in page
    assert "139 rows are in a held-out set" in page
    assert "96 rows were dropped" in page
    assert "No row repeats another" not in page


def test_empty_data_can_be_drawn() -> None:
    nothing = Histogram(edges=(0, 1), counts=(0,), p50=0, p95=0, max=0)
    report = make_report(counts=RowCounts(rows=0, train=0, validation=0), tokens=nothing, turns=nothing)
    assert render_page(report).count("No rows.") == 2
    assert {segment.share for segment in draw_counts(report.counts)} == {0}


def test_a_tail_is_drawn_as_one_bar_and_named_by_its_end() -> None:
    chart = draw_histogram(Histogram(edges=(0, 10, 20, 500), counts=(4, 2, 1), p50=5, p95=18, max=499), 260)
    assert [bar.height for bar in chart.bars] == pytest.approx(
        [PLOT_HEIGHT, PLOT_HEIGHT / 2, PLOT_HEIGHT / 4]
    )
    assert len({bar.width for bar in chart.bars}) == 1
    assert [bar.label for bar in chart.bars] == ["0–9", "10–19", "20–499"]  # noqa: RUF001
    assert chart.ticks[0].label == "to 499"
    assert chart.lines[0].at == pytest.approx(chart.bars[2].x + chart.bars[2].width / 2, abs=1)
    assert draw_histogram(Histogram(edges=(0, 10), counts=(4,), p50=5, p95=8, max=9), 260).lines == ()


def test_a_curve_falls_to_the_right() -> None:
    assert REPORT.learning_curve
    chart = draw_curve(REPORT.learning_curve, REPORT.counts.train)
    xs, ys = [x for x, _, _ in chart.points], [y for _, y, _ in chart.points]
    assert xs == sorted(xs) and ys == sorted(ys)
    assert chart.end[0] > xs[-1] and chart.end[1] > ys[-1]
    flat = REPORT.learning_curve.model_copy(
        update={"points": ((10, 1.0),), "fitted": ((10, 1.0),), "now": 1.0, "doubled": 1.0}
    )
    assert draw_curve(flat, 10).points[0][0] == chart.points[0][0]


def test_numbers_are_written_for_people() -> None:
    assert [number(value) for value in (12480, 0.35, 3.0, 1234.5, 1e-8)] == [
        "12,480",
        "0.35",
        "3",
        "1,234",
        "less than 0.001",
    ]
    assert [compact(value) for value in (3_567_811, 5e10, 12)] == ["3.57 M", "50 B", "12"]
    assert [percent(share) for share in (0, 0.002, 0.5, 0.999, 1)] == [
        "0 %",
        "<1 %",
        "50 %",
        ">99 %",
        "100 %",
    ]
    assert [duration(seconds) for seconds in (0.1, 59, 1260, 9000, 400_000)] == [
        "1 s",
        "59 s",
        "21 min",
        "2.5 h",
        "4.63 days",
    ]
    assert [amount(value, "EUR") for value in (0.875, 0.0001, 0)] == [
        "0.88 EUR",
        "less than 0.01 EUR",
        "0.00 EUR",
    ]
    assert heading("contradicting_answers") == "Contradicting answers"
    assert shorten("abcdef", 4) == "abc…"


def test_characters_that_hide_or_reorder_are_written_out() -> None:
    hidden = "a\x00\x1b\x9f\u202eb\u200b\ufeff\ud800\U000e0041\r\n"
    assert reveal_controls(hidden) == (
        "a⟨U+0000⟩⟨U+001B⟩⟨U+009F⟩⟨U+202E⟩b⟨U+200B⟩⟨U+FEFF⟩⟨U+D800⟩⟨U+E0041⟩⟨U+000D⟩\n"
    )
    seen = "é\t\n שלום 漢 👩\u200d💻 क\u094d\u200dष ]-^\\"
    assert reveal_controls(seen) == seen
