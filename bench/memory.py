"""How good the memory estimate is: against published numbers, steps on tensors without data, and a GPU.

``memory.py document`` writes the tables of ``docs/memory.md`` from what others published and from simulated steps;
``memory.py measure`` needs a GPU and writes ``bench/results/memory.json``. Models are made on the spot from
configurations: nothing is downloaded. Without a GPU, ``measure --small`` simulates a small model in its stead. Runs in
the trainer's environment.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from training_memory.published_memory import PUBLISHED, Published, allocated
from training_memory.training_step import Step, build_model, measure, peft_config, report_of, simulate
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from tunesmith.decide.fit.memory import NORMAL_FLOAT_DOUBLE, Memory, Setup, estimate_setup
from tunesmith_contract.run_config import Adapter, AdapterType

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/memory.md"
RESULTS = ROOT / "bench/results/memory.json"
BEGIN, END = "<!-- tables: bench/memory.py -->", "<!-- end of tables -->"
GIB = 2**30

LORA = Adapter(rank=16)
DORA = Adapter(rank=16, type=AdapterType.DORA)
QLORA = Adapter(rank=16, type=AdapterType.QLORA)

#: Blocks are all alike: two of them, the embedding and the output layer show every moment of a step.
BLOCKS = "two blocks of Llama 3.1 8B"

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 4096, "tie_word_embeddings": True},
    "Llama 3.2 1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True},
    "Llama 3.2 3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
                     "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": True},
    "Llama 3.1 8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    BLOCKS: {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 2,
             "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip

#: Settings, from what takes the most to what takes the least.
SETUPS: dict[str, Setup] = {
    "all weights, 1 x 1024": Setup(1, 1024, weight=4),
    "all weights, 4 x 2048, checkpointing": Setup(4, 2048, weight=4, checkpointing=True),
    "LoRA r16, 2 x 2048": Setup(2, 2048, adapter=LORA),
    "LoRA r16, 8 x 2048, checkpointing": Setup(8, 2048, adapter=LORA, checkpointing=True),
    "LoRA r16, 1 x 16384, checkpointing": Setup(1, 16384, adapter=LORA, checkpointing=True),
    "LoRA r256, 2 x 2048, checkpointing": Setup(2, 2048, adapter=Adapter(rank=256), checkpointing=True),
    "LoRA r16 with dropout, 2 x 2048": Setup(2, 2048, adapter=Adapter(rank=16, dropout=0.1)),
    "DoRA r16, 4 x 2048, checkpointing": Setup(4, 2048, adapter=DORA, checkpointing=True),
    "QLoRA r16, 4 x 2048, checkpointing": Setup(
        4, 2048, adapter=QLORA, adapter_weight=2, normal_float=NORMAL_FLOAT_DOUBLE, checkpointing=True
    ),
}


def main() -> None:
    """Write the document, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("document", "measure"))
    parser.add_argument("--small", action="store_true", help="a tiny model only")
    real = [name for name in SIZES if name != "tiny"]
    parser.add_argument("--models", nargs="+", choices=real, default=real, help="the models to measure")
    parser.add_argument(
        "--output", type=Path, help=f"file for measurements ({RESULTS.relative_to(ROOT)} on a GPU)"
    )
    arguments = parser.parse_args()
    if arguments.action == "document":
        write_document()
        return
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not arguments.small:
        sys.exit("there is no GPU here: with --small a tiny model is simulated instead")
    sizes = ["tiny"] if arguments.small else arguments.models
    rows = list(_measured(sizes) if on_gpu else _simulated(sizes))
    worst = max((abs(row["error"]) for row in rows), default=0.0)
    result = {
        "hardware": torch.cuda.get_device_name(0) if on_gpu else "none: simulated",
        "torch": torch.__version__,
        "worst_error": worst,
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    output = arguments.output or (RESULTS if on_gpu and not arguments.small else None)
    if output:
        output.write_text(json.dumps(result, indent=1) + "\n")


def write_document() -> None:
    """Put both tables into the document."""
    simulated = list(_simulated([BLOCKS]))
    worst = max(abs(row["error"]) for row in simulated)
    compared = [row for row in PUBLISHED if not row.doubt]
    text = "\n".join([
        BEGIN,
        "## Against what others published",
        f"Worst error of the {len(compared)} that can be compared: {max(abs(row.error) for row in compared):.1%}.",
        "",
        "| source | setup | published, GiB | estimate, GiB | error |",
        "|---|---|---|---|---|",
        *map(_published_line, PUBLISHED),
        "",
        "## Against whole steps on tensors without data",
        f"What PyTorch allocates at the fullest moment, with a mask (see below). Worst error: {worst:.1%}.",
        "",
        "| model | setup | counted, GiB | estimate, GiB | error |",
        "|---|---|---|---|---|",
        *(f"| {row['model']} | {row['setup']} | {row['peak']:.2f} | {row['estimate']:.2f} | {row['error']:+.1%} |"
          for row in simulated),
        END,
    ])  # fmt: skip
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(before + text + rest.partition(END)[2])
    print(
        f"wrote {DOCUMENT.relative_to(ROOT)}: worst errors {max(abs(row.error) for row in compared):.1%}, {worst:.1%}"
    )


def _published_line(row: Published) -> str:
    error = f"not compared: {row.doubt}" if row.doubt else f"{row.error:+.1%}"
    return f"| {row.source} | {row.name} | {row.bytes / GIB:.1f} | {row.estimate / GIB:.1f} | {error} |"


def _simulated(sizes: list[str]) -> Iterator[dict[str, Any]]:
    """Each setting that needs no kernels of a GPU; without data nothing is seen to be unpadded: there is a mask."""
    for size in sizes:
        for name, setup in SETUPS.items():
            if setup.normal_float is None and not (setup.adapter and setup.adapter.dropout):
                config, masked = _config(size), replace(setup, masked=True)
                yield _row(size, name, simulate(config, masked), estimate_setup(report_of(config), masked))


def _measured(sizes: list[str]) -> Iterator[dict[str, Any]]:
    """Each setting that fits into the GPU by the estimate."""
    total = torch.cuda.get_device_properties(0).total_memory
    for size in sizes:
        for name, setup in SETUPS.items():
            config = _config(size)
            memory = estimate_setup(report_of(config), setup)
            if memory.total < total:
                yield _row(size, name, measure(_on_gpu(config, setup), setup), memory)
                torch.cuda.empty_cache()


def _on_gpu(config: Any, setup: Setup) -> Any:
    if setup.normal_float is not None:
        return _quantized(config, setup)
    model = build_model(config, setup).to_empty(device="cuda")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.normal_(std=0.02)
    return model


def _quantized(config: Any, setup: Setup) -> Any:
    """Saved and loaded, since bitsandbytes packs weights while they are loaded."""
    from peft import get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        packing = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        base = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, quantization_config=packing, device_map={"": 0}
        )
    model = get_peft_model(base, peft_config(setup), autocast_adapter_dtype=False)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    add_fused_lm_head(base)
    return model.train()


def _row(size: str, name: str, step: Step, memory: Memory) -> dict[str, Any]:
    return {
        "model": size,
        "setup": name,
        "peak": step.peak / GIB,
        "estimate": allocated(memory) / GIB,
        "error": allocated(memory) / step.peak - 1,
    }


def _config(size: str) -> Any:
    return LlamaConfig(max_position_embeddings=16384, **SIZES[size])


if __name__ == "__main__":
    main()
