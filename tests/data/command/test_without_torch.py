"""The command in a fresh environment with data preparation and its pins only: no torch, no TRL."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from models.tiny_models import CHAT_TEMPLATE
from stages.stage_world import RowBuilders

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_data.__main__ import main
from tunesmith_data.rows.page.report_files import read_report
from tunesmith_data.rows.report.data_report import DataReport
from tunesmith_images.venvs import make_environment
from tunesmith_images.wheels import PYTHON_VERSION, find_python

ROOT = Path(__file__).parents[3]
DISTRIBUTIONS = ("contract", "storage", "data")
#: Not part of the environment: with them a computer would need gigabytes and a GPU's libraries.
ABSENT = ("accelerate", "deepspeed", "peft", "torch", "trl", "tunesmith_trainer")

#: A template without generation marks that drops what earlier turns reasoned, so answers can't be found by prefixes.
CHANGING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'] | upper }}"
    "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Environment:
    """A virtual environment into which the distributions were installed from wheels."""

    bin: Path

    def run(
        self, program: str, *arguments: str, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs without this checkout on the path."""
        # Coverage finds its plugin by the path.
        left_out = ("PYTHONPATH", "COVERAGE_PROCESS_START")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        # As bytes: text would lose what returns to the start of a line.
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=folder,
            env=environment | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            check=False,
        )
        output, errors = done.stdout.decode(), done.stderr.decode()
        return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment that sees the pins of ``data/requirements.txt``, and what pip installs into it."""
    root = tmp_path_factory.mktemp("fresh")
    subprocess.run([find_python(), "-m", "venv", root / "venv"], check=True)
    packages = Path("lib") / f"python{PYTHON_VERSION}" / "site-packages"
    (root / "venv" / packages / "pins.pth").write_text(f"{make_environment('data') / packages}\n")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    sources = [ROOT / name for name in DISTRIBUTIONS]
    subprocess.run([*build, f"--wheel-dir={root / 'wheels'}", *sources], check=True)
    fresh = Environment(root / "venv" / "bin")
    # With dependencies: the pins have to hold all that the distributions ask for.
    install = ("install", "--quiet", "--no-index", f"--find-links={root / 'wheels'}", "tunesmith-data")
    done = fresh.run("pip", *install)
    assert done.returncode == 0, done.stderr
    return fresh


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, make: RowBuilders) -> Path:
    """A folder with a small file of rows."""
    folder, rows = tmp_path_factory.mktemp("desk"), make.rows(60)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return folder


@pytest.fixture(scope="module")
def options(desk: Path, models: Path) -> list[str]:
    """The command's arguments but for its output."""
    return ["prepare", str(desk / "rows.jsonl"), "--model", str(models / "llama"), "--gpu", "H100"]


@pytest.fixture(scope="module")
def prepared(environment: Environment, desk: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
    """The command that prepared these rows into its folder of their folder."""
    return environment.run("tunesmith-data", *options, folder=desk)


def test_neither_torch_nor_trl_is_there(environment: Environment) -> None:
    program = f"from importlib.util import find_spec; print([name for name in {ABSENT} if find_spec(name)])"
    assert environment.run("python", "-c", program).stdout.strip() == "[]"


def test_rows_are_prepared(desk: Path, prepared: subprocess.CompletedProcess[str]) -> None:
    assert (prepared.returncode, prepared.stderr) == (ExitCode.SUCCEEDED, "")
    assert "\r" not in prepared.stdout, "nobody looks, and a bar is drawn"
    assert "rows.jsonl: Ready" in prepared.stdout
    said = " ".join(prepared.stdout.split())
    assert "torch is not installed: the recommended rank goes by the rows alone" in said
    assert "TRL is not installed: rows were rendered by the model's own chat template" in said
    assert "on one H100" in said
    files = {path.name for path in (desk / "tunesmith-data" / "prepared").iterdir()}
    assert {"train.parquet", "validation.parquet"} <= files


def test_the_report_is_the_one_that_torch_allows(
    desk: Path,
    options: list[str],
    prepared: subprocess.CompletedProcess[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert prepared.returncode == ExitCode.SUCCEEDED, prepared.stderr
    assert main([*options, "--output", str(desk / "with")]) == ExitCode.SUCCEEDED
    assert "is not installed" not in capsys.readouterr().out
    without, with_torch = (read_report(desk / name / "data-report") for name in ("tunesmith-data", "with"))
    assert without.estimate is not None
    # The reasons for a rank name the model's layers where they are known.
    assert without_recommendation(without) == without_recommendation(with_torch)


def without_recommendation(report: DataReport) -> DataReport:
    return report.model_copy(update={"recommendation": None})


def test_time_is_left_out_where_the_size_is_unknown(
    environment: Environment, model_copy: Callable[[str], Path]
) -> None:
    """A model of a hub comes without weights; here they are cut down to what a hub's model has."""
    model = model_copy(CHAT_TEMPLATE)
    program = (
        "from pathlib import Path; from tunesmith_data.models.inspection import describe_model; "
        "from tunesmith_data.pod.storage import Storage; "
        f"report = describe_model(Storage(), 'hf://org/model', Path({str(model)!r})); "
        "print(report.parameters, report.shape, report.architecture)"
    )
    (model / "model.safetensors").unlink()
    done = environment.run("python", "-W", "ignore", "-c", program)
    assert done.stdout.split() == ["0", "None", "LlamaForCausalLM"], done.stderr


def test_a_template_is_not_refused_for_what_trl_may_know(
    environment: Environment, desk: Path, model_copy: Callable[[str], Path]
) -> None:
    model = model_copy(CHANGING_TEMPLATE)
    arguments = ("prepare", "rows.jsonl", "--model", str(model), "--output", "changing")
    done = environment.run("tunesmith-data", *arguments, folder=desk)
    assert done.returncode == ExitCode.SUCCEEDED, done.stderr


def test_labels_have_their_own_help(environment: Environment) -> None:
    done = environment.run("tunesmith-data", "labels", "--help")
    assert done.returncode == 0, done.stderr
    assert "push|pull|agreement" in done.stdout


@pytest.fixture
def model_copy(tmp_path: Path, models: Path) -> Callable[[str], Path]:
    """Makes a copy of a tiny model's folder with another chat template."""

    def copy(template: str) -> Path:
        folder = tmp_path / "snapshots" / "c0ffee"
        folder.mkdir(parents=True)
        for path in (models / "llama").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return copy
