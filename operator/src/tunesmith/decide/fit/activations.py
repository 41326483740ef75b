"""What a training step keeps of its activations: an inventory of autograd's saved tensors, layer by layer.

Counted in the source of transformers 5.23 (a block of Llama's kind), PEFT 0.21 and Liger 0.8, and compared with what
torch saves in ``tests/trainer/train/test_memory.py``. H is the hidden size, I the feed-forward block's width, q and kv
those of queries and of keys or values; all bytes are per token unless a name says otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith_contract.report import Linear, ModelReport, ModelShape

#: Layers by what they read: all that read the same tensor keep it once.
_READS_NORM = {
    "attention": frozenset(
        [
            "q_proj",
            "k_proj",
            "v_proj",
            "qkv_proj",
            "query_key_value",
            "c_attn",
            "Wqkv",
            "W_pack",
            "q_a_proj",
            "kv_a_proj_with_mqa",
        ]
    ),
    "feed-forward": frozenset(
        ["gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h", "w1", "w3"]
    ),
}
_ATTENTION_OUT = frozenset({"o_proj", "out_proj", "dense"})
_FEED_FORWARD_OUT = frozenset({"down_proj", "fc2", "dense_4h_to_h", "w2"})
_GATES = frozenset({"gate_proj", "gate_up_proj", "w1"})

#: Architectures with a norm on queries and keys, and those with four norms to a block instead of two.
_QUERY_NORM = ("Qwen3", "Gemma3", "Olmo2", "Olmo3", "Glm4Moe")
_FOUR_NORMS = ("Gemma2", "Gemma3")

#: Bytes of what matrices are multiplied in, and of what norms are computed in.
COMPUTE = 2
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Style:
    """How a model is run, as far as its activations depend on it.

    Attributes:
        residual: bytes of a number between blocks: that of the weights' type.
        trains_weights: all weights are trained; else only ``targets`` keep their inputs.
        targets: the layers with an adapter.
        rank: the adapter's.
        casts: what is trained is float32 and cast for each use (autocast), so that nothing is shared.
        dropout: an adapter's inputs are dropped in part.
        dora: the adapter scales each layer's whole output.
        liger: Liger's norms and activations, which compute again what they do not keep.
        masked: attention takes a mask: keys and values are repeated for each head, and each layer keeps the mask.
        compute: bytes of a number in matrix products.
    """

    residual: int = COMPUTE
    trains_weights: bool = False
    targets: tuple[Linear, ...] = ()
    rank: int = 0
    casts: bool = False
    dropout: bool = False
    dora: bool = False
    liger: bool = False
    masked: bool = False
    compute: int = COMPUTE


def saved_bytes(model: ModelReport, style: Style) -> float:
    """What all blocks keep for the backward pass, per token."""
    shape = model.shape
    assert shape is not None
    blocks = _norms(model, shape, style) + _attention(shape, style) + _feed_forward(shape, style)
    return shape.layers * blocks + _inputs(shape, style) + _adapter(style)


def boundary_bytes(shape: ModelShape, style: Style) -> float:
    """What is kept where blocks are checkpointed, per token: each block's input."""
    return float(shape.layers * style.residual * shape.hidden_size)


def passing_bytes(shape: ModelShape, style: Style) -> float:
    """What a block's backward pass takes beside what was kept, per token.

    It begins at the widest place: the gradient of the feed-forward block's product (in float32 too, where an adapter
    casts its input), and that of the block's output. Further on more is freed than is made.
    """
    width = style.compute * shape.intermediate_size
    cast = FLOAT * shape.intermediate_size if style.casts and not style.trains_weights else 0
    return float(width + cast + style.residual * shape.hidden_size)


def cast_bytes(model: ModelReport, style: Style, adapter_parameters: int) -> float:
    """Copies of what is trained in the type that matrices are multiplied in, kept with the activations; in all."""
    if not style.casts:
        return 0.0
    assert model.shape is not None
    trained = linear_parameters(model.shape.linears) if style.trains_weights else adapter_parameters
    return float(style.compute * trained)


def magnitude_bytes(style: Style) -> float:
    """DoRA multiplies each adapter out, by way of an identity matrix over the layer's inputs that is kept; in all."""
    squares = sum(each.inputs**2 * each.layers for each in style.targets) if style.dora else 0
    return float(style.compute * squares)


def mask_bytes(shape: ModelShape, style: Style, sequences: int, length: int) -> float:
    """What the masks of all layers take: PyTorch's efficient attention makes a matrix of each; in all."""
    return float(shape.layers * style.compute * sequences * length**2) if style.masked else 0.0


def linear_parameters(linears: Iterable[Linear]) -> int:
    """Weights of linear layers."""
    return sum(each.inputs * each.outputs * each.layers for each in linears)


def _norms(model: ModelReport, shape: ModelShape, style: Style) -> float:
    """A norm works on a float32 copy and, to train its weight, keeps the normed values; Liger's keeps its input."""
    count = 4 if model.architecture.startswith(_FOUR_NORMS) else 2
    width = count * shape.hidden_size
    if model.architecture.startswith(_QUERY_NORM):
        width += _queries(shape) + _keys(shape)
    if style.liger:
        return style.residual * width
    return (FLOAT + (style.residual if style.trains_weights else 0)) * width


def _attention(shape: ModelShape, style: Style) -> float:
    """Queries, keys, values, the output, and a float32 sum for each head."""
    keys = _queries(shape) if style.masked else _keys(shape)
    return style.compute * (2 * _queries(shape) + 2 * keys) + FLOAT * shape.attention_heads


def _feed_forward(shape: ModelShape, style: Style) -> float:
    """The gate before and after its activation and the other factor; Liger's computes the activation again."""
    tensors = (2 if style.liger else 3) if _is_gated(shape) else 1
    # Experts are fused: what the last of their matrices reads is kept in any case.
    tensors += 1 if shape.experts else 0
    return style.compute * tensors * shape.intermediate_size


def _inputs(shape: ModelShape, style: Style) -> float:
    """What the layers that are trained read, over all blocks: once for those that read the same, unless it is cast."""
    trained = shape.linears if style.trains_weights else style.targets
    own = style.casts or style.dropout
    total = 0.0
    for names in _READS_NORM.values():
        readers = [each for each in trained if each.name in names]
        total += sum(map(_read, readers)) if own else max(map(_read, readers), default=0)
    for each in trained:
        if each.name in _ATTENTION_OUT:
            # The attention keeps its output itself; an adapter's copy of it is another.
            total += _read(each) if own and not style.trains_weights else 0
        elif each.name in _FEED_FORWARD_OUT or not any(each.name in names for names in _READS_NORM.values()):
            total += _read(each)
    return style.compute * total


def _adapter(style: Style) -> float:
    """What lies between an adapter's two matrices, where its inputs were dropped, and what DoRA scales."""
    rank = sum(style.compute * style.rank * each.layers for each in style.targets)
    dropped = sum(map(_read, style.targets)) if style.dropout else 0
    scaled = (
        sum(2 * style.compute * each.outputs * each.layers for each in style.targets) if style.dora else 0
    )
    return rank + dropped + scaled


def _read(linear: Linear) -> int:
    return linear.inputs * linear.layers


def _is_gated(shape: ModelShape) -> bool:
    return bool(shape.experts) or any(each.name in _GATES for each in shape.linears)


def _queries(shape: ModelShape) -> int:
    return shape.attention_heads * shape.head_size


def _keys(shape: ModelShape) -> int:
    return shape.key_value_heads * shape.head_size
