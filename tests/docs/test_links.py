"""Relative links of all Markdown files lead to a file, and their anchors to a heading."""

import re
from functools import cache
from pathlib import Path

import pytest

from tunesmith_docs.markdown import anchor
from tunesmith_docs.pages import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "docs/reference/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
NAMED = re.compile(r'<a id="([^"]+)">')


@cache
def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, and those it names itself."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in HEADING.findall(text))
    return {anchor(heading) for heading in headings} | set(NAMED.findall(text))


def broken_links(page: Path) -> list[str]:
    """Relative links that lead nowhere."""
    broken = []
    for link in LINK.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_missing = not target.exists()
        if is_missing or (fragment and target.suffix == ".md" and fragment not in anchors_of(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `b` heading, here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[file](other.md) [heading](other.md#a-b-heading-here) [web](https://example.com)\n"
        "[gone](gone.md) [no heading](other.md#gone)\n"
    )
    assert broken_links(page) == ["gone.md", "other.md#gone"]
