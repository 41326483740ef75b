"""Conversion of a SmolLM2 GGUF to a folder of safetensors in bfloat16, with tokenizer and chat template.

Usage: convert_smollm2.py MODEL.gguf FOLDER. Needs the trainer's environment.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging


def convert(source: Path, folder: Path) -> None:
    """Write the model of the GGUF file `source` into `folder`."""
    where = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    quantized = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    settings = quantized.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path", "dtype"):
        settings.pop(name, None)
    # Saving the loaded model is refused, since it counts as quantised: the weights go into a fresh one.
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantized.state_dict())
    model.to(torch.bfloat16)
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, which a pod of another user could not read


if __name__ == "__main__":
    logging.disable_progress_bar()
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
