"""Settings of the agent, from arguments and environment variables; none is secret."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith_agent.http.address import Address, TcpAddress, UnixAddress
from tunesmith_agent.http.limits import Limits
from tunesmith_agent.telemetry.access_log import AccessLogs
from tunesmith_agent.telemetry.telemetry import TelemetrySettings
from tunesmith_contract.layout import ADAPTER_CACHE_DIR, CONFIG_DIR, CREDENTIALS_DIR, SECRETS_DIR
from tunesmith_contract.uris import MOUNT_ROOT


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one agent; times are in seconds.

    Attributes:
        host, port: address for clients; an empty host: all addresses, of IPv4 and IPv6.
        monitoring_port: port for probes and metrics, on the same host: clients can't take it up.
        engine_socket: socket of the engine in the file system; empty: it listens on a port.
        engine_host, engine_port: where it listens then, on loopback.
        base_model: the name under which the engine serves the base model; clients may ask for it too.
        operator_url: ``https://host:port`` of the operator; empty: only the mounted file is read.
        deployment: name of the AdapterDeployment.
        desired_dir: the mounted ConfigMap.
        mount_root: where storage is mounted.
        secrets_dir: where Secrets that open stores are mounted.
        state_dir: where the agent keeps what it must not forget at a restart; the pod's own disk.
        cache_dir: where copies of artifacts are kept; the engine mounts it at the same path, for reading alone.
        cache_bytes: most bytes of these copies.
        base_model_uri: URI of the base model that the engine serves; empty: unknown.
        max_rank: largest rank that the engine serves; 0: unknown.
        adapter_slots: number of adapters that the engine keeps in memory.
        proof_tolerance: difference of log-probabilities from the manifest's, in nats per token, that a proof accepts
            whatever the noise that the trainer and the agent have measured.
        proof_pause_seconds: time until a proof that failed is measured again.
        proof_seconds: time in which the probes of a version must be answered.
        stall_seconds: time without a byte after which the reading of an artifact is given up.
        wait_seconds: time for which a request waits until its version is loaded.
        settle_seconds: after this time a version that is still loading no longer delays readiness.
        confirm_seconds: after this time an operator that is away no longer delays readiness.
        withheld_seconds: the same while this pod gives a version fewer requests than others do, which the operator's
            word would change.
        lame_duck_seconds: time for which requests are accepted after SIGTERM, until no Service routes to this pod.
        drain_seconds: time for requests in progress to finish, at SIGTERM.
        engine_silence_seconds: time without a byte of any answer from which on the engine is asked for a token.
        engine_token_seconds: time in which that token must come, or else the engine hangs and the pod is not ready.
        keys_dir: the mounted Secret with the keys of clients; empty: clients need none.
        queue_requests: requests that may wait in the engine; further ones are refused.
        access_logs: requests that are written to the access log: ``None``, ``Errors`` or ``All``.
        traces_endpoint: see ``TelemetrySettings``.
        traces_ratio: see ``TelemetrySettings``.
        limits: limits on clients; each is an argument of its own.
        media_hosts: hosts, separated by commas, that the engine may fetch images, audio and video from.
        tool_call_parser, reasoning_parser: names of the engine's parsers; empty: none, or unknown.
    """

    host: str = ""
    port: int = 8000
    monitoring_port: int = 8002
    engine_socket: str = ""
    engine_host: str = "127.0.0.1"
    engine_port: int = 8001
    base_model: str = "base"
    operator_url: str = ""
    namespace: str = "default"
    deployment: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    desired_dir: Path = Path(CONFIG_DIR)
    credentials_dir: Path = Path(CREDENTIALS_DIR)
    mount_root: Path = Path(MOUNT_ROOT)
    secrets_dir: Path = Path(SECRETS_DIR)
    state_dir: Path = Path("/tmp/tunesmith/state")
    cache_dir: Path = Path(ADAPTER_CACHE_DIR)
    cache_bytes: int = 16 * 1024**3
    base_model_uri: str = ""
    max_rank: int = 0
    adapter_slots: int = 16
    proof_tolerance: float = 0.0
    proof_pause_seconds: float = 5.0
    proof_seconds: float = 120.0
    stall_seconds: float = 120.0
    wait_seconds: float = 30.0
    settle_seconds: float = 120.0
    confirm_seconds: float = 10.0
    withheld_seconds: float = 60.0
    lame_duck_seconds: float = 5.0
    drain_seconds: float = 60.0
    engine_silence_seconds: float = 3.0
    engine_token_seconds: float = 10.0
    keys_dir: str = ""
    queue_requests: int = 64
    access_logs: AccessLogs = AccessLogs.ERRORS
    traces_endpoint: str = ""
    traces_ratio: float = 0.01
    limits: Limits = field(default_factory=Limits)
    media_hosts: str = ""
    tool_call_parser: str = ""
    reasoning_parser: str = ""

    @property
    def engine_address(self) -> Address:
        """Where the engine takes requests."""
        if self.engine_socket:
            return UnixAddress(self.engine_socket)
        return TcpAddress(self.engine_host, self.engine_port)

    def to_telemetry(self) -> TelemetrySettings:
        """Settings of access log and traces."""
        resource = {
            "service.instance.id": self.pod_uid,
            "k8s.namespace.name": self.namespace,
            "k8s.pod.name": self.pod_name,
            "k8s.pod.uid": self.pod_uid,
            "tunesmith.adapterdeployment": self.deployment,
        }
        given = {name: value for name, value in resource.items() if value}
        return TelemetrySettings(self.access_logs, self.traces_endpoint, self.traces_ratio, given)


#: Environment variables and their settings; an argument for the same setting takes precedence.
ENVIRONMENT = {
    "TUNESMITH_OPERATOR_URL": "operator_url",
    "TUNESMITH_DEPLOYMENT": "deployment",
    "TUNESMITH_ENGINE_SOCKET": "engine_socket",
    "TUNESMITH_ADAPTER_CACHE_BYTES": "cache_bytes",
    "TUNESMITH_ADAPTER_SLOTS": "adapter_slots",
    "TUNESMITH_BASE_MODEL": "base_model",
    "TUNESMITH_BASE_MODEL_URI": "base_model_uri",
    "TUNESMITH_MAX_RANK": "max_rank",
    "TUNESMITH_PROOF_TOLERANCE": "proof_tolerance",
    "TUNESMITH_ENGINE_TOKEN_SECONDS": "engine_token_seconds",
    "TUNESMITH_DRAIN_SECONDS": "drain_seconds",
    "TUNESMITH_LAME_DUCK_SECONDS": "lame_duck_seconds",
    "TUNESMITH_QUEUE_REQUESTS": "queue_requests",
    "TUNESMITH_MEDIA_HOSTS": "media_hosts",
    "TUNESMITH_REASONING_PARSER": "reasoning_parser",
    "TUNESMITH_TOOL_CALL_PARSER": "tool_call_parser",
    "TUNESMITH_ACCESS_LOGS": "access_logs",
    "TUNESMITH_TRACES_ENDPOINT": "traces_endpoint",
    "TUNESMITH_TRACES_RATIO": "traces_ratio",
    "POD_NAMESPACE": "namespace",
    "POD_NAME": "pod_name",
    "POD_UID": "pod_uid",
}


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from arguments and environment variables.

    Raises:
        SystemExit: an unknown argument, or a value of the wrong type; the message is on stderr.
    """
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(prog="tunesmith_agent", argument_default=argparse.SUPPRESS)
    fields = {**Settings.__dataclass_fields__, **Limits.__dataclass_fields__}
    del fields["limits"]
    for name, setting in fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=setting.type, metavar=name.upper())
    # A default is converted as an argument is.
    parser.set_defaults(
        **{name: environment[key] for key, name in ENVIRONMENT.items() if environment.get(key)}
    )
    values = vars(parser.parse_args(arguments))
    limits = {name: values.pop(name) for name in Limits.__dataclass_fields__ if name in values}
    return Settings(**values, limits=Limits(**limits))
