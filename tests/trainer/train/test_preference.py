"""DPO and KTO: tokens, losses compared with hand computations, learning."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from stages.stage_world import RowBuilders, World
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import DPOTrainer

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.methods import DPOLoss, Method
from tunesmith_contract.run_config import TrainConfig, parse_run_config
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.table.split import Split
from tunesmith_trainer.train.artifact.files import save_adapter
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.kernels import Kernels
from tunesmith_trainer.train.methods import build_trainer
from tunesmith_trainer.train.methods.preference import build_answer_dataset, label_answers

BETA = 0.5
LORA = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=32, target_modules="all-linear")
ROWS = [
    {"prompt": "one and one is", "chosen": " two", "rejected": " three or four"},
    {"prompt": "sort 7 5", "chosen": ": 5 7", "rejected": ": 7"},
]


def config_of(method: dict[str, Any], adapter: Any, batch: int = 2) -> TrainConfig:
    parsed = parse_run_config(
        json.dumps(
            {
                "stage": "train",
                "owner": {"kind": "FineTuneJob", "namespace": "ns", "name": "run", "uid": "uid"},
                "baseModel": "pvc://models/llama",
                "baseModelRevision": "r",
                "datasetDigest": "sha256:" + "0" * 64,
                "method": method,
                "adapter": adapter,
                "hyperparameters": {"learningRate": 1e-2, "batchSize": batch, "microBatchSize": batch},
                "checkpoints": {"everySteps": 100},
                "image": "trainer",
                "output": "pvc://out",
            }
        )
    )
    assert isinstance(parsed, TrainConfig)
    return parsed


def load(models: Path, loader: Any = AutoModelForCausalLM, **options: Any) -> Any:
    return loader.from_pretrained(models / "llama", dtype=torch.float32, **options)


def training_of(
    models: Path, tmp: Path, method: dict[str, Any], rows: Any, model: Any = None
) -> TrainingContext:
    """A run on the tiny Llama; by default with an adapter that is added afresh."""
    config = config_of(method, {"rank": 4}, batch=len(rows))
    return TrainingContext(
        config=config,
        model=model or load(models),
        peft_config=LORA if model is None else None,
        renderer=Renderer(load_tokenizer(models / "llama")),
        rows=Split(tuple(rows), ()),
        output_dir=tmp,
        logs=tmp,
        callbacks=[],
        storage=Storage(tmp),
        kernels=Kernels("sdpa"),
    )


def unsettle(model: Any, name: str = ".default.") -> None:
    """Give an adapter weights that change something."""
    torch.manual_seed(3)
    for key, parameter in model.named_parameters():
        if "lora_B" in key and name in key:
            torch.nn.init.normal_(parameter, std=0.2)


def log_probs(model: Any, renderer: Renderer, prompt: str, answer: str) -> torch.Tensor:
    """Log-probabilities of the answer's tokens and of the end, the slow way."""
    tokenizer = renderer.tokenizer
    before = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + answer)["input_ids"] + [tokenizer.eos_token_id]
    assert ids[: len(before)] == before
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, len(before) - 1 : -1]
    log_probs: torch.Tensor = logits.log_softmax(-1)
    return log_probs.gather(-1, torch.tensor(ids[len(before) :])[:, None])[:, 0]


def ratios(trainer: Any, renderer: Renderer, pairs: list[tuple[str, str]]) -> list[tuple[float, int]]:
    """For each prompt and answer: log-probability less the reference's, and the number of tokens."""
    model = trainer.model
    results = []
    for prompt, answer in pairs:
        tuned = log_probs(model, renderer, prompt, answer)
        with model.disable_adapter():
            base = log_probs(model, renderer, prompt, answer)
        results.append((float((tuned - base).sum()), len(tuned)))
    return results


def one_loss(trainer: Any) -> float:
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch)
    return float(loss)


@pytest.mark.parametrize("loss", ["Sigmoid", "IPO"])
def test_dpo_loss_equals_a_hand_computation(models: Path, tmp_path: Path, loss: str) -> None:
    training = training_of(models, tmp_path, {"dpo": {"beta": BETA, "loss": loss}}, ROWS)
    trainer = build_trainer(training)
    unsettle(trainer.model)
    expected = []
    for row in ROWS:
        (chosen, chosen_length), (rejected, rejected_length) = ratios(
            trainer, training.renderer, [(row["prompt"], row["chosen"]), (row["prompt"], row["rejected"])]
        )
        if loss == "Sigmoid":
            expected.append(-float(logsigmoid(torch.tensor(BETA * (chosen - rejected)))))
        else:
            expected.append((chosen / chosen_length - rejected / rejected_length - 1 / (2 * BETA)) ** 2)
    assert abs(expected[0] - expected[1]) > 1e-3
    assert one_loss(trainer) == pytest.approx(sum(expected) / 2, rel=1e-4)


SMOOTHING = 0.1
LOG2 = math.log(2)
# What each loss is where the model is still its own reference.
LOSSES_AT_START = {
    DPOLoss.SIGMOID: LOG2,
    DPOLoss.HINGE: 1,
    DPOLoss.IPO: 1 / (2 * BETA) ** 2,
    DPOLoss.ROBUST: LOG2,
    DPOLoss.EXO_PAIR: -LOG2 - (math.log(SMOOTHING) + math.log(1 - SMOOTHING)) / 2,
    DPOLoss.NCA_PAIR: 2 * LOG2,
    DPOLoss.BCO_PAIR: 2 * LOG2,
    DPOLoss.SPPO_HARD: 2 * (0.5 / BETA) ** 2,
    DPOLoss.AOT: LOG2,
    DPOLoss.APO_ZERO: 1,
    DPOLoss.APO_DOWN: 1,
    DPOLoss.DISCOPOP: (LOG2 + 1) / 2,
    DPOLoss.SIGMOID_NORM: LOG2,
}


@pytest.mark.parametrize("loss", DPOLoss)
def test_every_dpo_loss_starts_where_its_formula_says(models: Path, tmp_path: Path, loss: DPOLoss) -> None:
    smoothed = loss in (DPOLoss.ROBUST, DPOLoss.EXO_PAIR, DPOLoss.AOT)
    method = {"dpo": {"beta": BETA, "loss": loss, "labelSmoothing": SMOOTHING if smoothed else 0}}
    trainer = build_trainer(training_of(models, tmp_path, method, ROWS))
    assert one_loss(trainer) == pytest.approx(LOSSES_AT_START[loss], rel=1e-5)


def test_kto_loss_equals_a_hand_computation(models: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "one and one is", "completion": " two", "label": True},
        {"prompt": "sort 7 5", "completion": ": 7", "label": False},
        {"prompt": "say", "completion": " hello", "label": True},
    ]
    weights = {"desirableWeight": 1.5, "undesirableWeight": 0.5}
    training = training_of(models, tmp_path, {"kto": {"beta": BETA, **weights}}, rows)
    trainer = build_trainer(training)
    unsettle(trainer.model)
    batch = next(iter(trainer.get_train_dataloader()))
    decode = training.tokenizer.decode
    assert sorted(
        decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ) == [
        " hello<|im_end|>",
        " two<|im_end|>",
        ": 7<|im_end|>",
    ]
    mismatched = []
    for ids, mask in zip(batch["KL_input_ids"], batch["KL_completion_mask"], strict=True):
        prompt = str(decode(ids[: int(mask.argmax())]))
        mismatched.append((prompt, str(decode(ids[mask.bool()])).removesuffix("<|im_end|>")))
    answers = {str(row["prompt"]): str(row["completion"]) for row in rows}
    assert sorted(answer for _, answer in mismatched) == sorted(answers.values())
    assert all(answers[prompt] != answer for prompt, answer in mismatched)

    divergence: float = sum(ratio for ratio, _ in ratios(trainer, training.renderer, mismatched)) / len(rows)
    divergence = max(divergence, 0.0)
    pairs = list(answers.items())
    expected = [
        weight * (1 - 1 / (1 + math.exp(-BETA * sign * (ratio - divergence))))
        for (ratio, _), (weight, sign) in zip(
            ratios(trainer, training.renderer, pairs), [(1.5, 1), (0.5, -1), (1.5, 1)], strict=True
        )
    ]
    assert one_loss(trainer) == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_reward_loss_equals_a_hand_computation(models: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = load(models, AutoModelForSequenceClassification, num_labels=1)
    method = {"reward": {"centerRewardsCoefficient": 0.1, "maxLength": 12}}
    training = training_of(models, tmp_path, method, ROWS, model=model)
    trainer = build_trainer(training)
    tokenizer, expected = training.tokenizer, 0.0
    for row in ROWS:
        numbers = []
        for answer in (row["chosen"], row["rejected"]):
            ids = [*tokenizer(row["prompt"] + answer)["input_ids"], tokenizer.eos_token_id][:12]
            with torch.no_grad():
                hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
                numbers.append(float(model.score(hidden)))
        chosen, rejected = numbers
        expected += math.log1p(math.exp(rejected - chosen)) + 0.1 * (chosen + rejected) ** 2
    assert one_loss(trainer) == pytest.approx(expected / 2, rel=1e-4)


@pytest.mark.parametrize(
    "method", [{"dpo": {}}, {"kto": {"loss": "APOZeroUnpaired"}}, {"reward": {}}], ids=str
)
def test_validation_loss_does_not_change_with_the_batch(
    models: Path, tmp_path: Path, make: RowBuilders, method: dict[str, Any]
) -> None:
    held_out = tuple(make.preferences(5))
    losses = []
    for batch in (2, 5):
        torch.manual_seed(1)
        if "reward" in method:
            model = load(models, AutoModelForSequenceClassification, num_labels=1)
        else:
            model = get_peft_model(load(models), LORA)
        training = training_of(models, tmp_path, method, held_out[:batch], model=model)
        trainer = build_trainer(replace(training, rows=Split(training.rows.train, held_out)))
        unsettle(trainer.model)
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


CONVERSATION = {
    "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    "chosen": [{"role": "assistant", "content": "hello"}],
    "rejected": [{"role": "assistant", "content": "go away"}],
}
RENDERED = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("row", "prompt", "chosen", "rejected"),
    [
        (CONVERSATION, RENDERED, "hello<|im_end|>", "go away<|im_end|>"),
        (ROWS[0], "one and one is", " two<|im_end|>", " three or four<|im_end|>"),
    ],
    ids=["messages", "text"],
)
def test_dpo_trains_on_prompt_and_answers_with_their_ends(
    models: Path, tmp_path: Path, row: Any, prompt: str, chosen: str, rejected: str
) -> None:
    training = training_of(models, tmp_path, {"dpo": {}}, [row])
    trainer = build_trainer(training)
    batch = next(iter(trainer.get_train_dataloader()))
    decode = training.tokenizer.decode
    for ids, attended, answer, expected in zip(
        batch["input_ids"], batch["attention_mask"], batch["completion_mask"], (chosen, rejected), strict=True
    ):
        assert decode(ids[(attended - answer).bool()]) == prompt
        assert decode(ids[answer.bool()]) == expected
    theirs = DPOTrainer._prepare_dataset(
        trainer, trainer.train_dataset.from_list([row]), training.tokenizer, trainer.args, "train"
    )[0]
    ours = trainer.train_dataset[0]
    assert ours["prompt_ids"] == theirs["prompt_ids"]
    for key in ("chosen_ids", "rejected_ids"):  # TRL's goes on with the line break after the turn
        assert theirs[key][: len(ours[key])] == ours[key]
        assert str(decode(theirs[key][len(ours[key]) :])).strip() == ""


def test_a_token_across_the_border_belongs_to_both_answers(models: Path) -> None:
    renderer = Renderer(load_tokenizer(models / "llama"))
    row = {"prompt": '{"lo', "chosen": 'w": 1}', "rejected": 'st": 2}'}
    pair = renderer.pair(row)
    for answer, key in ((pair.chosen, "chosen"), (pair.rejected, "rejected")):
        whole = renderer.tokenizer(row["prompt"] + row[key])["input_ids"]
        assert pair.prompt + answer == [*whole, renderer.tokenizer.eos_token_id]


def test_the_reference_is_the_adapter_that_training_starts_from(models: Path, tmp_path: Path) -> None:
    model = get_peft_model(load(models), LORA)
    unsettle(model)
    trainer = build_trainer(training_of(models, tmp_path, {"dpo": {"beta": BETA}}, ROWS, model=model))
    assert one_loss(trainer) == pytest.approx(LOG2, rel=1e-5)
    unsettle(trainer.model)
    save_adapter(trainer.model, tmp_path / "adapter", "pvc://models/llama")
    assert [path.name for path in (tmp_path / "adapter").iterdir() if path.is_dir()] == []
    assert "default" in PeftModel.from_pretrained(load(models), tmp_path / "adapter").peft_config


@pytest.mark.parametrize(
    ("key", "numbers"),
    [("dpo", {"beta": 0.5}), ("kto", {"beta": 0.5}), ("kto", {"beta": 0.5, "loss": "APOZeroUnpaired"})],
)
def test_what_is_preferred_becomes_likelier(world: World, make: RowBuilders, key: str, numbers: Any) -> None:
    rows = make.preferences(40)
    method = {key: {"maxLength": 64, **numbers}}
    prepared = world.prepare(world.prepare_config(world.write_rows("train.jsonl", rows), method=method))
    assert prepared.dataset.format == "Preference"
    config = world.train_config(
        prepared, method=method, hyperparameters={"epochs": 2}, checkpoints={"everySteps": 100}
    )
    report = world.train(config).training
    assert report.eval_loss is not None
    assert report.eval_loss < 0.4  # log 2 before for DPO, 0.5 for KTO
    assert report.tokens_per_second
    manifest = Manifest.model_validate_json(
        (world.storage.artifact_folder(report.artifact.uri) / "manifest.json").read_bytes()
    )
    assert manifest.probes[0].tuned_log_prob > manifest.probes[0].base_log_prob


def test_dpo_of_all_weights_keeps_its_reference(models: Path, tmp_path: Path) -> None:
    training = training_of(models, tmp_path, {"dpo": {"beta": BETA}}, ROWS * 4, model=load(models))
    trainer = build_trainer(training)
    before = {name: weight.clone() for name, weight in trainer.ref_model.named_parameters()}
    assert one_loss(trainer) == pytest.approx(LOG2, rel=1e-5)
    trainer.train()
    assert one_loss(trainer) < 0.5
    assert all(torch.equal(before[name], weight) for name, weight in trainer.ref_model.named_parameters())


@pytest.mark.parametrize(
    ("method", "batch", "message"),
    [
        ({"dpo": {"loss": "EXOPair"}}, 2, "write 0.001"),
        ({"dpo": {"loss": "IPO", "labelSmoothing": 0.1}}, 2, "does nothing with loss IPO"),
        ({"kto": {}}, 1, "a microBatchSize of 2 or more"),
    ],
)
def test_settings_that_do_not_go_together(
    models: Path, tmp_path: Path, method: dict[str, Any], batch: int, message: str
) -> None:
    rows = [ROWS[0]] * batch
    with pytest.raises(UserError, match=message):
        build_trainer(training_of(models, tmp_path, method, rows))
    assert Method.model_validate(method)


def test_every_answer_is_compared_with_another(models: Path) -> None:
    renderer = Renderer(load_tokenizer(models / "llama"))
    rows = [{"prompt": "a", "completion": str(number), "label": True} for number in range(7)]
    dataset = build_answer_dataset(label_answers(renderer, rows), micro_batch=3)
    partners = [renderer.tokenizer.decode(ids)[0] for ids in dataset["KL_completion_ids"]]
    assert partners == ["2", "0", "1", "5", "3", "4", "5"]
