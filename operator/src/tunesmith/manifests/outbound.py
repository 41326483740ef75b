"""What containers need to reach addresses outside the cluster: proxy, certificate authorities, mirror of the hub."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import Proxy
from tunesmith.api.pod_template import PodTemplate
from tunesmith_contract.layout import CA_FILE

from .container_resources import CPU, DISK, MEMORY, ContainerDefaults, LimitRules, build_resources
from .objects import Body

Variable = Mapping[str, Any]
"""Variable of a container without its name: ``value`` or ``valueFrom``."""

#: Variables that name a proxy; programs read one spelling or the other, so containers get both.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY = "NO_PROXY"
HUB_VARIABLE = "HF_ENDPOINT"

#: Hosts that are always reached without a proxy: the pod itself, Services, and the API server, whose address kubelet
#: fills in.
CLUSTER_HOSTS = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "$(KUBERNETES_SERVICE_HOST)")

#: Variables by which programs and libraries find certificate authorities: OpenSSL and what is built on it, requests,
#: curl, the AWS SDKs, gRPC, Node.js. Most replace the program's own list, so the file holds the public ones as well.
CA_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NODE_EXTRA_CA_CERTS",
)

TRUST = "trust"
TRUST_DIR = "/var/lib/tunesmith-trust"
AUTHORITIES = "authorities"
_AUTHORITIES_DIR = "/var/lib/tunesmith-authorities"
_BUNDLE = f"{TRUST_DIR}/ca-certificates.crt"
_TRUST_SIZE = "8Mi"
_TRUST_DEFAULTS = ContainerDefaults(
    {CPU: "5m", MEMORY: "16Mi"}, limits={MEMORY: "64Mi"}, asked={CPU: "500m", DISK: "64Mi"}
)

#: Joins public and private authorities. Images of people may be other distributions than ours, or lack public ones.
_JOIN = """\
if [ ! -s "$AUTHORITIES" ]; then
  echo "ConfigMap \\"$CONFIG_MAP\\" does not exist in this namespace, or has no key \\"$KEY\\": create it, such as by \\
trust-manager, or correct the name" >&2
  exit 1
fi
for public in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -s "$public" ]; then cat "$public"; echo; break; fi
done > "$BUNDLE"
cat "$AUTHORITIES" >> "$BUNDLE"
"""


@dataclass(frozen=True, slots=True)
class CABundle:
    """Certificate authorities to trust beside the public ones.

    Attributes:
        config_map: ConfigMap in the pod's namespace.
        key: its key with the certificates in PEM.
    """

    config_map: str
    key: str = CA_FILE


@dataclass(frozen=True, slots=True)
class Outbound:
    """What containers need to reach addresses outside the cluster.

    Attributes:
        variables: variables by name. A container's own variables of the same name win.
        ca_bundle: authorities to trust; None: the public ones alone.
    """

    variables: Mapping[str, Variable] = field(default_factory=dict)
    ca_bundle: CABundle | None = None

    def extend(self, container: Mapping[str, Any]) -> dict[str, Any]:
        """The container with variables and the mount of authorities."""
        own = container.get("env", [])
        known = {variable["name"] for variable in own}
        variables = [*_complete_proxy(self.variables).items(), *self._ca_variables()]
        added = [{"name": name, **variable} for name, variable in variables if name not in known]
        mount = {"name": TRUST, "mountPath": TRUST_DIR, "readOnly": True}
        mounts = [*container.get("volumeMounts", []), *([mount] if self.ca_bundle else [])]
        return {**container, "env": [*own, *added], "volumeMounts": mounts}

    def build_volumes(self, *, optional: bool) -> list[dict[str, Any]]:
        """Volumes of authorities.

        Args:
            optional: a pod starts without the ConfigMap, so that the message of its first container says what lacks;
                otherwise it waits until the ConfigMap is there.
        """
        if self.ca_bundle is None:
            return []
        items = [{"key": self.ca_bundle.key, "path": CA_FILE}]
        source: dict[str, Any] = {"name": self.ca_bundle.config_map, "items": items}
        if optional:
            source["optional"] = True
        return [
            {"name": AUTHORITIES, "configMap": source},
            {"name": TRUST, "emptyDir": {"sizeLimit": _TRUST_SIZE}},
        ]

    def build_init_containers(
        self, image: str, security: Mapping[str, Any], rules: LimitRules
    ) -> list[dict[str, Any]]:
        """The container that joins public and private authorities, before all others.

        Args:
            image: image of the pod, which brings the public ones.
            security: its security context.
            rules: limits that all containers of the pod must have.
        """
        if self.ca_bundle is None:
            return []
        variables = {
            "AUTHORITIES": f"{_AUTHORITIES_DIR}/{CA_FILE}",
            "BUNDLE": _BUNDLE,
            "CONFIG_MAP": self.ca_bundle.config_map,
            "KEY": self.ca_bundle.key,
        }
        container = {
            "name": TRUST,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-ec", _JOIN],
            "env": [{"name": name, "value": value} for name, value in variables.items()],
            "resources": build_resources(_TRUST_DEFAULTS, None, rules),
            "securityContext": dict(security),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": AUTHORITIES, "mountPath": _AUTHORITIES_DIR, "readOnly": True},
                {"name": TRUST, "mountPath": TRUST_DIR},
            ],
        }
        return [container]

    def _ca_variables(self) -> Iterable[tuple[str, Variable]]:
        return ((name, {"value": _BUNDLE}) for name in CA_VARIABLES) if self.ca_bundle else ()


def mounted_authorities(pod: Body) -> Iterator[tuple[str, str]]:
    """Name of the ConfigMap with authorities that an observed pod mounts, with the key of it."""
    for volume in pod["spec"].get("volumes", ()):
        if volume["name"] == AUTHORITIES:
            yield volume["configMap"]["name"], volume["configMap"]["items"][0]["key"]


def outbound_of(template: PodTemplate | None, defaults: Outbound) -> Outbound:
    """What the pod template of a resource says, above the defaults of the installation."""
    if template is None:
        return defaults
    variables = dict(defaults.variables)
    if template.proxy is not None:
        variables = _with_proxy(variables, template.proxy)
    if template.hf_endpoint:
        variables[HUB_VARIABLE] = {"value": template.hf_endpoint}
    written = template.ca_bundle
    ca_bundle = CABundle(written.config_map_name, written.key) if written else defaults.ca_bundle
    return Outbound(variables, ca_bundle)


def _with_proxy(variables: Mapping[str, Variable], proxy: Proxy) -> dict[str, Variable]:
    """The variables with this proxy instead of another one; hosts without a proxy are added to those that are named."""
    written: dict[str, Variable] = {}
    for name, url in (("HTTP_PROXY", proxy.http_proxy), ("HTTPS_PROXY", proxy.https_proxy)):
        if url:
            written[name] = {"value": url}
        if proxy.secret_ref:
            reference = {"name": proxy.secret_ref.name, "key": name}
            written[name] = {"valueFrom": {"secretKeyRef": reference}}
    hosts = [*_hosts(_spelled(variables, NO_PROXY)), *proxy.no_proxy]
    spellings = {spelling for name in (*PROXIES, NO_PROXY) for spelling in (name, name.lower())}
    others = {name: variable for name, variable in variables.items() if name not in spellings}
    return {**others, **written, **({NO_PROXY: {"value": ",".join(hosts)}} if hosts else {})}


def _complete_proxy(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """The variables with both spellings of those of a proxy, and with the cluster's own hosts without it."""
    completed = dict(variables)
    found = {name: variable for name in PROXIES if (variable := _spelled(variables, name))}
    if found:
        hosts = dict.fromkeys((*CLUSTER_HOSTS, *_hosts(_spelled(variables, NO_PROXY))))
        found[NO_PROXY] = {"value": ",".join(hosts)}
    for name, variable in found.items():
        completed |= {name: variable, name.lower(): variable}
    return completed


def _spelled(variables: Mapping[str, Variable], name: str) -> Variable | None:
    return variables.get(name) or variables.get(name.lower())


def _hosts(variable: Variable | None) -> list[str]:
    """Hosts in a value of ``NO_PROXY``."""
    value = str(variable.get("value", "")) if variable else ""
    return [host for part in value.split(",") if (host := part.strip())]
