"""Tiny model and adapters with manifests and probes, built in the trainer's environment.

``probed_adapters.py FOLDER ARCHITECTURE``: FOLDER gets ``model/``, a claim ``mnt/pvc/artifacts`` and
``versions.json``, which tells the versions made: ``right``; ``other``, as good, with other answers; ``wrong``, other
weights under the right one's probes; ``inactive``, weights that change nothing; and ``unmatched``, the right weights
for layers that the model does not have.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from models.tiny_models import make_model
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.answer_formats import ChatFormat
from tunesmith_contract.artifact import File, Lineage, Manifest, Probe
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

TEXTS = ("Item 5 costs 15 euros on day 2.", "The quick brown fox jumps over the lazy dog.")
OTHER_TEXTS = tuple(text[::-1] for text in TEXTS)
STEPS = 40
PROMPT_LENGTH = 4
LAYERS = "layers"
LINEAGE = Lineage(
    namespace="n", job="j", uid="u", base_model="pvc://models/tiny", base_model_revision="r",
    dataset_digest="sha256:" + "0" * 64, image="i", parameters={}, versions={},
)  # fmt: skip


def make_adapter(model_folder: Path, texts: Sequence[str], steps: int) -> PeftModel:
    """An adapter of rank 8 that was trained on texts; with 0 steps it changes nothing."""
    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    for step in range(steps):
        tokens = torch.tensor([tokenizer(texts[step % len(texts)])["input_ids"]])
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def token_log_probs(model: PeftModel, tokens: Sequence[int], start: int = PROMPT_LENGTH) -> tuple[float, ...]:
    """Of each token after the prompt of ``start`` tokens, in nats."""
    log_probs = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0].float(), -1)
    positions = range(start, len(tokens))
    return tuple(log_probs[position - 1, tokens[position]].item() for position in positions)


def make_probes(model: PeftModel, model_folder: Path) -> tuple[Probe, ...]:
    """What base and adapter say of the texts, by transformers and PEFT."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    probes = []
    for text in TEXTS:
        tokens = tokenizer(text)["input_ids"]
        with model.disable_adapter():
            base = token_log_probs(model, tokens)
        tuned = token_log_probs(model, tokens)
        probes.append(
            Probe(
                token_ids=tuple(tokens),
                prompt_length=PROMPT_LENGTH,
                base_log_prob=fmean(base),
                tuned_log_prob=fmean(tuned),
                base_token_log_probs=base,
                tuned_token_log_probs=tuned,
            )
        )
    return tuple(probes)


def commit(
    model: PeftModel,
    probes: tuple[Probe, ...],
    storage: Path,
    layers: str = LAYERS,
    lineage: Lineage = LINEAGE,
    chat: ChatFormat | None = None,
) -> dict[str, object]:
    """Save an adapter with a manifest; returns it as a Version in JSON.

    Args:
        layers: name of the model's list of layers in the names of the weights.
        chat: form of its conversations.
    """
    staging = storage / "staging"
    model.save_pretrained(str(staging))
    if layers != LAYERS:
        path = staging / "adapter_model.safetensors"
        save_file({name.replace(LAYERS, layers): each for name, each in load_file(path).items()}, path)
    files = tuple(
        File(path=path.name, size_bytes=path.stat().st_size, sha256=sha256_digest(path.read_bytes()))
        for path in sorted(staging.iterdir())
    )
    manifest = Manifest(
        rank=8, target_modules=("all-linear",), files=files, lineage=lineage, probes=probes, chat=chat
    )
    (staging / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    name = manifest.digest.removeprefix("sha256:")
    (storage / "sha256").mkdir(exist_ok=True)
    staging.rename(storage / "sha256" / name)
    return {"version": 1, "digest": manifest.digest, "uri": f"pvc://artifacts/sha256/{name}"}


def main(folder: Path, architecture: str) -> None:
    """Make all of it."""
    storage = folder / "mnt/pvc/artifacts"
    storage.mkdir(parents=True)
    model_folder = make_model(folder / "model", architecture, TEXTS)  # type: ignore[arg-type]
    right = make_adapter(model_folder, TEXTS, STEPS)
    other = make_adapter(model_folder, OTHER_TEXTS, STEPS)
    probes = make_probes(right, model_folder)
    versions = {
        "right": commit(right, probes, storage),
        "other": commit(other, make_probes(other, model_folder), storage),
        "wrong": commit(other, probes, storage),
        "unmatched": commit(right, probes, storage, "blocks"),
        "inactive": commit(make_adapter(model_folder, TEXTS, 0), probes, storage),
    }
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
