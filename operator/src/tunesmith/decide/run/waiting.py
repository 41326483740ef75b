"""Why a pod does not start, in a sentence that names what is missing."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.reasons import FineTuneJobReason as Reason
from tunesmith.decide.objects import (
    Manifest,
    condition_of,
    created_at,
    is_deleting,
    is_suspended,
    job_started_at,
    parse_time,
    waiting,
)
from tunesmith_contract.uris import InvalidUri, parse_uri

#: What a person has to put right is waited for this long; then the run fails, and says so.
PATIENCE = timedelta(minutes=10)

#: A Job without a pod, or a container that is being made, is worth a word after this long.
QUIET = timedelta(seconds=30)
QUIET_CONTAINER = timedelta(minutes=5)

_CLAIM = re.compile(r'persistentvolumeclaim "(?P<name>[^"]+)" not found')
_SECRET = re.compile(r'secret "(?P<name>[^"]+)" not found', re.IGNORECASE)
_SECRET_KEY = re.compile(r"find key (?P<key>\S+) in Secret [^/]+/(?P<name>\S+)")
_CONFIG_MAP = re.compile(r'configmap "(?P<name>[^"]+)" not found', re.IGNORECASE)
_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_BROKEN_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class References:
    """What the pods of a stage refer to, and the field in which a person wrote it.

    Attributes:
        namespace: where all of it has to be.
        fields: ``pvc://name``, ``configmap://name`` or ``secret://name`` to the field's path.
        missing_config_maps: ConfigMaps that were looked for and are not there.
        mount_failures: what nodes say of volumes that they can't mount.
    """

    namespace: str
    fields: Mapping[str, str]
    missing_config_maps: tuple[str, ...] = ()
    mount_failures: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        namespace: str,
        uris: Mapping[str, str | None],
        secrets: Mapping[str, str | None],
        missing_config_maps: tuple[str, ...] = (),
        mount_failures: tuple[str, ...] = (),
    ) -> "References":
        """From field paths to the URIs and Secret names that are written there; the first mention counts."""
        named = [(key, path) for path, uri in uris.items() if uri and (key := _storage_key(uri))]
        named += [(f"secret://{name}", path) for path, name in secrets.items() if name]
        return cls(namespace, dict(reversed(named)), missing_config_maps, mount_failures)

    def field_of(self, scheme: str, name: str) -> str:
        """The field to correct."""
        return self.fields.get(f"{scheme}://{name}", "the spec")


def _storage_key(uri: str) -> str | None:
    try:
        parsed = parse_uri(uri)
    except InvalidUri:
        return None
    return f"{parsed.scheme}://{parsed.name}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a stage does not go on.

    Attributes:
        reason, message: of the condition that says so.
        since: since when.
        bounded: whether it ends the run after PATIENCE; otherwise time alone may cure it.
    """

    reason: Reason
    message: str
    since: datetime
    bounded: bool

    @property
    def patience_ends(self) -> datetime | None:
        """When the run fails of it."""
        return self.since + PATIENCE if self.bounded else None


def find_waiting(
    job: Manifest, pods: Iterable[Manifest], references: References, now: datetime
) -> Waiting | None:
    """The first pod's reason for not having started; None when all is well or it is too early to say."""
    pods = tuple(pods)
    started = job_started_at(job)
    if is_suspended(job):
        return None
    if not pods:
        if started is None or now < started + QUIET:
            return None
        return _no_pod(job, started)
    found = (_pod_waiting(pod, references, now) for pod in pods if not is_deleting(pod))
    return next((reason for reason in found if reason), None)


def _no_pod(job: Manifest, since: datetime) -> Waiting:
    name = job["metadata"]["name"]
    message = (
        f'Job "{name}" gets no pod: `kubectl describe job {name}` shows what refuses it '
        "(a quota, a missing ServiceAccount, an admission policy)."
    )
    return Waiting(Reason.POD_NOT_CREATED, message, since, bounded=False)


_Check = Callable[[Manifest, References], tuple[Reason, str, bool] | None]


def _pod_waiting(pod: Manifest, references: References, now: datetime) -> Waiting | None:
    since = _scheduled_at(pod) or created_at(pod)
    for check in _CHECKS:
        if (found := check(pod, references)) is not None:
            return Waiting(found[0], found[1], since, found[2])
    if waiting(pod) is not None and now >= since + QUIET_CONTAINER:
        name = pod["metadata"]["name"]
        message = f'Pod "{name}" has no container yet: `kubectl describe pod {name}` shows what it waits for.'
        return Waiting(Reason.CONTAINER_NOT_STARTED, message, since, bounded=False)
    return None


def _scheduled_at(pod: Manifest) -> datetime | None:
    scheduled = condition_of(pod, "PodScheduled")
    return parse_time(scheduled.get("lastTransitionTime")) if scheduled else None


def _check_scheduling(pod: Manifest, references: References) -> tuple[Reason, str, bool] | None:
    refused = condition_of(pod, "PodScheduled", "False")
    if refused is None:
        return None
    message = refused.get("message", "")
    if claim := _CLAIM.search(message):
        return Reason.VOLUME_CLAIM_NOT_FOUND, _missing("pvc", claim["name"], references), True
    return Reason.UNSCHEDULABLE, f"No node takes the pod: {message}", False


def _check_image(pod: Manifest, _: References) -> tuple[Reason, str, bool] | None:
    state = waiting(pod)
    if state is None or state.get("reason") not in _IMAGE_REASONS:
        return None
    image = pod["spec"]["containers"][0]["image"]
    detail = state.get("message", state["reason"])
    return (
        Reason.IMAGE_NOT_PULLED,
        f'Image "{image}" can\'t be pulled: correct its name, or add imagePullSecrets: {detail}',
        True,
    )


def _check_configuration(pod: Manifest, references: References) -> tuple[Reason, str, bool] | None:
    state = waiting(pod)
    if state is None or state.get("reason") not in _BROKEN_REASONS:
        return None
    message = state.get("message", "")
    if key := _SECRET_KEY.search(message):
        sentence = f'Secret "{key["name"]}" has no key "{key["key"]}": add it.'
        return Reason.SECRET_NOT_FOUND, sentence, True
    if secret := _SECRET.search(message):
        return Reason.SECRET_NOT_FOUND, _missing("secret", secret["name"], references), True
    if config_map := _CONFIG_MAP.search(message):
        return Reason.CONFIG_MAP_NOT_FOUND, _missing("configmap", config_map["name"], references), True
    return Reason.CONTAINER_NOT_STARTED, f"The container can't be started: {message}", True


def _check_config_maps(pod: Manifest, references: References) -> tuple[Reason, str, bool] | None:
    """A missing ConfigMap of a volume is in no pod's status: the container is being created for ever."""
    if waiting(pod) is None or not references.missing_config_maps:
        return None
    name = references.missing_config_maps[0]
    return Reason.CONFIG_MAP_NOT_FOUND, _missing("configmap", name, references), True


def _check_mounts(pod: Manifest, references: References) -> tuple[Reason, str, bool] | None:
    """A missing Secret of a volume is in no pod's status either, but its node says so in an event."""
    if waiting(pod) is None:
        return None
    found = (_SECRET.search(message) for message in references.mount_failures)
    names = {match["name"] for match in found if match} & set(_secret_names(pod))
    if not names:
        return None
    return Reason.SECRET_NOT_FOUND, _missing("secret", min(names), references), True


def _secret_names(pod: Manifest) -> list[str]:
    volumes = pod["spec"].get("volumes", ())
    return [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]


_CHECKS: tuple[_Check, ...] = (
    _check_scheduling,
    _check_image,
    _check_configuration,
    _check_config_maps,
    _check_mounts,
)

_KINDS = {"pvc": "PersistentVolumeClaim", "configmap": "ConfigMap", "secret": "Secret"}


def _missing(scheme: str, name: str, references: References) -> str:
    field = references.field_of(scheme, name)
    return (
        f'{_KINDS[scheme]} "{name}" does not exist in namespace {references.namespace}: '
        f"create it, or correct {field}."
    )
