"""``bench/gpu_serve.sh`` on a CPU: the real engine, as the operator starts it, with an honest and a wrong adapter."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tunesmith_contract.agent import Version
from tunesmith_images.venvs import make_environment

ENGINE_PYTHON = os.environ.get("TUNESMITH_ENGINE_PYTHON", "")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(900),
]


def make_smoke_run(folder: Path) -> Path:
    """Folder as ``bench/gpu_smoke.py`` leaves it, with the adapters ``right`` and ``wrong``."""
    python = os.environ.get("TUNESMITH_TRAINER_PYTHON") or make_environment("trainer") / "bin/python"
    sources = f"{ROOT}/contract/src:{ROOT}/tests/support"
    command = [python, ROOT / "tests/support/models/probed_adapters.py", folder, "llama"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": sources})
    versions = TypeAdapter(dict[str, Version]).validate_json((folder / "versions.json").read_bytes())
    output = folder / "out"
    shutil.copytree(folder / "model", output / "work/pvc/models/base")
    checks = []
    for name in ("right", "wrong"):
        digest = versions[name].digest
        made = folder / "mnt" / versions[name].uri.replace("pvc://", "pvc/")
        shutil.copytree(made, output / "work/pvc/out/sha256" / digest.removeprefix("sha256:"))
        checks.append({"name": name, "status": "OK", "numbers": {"artifact": {"digest": digest}}})
    (output / "gpu-smoke.json").write_text(json.dumps({"checks": checks}))
    return output


def serve(output: Path) -> tuple[list[str], dict[str, Any]]:
    """Lines and results of the script."""
    python = make_environment("dev") / "bin/python"
    # Coverage finds its plugin by the path.
    left_out = ("PYTHONPATH", "COVERAGE_PROCESS_START")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"TUNESMITH_AGENT_PYTHON": str(python), "TUNESMITH_ENGINE_PYTHON": ENGINE_PYTHON}
    command = ["sh", str(ROOT / "bench/gpu_serve.sh"), str(output), "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    log = output / "engine.log"
    assert log.exists(), done.stderr
    *lines, _ = done.stdout.splitlines()
    results = json.loads((output / "gpu-serve.json").read_text())["checks"]
    assert len(lines) == len(results)
    assert done.returncode == any(result["status"] == "FAILED" for result in results)
    return lines, {result["name"]: result for result in results}


def test_engine_as_shipped_proves_the_honest_adapter_alone(tmp_path: Path) -> None:
    output = make_smoke_run(tmp_path)
    lines, results = serve(output)
    assert results["start"]["status"] == "OK", (output / "engine.log").read_text()[-3000:]
    status = {name: result["status"] for name, result in results.items()}
    failed = {name for name, word in status.items() if word != "OK"}
    assert failed == {"idle wrong", "busy wrong"}, lines
    assert results["idle right"]["numbers"]["verdict"] == "Proved"
    assert results["busy right"]["numbers"]["share"] == pytest.approx(1, abs=0.05)
    assert "of the adapter's expected effect" in results["idle wrong"]["reason"]
    speed = results["speed"]["numbers"]
    assert speed["tokensPerSecond"] > 0
    assert speed["memoryGiB"] > 0
