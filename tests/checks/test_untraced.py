"""Pauses of coverage where libraries are imported and layers of models compute."""

import os
import subprocess
import sys
from pathlib import Path

import coverage
import pytest

from tunesmith_checks.paths import ROOT

PRODUCT = """\
import sys
import torch.nn.modules.module as layers
from torch import state

class Layer(layers.Module):
    def forward(self, count):
        if count:
            return self(count - 1)
        raise ValueError("in a layer")

def compute():
    try:
        Layer()(1)
    except ValueError:
        return sys.gettrace()

assert compute() is sys.gettrace()
assert state.traced_while_imported is None
print("done" if sys.gettrace() else "no trace")
"""
LAYERS = """\
class Module:
    def _call(self, *args):
        return self.forward(*args)

    __call__ = _call
"""


@pytest.fixture
def measured(tmp_path: Path) -> set[int]:
    """Lines of the product that were covered, where it imports a library and calls a layer that fails."""
    product = tmp_path / "checkout" / "trainer" / "src" / "product.py"
    layers = tmp_path / "libraries" / "torch" / "nn" / "modules" / "module.py"
    for file, text in ((product, PRODUCT), (layers, LAYERS)):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (tmp_path / "libraries" / "torch" / "state.py").write_text(
        "import sys\ntraced_while_imported = sys.gettrace()\n"
    )
    environment = os.environ | {
        "COVERAGE_PROCESS_START": str(ROOT / ".coveragerc"),
        "TUNESMITH_CHECKOUT": str(tmp_path / "checkout"),
        "PYTHONPATH": os.pathsep.join((str(tmp_path / "libraries"), os.environ["PYTHONPATH"])),
    }
    run = subprocess.run(
        [sys.executable, str(product)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.stdout, run.stderr) == ("done\n", "")
    [data] = (tmp_path / "checkout" / "build" / "coverage").iterdir()
    reader = coverage.CoverageData(str(data))
    reader.read()
    [source] = reader.measured_files()
    return set(reader.lines(source) or ())


def test_the_product_is_measured_before_and_after_a_layer_computes(measured: set[int]) -> None:
    # In the layer nothing is measured; the handler of the error that it raised is.
    inside = ("if count:", "return self(count - 1)", 'raise ValueError("in a layer")')
    code = {number: line.strip() for number, line in enumerate(PRODUCT.splitlines(), 1) if line}
    assert measured == {number for number, line in code.items() if line not in inside}
