"""Settings of containers that use GPUs: environment variables, the GPU resource, network devices and caches."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from .common import GPU_NAMES, StrictModel
from .rules import Rule, any_of, keyed_by, matching
from .values import ObjectName, VariableValue

#: Prefixes of variables that configure libraries in every container with GPUs.
_LIBRARIES = (
    "NCCL_",
    "TORCH_",
    "PYTORCH_",
    "TORCHINDUCTOR_",
    "TRITON_",
    "OMP_",
    "GLOO_",
    "UCX_",
    "FI_",
    "CUDA_",
    "HIP_",
    "HSA_",
    "MIOPEN_",
    "RCCL_",
    "CCL_",
    "SYCL_",
    "HCL_",
    "PT_HPU_",
)
_DOWNLOADS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DISABLE_XET")
#: Time limits of the trainer that people may set.
TRAINER_SETTINGS = ("TUNESMITH_SILENCE_SECONDS", "TUNESMITH_WAIT_SECONDS", "TUNESMITH_JOIN_SECONDS")
#: Settings of traces, without those that name files, code, keys or other endpoints.
_TRACES = (
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
)
_ENGINE_LIBRARIES = ("VLLM_", "FLASHINFER_")

#: The device plugin chooses the GPUs. The others make torch run the code in files that it loads, or load a library.
_RESERVED = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "HSA_TOOLS_LIB",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
)
#: These would open the engine to others, let it serve another model or other adapters than were proved, or end it.
_RESERVED_ENGINE = (
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "VLLM_ENABLE_RESPONSES_API_STORE",
    "VLLM_HOST_IP",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH",
    "VLLM_LORA_RESOLVER_CACHE_DIR",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS",
    "VLLM_MODEL_REDIRECT_PATH",
    "VLLM_PLUGINS",
    "VLLM_PORT",
    "VLLM_RUST_FRONTEND_PATH",
    "VLLM_SERVER_DEV_MODE",
    "VLLM_SKIP_MODEL_NAME_VALIDATION",
    "VLLM_TARGET_DEVICE",
    "VLLM_USAGE_STATS_SERVER",
    "VLLM_USE_MODELSCOPE",
    "VLLM_USE_RUST_FRONTEND",
)

_NO_SECRET = Rule(
    "!self.matches(r'(KEY|TOKEN|SECRET|PASSWORD)$')",
    "Secrets do not belong in env, where everyone who may read the resource sees them: use a secretRef.",
)


def _allowed(prefixes: Sequence[str], names: Sequence[str]) -> Rule:
    """Rule that a variable has one of the prefixes or is one of the names."""
    pattern = rf"^(({'|'.join(prefixes)})[A-Z0-9_]+|{'|'.join(names)})$"
    allowed = any_of([*(f"{prefix}*" for prefix in prefixes), *names])
    return matching(pattern, f"This variable can't be set here: write one of {allowed}.")


def _not_reserved(names: Sequence[str]) -> Rule:
    listed = ", ".join(f"'{name}'" for name in names)
    return Rule(
        f"!(self in [{listed}])",
        "This variable is reserved, because the operator or the device plugin sets it, or because it would bypass "
        "a check: leave it out.",
    )


class EnvVar(StrictModel):
    """An environment variable, as in a Pod. Its value is visible to everyone who may read the resource."""

    name: str
    value: VariableValue = Field(description='The value of the variable, in quotes, such as "1".')


class TrainerEnvVar(EnvVar):
    """An environment variable of the trainer's container."""

    rules = (
        Rule(
            "!self.name.startsWith('TUNESMITH_') || self.value.matches(r'^[1-9][0-9]{0,5}$')",
            'Write a whole number of seconds, such as "3600".',
            field=".value",
        ),
    )

    name: Annotated[
        str,
        Field(max_length=128),
        _allowed(_LIBRARIES, (*_DOWNLOADS, *TRAINER_SETTINGS)),
        _not_reserved(_RESERVED),
        _NO_SECRET,
    ] = Field(description="The name of the variable, such as NCCL_SOCKET_IFNAME.")


class EngineEnvVar(EnvVar):
    """An environment variable of the engine's container; those of traces are the agent's, too."""

    name: Annotated[
        str,
        Field(max_length=128),
        _allowed((*_LIBRARIES, *_ENGINE_LIBRARIES), (*_DOWNLOADS, *_TRACES)),
        _not_reserved((*_RESERVED, *_RESERVED_ENGINE)),
        _NO_SECRET,
    ] = Field(description="The name of the variable, such as VLLM_LOGGING_LEVEL.")


_ENV_OVERRIDES = (
    "A variable set here takes precedence over the operator's default for it, such as OMP_NUM_THREADS."
)

TrainerEnv = Annotated[
    tuple[TrainerEnvVar, ...],
    Field(
        max_length=32,
        description="Environment variables that configure the libraries of the trainer, such as [{name: "
        "NCCL_SOCKET_IFNAME, value: eth0}, {name: NCCL_DEBUG, value: INFO}]. Allowed are settings of NCCL, torch, "
        "Triton, OpenMP, gloo, UCX, libfabric (FI_*), CUDA, ROCm, oneAPI and Gaudi (HIP_*, HSA_*, MIOPEN_*, RCCL_*, "
        "CCL_*, SYCL_*, HCL_*, PT_HPU_*) and hub downloads, and the time limits "
        f"{', '.join(TRAINER_SETTINGS)}. {_ENV_OVERRIDES}",
        json_schema_extra=keyed_by("name"),
    ),
]
"""Environment variables of the trainer's container."""

EngineEnv = Annotated[
    tuple[EngineEnvVar, ...],
    Field(
        max_length=32,
        description="Environment variables that configure vLLM and its libraries, such as [{name: "
        "VLLM_LOGGING_LEVEL, value: DEBUG}]. Allowed are settings of vLLM, FlashInfer, NCCL, torch, Triton, OpenMP, "
        "gloo, UCX, libfabric (FI_*), CUDA, ROCm, oneAPI and Gaudi (HIP_*, HSA_*, MIOPEN_*, RCCL_*, CCL_*, SYCL_*, "
        "HCL_*, PT_HPU_*) and hub downloads, and of traces (OTEL_*), which the agent gets, too. "
        f"{_ENV_OVERRIDES}",
        json_schema_extra=keyed_by("name"),
    ),
]
"""Environment variables of the engine's container."""

GPU_RESOURCE = "nvidia.com/gpu"

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED_NAME = rf"({_LABEL}\.)*{_LABEL}/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"

GPUResource = Annotated[
    Annotated[
        str,
        Field(max_length=316),
        matching(
            rf"^{_QUALIFIED_NAME}$",
            "Write the name of a GPU resource as the nodes offer it (kubectl describe node, under Allocatable), such "
            "as nvidia.com/gpu, nvidia.com/mig-1g.10gb or amd.com/gpu.",
        ),
        Rule(
            "!self.matches(r'^([a-z0-9.-]+\\.)?kubernetes\\.io/')",
            "kubernetes.io names no devices: write the name of a GPU resource as the nodes offer it, such as "
            "nvidia.com/gpu.",
        ),
    ]
    | None,
    Field(
        description="The resource by which the device plugin of the nodes offers GPUs. nvidia.com/gpu: a whole GPU, "
        "or a slice with MIG strategy single. nvidia.com/mig-1g.10gb and the like: a slice with MIG strategy mixed. "
        "nvidia.com/gpu.shared: a share of a time-sliced GPU. Others, such as amd.com/gpu, gpu.intel.com/xe or "
        "habana.ai/gaudi, need an image of your own. If unset, GPUs come with template.resourceClaims if there are "
        "any, else by the resource that the operator was installed with (chart value defaults.gpuResource, "
        "nvidia.com/gpu)."
    ),
]
"""Extended resource of a GPU, a MIG slice or a shared GPU."""


def gpu_rules(count: str) -> tuple[Rule, ...]:
    """Rules on ``gpuMemory``, ``gpuResource`` and ``template`` beside the member that holds the number of GPUs."""
    return (
        Rule(
            f"self.{count} > 0 || self.gpuMemory == 'Auto'",
            f"gpuMemory has no effect without GPUs: with {count}: 0, leave it out.",
            field=".gpuMemory",
        ),
        # Earlier releases wrote nvidia.com/gpu into every resource.
        Rule(
            f"self.{count} > 0 || !has(self.gpuResource) || self.gpuResource == '{GPU_RESOURCE}'",
            f"gpuResource has no effect without GPUs: with {count}: 0, leave it out.",
            field=".gpuResource",
        ),
        Rule(
            f"self.{count} <= 1 || !has(self.gpuResource) || "
            "!self.gpuResource.matches(r'^nvidia\\.com/mig-|[.]shared$')",
            f"A process can use only one MIG slice, and shared GPUs may be the same card: write {count}: 1, or "
            f"another gpuResource, such as {GPU_RESOURCE}.",
            field=f".{count}",
        ),
        Rule(
            "!has(self.gpuResource) || !has(self.resources) || [has(self.resources.requests) ? "
            "self.resources.requests : {}, has(self.resources.limits) ? self.resources.limits : {}]"
            ".all(r, !(self.gpuResource in r))",
            f"The GPUs are also in resources: write their number in {count} alone.",
            field=".resources",
        ),
        Rule(
            f"self.{count} > 0 || !has(self.template) || !has(self.template.resourceClaims)",
            f"resourceClaims brings GPUs, which are not used with {count}: 0: leave it out, or write in {count} how "
            "many GPUs the claims have.",
            field=".template",
        ),
    )


class Network(StrictModel):
    """Network devices of each pod, by which the GPUs of several nodes exchange data without the CPU (RDMA)."""

    resource: Annotated[
        str,
        Field(max_length=316),
        matching(
            rf"^{_QUALIFIED_NAME}$",
            "Write the name of the resource as the nodes offer it (kubectl describe node, under Allocatable), such "
            "as rdma/hca_shared_devices_a or vpc.amazonaws.com/efa.",
        ),
        Rule(
            f"!self.matches(r'{GPU_NAMES}')",
            "This is a GPU and not a network device: write the number of GPUs in gpusPerNode, and their kind in "
            "gpuResource.",
        ),
    ] = Field(
        description="The resource by which a device plugin of the nodes offers network devices, such as "
        "rdma/hca_shared_devices_a (NVIDIA network operator) or vpc.amazonaws.com/efa (AWS)."
    )
    count: int = Field(1, ge=1, le=64, description="The number of network devices of each pod.")
    ipc_lock: bool = Field(
        False,
        description="If true, the trainer may lock any amount of memory (capability IPC_LOCK), which RDMA needs if "
        "the container runtime of the nodes limits locked memory. The container then starts as root with three "
        "capabilities, and becomes the usual user before the trainer starts; an image of your own needs setpriv for "
        "it, which Debian's images have. No Pod Security level but privileged allows this: label the namespace "
        "pod-security.kubernetes.io/enforce: privileged, or raise the limit on the nodes instead "
        "(LimitMEMLOCK=infinity of the container runtime).",
    )


class CacheVolume(StrictModel):
    """A PersistentVolumeClaim for files that pods would otherwise download or compile again."""

    claim_name: ObjectName = Field(
        description="The name of the PersistentVolumeClaim. Pods on several nodes need ReadWriteMany. Whoever can "
        "write to it can change the models that other pods read: share it only among people who trust each other."
    )
    sub_path: (
        Annotated[
            str,
            Field(max_length=256),
            matching(
                r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$",
                "Write a folder on the claim without a slash at the start or the end, such as caches/llama.",
            ),
            Rule("!self.split('/').exists(part, part == '..')", "Write a folder on the claim, without '..'."),
        ]
        | None
    ) = Field(None, description="A folder on the claim. If unset, the whole claim is used.")
