"""Attention of packed rows without a dense mask, by FlashAttention 2 of torch itself or by SDPA for each row.

transformers' SDPA separates packed rows by a mask of quadratic size, with which torch has no fast kernel. Here the
mask is replaced by the bounds of the rows, found once per pass. ``PACKED_VARLEN`` gives all rows to torch's
``varlen_attn``, which is compiled into torch (16-bit types, compute capability 8.0 and later). ``PACKED_SDPA`` calls
SDPA for one row after the other, on any device and in any type. Batches that aren't packed go to SDPA as always.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_VARLEN = "packed_varlen"
PACKED_SDPA = "packed_sdpa"

_SIXTEEN_BITS = frozenset({torch.bfloat16, torch.float16})
#: Rows of the check: shorter and longer than a tile of the kernels (128), and of odd lengths.
_CHECK_LENGTHS = (5, 128, 37, 200)
#: Sliding window of the check, if the model's own is longer: some of the rows have to be longer than it.
_CHECK_WINDOW = 50
#: Largest difference, as a share of the largest value; bfloat16 rounds by 0.4 %, and wrong rows differ by far more.
_CHECK_TOLERANCE = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Bounds of the rows in a packed sequence; models hand it to each layer as its attention mask.

    Attributes:
        starts: begin of each row, and the end of the last one (int32, on the device of the sequence).
        bounds: the same numbers on the host.
    """

    starts: torch.Tensor
    bounds: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(end - begin for begin, end in pairwise(self.bounds))


def register_packed_attention() -> None:
    """Make both implementations known to transformers by their names."""
    for name, attention in ((PACKED_VARLEN, varlen_attention), (PACKED_SDPA, row_attention)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, packed_mask)


def packed_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Any:
    """Bounds of the rows of a packed sequence; for any other batch SDPA's own mask.

    A row begins where a token doesn't attend to the one before it. Masks that aren't causal stay as they are.
    """
    # transformers asks for a mask in any case if rows are packed, and for vmap if the mask has a custom part.
    single = batch_size == 1 and q_length == kv_length > 1 and attention_mask is None
    if single and not allow_is_causal_skip and not use_vmap:
        zero = torch.zeros((), dtype=torch.long, device=device)
        here = torch.arange(1, q_length, device=device)
        if not mask_function(zero, zero, here - 1, here).any():
            begins = ~mask_function(zero, zero, here, here - 1)
            bounds = (0, *here[begins.expand(here.shape)].tolist(), q_length)
            return PackedRows(torch.tensor(bounds, dtype=torch.int32, device=device), bounds)
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        use_vmap=use_vmap,
        device=device,
        **options,
    )


def row_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PackedRows | torch.Tensor | None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA for one row after the other, from (1, heads, tokens, size) to (1, tokens, heads, size)."""
    if not isinstance(attention_mask, PackedRows):
        options["sliding_window"] = sliding_window
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return result
    options.pop("is_causal", None)
    outputs = []
    for begin, end in pairwise(attention_mask.bounds):
        window = _window_mask(end - begin, sliding_window, query.device)
        output, _ = sdpa_attention_forward(
            module,
            query[:, :, begin:end],
            key[:, :, begin:end],
            value[:, :, begin:end],
            window,
            is_causal=window is None,
            **options,
        )
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def varlen_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PackedRows | torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """All rows at once by torch's FlashAttention 2; SDPA for what it can't do: dropout, values of another size."""
    dtype = query.dtype
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
    supported = isinstance(attention_mask, PackedRows) and not dropout and dtype in _SIXTEEN_BITS
    if not supported or key.shape[-1] != value.shape[-1]:
        return row_attention(
            module,
            query,
            key,
            value,
            attention_mask,
            sliding_window,
            dropout=dropout,
            scaling=scaling,
            **options,
        )
    # Only where it is used: older versions of torch lack it.
    from torch.nn.attention.varlen import varlen_attn

    assert isinstance(attention_mask, PackedRows)
    query, key, value = (
        tensor.to(dtype).transpose(1, 2).flatten(0, 1).contiguous() for tensor in (query, key, value)
    )
    longest = attention_mask.longest
    output = varlen_attn(
        query,
        key,
        value,
        attention_mask.starts,
        attention_mask.starts,
        longest,
        longest,
        scale=scaling,
        # Tokens to the left beside the token itself, and none to the right.
        window_size=(-1, 0)
        if sliding_window is None or sliding_window >= longest
        else (sliding_window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output.unsqueeze(0), None


def varlen_works(
    heads: int, key_value_heads: int, head_size: int, window: int | None, dtype: torch.dtype, device: str
) -> bool:
    """Result of a check of torch's kernel on this device: output and gradients equal those of SDPA, row by row.

    A kernel that is not built for the device, refuses the sizes, or has other arguments in an older version of torch,
    costs speed instead of the run.
    """
    window = None if window is None else min(window, _CHECK_WINDOW)
    starts = [0]
    for length in _CHECK_LENGTHS:
        starts.append(starts[-1] + length)
    rows = PackedRows(torch.tensor(starts, dtype=torch.int32, device=device), tuple(starts))
    module = SimpleNamespace(num_key_value_groups=heads // key_value_heads, is_causal=True)
    # Not torch's global generator, whose state decides the run's random numbers.
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(1, count, starts[-1], head_size) for count in (heads, key_value_heads, key_value_heads)]
    inputs = [torch.randn(shape, generator=generator, dtype=dtype, device=device) for shape in shapes]
    try:
        found, expected = (
            _output_and_gradients(attention, module, inputs, rows, window)
            for attention in (varlen_attention, row_attention)
        )
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        _log.warning("torch's variable-length attention does not work here, SDPA is used: %s", error)
        return False
    for one, other in zip(found, expected, strict=True):
        difference = float((one.float() - other.float()).abs().max() / other.float().abs().max())
        # Written so that NaN fails.
        if not difference <= _CHECK_TOLERANCE:
            _log.warning(
                "torch's variable-length attention differs from SDPA by %.3g, SDPA is used", difference
            )
            return False
    return True


def _output_and_gradients(
    attention: Callable[..., Any],
    module: Any,
    inputs: list[torch.Tensor],
    rows: PackedRows,
    window: int | None,
) -> list[torch.Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output, _ = attention(module, *leaves, rows, sliding_window=window)
    # The sum of squares gives each element a gradient of its own.
    return [output.detach(), *torch.autograd.grad(output.float().square().sum(), leaves)]


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Mask of a row that is longer than the model's sliding window; None: the row is causal throughout."""
    if window is None or length <= window:
        return None
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    mask: torch.Tensor = (distance >= 0) & (distance < window)
    return mask[None, None]
