"""The shared cache of models: used where it can be, and never the end of a run."""

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from tunesmith_contract.layout import MODEL_CACHE_ENV
from tunesmith_data.pod.model_cache import fetch_through_cache
from tunesmith_data.pod.storage import Storage


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of the hub's cache on the claim, which the first pod makes."""
    return tmp_path / "claim/huggingface/hub"


def fetch(places: list[Path | None], *failures: Exception) -> Callable[[Path | None], str]:
    """A download that notes where it went; one after the other fails like this."""
    left = list(failures)

    def download(place: Path | None) -> str:
        places.append(place)
        if left:
            raise left.pop(0)
        return str(place)

    return download


def test_models_go_to_the_claim(cache: Path) -> None:
    places: list[Path | None] = []
    assert fetch_through_cache(fetch(places), {MODEL_CACHE_ENV: str(cache)}) == str(cache)
    assert fetch_through_cache(fetch(places), {}) == "None"
    assert places == [cache, None]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ESTALE, "Stale file handle"),
        RuntimeError("Data processing error: File reconstruction error: No space left on device"),
    ],
    ids=["full", "stale", "full-in-rust"],
)
def test_a_fault_of_the_claim_costs_a_download(
    cache: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    places: list[Path | None] = []
    assert fetch_through_cache(fetch(places, failure), {MODEL_CACHE_ENV: str(cache)}) == "None"
    assert places == [cache, None]
    assert f"{cache} can't be used, downloading without it" in caplog.text


def test_an_answer_of_the_hub_is_not_asked_for_twice(cache: Path) -> None:
    places: list[Path | None] = []
    gated = HfHubHTTPError("403", response=mock.Mock())
    with pytest.raises(HfHubHTTPError):
        fetch_through_cache(fetch(places, gated), {MODEL_CACHE_ENV: str(cache)})
    assert places == [cache]


def test_a_failure_that_is_not_the_claims_is_raised(cache: Path) -> None:
    error = OSError("no such model")
    with pytest.raises(OSError, match="no such model"):
        fetch_through_cache(fetch([], error, error), {MODEL_CACHE_ENV: str(cache)})


def test_a_claim_without_locks_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks = mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available"))
    monkeypatch.setattr(fcntl, "flock", without_locks)
    places: list[Path | None] = []
    fetch_through_cache(fetch(places), {MODEL_CACHE_ENV: str(cache)})
    assert places == [None]


def test_a_claim_that_can_not_be_written_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    places: list[Path | None] = []
    fetch_through_cache(fetch(places), {MODEL_CACHE_ENV: str(tmp_path / "file/hub")})
    assert places == [None]


def test_weights_of_a_hub_are_kept_on_the_claim(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MODEL_CACHE_ENV, str(cache))
    (tmp_path / "config.json").write_text("{}")
    download = mock.create_autospec(huggingface_hub.snapshot_download, return_value=str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    Storage().model_folder("hf://o/r@main", weights=True)
    assert download.call_args.kwargs["cache_dir"] == cache
