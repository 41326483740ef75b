"""Pauses of coverage where libraries are imported, layers of models compute and values for tests are drawn."""

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
from hypothesis.internal.conjecture.data import ConjectureData
from hypothesis.strategies._internal.core import BuildsStrategy, CompositeStrategy
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

def build(draw):
    trace = sys.gettrace()
    assert trace and draw(BuildsStrategy()) is None
    return trace

assert compute() is sys.gettrace()
assert ConjectureData().draw(CompositeStrategy(build)) is sys.gettrace()
assert state.traced_while_imported is None
print("done" if sys.gettrace() else "no trace")
"""
LAYERS = """\
class Module:
    def _call(self, *args):
        return self.forward(*args)

    __call__ = _call
"""

DRAWING = """\
class ConjectureData:
    def draw(self, strategy):
        return strategy.do_draw(self)
"""
STRATEGIES = """\
class BuildsStrategy:
    def do_draw(self, data):
        return None

class CompositeStrategy:
    def __init__(self, definition):
        self.definition = definition

    def do_draw(self, data):
        return self.definition(data.draw)
"""
LIBRARIES = {
    "torch/nn/modules/module.py": LAYERS,
    "torch/state.py": "import sys\ntraced_while_imported = sys.gettrace()\n",
    "hypothesis/__init__.py": "",
    "hypothesis/internal/conjecture/data.py": DRAWING,
    "hypothesis/strategies/_internal/core.py": STRATEGIES,
}


@pytest.fixture
def measured(tmp_path: Path) -> set[int]:
    """Lines of the product that were covered, where it uses libraries."""
    product = tmp_path / "checkout" / "trainer" / "src" / "product.py"
    files = {tmp_path / "libraries" / name: text for name, text in LIBRARIES.items()}
    for file, text in (files | {product: PRODUCT}).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
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
