"""Container of the inference engine (vLLM): arguments, environment, resources and probes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeployment, Engine
from tunesmith.api.values import AUTO
from tunesmith_contract.agent import BASE_MODEL_NAME
from tunesmith_contract.answer_formats import REASONING_PARSERS, TOOL_PARSERS, ThinkingFormat, ToolFormat
from tunesmith_contract.layout import ENGINE_SOCKET
from tunesmith_contract.uris import Scheme, mount_path, parse_uri

from .container_resources import CPU, MEMORY, ContainerDefaults, LimitRules, build_resources
from .gpu_requests import GPUs
from .pods import environment_variables, restricted_container_security
from .serving_config_maps import ServingInputs

ENGINE = "engine"
ENGINE_PORT = 8001
ENGINE_URL = f"http://127.0.0.1:{ENGINE_PORT}"

#: Folder of downloaded models and compiled kernels.
MODEL_CACHE = "/var/cache/tunesmith"

#: Time to load a model; a pod is given up only after this. At least: for compiling and for models that load fast.
MIN_START_SECONDS = 3600
#: The same for a model on GPUs whose size is unknown.
UNKNOWN_START_SECONDS = 7200
#: Part of that time that does not depend on the size, and the slowest speed of storage and network that is expected.
BASE_START_SECONDS, BYTES_PER_SECOND = 1800, 50_000_000

#: Largest number of adapters in GPU memory at the same time: each slot takes the memory of one of the largest rank.
MAX_GPU_SLOTS = 8
#: Rank from which adapters are divided among GPUs completely: below, the time to gather the parts outweighs it.
SHARDED_RANK = 64

CPU_CACHE_GIB = 1
CPU_SEQUENCES = 8
CPU_BLOCK = 32

#: Requests on a CPU for a model of unknown size: the least that any takes.
UNKNOWN_REQUESTS: Mapping[str, str] = {CPU: "250m", MEMORY: "1Gi"}

#: A name that no host has (RFC 6761).
NO_HOST = "none.invalid"

#: Value of a parser's field for none.
_NO_PARSER = "None"

_PYTHON = "/opt/venv/bin/python"
_PORT_HEALTH = [_PYTHON, "-c", f"import urllib.request as r; r.urlopen('{ENGINE_URL}/health', timeout=5)"]
_SOCKET_HEALTH = [_PYTHON, "-m", "tunesmith_engine.health", str(ENGINE_SOCKET)]


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What the engine needs for its model.

    Attributes:
        model_bytes: bytes of the base model's weights; None: unknown.
        requests: default requests of its container, below those in ``engine.resources``.
        tools: form of the model's calls of tools; None: unknown, or none.
        thinking: form of the thinking that its answers begin with; None: unknown, or none.
    """

    model_bytes: float | None = None
    requests: Mapping[str, str] = field(default_factory=dict)
    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None


def build_engine_container(
    deployment: AdapterDeployment,
    inputs: ServingInputs,
    mounts: list[dict[str, Any]],
    needs: EngineNeeds,
    gpus: GPUs,
    rules: LimitRules,
) -> dict[str, Any]:
    """The engine as a sidecar: it starts before the agent and ends after it.

    Args:
        gpus: its GPUs.
        rules: limits that all containers of the pod must have.
    """
    engine = deployment.spec.engine
    defaults = ContainerDefaults(needs.requests or UNKNOWN_REQUESTS)
    health = _SOCKET_HEALTH if inputs.has_engine_socket else _PORT_HEALTH
    probe = {"exec": {"command": health}, "timeoutSeconds": 10}
    seconds = start_seconds(engine, needs.model_bytes)
    return {
        "name": ENGINE,
        "image": inputs.image,
        "restartPolicy": "Always",
        "command": ["tunesmith-engine"],
        "args": engine_arguments(deployment, needs, has_socket=inputs.has_engine_socket),
        "env": _build_environment(deployment),
        "resources": build_resources(defaults, engine.resources, rules, gpus.devices, gpus.claims),
        "securityContext": restricted_container_security(),
        # An engine that refuses to start says why: the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        # Until it has passed once, the liveness probe does not run: a model that is still loading is not killed.
        "startupProbe": probe | {"periodSeconds": 5, "failureThreshold": seconds // 5},
        "livenessProbe": probe | {"periodSeconds": 30, "failureThreshold": 4},
    }


def start_seconds(engine: Engine, model_bytes: float | None) -> int:
    """Seconds within which the engine must have loaded the model."""
    if engine.gpus == 0:
        return MIN_START_SECONDS
    if model_bytes is None:
        return UNKNOWN_START_SECONDS
    return max(MIN_START_SECONDS, BASE_START_SECONDS + int(model_bytes / BYTES_PER_SECOND))


def engine_arguments(
    deployment: AdapterDeployment, needs: EngineNeeds = EngineNeeds(), *, has_socket: bool = True
) -> list[str]:
    """Arguments of vLLM's server; the user's own come last, and win where they may be written twice.

    Args:
        needs: what is known about the base model.
        has_socket: it listens at a socket in the file system; otherwise on a port.
    """
    engine = deployment.spec.engine
    port = {"--host": "127.0.0.1", "--port": str(ENGINE_PORT)}
    arguments = {
        **({"--uds": str(ENGINE_SOCKET)} if has_socket else port),
        "--api-server-count": "1",
        "--served-model-name": BASE_MODEL_NAME,
        "--max-loras": str(adapter_slots(engine)),
        "--max-cpu-loras": str(loaded_adapters(engine)),
        "--max-lora-rank": str(engine.max_rank),
        # vLLM refuses to start where one request of the model's whole length does not fit; with auto it is shortened.
        "--max-model-len": str(engine.max_model_length or "auto"),
        **_model_arguments(deployment.spec.base_model.uri),
        **_hardware_arguments(engine),
        **_parser_arguments(engine, needs),
    }
    switches = [
        # Nothing is fetched without a list of hosts: vLLM takes an empty one for all of them.
        *("--allowed-media-domains", *(engine.media_hosts or (NO_HOST,))),
        "--enable-lora",
        *(["--enable-auto-tool-choice"] if "--tool-call-parser" in arguments else []),
        # The agent counts which tokens of a prompt came from the cache.
        "--enable-prompt-tokens-details",
        *(["--fully-sharded-loras"] if shards_adapters(engine) else []),
        *([] if engine.gpus else ["--enforce-eager"]),
    ]
    pairs = [part for pair in arguments.items() for part in pair]
    return [*pairs, *switches, *engine.args]


def adapter_slots(engine: Engine) -> int:
    """Number of adapters that one batch may use: on GPUs, each takes GPU memory whether it is used or not."""
    slots = ready_adapters(engine)
    return min(slots, MAX_GPU_SLOTS) if engine.gpus else slots


def shards_adapters(engine: Engine) -> bool:
    """True if both matrices of an adapter are divided among the GPUs, which saves memory at high ranks.

    The rank must be divisible, and vLLM 0.32 can't combine it with expert parallelism.
    """
    experts = any(
        argument.replace("_", "-").startswith(("--enable-expert-parallel", "-ep")) for argument in engine.args
    )
    return (
        engine.gpus > 1
        and engine.max_rank >= SHARDED_RANK
        and engine.max_rank % engine.gpus == 0
        and not experts
    )


def loaded_adapters(engine: Engine) -> int:
    """Number of adapters that the engine keeps loaded; the agent loads no more of them at the same time."""
    return 2 * ready_adapters(engine)


def ready_adapters(engine: Engine) -> int:
    """Number of adapters to keep in memory, one more than requested on a CPU.

    There, vLLM 0.32 answers a request for the base model that shares a batch with others by whatever adapter is in the
    last slot, so that slot is left empty.
    """
    return engine.resident_adapters + (0 if engine.gpus else 1)


def _model_arguments(uri: str) -> dict[str, str]:
    model = parse_uri(uri)
    if model.scheme is not Scheme.HF:
        return {"--model": str(mount_path(model))}
    revision = (
        {"--revision": model.revision, "--tokenizer-revision": model.revision} if model.revision else {}
    )
    return {"--model": model.name, **revision}


def tool_call_parser(engine: Engine, needs: EngineNeeds) -> str:
    """Name of the parser of calls; empty for none."""
    if engine.tool_call_parser == AUTO:
        return TOOL_PARSERS[needs.tools] if needs.tools else ""
    return "" if engine.tool_call_parser == _NO_PARSER else engine.tool_call_parser


def reasoning_parser(engine: Engine, needs: EngineNeeds) -> str:
    """Name of the parser of thinking; empty for none."""
    if engine.reasoning_parser == AUTO:
        return REASONING_PARSERS[needs.thinking] if needs.thinking else ""
    return "" if engine.reasoning_parser == _NO_PARSER else engine.reasoning_parser


def _parser_arguments(engine: Engine, needs: EngineNeeds) -> dict[str, str]:
    names = {
        "--tool-call-parser": tool_call_parser(engine, needs),
        "--reasoning-parser": reasoning_parser(engine, needs),
    }
    return {argument: name for argument, name in names.items() if name}


def _hardware_arguments(engine: Engine) -> dict[str, str]:
    if engine.gpus == 0:
        # With larger blocks a prompt of a few tokens shares none of them, and proofs take several times as long.
        return {"--dtype": "float32", "--max-num-seqs": str(CPU_SEQUENCES), "--block-size": str(CPU_BLOCK)}
    return {"--tensor-parallel-size": str(engine.gpus)}


def _hardware_environment(gpus: int) -> dict[str, str]:
    if gpus == 0:
        return {"VLLM_CPU_KVCACHE_SPACE": str(CPU_CACHE_GIB)}
    # FlashInfer compiles its kernels when they are first used, with a CUDA compiler that the image need not have. vLLM
    # checks for the compiler everywhere but in these two places; its own kernels take over.
    return {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_ALLREDUCE_USE_FLASHINFER": "0"}


def engine_variables(gpus: int, cache: str) -> dict[str, str]:
    """Environment variables of vLLM that reads models from files.

    Args:
        gpus: its GPUs; 0: CPUs.
        cache: folder of downloaded models and compiled kernels.
    """
    return {
        # The engine refuses to start where its image was built for the other device.
        "TUNESMITH_GPUS": str(gpus),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        # A host that is listed could lead to one that is not.
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_CACHE_ROOT": f"{cache}/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "HF_HOME": f"{cache}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "HOME": "/tmp",
        "USER": "tunesmith",
        **_hardware_environment(gpus),
    }


def _build_environment(deployment: AdapterDeployment) -> list[dict[str, Any]]:
    spec = deployment.spec
    hub = parse_uri(spec.base_model.uri).scheme is Scheme.HF
    values = engine_variables(spec.engine.gpus, MODEL_CACHE)
    if hub:
        del values["HF_HUB_OFFLINE"]
    variables = environment_variables(values, spec.engine.env)
    if hub and spec.base_model.secret_ref:
        reference = {"name": spec.base_model.secret_ref.name, "key": "token"}
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return variables
