"""Page of a report of an evaluation in a real browser, also with hostile answers, and the index of several reports."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import PAPER_WIDTH, Browser
from reports.evaluation_documents import (
    HOSTILE,
    make_document,
    make_largest_document,
    make_metric,
    make_small_document,
    make_worst,
)
from selenium.webdriver.common.keys import Keys

from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_data.failures import DataError, UserError
from tunesmith_evaluation.report.files import read_report, write_report
from tunesmith_evaluation.report.index import find_reports, write_index
from tunesmith_evaluation.report.page import MAX_PAGE_BYTES, render_page

REPORT = make_document()
SECTIONS = [
    "Fail",
    "Gates",
    "Suites",
    "Slices",
    "Items that got worse",
    "Contamination",
    "Sides",
    "Configuration",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rich report's page."""
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, REPORT)
    return folder / "report.html"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of four reports: two of one policy, one of another, one that measured nothing."""
    folder = tmp_path_factory.mktemp("reports of & <b>")
    run = REPORT.run
    other = REPORT.policy.model_copy(update={"digest": "sha256:" + "77" * 32})
    passed = REPORT.verdict.model_copy(update={"verdict": Verdict.PASS})
    documents: dict[str, dict[str, Any]] = {
        "first": {},
        "second #2": {"verdict": passed, "results": (make_metric("tickets", "ExactMatch", (0.2, 0.1, 0.3)),)},
        "third": {"policy": other},
    }
    for days, (name, changes) in enumerate(documents.items()):
        moved = run.model_copy(update={"name": name, "ended": run.ended + timedelta(days=days)})
        write_report(folder / name, make_document(run=moved, **changes))
    write_report(folder / "nothing", make_small_document())
    assert write_index(folder / "index.html", find_reports([folder])) == []
    return folder / "index.html"


@pytest.fixture(scope="module")
def other_pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pages of the largest and of the smallest report."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "long.html").write_text(render_page(make_largest_document("m")))
    (folder / "small.html").write_text(render_page(make_small_document()))
    return folder / "long.html", folder / "small.html"


def test_the_report_is_read_back_equal(page: Path) -> None:
    assert read_report(page.with_name("report.json")) == REPORT
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"report.json", "report.html", "report.md", "junit.xml"}


def test_a_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, page: Path, index: Path) -> None:
    for each in (page, index):
        browser.open(each)
        assert {url for url in browser.requests() if not url.startswith("data:")} == {each.as_uri()}
        assert browser.complaints() == []


def test_all_parts_are_there_in_their_order(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert [title.text for title in browser.all("h2")] == SECTIONS
    assert len(browser.all("#gates tbody tr")) == len(REPORT.gates)
    assert len(browser.all("#suites article")) == len(REPORT.suites)
    assert len(browser.all("#worst article")) == len(REPORT.worst)
    assert len(browser.all("#sides article")) == len(REPORT.sides)
    assert browser.find("#verdict .figures dd").text == "+0.12 ±0.04"
    assert "1 of 4" in browser.find("#verdict .figures").text
    assert "The data of task mmlu is not mounted" in browser.find("#suites").text
    assert "About 420 more items would decide." in browser.find("#gates").text
    for link in browser.all("nav a"):
        address = link.get_attribute("href")
        assert address is not None
        assert browser.all("#" + address.rpartition("#")[2])


def test_intervals_and_thresholds_stand_where_they_are(browser: Browser, page: Path) -> None:
    browser.open(page)
    rows = browser.run(
        "const at = (e) => (Number(e.getAttribute('x1') ?? e.getAttribute('cx')));"
        "return [...document.querySelectorAll('#suites .forest')].map((table) =>"
        " [...table.querySelectorAll('tbody svg.strip')].map((svg) => ["
        "  at(svg.querySelector('.zero')), at(svg.querySelector('.threshold')),"
        "  at(svg.querySelector('.interval')), at(svg.querySelector('.estimate')),"
        "  Number(svg.querySelector('.interval').getAttribute('x2')), svg.getAttribute('class')]))"
    )
    scale = None
    for (zero, threshold, low, value, high, kind), delta, expected in (
        (rows[0][0], (0.08, 0.12, 0.16), 0.05),
        (rows[0][1], (-0.01, 0.02, 0.05), 0.0),
    ):
        assert zero < value
        per_unit = (value - zero) / delta[1]
        scale = scale or per_unit
        assert per_unit == pytest.approx(scale, rel=0.01)
        assert [low, value, high] == pytest.approx([zero + scale * each for each in delta], abs=0.1)
        assert threshold == pytest.approx(zero + scale * expected, abs=0.1)
        assert kind == ("strip better" if delta[0] > 0 else "strip open")
    # A lower perplexity is better; the threshold lies on the other side of zero.
    zero, threshold, _, value, _, kind = rows[1][0]
    assert value < zero < threshold
    assert kind == "strip better"
    assert rows[2][0][5] == "strip worse"


def test_outcomes_add_up_to_the_items(browser: Browser, page: Path) -> None:
    browser.open(page)
    bars = browser.run(
        "return [...document.querySelectorAll('.outcomes')].map((bar) => "
        "[...bar.querySelectorAll('rect')].map((r) => r.width.baseVal.value))"
    )
    assert len(bars) == 4
    for widths in bars:
        assert sum(widths) == pytest.approx(1000, abs=0.1)
    assert bars[0][0] == pytest.approx(1000 * 34 / 200, abs=0.1)


def test_hostile_texts_are_text(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return window.harmed") is None
    assert browser.driver.title == "Fail: tickets-v7-eval · evaluation report"
    assert browser.run("return document.scripts.length + document.styleSheets.length") == 2
    assert browser.all("img, iframe, object, embed, form") == []
    shown = browser.run("return [...document.querySelectorAll('#worst .answer')].map((e) => e.textContent)")
    assert set(HOSTILE) <= set(shown)


def test_characters_that_reorder_or_hide_are_written_out(browser: Browser, page: Path) -> None:
    browser.open(page)
    text = browser.find("#worst").text
    assert "pay ⟨U+202E⟩EUR 001⟨U+202C⟩ now⟨U+0000⟩⟨U+001B⟩[2J⟨U+200B⟩⟨U+FEFF⟩" in text
    assert not set("\u202e\u200b\x1b") & set(page.read_text())


def test_words_that_differ_are_marked_on_both_sides(browser: Browser, page: Path) -> None:
    browser.open(page)
    first = browser.all("#worst article")[0]
    added, removed = (
        [each.text.strip() for each in first.find_elements("css selector", tag)] for tag in ("ins", "del")
    )
    assert added[0] == "technical"
    assert removed[0] == "billing"


def test_items_are_filtered_by_suite_and_by_words(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.find("[data-choice-for=worst-items] option[value=general]").click()
    assert len(browser.shown("#worst article")) == 3
    browser.find("[data-filter-for=worst-items]").send_keys("東京")
    assert [each.text for each in browser.shown("#worst article h3")] == ["general, line 2"]
    assert browser.find("[data-status-for=worst-items]").text == "1 of 7 shown"


def test_the_record_is_copied_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    browser.run("document.querySelector('#policy-record').closest('details').open = true")
    browser.find("[data-copy=policy-record]").send_keys(Keys.ENTER)
    copied = browser.driver.execute_async_script(
        "const done = arguments[0]; const wait = () => document.querySelector('[data-copy=policy-record]')"
        ".firstChild.textContent.startsWith('Cop') && document.querySelector('[data-copy=policy-record]')"
        ".firstChild.textContent !== 'Copy' ? navigator.clipboard.readText().then(done, () => done(null))"
        " : requestAnimationFrame(wait); wait()"
    )
    assert copied == browser.find("#policy-record").text


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(
    browser: Browser, page: Path, index: Path, other_pages: tuple[Path, Path], width: int
) -> None:
    for each in (page, index, *other_pages):
        browser.open(each, width)
        beyond = browser.run(
            "const root = document.documentElement; const right = (e) => e.getBoundingClientRect().right;"
            "return [[...document.querySelectorAll('main *')].filter((e) => right(e) > root.clientWidth + 1"
            " && !e.closest('thead, caption, .scroll')).map((e) => e.outerHTML.slice(0, 80)).slice(0, 3), "
            "root.scrollWidth - root.clientWidth]"
        )
        assert beyond == [[], 0], each.name


@pytest.mark.parametrize("width", [740, 1280])
def test_a_long_reason_or_name_leaves_the_other_columns_their_words(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    words = "the margin 0.3 is more than half of what the baseline has (0.31 above the worst score), " * 3
    gates = tuple(gate.model_copy(update={"message": words}) for gate in REPORT.gates)
    write_report(tmp_path / "a", make_document(gates=gates))
    run = REPORT.run.model_copy(update={"name": "n" * 63})
    write_report(tmp_path / "b", make_document(run=run))
    write_index(tmp_path / "index.html", find_reports([tmp_path]))
    for each, table in (
        (tmp_path / "a" / "report.html", "#gates"),
        (tmp_path / "index.html", "#report-list"),
    ):
        browser.open(each, width)
        broken = browser.run(
            "const broken = [];"
            f"for (const cell of document.querySelectorAll('{table} th, {table} td')) {{"
            "  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);"
            "  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {"
            "    const range = document.createRange();"
            "    range.setStart(texts.currentNode, word.index);"
            "    range.setEnd(texts.currentNode, word.index + word[0].length);"
            "    if (word[0].length < 30 && range.getClientRects().length > 1) broken.push(word[0]);"
            "  }"
            "}"
            "return broken"
        )
        assert broken == [], each.name


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out(browser: Browser, page: Path, index: Path, dark: bool, width: int) -> None:
    for each in (page, index):
        browser.open(each, width, dark=dark)
        browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
        ratio, text = browser.lowest_contrast()
        assert ratio >= 4.5, text


@pytest.mark.parametrize("scripts", [True, False])
def test_a_page_loses_nothing_on_paper(
    browser: Browser, page: Path, index: Path, other_pages: tuple[Path, Path], scripts: bool
) -> None:
    """Printed from a dark screen, with all that is folded on it."""
    for each in (page, index, *other_pages):
        browser.open(each, PAPER_WIDTH, dark=True, scripts=scripts, media="print")
        assert browser.lost_on_paper() == [], each.name
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        ratio, text = browser.lowest_contrast()
        assert ratio >= 4.5, text
        assert browser.shown("nav, .tools, .copy, .skip") == []
        lines = browser.run(
            "return [...document.querySelectorAll('main a')].map((a) => getComputedStyle(a).textDecorationLine)"
        )
        assert set(lines) <= {"underline"}
        assert browser.print_pages() >= 1


def test_answers_in_all_scripts_keep_their_direction_and_the_layout(browser: Browser, tmp_path: Path) -> None:
    scripts = {
        "ar": ("ما هي عاصمة مصر؟ (Egypt)", "القاهرة", "الإسكندرية", "القاهرة"),
        "he": ("מהי בירת ישראל?", "ירושלים", "תל אביב, 1948", "ירושלים"),
        "zh": ("中国的首都是哪里", "北京", "上海" * 200, "北京"),
        "ja": ("日本の首都はどこですか。", "東京", "京都です。", "東京"),
        "ko": ("한국의 수도는 어디인가요?", "서울", "부산입니다", "서울"),
        "long": ("x" * 900, "a" * 300, "https://example.com/" + "path/" * 100, "b" * 700),
    }
    worst = tuple(make_worst(number, *texts) for number, texts in enumerate(scripts.values(), start=1))
    write_report(tmp_path, make_document(worst=worst))
    for width, media in ((390, "screen"), (1280, "screen"), (PAPER_WIDTH, "print")):
        browser.open(tmp_path / "report.html", width, media=media)
        directions = browser.run(
            "return [...document.querySelectorAll('#worst article')].map((item) => "
            "[...item.querySelectorAll('.answer')].map((e) => getComputedStyle(e).direction))"
        )
        assert directions == [["rtl"] * 4, ["rtl"] * 4, *[["ltr"] * 4] * 4]
        assert browser.run("return getComputedStyle(document.documentElement).direction") == "ltr"
        assert browser.lost_on_paper() == [] or media == "screen"
        assert (
            browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            == 0
        )
    for element in ("body", "code"):
        families = browser.run(f"return getComputedStyle(document.querySelector('{element}')).fontFamily")
        for family in (
            "Noto Sans CJK SC",
            "PingFang SC",
            "Microsoft YaHei",
            "Hiragino Sans",
            "Malgun Gothic",
        ):
            assert family in families


def test_a_screen_reader_finds_its_way(browser: Browser, page: Path, index: Path) -> None:
    for each in (page, index):
        browser.open(each)
        browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
        for landmark in ("header", "main", "footer"):
            assert len(browser.all(f"body > {landmark}")) == 1
        assert browser.run(
            "return [...document.querySelectorAll('section, article')]"
            ".every((e) => document.getElementById(e.getAttribute('aria-labelledby')))"
        )
        drawings = browser.all("svg:not([aria-hidden])")
        assert drawings
        assert all(drawing.accessible_name for drawing in drawings)
        assert all(head.get_attribute("scope") for head in browser.all("th"))
        assert browser.run(
            "return [...document.querySelectorAll('table')].every((t) => t.caption.textContent)"
        )
        ids = browser.run("return [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        assert all(control.accessible_name for control in browser.all("input, select, button"))


def test_without_scripts_all_can_be_read(browser: Browser, page: Path) -> None:
    browser.open(page, scripts=False)
    assert browser.shown(".tools") == []
    assert len(browser.shown("#worst article")) == len(REPORT.worst)
    browser.find("#configuration summary").click()
    assert browser.shown("#configuration pre")


def test_a_report_without_results_says_so(browser: Browser, tmp_path: Path) -> None:
    write_report(tmp_path, make_small_document())
    browser.open(tmp_path / "report.html")
    assert browser.find("#verdict h2").text == "Inconclusive"
    assert [part.text for part in browser.all(".none-found")] == [
        "No gates.",
        "No suite was evaluated.",
        "Nothing was compared.",
        "The items were not checked against training data.",
    ]
    assert browser.complaints() == []


@pytest.mark.parametrize("character", ["a", "&", "漢", "\u202e"])
def test_the_largest_report_is_a_bounded_page(character: str) -> None:
    page = render_page(make_largest_document(character))
    assert 100_000 < len(page.encode()) < MAX_PAGE_BYTES
    assert "of 60 are shown." in page
    assert "of 9,000." in page


def test_the_index_lists_the_newest_first_and_leads_to_each_page(browser: Browser, index: Path) -> None:
    browser.open(index)
    assert browser.find("h1").text == index.parent.name
    assert [link.text for link in browser.all("#report-list a")][:3] == ["third", "second #2", "first"]
    verdicts = [each.text for each in browser.all("#report-list .badge")]
    assert verdicts[:3] == ["✗ Fail", "✓ Pass", "✗ Fail"]
    browser.find("[data-choice-for=report-list] option:nth-child(2)").click()
    assert [link.text for link in browser.shown("#report-list a")] == ["second #2"]
    browser.shown("#report-list a")[0].click()
    assert browser.find("h1").text == "second #2"


def test_only_reports_of_one_policy_share_a_trend(browser: Browser, index: Path) -> None:
    browser.open(index)
    charts = browser.all("figure.trend")
    assert [len(chart.find_elements("css selector", "svg .whisker")) for chart in charts] == [2, 1]
    assert "2 reports; policy 5e5e5e5e5e5e" in charts[0].text
    heights = browser.run(
        "return [...document.querySelectorAll('figure.trend')[0].querySelectorAll('polyline')]"
        ".map((line) => line.getAttribute('points'))"
    )
    first, second = (float(point.split(",")[1]) for point in heights[0].split())
    assert second < first


def test_an_index_leaves_out_what_is_no_report_and_other_aliases(tmp_path: Path) -> None:
    write_report(tmp_path / "mine", REPORT)
    other = REPORT.run.model_copy(update={"alias": "other", "name": "elsewhere"})
    write_report(tmp_path / "other", make_document(run=other))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text('{"schemaVersion": 2}')
    problems = write_index(tmp_path / "index.html", find_reports([tmp_path]), alias="tickets")
    assert len(problems) == 1
    assert "broken/report.json is not a report" in problems[0]
    assert "elsewhere" not in (tmp_path / "index.html").read_text()
    with pytest.raises(UserError, match="no report for alias nobody among 3 files"):
        write_index(tmp_path / "index.html", find_reports([tmp_path]), alias="nobody")


def test_folders_without_reports_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no report\.json in .*: write the folder of a report"):
        find_reports([tmp_path])
    with pytest.raises(UserError, match="missing does not exist"):
        find_reports([tmp_path / "missing"])
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match="is not a report of an evaluation that this version reads"):
        read_report(tmp_path / "report.json")
