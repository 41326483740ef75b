"""Memory of the activations of a training step: an inventory of autograd's saved tensors, layer by layer.

Counted in the source of transformers 5.23 (a Llama block) and PEFT 0.21, and compared with what torch saves in
``tests/trainer/train/test_memory.py``. H is the hidden size, I the feed-forward block's width, q and kv
those of queries and of keys or values; all bytes are per token unless a name says otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith_contract.report import Linear, ModelReport, ModelShape

#: Layers by their input: all that read the same tensor keep it once.
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

#: Bytes of a number in matrix products, and of a number in norms.
COMPUTE = 2
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Style:
    """Settings of a model that determine its activations.

    Attributes:
        residual: bytes of a number between blocks, in the type of the weights.
        trains_weights: all weights are trained; otherwise only ``targets`` keep their inputs.
        targets: the layers with an adapter.
        rank: the rank of the adapter.
        casts: trained weights are float32 and cast for each use (autocast), so that layers share no input.
        dropout: the adapter uses dropout on its inputs.
        dora: the adapter scales the whole output of each layer.
        masked: attention uses a mask: keys and values are repeated for each head, and each layer keeps the mask.
        compute: bytes of a number in matrix products.
    """

    residual: int = COMPUTE
    trains_weights: bool = False
    targets: tuple[Linear, ...] = ()
    rank: int = 0
    casts: bool = False
    dropout: bool = False
    dora: bool = False
    masked: bool = False
    compute: int = COMPUTE


def saved_bytes(model: ModelReport, style: Style) -> float:
    """Bytes per token that all blocks keep for the backward pass."""
    shape = model.shape
    assert shape is not None
    blocks = _norms(model, shape, style) + _attention(shape, style) + _feed_forward(shape, style)
    return shape.layers * blocks + _inputs(shape, style) + _adapter(style)


def boundary_bytes(shape: ModelShape, style: Style) -> float:
    """Bytes per token that checkpointed blocks keep: the input of each block."""
    return float(shape.layers * style.residual * shape.hidden_size)


def passing_bytes(shape: ModelShape, style: Style) -> float:
    """Bytes per token that the backward pass of a block takes in addition to what was kept.

    It begins at the widest place: the gradient of the feed-forward product (also in float32, if an adapter casts its
    input) and the gradient of the block's output. Later, more is freed than allocated.
    """
    width = style.compute * shape.intermediate_size
    cast = FLOAT * shape.intermediate_size if style.casts and not style.trains_weights else 0
    return float(width + cast + style.residual * shape.hidden_size)


def cast_bytes(model: ModelReport, style: Style, adapter_parameters: int) -> float:
    """Bytes of all copies of trained weights in the type of matrix products, kept with the activations."""
    if not style.casts:
        return 0.0
    assert model.shape is not None
    trained = linear_parameters(model.shape.linears) if style.trains_weights else adapter_parameters
    return float(style.compute * trained)


def magnitude_bytes(style: Style) -> float:
    """Bytes of the identity matrices that DoRA keeps to multiply out each adapter."""
    squares = sum(linear.inputs**2 * linear.layers for linear in style.targets) if style.dora else 0
    return float(style.compute * squares)


def mask_bytes(shape: ModelShape, style: Style, sequences: int, length: int) -> float:
    """Bytes of the masks of all layers: PyTorch's efficient attention expands each mask to a matrix."""
    return float(shape.layers * style.compute * sequences * length**2) if style.masked else 0.0


def linear_parameters(linears: Iterable[Linear]) -> int:
    """Number of weights of linear layers."""
    return sum(linear.inputs * linear.outputs * linear.layers for linear in linears)


def _norms(model: ModelReport, shape: ModelShape, style: Style) -> float:
    """Bytes of norms: a float32 copy and, to train the weight, the normed values."""
    count = 4 if model.architecture.startswith(_FOUR_NORMS) else 2
    width = count * shape.hidden_size
    if model.architecture.startswith(_QUERY_NORM):
        width += _queries(shape) + _keys(shape)
    return (FLOAT + (style.residual if style.trains_weights else 0)) * width


def _attention(shape: ModelShape, style: Style) -> float:
    """Bytes of queries, keys, values, the output, and a float32 sum for each head."""
    keys = _queries(shape) if style.masked else _keys(shape)
    return style.compute * (2 * _queries(shape) + 2 * keys) + FLOAT * shape.attention_heads


def _feed_forward(shape: ModelShape, style: Style) -> float:
    """Bytes of the gate before and after its activation and of the other factor."""
    gated = bool(shape.experts) or any(linear.name in _GATES for linear in shape.linears)
    tensors = 3 if gated else 1
    # Experts are fused: what the last of their matrices reads is kept in any case.
    tensors += 1 if shape.experts else 0
    return style.compute * tensors * shape.intermediate_size


def _inputs(shape: ModelShape, style: Style) -> float:
    """Bytes of the inputs of all trained layers, once for layers with the same input, unless it is cast."""
    trained = shape.linears if style.trains_weights else style.targets
    own = style.casts or style.dropout
    total = 0.0
    for names in _READS_NORM.values():
        readers = [linear for linear in trained if linear.name in names]
        total += sum(map(_input_width, readers)) if own else max(map(_input_width, readers), default=0)
    for linear in trained:
        if linear.name in _ATTENTION_OUT:
            # Attention keeps its output itself; the copy of an adapter comes on top.
            total += _input_width(linear) if own and not style.trains_weights else 0
        elif linear.name in _FEED_FORWARD_OUT or not any(
            linear.name in names for names in _READS_NORM.values()
        ):
            total += _input_width(linear)
    return style.compute * total


def _adapter(style: Style) -> float:
    """Bytes between the two matrices of adapters, of their dropout, and of the outputs that DoRA scales."""
    rank = sum(style.compute * style.rank * linear.layers for linear in style.targets)
    dropped = sum(map(_input_width, style.targets)) if style.dropout else 0
    scaled = (
        sum(2 * style.compute * linear.outputs * linear.layers for linear in style.targets)
        if style.dora
        else 0
    )
    return rank + dropped + scaled


def _input_width(linear: Linear) -> int:
    return linear.inputs * linear.layers


def _queries(shape: ModelShape) -> int:
    return shape.attention_heads * shape.head_size


def _keys(shape: ModelShape) -> int:
    return shape.key_value_heads * shape.head_size
