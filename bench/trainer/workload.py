"""Generated model, rows and stage runs of the trainer benchmark; nothing is downloaded.

On a CPU a Llama of 2.8 million parameters; on a GPU one of 1.1 billion in bfloat16, of the sizes of Llama 3.2.
"""

import json
import os
import platform
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from models.tiny_models import make_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from tunesmith_contract.report import RunReport, parse_report
from tunesmith_contract.run_config import parse_run_config

ON_GPU = torch.cuda.is_available()
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo")
THINGS = ("lunch", "a taxi", "paper", "a train ticket", "coffee", "a hotel night", "stamps", "a desk lamp")


def machine() -> dict[str, Any]:
    """Hardware and versions that the measurement ran on."""
    hardware = torch.cuda.get_device_name() if ON_GPU else f"{os.cpu_count()} cores, no GPU"
    return {"hardware": hardware, "python": platform.python_version(), "torch": torch.__version__}


def make_rows(count: int, seed: int = 0, *, opposite: bool = False) -> list[dict[str, Any]]:
    """Chat rows that turn sentences into JSON records, or the opposite, of unequal length."""
    chance = random.Random(seed)
    return [_row(chance, opposite) for _ in range(count)]


def _row(chance: random.Random, opposite: bool) -> dict[str, Any]:
    parts = [
        (chance.choice(NAMES), chance.choice(THINGS), chance.randrange(100, 9900) / 100)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6)))
    ]
    question = ", then ".join(f"{name} paid {amount:.2f} for {thing}" for name, thing, amount in parts)
    who, what, amounts = zip(*parts, strict=True)
    answer = json.dumps({"who": who, "what": what, "amounts": amounts})
    if opposite:
        question, answer = answer, question
    task = "sentence" if opposite else "record"
    return {
        "messages": [
            {"role": "user", "content": f"Write the {task}: {question}."},
            {"role": "assistant", "content": answer},
        ]
    }


def make_model(folder: Path) -> None:
    """A random Llama with a byte-level BPE, as safetensors."""
    tokenizer = make_tokenizer(json.dumps(row) for row in make_rows(500, seed=1))
    size = (
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
        if ON_GPU
        else {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6}
    )
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=size["num_attention_heads"] // (4 if ON_GPU else 1),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **size,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if ON_GPU else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass(slots=True)
class Bench:
    """Mount root with a model and data, in which stages run as in a pod.

    Attributes:
        echo: the stages' output is printed while they run.
    """

    root: Path
    rows: int
    uid: int = 0
    echo: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Create the model and the data, unless an earlier process has."""
        if self.model.exists():
            return
        for claim in ("models", "data", "out"):
            (self.root / "pvc" / claim).mkdir(parents=True)
        make_model(self.model)
        self.write_rows("train.jsonl", make_rows(self.rows))
        self.write_rows("test.jsonl", make_rows(64, seed=2))

    @property
    def model(self) -> Path:
        """Folder of the base model."""
        return self.root / "pvc/models/base"

    def write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write a JSONL file of the data claim."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.root / "pvc/data" / name).write_text(text)

    def prepare(self, method: dict[str, Any], held_out: float = 0.05, rows: str = "train.jsonl") -> RunReport:
        """Run the prepare stage as a new job."""
        self.uid += 1
        more = {"baseModel": "pvc://models/base", "train": f"pvc://data/{rows}", "seed": 1}
        return self.run("prepare", **more, validation={"fraction": held_out}, method=method)

    def run(self, stage: str, **config: Any) -> RunReport:
        """Run a stage to its end; its report.

        Raises:
            RuntimeError: the stage failed.
        """
        process = self.start(stage, **config)
        assert process.stdout
        log = ""
        for line in process.stdout:
            log += line
            if self.echo:
                print(line, end="", flush=True)
        process.wait()
        report = self.report()
        if process.returncode != 0 or report is None:
            raise RuntimeError(f"{stage} ended with {process.returncode}:\n{log[-3000:]}")
        return report

    def start(self, stage: str, **config: Any) -> subprocess.Popen[str]:
        """Start a stage in processes of its own."""
        kind = "EvalRun" if stage == "evaluate" else "FineTuneJob"
        owner = {"kind": kind, "namespace": "bench", "name": "bench", "uid": f"{stage}-{self.uid}"}
        if stage == "train":
            owner["uid"] = f"prepare-{self.uid}"
        text = json.dumps({"stage": stage, "owner": owner, "output": "pvc://out", **config})
        (self.root / "run.json").write_text(parse_run_config(text).to_json())
        command = [sys.executable, "-m", "tunesmith_trainer", stage, "--mount-root", str(self.root)]
        command += ["--config", str(self.root / "run.json"), "--termination-log", str(self.root / "log")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def report(self) -> RunReport | None:
        """Report of the last stage; None if it left none."""
        log = self.root / "log"
        return parse_report(log.read_bytes()) if log.exists() else None


def timed(action: Any) -> tuple[Any, float]:
    """Result of an action, and the seconds that it took."""
    start = time.monotonic()
    result = action()
    return result, time.monotonic() - start
