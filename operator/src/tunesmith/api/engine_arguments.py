"""Arguments of vLLM's server that people may not write, in every spelling that its parser takes.

The parser (``vllm.utils.argparse_utils``) takes dashes and underscores for one another, a unique prefix of a name, a
value behind ``=``, and a member of an argument that is JSON behind a dot. With a single dash a value may follow a name
without anything between (``-n5``), so only a few of those arguments may be written.
"""

import re
from typing import Annotated

from pydantic import Field

from .rules import Rule

#: Without dashes: what is set from the resource, what would open files or the network, load code, log contents, or
#: change what was proven and evaluated.
OWNED_ARGUMENTS = (
    # The address of the engine, which the agent alone talks to.
    "host",
    "port",
    "uds",
    "root-path",
    "api-key",
    "api-server-count",
    "headless",
    "grpc",
    "grpc-port",
    "ssl-keyfile",
    "ssl-certfile",
    "ssl-ca-certs",
    "ssl-cert-reqs",
    "ssl-ciphers",
    "enable-ssl-refresh",
    "middleware",
    # Model and adapters.
    "config",
    "model",
    "served-model-name",
    "revision",
    "code-revision",
    "tokenizer",
    "tokenizer-revision",
    "hf-config-path",
    "hf-token",
    "generation-config",
    "download-dir",
    "enable-lora",
    "no-enable-lora",
    "lora-modules",
    "default-mm-loras",
    "max-loras",
    "max-cpu-loras",
    "max-lora-rank",
    "max-model-len",
    "speculative-config",
    "spec-model",
    # How conversations are rendered, and answers read.
    "chat-template",
    "default-chat-template-kwargs",
    "trust-request-chat-template",
    "trust-request-mm-kwargs",
    "enable-auto-tool-choice",
    "no-enable-auto-tool-choice",
    "tool-call-parser",
    "tool-server",
    "reasoning-parser",
    "structured-outputs-config",
    "logprobs-mode",
    # Files and hosts that requests could name.
    "allowed-local-media-path",
    "allowed-media-domains",
    "enable-prompt-embeds",
    "enable-mm-embeds",
    "enable-trace-replay",
    "enable-scale-out",
    "tokens-only",
    "omni",
    # Code.
    "trust-remote-code",
    "tool-parser-plugin",
    "reasoning-parser-plugin",
    "io-processor-plugin",
    "logits-processors",
    "worker-cls",
    "worker-extension-cls",
    "scheduler-cls",
    "distributed-executor-backend",
    "model-class-overrides",
    "model-loader-extra-config",
    # Other processes, on the network.
    "tensor-parallel-size",
    "data-parallel-size",
    "data-parallel-size-local",
    "data-parallel-rank",
    "data-parallel-start-rank",
    "data-parallel-backend",
    "data-parallel-address",
    "data-parallel-rpc-port",
    "data-parallel-external-lb",
    "data-parallel-hybrid-lb",
    "data-parallel-multi-port-external-lb",
    "data-parallel-supervisor-port",
    "enable-elastic-ep",
    "enable-fault-tolerance",
    "fault-tolerance-config",
    "master-addr",
    "master-port",
    "nnodes",
    "node-rank",
    "kv-transfer-config",
    "kv-events-config",
    "kv-offloading-backend",
    "ec-transfer-config",
    "ec-manager-config",
    "weight-transfer-config",
    "otlp-traces-endpoint",
    # Files that the engine writes, and contents in its log.
    "mm-encoder-fp8-scale-path",
    "mm-encoder-fp8-scale-save-path",
    "profiler-config",
    "enable-log-requests",
    "enable-log-outputs",
    "enable-log-deltas",
    "logging-config",
    "log-config-file",
)

#: Arguments with a single dash that may be written: level of optimization, quantization, ways to divide a model.
_SHORT = r"^-([0-9.]+|O|O=?[0-3]|q|pp|pcp|dcp|ep)(=.*)?$"
#: Members of arguments that are JSON, and that name files or code; JSON may write any character in digits.
_NESTED = r"(_path|_dir|plugin|inductor_passes|\\u)"

_OWNED_LIST = ", ".join(f"'{name}'" for name in OWNED_ARGUMENTS)
_NAME_IN_CEL = "self.split('=')[0].split('.')[0].replace('_', '-').replace('-', ' ').trim().replace(' ', '-')"


def _is_not_owned(argument: str) -> bool:
    if not argument.startswith("--"):
        return True
    name = re.split(r"[=.]", argument, maxsplit=1)[0].replace("_", "-").strip("-")
    return not any(owned.startswith(name) for owned in OWNED_ARGUMENTS)


def _is_short(argument: str) -> bool:
    return (
        not argument.startswith("-") or argument.startswith("--") or re.search(_SHORT, argument) is not None
    )


#: Checked by the API server and, as people may have written them before a rule existed, by the operator.
_NOT_OWNED = Rule(
    f"!self.startsWith('--') || [{_NAME_IN_CEL}].all(name, ![{_OWNED_LIST}].exists(owned, owned.startsWith(name)))",
    "This argument is set from other fields, would bypass the agent, give clients files or the network, load code or "
    "log contents: leave it out. Use baseModel, engine.residentAdapters, engine.maxRank, engine.maxModelLength, "
    "engine.gpus, engine.toolCallParser, engine.reasoningParser and engine.mediaHosts for what they set.",
    _is_not_owned,
)
_LONG = Rule(
    f"!self.startsWith('-') || self.startsWith('--') || self.matches(r'{_SHORT}')",
    "Write the long form of this argument, such as --max-num-seqs=8.",
    _is_short,
)
_NO_NESTED_FILE = Rule(
    f"!self.matches(r'{_NESTED}')",
    "This argument names files or code to load: leave that member out.",
    lambda argument: re.search(_NESTED, argument) is None,
)

EngineArgument = Annotated[str, Field(min_length=1, max_length=256), _NOT_OWNED, _LONG, _NO_NESTED_FILE]
