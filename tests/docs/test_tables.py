"""Rows of Markdown tables have as many cells as the head, or GitHub shows them as text."""

import re
from pathlib import Path

import pytest

from tunesmith_docs.pages import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "docs/reference/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
)

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SEPARATOR = re.compile(r"(?<!\\)\|")


def broken_rows(markdown: str) -> list[str]:
    """Rows of tables that have another number of cells than the row before, or do not end."""
    broken: list[str] = []
    cells = 0
    for line in _FENCED.sub("", markdown).splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        found = len(_SEPARATOR.findall(line))
        if not line.endswith("|") or cells not in (0, found):
            broken.append(line)
        cells = cells or found
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_have_all_cells(page: Path) -> None:
    assert broken_rows(page.read_text()) == []


def test_broken_rows_are_found() -> None:
    head = "| a | b |\n|---|---|\n"
    assert broken_rows(f"{head}| 1 | x \\| y |\n") == []
    assert broken_rows(f"{head}| 1 |\n| 1 | two\n\nlines |\n") == ["| 1 |", "| 1 | two"]
    assert broken_rows("```\n| 1\n```\n") == []
