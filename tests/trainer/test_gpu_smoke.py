"""``bench/gpu_smoke.py`` on a CPU with a tiny model: the program that is to run on the first GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "bench/gpu_smoke.py"

#: Checks that end in every bad way, between two good ones.
FAULTS = """
import os, subprocess, sys, time
from pathlib import Path
from check_runner import CheckFailed, Skipped

def good(place):
    print("output goes to the log")
    return {"answer": 42}

def after(place):
    return {"seen": place.numbers("first")["answer"]}

def raises(place):
    raise ValueError("broken | library")

def finds(place):
    raise CheckFailed("too slow", tokensPerSecond=1.0)

def lacks(place):
    import no_such_library

def lacks_own(place):
    import tunesmith_no_such_part

def lacks_in_process(place):
    done = subprocess.run([sys.executable, "-c", "import no_such_library"], capture_output=True, text=True)
    raise RuntimeError("the stage failed: " + done.stderr)

def skips(place):
    raise Skipped("no GPU")

def dies(place):
    os.kill(os.getpid(), 9)

def hangs(place):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (place.folder / "child").write_text(str(child.pid))
    time.sleep(600)
"""
DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{bench!r}, {folder!r}]
from check_runner import Check, Place, run_checks
names = ["raises", "finds", "lacks", "lacks_own", "lacks_in_process", "skips", "dies"]
checks = [Check("first", "faults:good", 60), *(Check(name, f"faults:{{name}}", 60) for name in names)]
checks += [Check("hangs", "faults:hangs", {seconds}), Check("needing", "faults:good", 60, ("raises",))]
checks += [Check("last", "faults:after", 60, ("first",))]
run_checks(checks, Place(Path({folder!r})), {budget}, lambda results: print(results[-1].line()))
"""


def run_faults(folder: Path, budget: float) -> dict[str, str]:
    """Lines of all checks, by name."""
    (folder / "faults.py").write_text(FAULTS)
    text = DRIVER.format(bench=str(ROOT / "bench/gpu"), folder=str(folder), budget=budget, seconds=6)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return {line.split()[0]: line for line in done.stdout.splitlines()}


def run_smoke(output: Path, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """Lines and results of the program, started with nothing but its path."""
    # Coverage finds its plugin by the path.
    left_out = ("PYTHONPATH", "COVERAGE_PROCESS_START")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    command = [sys.executable, str(PROGRAM), str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    results: dict[str, Any] = json.loads((output / "gpu-smoke.json").read_text())
    *lines, total = done.stdout.splitlines()
    assert done.stderr == ""
    assert [line.split()[0] for line in lines] == [check["name"] for check in results["checks"]]
    failed = [line for line in lines if line.split()[1] == "FAILED"]
    assert done.returncode == bool(failed)
    assert str(output / "gpu-smoke.json") in total
    return lines, {check["name"]: check for check in results["checks"]}


def test_no_check_stops_the_others(tmp_path: Path) -> None:
    lines = run_faults(tmp_path, budget=300)
    status = {name: line.split()[1] for name, line in lines.items()}
    assert status == {
        "first": "OK", "raises": "FAILED", "finds": "FAILED", "lacks": "SKIPPED", "lacks_own": "FAILED",
        "lacks_in_process": "SKIPPED", "skips": "SKIPPED",
        "dies": "FAILED", "hangs": "FAILED", "needing": "SKIPPED", "last": "OK",
    }  # fmt: skip
    assert "answer=42" in lines["first"]
    assert "ValueError: broken | library" in lines["raises"]
    assert "tokensPerSecond=1  too slow" in lines["finds"]
    assert "no_such_library is not installed" in lines["lacks"]
    assert "no_such_library is not installed" in lines["lacks_in_process"]
    assert "ended with -9" in lines["dies"]
    assert "did not end within 6 s" in lines["hangs"]
    assert "needs raises" in lines["needing"]
    assert "seen=42" in lines["last"]
    assert (tmp_path / "logs/first.log").read_text() == "output goes to the log\n"
    child = Path("/proc", (tmp_path / "child").read_text(), "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_no_time_is_left_for_is_skipped(tmp_path: Path) -> None:
    lines = run_faults(tmp_path, budget=5.01)
    assert lines["first"].split()[1] == "OK"
    assert "no time left of 5 s" in lines["raises"]
    assert "no time left of 5 s" in lines["hangs"]
    assert lines["last"].split()[1] == "SKIPPED"


@pytest.mark.timeout(600)
def test_native_parts_are_checked_without_a_gpu(tmp_path: Path) -> None:
    chosen = ("versions", "preflight", "bitsandbytes")
    lines, results = run_smoke(tmp_path, "--budget", "600", "--only", *chosen)
    assert set(results) == set(chosen)
    status = {name: result["status"] for name, result in results.items()}
    assert [name for name, word in status.items() if word != "OK"] == ["preflight"], lines
    assert results["preflight"]["reason"].startswith("no GPU: NoGPU: ")
    assert {"torch", "trl"} <= results["versions"]["numbers"].keys()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_checks(tmp_path: Path) -> None:
    lines, results = run_smoke(tmp_path, "--budget", "3600")
    status = {name: result["status"] for name, result in results.items()}
    need_gpu = {"preflight", "triton", "packed-attention", "qlora-low-memory", "unsloth"}
    assert {name for name, word in status.items() if word == "SKIPPED"} == need_gpu, lines
    assert "FAILED" not in status.values(), lines
    assert results["resume"]["numbers"]["largestLossDifference"] == 0
    assert results["zero3-merged"]["numbers"]["exports"]
    assert results["reload-merged"]["numbers"]["rootMeanSquare"] < 1e-3
    assert results["defaults"]["numbers"]["trlTokensPerSecond"] > 0
    lora, noise = results["lora"]["numbers"], results["noise"]["numbers"]
    assert lora["tokensPerSecond"] > 0
    assert lora["peakGiB"] > 0
    assert lora["kernels"] == "SDPAPerRow"
    assert lora["precision"] == "float32"
    assert noise["manifestNoise"] > 0
    # Rounding to bfloat16 is the largest difference of all ways; plain float32 attention is what others differ from.
    ways = noise["ways"]
    assert ways["eager, alone, float32"]["tuned"] == 0
    assert ways["sdpa, padded, float32"]["tuned"] < ways["sdpa, padded, bfloat16"]["tuned"]
    assert noise["worstRootMeanSquare"] == max(way["tuned"] for way in ways.values())
