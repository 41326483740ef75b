"""Inspection of the base model: revision, architecture, sizes, whether it can be fine-tuned."""

import json
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.report import ModelReport, ModelShape
from tunesmith_contract.uris import MOUNTED, Scheme, parse_uri
from tunesmith_data.failures import UserError
from tunesmith_data.pod.storage import Storage, file_digest

from .optional_libraries import is_installed

_IGNORED = ("README.md", ".gitattributes", "LICENSE")
_SHARD_INDEX = "model.safetensors.index.json"
_HEADER_LENGTH_BYTES = 8
_DIGEST_THREADS = 4


def describe_model(storage: Storage, uri: str, folder: Path) -> ModelReport:
    """Report on a base model: revision and sizes, without its chat template.

    With torch the sizes are those of the model as its configuration builds it, without weights. Without torch only
    the number of parameters is known, and only where the weights are there to be counted; else it is 0.

    Raises:
        UserError: no causal language model, or no safetensors.
    """
    config = load_config(folder)
    scheme = parse_uri(uri).scheme
    if scheme is not Scheme.HF:
        check_weights(uri, folder, whole=scheme in MOUNTED)
    parameters, shape = _measure(config) if is_installed("torch") else (_count_stored(folder), None)
    quantization = getattr(config, "quantization_config", None)
    return ModelReport(
        revision=model_revision(uri, folder),
        architecture=config.architectures[0],
        parameters=parameters,
        max_position_embeddings=getattr(config, "max_position_embeddings", None) or 0,
        shape=shape,
        quantization=_quantization_method(quantization) if quantization else None,
    )


def inspect_model(storage: Storage, uri: str, folder: Path, *, classifier: bool) -> ModelReport:
    """Report on a base model, after checking that it can be trained.

    Args:
        classifier: a reward model is to be made of it.

    Raises:
        UserError: no causal language model, no safetensors, or no reward model can be made of it.
    """
    report = describe_model(storage, uri, folder)
    if classifier:
        require_classifier(folder)
    return report


def load_config(folder: Path, model: str = "the base model") -> Any:
    """The model's configuration.

    Args:
        folder: the model's folder.
        model: name of the model in messages.

    Raises:
        UserError: it can't be read, or is not a causal language model's.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise UserError("ModelUnreadable", f"config.json of {model} can't be read: {error}") from error
    supported = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    architectures = config.architectures or []
    if not supported.intersection(architectures):
        message = (
            f"the architecture of {model} is {architectures or 'not named'}: choose a causal language model"
        )
        raise UserError("NotACausalLM", message)
    return config


def require_classifier(folder: Path) -> None:
    """Check that a reward model can be made of a causal language model.

    Raises:
        UserError: transformers knows no sequence classifier of its kind.
    """
    config = load_config(folder)
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        message = (
            f"no reward model can be made of architecture {config.architectures[0]}: choose a base model "
            "such as Llama, Mistral, Qwen2, Qwen3 or Gemma"
        )
        raise UserError("NoRewardArchitecture", message)


def model_revision(uri: str, folder: Path) -> str:
    """Revision of a base model: the hub's commit, or a digest over names and bytes of its files.

    What is fetched has it for the folder's name: an artifact's digest, else one over the store's own entity tags.

    Weights are digested whole, since another training of the same architecture differs nowhere else; that
    reads about a gigabyte per second and core.
    """
    scheme = parse_uri(uri).scheme
    if scheme not in MOUNTED and folder.name.startswith("sha256-"):
        return folder.name.replace("-", ":", 1)
    if scheme is Scheme.HF:
        return _hub_commit(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in _IGNORED)
    with ThreadPoolExecutor(_DIGEST_THREADS) as pool:
        digests = dict(zip((path.name for path in files), pool.map(file_digest, files), strict=True))
    return sha256_digest(canonical_json(digests))


def _hub_commit(folder: Path) -> str:
    """The commit in a hub cache's path, ``…/snapshots/<commit>[/path]``."""
    parts = folder.parts
    return parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]


def check_weights(uri: str, folder: Path, *, whole: bool) -> None:
    """Look for safetensors files.

    Args:
        uri: the model's.
        folder: the model's folder.
        whole: the files are to be there to their end, else their headers.

    Raises:
        UserError: there are none, one is cut off, or one is missing of a model in several files.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError("ModelUnreadable", f"{uri} has no *.safetensors: save the model as safetensors")
    present = {path.name for path in weights}
    named = sorted(_shards(folder)) if whole else ()
    missing = next((name for name in named if name not in present), None)
    if missing is not None:
        raise UserError(
            "ModelUnreadable", f"{uri} has no {missing}, which its {_SHARD_INDEX} names: copy the model again"
        )
    for path in weights:
        header, begin = _read_header(path)
        ends = [tensor["data_offsets"][1] for tensor in header.values() if whole]
        if not header or begin + max(ends, default=0) > path.stat().st_size:
            raise UserError("ModelUnreadable", f"{path.name} of {uri} is damaged: copy the model again")


def _shards(folder: Path) -> Collection[str]:
    """Names of the weight files that the index of a model in several files names; none without an index."""
    try:
        index = json.loads((folder / _SHARD_INDEX).read_bytes())
        return set(index["weight_map"].values())
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("ModelUnreadable", f"{_SHARD_INDEX} is damaged: copy the model again") from error


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Header of a safetensors file (empty if it is damaged), and the offset of its data."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
        try:
            header = json.loads(stream.read(length)) if length <= path.stat().st_size else {}
        except ValueError:
            header = {}
    header.pop("__metadata__", None)
    return header, _HEADER_LENGTH_BYTES + length


def _count_stored(folder: Path) -> int:
    """Numbers in all weight files."""
    headers = (_read_header(path)[0] for path in folder.glob("*.safetensors"))
    return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())


def _measure(config: Any) -> tuple[int, ModelShape]:
    """Number of parameters and sizes of the model that a configuration builds."""
    from .torch_shape import build_skeleton, count_parameters, describe_shape

    skeleton = build_skeleton(config)
    return count_parameters(skeleton), describe_shape(skeleton)


def _quantization_method(config: Any) -> str:
    """The method's name in a ``quantization_config``, such as ``gptq``."""
    written = config.get("quant_method") if isinstance(config, dict) else config.quant_method
    return str(getattr(written, "value", written) or "unknown")
