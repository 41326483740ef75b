"""Test cases of JUnit files."""

from pathlib import Path

from tunesmith_checks.results import Case, read_cases

JUNIT = """<testsuites><testsuite>
<testcase classname="c" name="good" time="1.5"/>
<testcase classname="c" name="bad" time="0.1"><failure message="x"/></testcase>
<testcase classname="c" name="broken"><error message="x"/></testcase>
<testcase classname="c" name="left"><skipped message="x"/></testcase>
</testsuite></testsuites>"""


def test_cases_of_all_files_are_read_with_their_outcomes(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(JUNIT)
    (tmp_path / "b.xml").write_text(JUNIT.replace("good", "second"))
    cases = read_cases(tmp_path)
    assert len(cases) == 8
    assert cases[:4] == [
        Case("c::good", 1.5, "passed"),
        Case("c::bad", 0.1, "failed"),
        Case("c::broken", 0.0, "failed"),
        Case("c::left", 0.0, "skipped"),
    ]
