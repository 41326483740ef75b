"""The engine that an evaluation orders: started, replaced, ended, and told when it ends by itself."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith_contract.engine_order import ORDER_FILE, STATE_FILE, EngineOrder, EngineState
from tunesmith_engine import on_order

#: Stands for vLLM: writes its arguments to a file, and runs until it is ended, or ends with a code.
ENGINE = """
import json, pathlib, signal, sys
folder, *arguments = sys.argv[1:]
marker = pathlib.Path(folder, "-".join(arguments))
print("serving", arguments, flush=True)
signal.signal(signal.SIGTERM, lambda *_: (marker.unlink(), sys.exit(0)))
marker.touch()
if arguments[0] == "raise":
    print("(EngineCore pid=7) ERROR 11-30 04:33:29 [core.py:1510]     raise RuntimeError(")
    print("(EngineCore pid=7) ERROR 11-30 04:33:29 [core.py:1510] RuntimeError: 160 MiB required, 64 MiB free")
    for _ in range(60):
        print("    return func(*args, **kwargs)")
    raise RuntimeError("Engine core initialization failed. See root cause above")
if arguments[0] == "fail":
    sys.exit(int(arguments[1]))
signal.pause()
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose orders are served."""
    monkeypatch.setattr(on_order, "POLL_SECONDS", 0.01)
    stopped = threading.Event()
    command = [sys.executable, "-c", ENGINE, str(tmp_path)]
    thread = threading.Thread(target=on_order.serve_orders, args=(tmp_path, command, stopped))
    thread.start()
    yield tmp_path
    stopped.set()
    thread.join(20)
    assert not thread.is_alive()


def order(folder: Path, number: int, *arguments: str) -> None:
    draft = folder / "draft"
    draft.write_text(EngineOrder(number=number, arguments=arguments).to_json())
    draft.rename(folder / ORDER_FILE)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, at most 20 seconds."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come to pass")


def test_an_order_is_served_until_the_next(engine: Path) -> None:
    order(engine, 1, "one")
    wait_for((engine / "one").exists)
    order(engine, 2, "two")
    wait_for((engine / "two").exists)
    assert not (engine / "one").exists()
    order(engine, 3)
    wait_for(lambda: not (engine / "two").exists())


def test_an_order_is_served_once(engine: Path) -> None:
    order(engine, 2, "two")
    wait_for((engine / "two").exists)
    order(engine, 2, "again")
    order(engine, 1, "earlier")
    order(engine, 3, "three")
    wait_for((engine / "three").exists)
    assert not (engine / "again").exists()
    assert not (engine / "earlier").exists()


def test_the_end_of_the_engine_is_told_with_its_log(engine: Path) -> None:
    order(engine, 1, "fail", "7")
    wait_for((engine / STATE_FILE).exists)
    state = EngineState.model_validate_json((engine / STATE_FILE).read_bytes())
    assert (state.number, state.exit_code) == (1, 7)
    assert "serving ['fail', '7']" in state.message
    order(engine, 2, "two")
    wait_for((engine / "two").exists)


def test_the_cause_is_the_first_error_of_the_log(engine: Path) -> None:
    order(engine, 1, "raise")
    wait_for((engine / STATE_FILE).exists)
    state = EngineState.model_validate_json((engine / STATE_FILE).read_bytes())
    assert state.cause == (
        "RuntimeError: 160 MiB required, 64 MiB free; at last RuntimeError: Engine core initialization failed. "
        "See root cause above"
    )
    assert "Engine core initialization failed" in state.message


def test_a_container_that_was_killed_tells_so_and_starts_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_order, "POLL_SECONDS", 0.01)
    served = [sys.executable, "-m", "tunesmith_engine.on_order", str(tmp_path)]
    order(tmp_path, 1, "one")
    killed = subprocess.Popen(served, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for((tmp_path / on_order.BEGUN_FILE).exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (tmp_path / STATE_FILE).unlink(missing_ok=True)
    stopped = threading.Event()
    thread = threading.Thread(
        target=on_order.serve_orders, args=(tmp_path, [sys.executable, "-c", ENGINE, str(tmp_path)], stopped)
    )
    thread.start()
    try:
        wait_for((tmp_path / STATE_FILE).exists)
        state = EngineState.model_validate_json((tmp_path / STATE_FILE).read_bytes())
        assert (state.number, state.exit_code) == (1, -signal.SIGKILL)
        assert "out of memory" in state.message
        order(tmp_path, 2, "two")
        wait_for((tmp_path / "two").exists)
        assert not (tmp_path / "one").exists()
    finally:
        stopped.set()
        thread.join(20)


def test_a_file_that_is_no_order_ends_it(tmp_path: Path) -> None:
    (tmp_path / ORDER_FILE).write_text(json.dumps({"number": "many"}))
    with pytest.raises(SystemExit, match="is no order of this release"):
        on_order.serve_orders(tmp_path, [], threading.Event())
