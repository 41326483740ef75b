"""A missing program is named, with the command that brings it."""

import os

import pytest

from tunesmith_images.run import BuildError
from tunesmith_images.system import BROWSER, ensure_browser, ensure_programs


def test_what_is_there_is_left_alone() -> None:
    ensure_programs({"sh": "no-such-package"})


def test_a_plain_user_learns_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(BuildError, match=r"as root on Debian: apt-get install .* some-package$"):
        ensure_programs({"sh": "dash", "no-such-program": "some-package"})


def test_a_plain_user_goes_on_without_a_browser(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    ensure_browser()
    assert " ".join(BROWSER.values()) in capsys.readouterr().out


def test_root_without_a_browser_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program, path=None: None)
    with pytest.raises(BuildError):
        ensure_browser()
