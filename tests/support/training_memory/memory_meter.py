"""Memory of a training step on fake tensors, counted as they are created and freed.

The model runs on fake tensors (torch's FakeTensorMode), so one of any size runs on any machine; each operation's
results are counted until nothing holds them any more, as an allocator would. What kernels take for themselves,
and what an allocator loses to fragments, is not seen.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

#: CUDA's caching allocator hands out multiples of this.
BLOCK_BYTES = 512


class MemoryMeter(TorchDispatchMode):
    """Counts the bytes of all storages that operations made and that are still held.

    Attributes:
        bytes: held now.
        peak: the most that was held at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count(result)
        return result

    def count(self, values: Any) -> None:
        """Take tensors into account that this meter has not seen yet."""
        for value in tree_iter(values):
            if isinstance(value, torch.Tensor):
                self._add(value.untyped_storage())

    def reset_peak(self) -> None:
        """Measure the peak from now on."""
        self.peak = self.bytes

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        if key in self._seen:
            return

        def gone(_: Any) -> None:
            self.bytes -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Make tensors without data, which still know shape, type and device."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def fake_copy(model: torch.nn.Module) -> torch.nn.Module:
    """The same model, its parameters and buffers fake: take one from the meta device. Tied ones stay tied."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = made.setdefault(id(tensor), _fake(tensor))
    return model


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty(tensor.shape, dtype=tensor.dtype)
    if not isinstance(tensor, torch.nn.Parameter):
        return empty
    return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)


class SavedBytes:
    """Counts what autograd keeps for the backward pass, each storage once, and not what is held anyway.

    Args:
        held: tensors that are there in any case, such as parameters.
    """

    def __init__(self, held: Any) -> None:
        self.bytes = 0
        self._storages: list[torch.UntypedStorage] = []
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __enter__(self) -> "SavedBytes":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._hooks.__exit__(*exception)
        self._storages.clear()

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            # Freed memory may come back at the same address: hold on to what was counted.
            self._storages.append(tensor.untyped_storage())
            self.bytes += storage.nbytes()
        return tensor
