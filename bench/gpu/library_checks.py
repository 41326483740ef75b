"""Checks of a machine's GPU and of the libraries' native parts on it."""

from dataclasses import asdict
from typing import Any

import torch
from check_runner import CheckFailed, Place, Skipped

from tunesmith_gpu.judgment import find_problem
from tunesmith_gpu.probe import gather_facts

_GIB = 2**30
#: Heads, heads of keys and values, and their size: Qwen 2.5 0.5B, Llama 3.2 1B, Llama 3.1 8B, Phi 3, Gemma 3 4B.
_HEADS = ((14, 2, 64), (32, 8, 64), (32, 8, 128), (32, 32, 96), (8, 4, 256))


def find_facts(place: Place) -> dict[str, Any]:
    """Driver, GPU, what torch is built for, and memory."""
    facts = gather_facts(range(1))
    found: dict[str, Any] = {
        "hardware": "no GPU",
        "torch": facts.torch,
        "cuda": facts.cuda or "none",
        "driver": facts.driver or "none",
        "architectures": list(facts.architectures),
        "facts": asdict(facts),
    }
    if facts.devices:
        free, total = torch.cuda.mem_get_info(0)
        device = facts.devices[0]
        found |= {
            "hardware": device.name,
            "capability": ".".join(map(str, device.capability)),
            "gpus": facts.usable,
            "freeGiB": free / _GIB,
            "totalGiB": total / _GIB,
        }
    return found


def check_preflight(place: Place) -> dict[str, Any]:
    """The check with which each worker starts."""
    facts = gather_facts(range(1))
    problem = find_problem(facts, 1)
    if problem is None:
        return {}
    if facts.driver is None and facts.library is None and facts.unlisted_library is None:
        raise Skipped(f"no GPU: {problem.reason}: {problem.message}")
    raise CheckFailed(f"{problem.reason}: {problem.message}")


def check_bitsandbytes(place: Place) -> dict[str, Any]:
    """Product with 4-bit weights, and its gradient."""
    import bitsandbytes as bnb

    device, dtype = _device_and_dtype()
    torch.manual_seed(0)
    plain = torch.nn.Linear(256, 256, bias=False)
    packed = bnb.nn.Linear4bit(256, 256, bias=False, compute_dtype=dtype, quant_type="nf4")
    packed.load_state_dict(plain.state_dict())
    packed = packed.to(device)
    inputs = torch.randn(8, 256, dtype=dtype, device=device, requires_grad=True)
    output = packed(inputs)
    output.float().square().mean().backward()
    expected = plain.to(device, dtype)(inputs)
    error = ((output - expected).norm() / expected.norm()).item()
    if inputs.grad is None or not error < 0.2:
        raise CheckFailed(f"4-bit product differs by {error:.0%}")
    return {"relativeError": error, "device": str(device)}


def check_deepspeed(place: Place) -> dict[str, Any]:
    """Import, and the communication library that DeepSpeed chooses."""
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    return {
        "version": deepspeed.__version__,
        "accelerator": accelerator.device_name(),
        "communication": accelerator.communication_backend_name(),
    }


def check_triton(place: Place) -> dict[str, Any]:
    """A kernel, compiled on the spot: needs a C compiler and a writable cache."""
    device = _require_gpu()
    from added_kernel import add

    left, right = (torch.randn(10_000, device=device) for _ in range(2))
    if not torch.equal(add(left, right), left + right):
        raise CheckFailed("the sum of two vectors is wrong")
    return {}


def check_packed_attention(place: Place) -> dict[str, Any]:
    """torch's attention of packed rows, forward and backward, beside SDPA: the trainer's own check, on usual sizes."""
    device = _require_gpu()
    from tunesmith_trainer.train.packed_attention import varlen_works

    refused = []
    for heads, key_value_heads, size in _HEADS:
        for window in (None, 4096):
            if not varlen_works(heads, key_value_heads, size, window, torch.bfloat16, str(device)):
                refused.append(f"{heads}/{key_value_heads} heads of {size}, window {window}")
    if refused:
        raise CheckFailed(f"the trainer would use SDPA row by row for {'; '.join(refused)}")
    return {"sizes": len(_HEADS)}


def _device_and_dtype() -> tuple[torch.device, torch.dtype]:
    on_gpu = torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu"), torch.bfloat16 if on_gpu else torch.float32


def _require_gpu() -> torch.device:
    if not torch.cuda.is_available():
        raise Skipped("no GPU")
    return torch.device("cuda")
