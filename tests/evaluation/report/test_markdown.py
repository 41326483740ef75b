"""Markdown and JUnit XML of a report: what they say, what they escape, how long they may be."""

import re
from html import unescape
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports.evaluation_documents import (
    CONTROLS,
    HOSTILE,
    make_document,
    make_largest_document,
    make_metric,
    make_small_document,
    make_worst,
)

from tunesmith_contract.evaluation import Expect, Tier
from tunesmith_contract.report import Artifact
from tunesmith_evaluation.report.document import MAX_EXCERPT, MAX_WORST_ITEMS, GateReport
from tunesmith_evaluation.report.junit import render_junit
from tunesmith_evaluation.report.markdown import MAX_MARKDOWN_BYTES, render_markdown

REPORT = make_document()
#: Texts that must stay text: in names, sentences and answers alike.
MEANINGS = (
    *HOSTILE,
    CONTROLS,
    "@maintainers look at #12 and GH-7, org/repo#3",
    "[click](http://192.0.2.1) www.example.com http://192.0.2.1 :tada:",
    "**bold** _it_ ~~gone~~ `code` $x^2$ | cell",
    "- list\n1. list\n> quote\n=====\n<details open>",
    "</code></pre>\n\n<script>harmed</script>",
    "1. begins a list",
)


def render_html(markdown: str) -> str:
    """HTML of GitHub-flavored Markdown; raw HTML stays, as it does on GitHub before it is sanitized."""
    return str(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))


def test_the_gates_come_first_and_details_are_folded() -> None:
    text = render_markdown(REPORT)
    head, _, rest = text.partition("<details>")
    assert head.startswith("### ❌ Fail: ")
    assert REPORT.verdict.message in head
    assert "better by more than 0.05" in head
    assert "About 420 more items would decide" in head
    assert "(advisory)" in head
    assert rest.count("<summary>") == 5
    assert text.count("<details>") == text.count("</details>")
    assert REPORT.policy.digest in rest


def test_markdown_becomes_the_tables_that_are_meant() -> None:
    html = render_html(render_markdown(REPORT))
    gates = html[html.index("<table>") : html.index("</table>")]
    assert gates.count("<tr>") == 1 + len(REPORT.gates)
    assert len(re.findall("<td", gates)) == 6 * len(REPORT.gates)
    assert html.count("<table>") == 3


@pytest.mark.parametrize("text", MEANINGS)
def test_texts_of_users_have_no_meaning(text: str) -> None:
    gate = GateReport(suite=text, metric=text, expect=Expect.BETTER, verdict="Fail", message=text)
    document = make_document(
        verdict=REPORT.verdict.model_copy(update={"message": text}),
        run=REPORT.run.model_copy(update={"name": text}),
        gates=(gate,),
        warnings=(text,),
        worst=tuple(item.model_copy(update={"question": text, "suite": text}) for item in REPORT.worst[:1]),
    )
    plain = make_document(gates=(gate.model_copy(update={"suite": "a", "metric": "a", "message": "a"}),))
    html, usual = render_html(render_markdown(document)), render_html(render_markdown(plain))
    shape = re.compile(
        r"<(?!/?(?:pre|code|p|strong|h3|details|summary|table|thead|tbody|tr|th|td|ul|li|blockquote)\b)"
    )
    assert shape.findall(html) == []
    for tag in ("table", "tr", "li", "h3", "blockquote", "details"):
        assert html.count(f"<{tag}>") <= usual.count(f"<{tag}>"), tag
    outside = re.sub(r"<(pre|code)>.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.search(r"(?<![\w])[@#](?=\w)|\bGH-\d", outside)
    assert not set("\u202e\x00\x1b\u200b") & set(render_markdown(document))


def test_a_report_that_measured_nothing_is_said_in_a_few_lines() -> None:
    text = render_markdown(make_small_document())
    assert "Suite tickets holds no item that all sides answered." in text
    assert "|---" not in text


@pytest.mark.parametrize("character", ["a", "&", "|", "漢", "\u202e", "😀"])
def test_the_longest_report_fits_into_a_comment(character: str) -> None:
    text = render_markdown(make_largest_document(character))
    assert len(text.encode()) <= MAX_MARKDOWN_BYTES
    assert len(text) <= 65_536
    assert "of 180 gates are shown" in text


def test_a_few_items_that_got_worse_are_shown_in_short_and_the_place_of_all_is_told() -> None:
    words = "a long answer " * 200
    worst = tuple(make_worst(number, words, words, words, words) for number in range(1, 51))
    text = render_markdown(make_document(worst=worst, worst_total=1234))
    folded = text.partition("<summary>Items that got worse</summary>")[2].partition("</details>")[0]
    shown = re.findall(r"<pre>(.*?)</pre>", folded, re.DOTALL)
    assert 0 < len(shown) // 4 <= 5
    assert max(map(len, shown)) <= 300
    assert "of 1,234 items are shown" in folded
    assert "report.html" in folded
    assert "pvc://artifacts/support/items.jsonl" in unescape(folded)


#: Characters that grow when they are escaped, or that take several bytes.
_WIDE = st.text(st.sampled_from("a &<|`*_@#漢é\u202e\x00\n😀\ud7ff"), min_size=1, max_size=8)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(text=_WIDE, times=st.integers(1, 4000), count=st.integers(0, 60), total=st.integers(0, 10**9))
def test_a_report_of_any_texts_fits_into_a_comment(text: str, times: int, count: int, total: int) -> None:
    long = (text * times)[:MAX_EXCERPT]
    worst = tuple(make_worst(number, long, long, long, long) for number in range(min(count, MAX_WORST_ITEMS)))
    results = tuple(
        make_metric(f"{long}{number}", f"{long}{number}", (0.1, 0.0, 0.2)) for number in range(count)
    )
    gates = tuple(
        GateReport(suite=result.suite, metric=long, expect=Expect.BETTER, verdict="Fail", message=long)
        for result in results
    )
    document = make_document(
        worst=worst,
        worst_total=total,
        results=results,
        gates=gates,
        warnings=(long,) * count,
        run=REPORT.run.model_copy(update={"name": long}),
        details=Artifact(uri=f"pvc://{long}"[:512], digest=REPORT.policy.digest, size_bytes=1),
        decoding={long: long},
    )
    rendered = render_markdown(document)
    assert len(rendered) <= len(rendered.encode()) <= MAX_MARKDOWN_BYTES < 65_536
    assert rendered.count("<details>") == rendered.count("</details>")


def test_each_gate_is_a_test_case() -> None:
    root = ElementTree.fromstring(render_junit(REPORT))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("5", "1", "2")
    cases = {
        (suite.get("name"), case.get("name")): [child.tag for child in case]
        for suite in root
        for case in suite.findall("testcase")
    }
    assert cases == {
        ("tickets", "ExactMatch: better by more than 0.05"): ["system-out"],
        ("tickets", "JSONFields: better"): ["skipped"],
        ("tickets", "Perplexity: worse by less than 5 % of the baseline's score"): ["system-out"],
        ("general", "ExactMatch: worse by less than 0.02"): ["failure"],
        ("mmlu", "Accuracy: worse by less than 0.02"): ["skipped"],
    }
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message", "").startswith("−0.06 ±0.03")  # noqa: RUF001
    assert failure.text == REPORT.verdict.message
    assert root.findtext(".//testsuite[@name='mmlu']/system-err", "").startswith("The data of task mmlu")
    values = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert (values["verdict"], values["policyDigest"]) == ("Fail", REPORT.policy.digest)


def test_an_advisory_gate_that_fails_fails_nothing() -> None:
    gate = REPORT.gates[3].model_copy(update={"tier": Tier.ADVISORY})
    root = ElementTree.fromstring(render_junit(make_document(gates=(gate,))))
    assert (root.get("failures"), root.get("skipped")) == ("0", "0")
    assert root.findtext(".//system-out", "").startswith("Advisory gate: Fail: ")


@pytest.mark.parametrize("text", [*HOSTILE, CONTROLS, "\ufffe\uffff\x0b ]]> & \" '"])
def test_junit_holds_any_text(text: str) -> None:
    gate = GateReport(
        suite=text, metric=text, expect=Expect.BETTER, verdict="Fail", message=text, reason=text
    )
    root = ElementTree.fromstring(render_junit(make_document(gates=(gate,))))
    assert root.find(".//failure") is not None
