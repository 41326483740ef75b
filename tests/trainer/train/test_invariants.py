"""Invariants of training on tiny models in float32: batch size, packing, masks, adapters."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from stages.stage_world import RowBuilders, World
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.table.split import Split
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.kernels import Kernels
from tunesmith_trainer.train.methods import build_trainer
from tunesmith_trainer.train.methods.supervised import build_text_dataset
from tunesmith_trainer.train.models import build_peft_config, load_model
from tunesmith_trainer.train.packed_attention import PACKED_SDPA

SDPA = Kernels("sdpa")
PACKED = Kernels(PACKED_SDPA)
PLAIN = {"rank": 4, "dropout": 0.0}


def uneven_rows(make: RowBuilders, count: int) -> list[Any]:
    """Rows of very different lengths."""
    return [
        make.row(f"count {number}", json.dumps(list(range(3 * (number % 6)))) + f" {number}")
        for number in range(count)
    ]


def prepare(world: World, rows: list[Any], fraction: float = 0.0) -> Any:
    uri = world.write_rows("train.jsonl", rows)
    return world.prepare(world.prepare_config(uri, validation={"fraction": fraction}))


def run(world: World, prepared: Any, uid: str, **more: Any) -> Any:
    """Train under a uid of its own; the losses of all steps."""
    if uid != "uid":
        (world.output / "ns" / uid).mkdir()
        (world.output / "ns" / uid / "prepared").symlink_to(world.output / "ns/uid/prepared")
    return world.train(world.train_config(prepared, uid=uid, **({"adapter": PLAIN} | more))).training


def losses(training: Any) -> list[float]:
    return [point.loss for point in training.curve]


def test_one_times_eight_equals_eight_times_one(world: World, make: RowBuilders) -> None:
    prepared = prepare(world, uneven_rows(make, 40))
    shapes = [
        losses(run(world, prepared, uid, hyperparameters={"batchSize": 8, "microBatchSize": micro}))
        for uid, micro in (("one", 1), ("eight", 8))
    ]
    assert len(shapes[0]) == 5
    assert shapes[0] == pytest.approx(shapes[1], rel=1e-5)


def test_two_times_five_steps_equal_ten(world: World, make: RowBuilders) -> None:
    prepared = prepare(world, uneven_rows(make, 40), fraction=0.1)
    more = {
        "adapter": {"rank": 4, "dropout": 0.1},
        "hyperparameters": {"maxSteps": 10},
        "checkpoints": {"everySteps": 5, "keep": 2},
    }
    ten = run(world, prepared, "uid", **more)
    shutil.rmtree(world.output / "ns/uid/checkpoints/checkpoint-10")
    (world.output / "ns/uid/reports/train.json").unlink()
    shutil.rmtree(world.output / "ns/uid/trained")
    twice_five = run(world, prepared, "uid", **more)
    assert twice_five.artifact == ten.artifact
    assert twice_five.curve == ten.curve
    assert twice_five.tokens_per_second < 10 * ten.tokens_per_second


def test_masked_loss_equals_a_hand_computation(world: World, make: RowBuilders) -> None:
    """The first step's loss, by nothing but a tokenizer and a softmax."""
    rows = uneven_rows(make, 6)
    prepared = prepare(world, rows)
    numbers = {"batchSize": 6, "microBatchSize": 2, "maxSteps": 1, "warmupRatio": 0.0}
    training = run(world, prepared, "uid", hyperparameters=numbers)
    assert training.loss == pytest.approx(by_hand(world, rows), rel=1e-5)
    whole = {"sft": {"maxLength": 128, "assistantOnlyLoss": False}}
    everything = run(world, prepared, "all", method=whole, hyperparameters=numbers)
    assert everything.loss == pytest.approx(by_hand(world, rows, answers_only=False), rel=1e-5)


def test_validation_loss_is_per_token_whatever_the_batches(world: World, make: RowBuilders) -> None:
    rows = uneven_rows(make, 9)
    for micro in (1, 4):
        numbers = {"batchSize": 4, "microBatchSize": micro}
        trainer = build(world, tuple(rows), {"sft": {"maxLength": 128}}, hyperparameters=numbers)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(by_hand(world, rows), rel=1e-5)


def by_hand(world: World, rows: list[Any], *, answers_only: bool = True) -> float:
    """Mean negative log-likelihood per token that counts, under the base model."""
    tokenizer = AutoTokenizer.from_pretrained(world.root / "pvc/models/llama")
    model = AutoModelForCausalLM.from_pretrained(world.root / "pvc/models/llama", dtype=torch.float32).eval()
    nats, count = 0.0, 0
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        start = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        learned = f"{answer}<|im_end|>"
        encoded = tokenizer(start + learned + "\n", return_offsets_mapping=True)
        ids = encoded["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        for position, (begin, end) in enumerate(encoded["offset_mapping"]):
            is_answer = begin >= len(start) and end <= len(start + learned)
            if position and (is_answer or not answers_only):
                scores = logits[position - 1]
                nats += math.log(sum(math.exp(score) for score in scores)) - scores[ids[position]]
                count += 1
    return nats / count


def build(
    world: World, rows: tuple[Any, ...], method: dict[str, Any], kernels: Kernels = SDPA, **more: Any
) -> Any:
    """A trainer as the stage builds it."""
    prepared = prepare(world, chat_rows_of(rows))
    config: TrainConfig = world.train_config(prepared, method=method, **({"adapter": None} | more))
    folder: Path = world.root / "pvc/models/llama"
    return build_trainer(
        TrainingContext(
            config=config,
            model=load_model(folder, config, kernels),
            peft_config=build_peft_config(config),
            kernels=kernels,
            renderer=Renderer(load_tokenizer(folder), answers_only=True),
            rows=Split(rows, rows),
            output_dir=world.root / "checkpoints",
            logs=world.root / "logs",
            callbacks=[],
            storage=Storage(world.root),
        )
    )


def chat_rows_of(rows: tuple[Any, ...]) -> list[Any]:
    """What prepare can look at; the trainer gets the rows themselves."""
    return [row for row in rows if "messages" in row] or [row_of("a", "b")]


def loss_and_gradient(trainer: Any) -> tuple[float, torch.Tensor, int]:
    """Of all rows together: the loss per token, its gradient, and in how many passes."""
    trainer.model.eval()
    batches = list(trainer.get_train_dataloader())
    tokens = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=tokens)
        loss.backward()
        total += loss.item()
    gradients = [weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None]
    return total, torch.cat(gradients), len(batches)


@pytest.mark.parametrize(("kernels", "micro_batch"), [(SDPA, 1), (PACKED, 4)], ids=["masked", "joined"])
def test_packed_loss_equals_unpacked_loss(
    world: World, make: RowBuilders, kernels: Kernels, micro_batch: int
) -> None:
    rows = tuple(uneven_rows(make, 24))
    numbers = {"batchSize": 4, "microBatchSize": 4}
    plain = build(world, rows, {"sft": {"maxLength": 128}}, hyperparameters=numbers)
    method = {"sft": {"maxLength": 128, "packing": True}}
    packed = build(world, rows, method, kernels, hyperparameters=numbers)
    assert packed.args.per_device_train_batch_size == micro_batch
    assert packed.args.gradient_accumulation_steps == 4 // micro_batch
    lengths = [length for pack in packed.train_dataset["seq_lengths"] for length in pack]
    assert sorted(lengths) == sorted(len(ids) for ids in plain.train_dataset["input_ids"])
    loss, gradient, passes = loss_and_gradient(plain)
    packed_loss, packed_gradient, packed_passes = loss_and_gradient(packed)
    assert packed_passes < 24
    assert passes == 6
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(packed_gradient, gradient, atol=1e-5 * float(gradient.abs().max()))


def test_packed_rows_train_validate_and_are_probed(world: World, make: RowBuilders) -> None:
    prepared = prepare(world, uneven_rows(make, 40), fraction=0.2)
    training = run(
        world,
        prepared,
        "uid",
        method={"sft": {"maxLength": 128, "packing": True}},
        hyperparameters={"batchSize": 4, "microBatchSize": 2, "epochs": 2},
        activationCheckpointing=True,
    )
    assert training.kernels == "SDPAPerRow"
    assert training.micro_batch_size == 2
    assert training.loss < training.curve[0].loss
    assert training.eval_loss


def test_texts_are_cut_without_losing_a_token(world: World) -> None:
    tokenizer = load_tokenizer(world.root / "pvc/models/llama")
    row = {"text": "sort 1 2 " * 41}
    dataset = build_text_dataset(Renderer(tokenizer), [row], 16)
    pieces = list(dataset["input_ids"])
    joined = [token for piece in pieces for token in piece]
    assert joined == tokenizer(row["text"])["input_ids"] + [tokenizer.eos_token_id]
    assert {len(piece) for piece in pieces[:-1]} == {16}
    assert list(dataset["labels"]) == pieces


def test_pretraining_learns_every_token_packed(world: World) -> None:
    rows = tuple({"text": "sort 1 2 " * length} for length in range(2, 30))
    trainer = build(world, rows, {"pretraining": {"maxLength": 64}})
    labels = [label for pack in trainer.train_dataset["labels"] for label in pack]
    assert -100 not in labels
    assert max(len(ids) for ids in trainer.train_dataset["input_ids"]) == 64


def test_pretraining_runs_from_texts_to_an_artifact(world: World) -> None:
    rows = [{"text": f"sort {length} 2 " * length} for length in range(2, 30)]
    method = {"pretraining": {"maxLength": 64}}
    uri = world.write_rows("texts.jsonl", rows)
    prepared = world.prepare(world.prepare_config(uri, method=method))
    training = run(world, prepared, "uid", method=method)
    assert training.loss < training.curve[0].loss - 1
    assert training.micro_batch_size == 2
    assert training.eval_loss


def adapted(world: World, kind: str, rank: int = 4) -> tuple[Any, TrainConfig]:
    """The base model with a random adapter of the kind, as the stage would load it."""
    rows = prepare(world, [row_of("a", "b")])
    adapter = {"type": kind, "rank": rank, "alpha": 8}
    config: TrainConfig = world.train_config(rows, adapter=adapter)
    torch.manual_seed(0)
    peft_config = build_peft_config(config)
    assert peft_config
    model = get_peft_model(load_model(world.root / "pvc/models/llama", config, SDPA), peft_config)
    state = get_peft_model_state_dict(model)
    filled = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
        for name, tensor in state.items()
    }
    set_peft_model_state_dict(model, filled)
    return model.eval(), config


def row_of(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.arange(5, 69)[None]).logits.float()
    return logits


@pytest.mark.parametrize("kind", ["LoRA", "RSLoRA", "DoRA"])
def test_merged_equals_applied(world: World, kind: str) -> None:
    model, _ = adapted(world, kind)
    applied = logits_of(model)
    with model.disable_adapter():
        effect = (applied - logits_of(model)).abs().max()
    merged = logits_of(model.merge_and_unload())
    assert effect > 0.01
    assert (merged - applied).abs().max() < 1e-4 * effect


def test_scaling_by_the_root_of_the_rank(world: World) -> None:
    for kind, scaling in (("LoRA", 8 / 16), ("RSLoRA", 8 / 4)):
        model, _ = adapted(world, kind, rank=16)
        assert model.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == scaling


def test_qlora_agrees_with_lora(world: World, make: RowBuilders) -> None:
    plain, _ = adapted(world, "LoRA")
    quantized, _ = adapted(world, "QLoRA")
    layer = quantized.base_model.model.model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.weight.dtype == torch.float32
    exact, close = logits_of(plain), logits_of(quantized)
    assert (close - exact).norm() / exact.norm() < 0.25
    assert torch.nn.functional.cosine_similarity(close, exact, dim=-1).mean() > 0.97

    prepared = prepare(world, make.rows(40))
    numbers = {"maxSteps": 10, "learningRate": 3e-3}
    plain_run, quantized_run = (
        run(world, prepared, kind.lower(), adapter=PLAIN | {"type": kind}, hyperparameters=numbers)
        for kind in ("LoRA", "QLoRA")
    )
    assert plain_run.loss < plain_run.curve[0].loss - 0.5
    assert quantized_run.loss == pytest.approx(plain_run.loss, rel=0.02)
