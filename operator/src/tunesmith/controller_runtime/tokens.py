"""Identity of a calling pod: its projected token, reviewed by the API server."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith_contract.layout import TOKEN_AUDIENCE

from .client import Client

CACHE_SECONDS = 30.0
#: A refused token may soon be accepted: an API server may not know a new pod yet.
REFUSED_SECONDS = 2.0
CACHE_SIZE = 4096
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_SERVICE_ACCOUNT = "system:serviceaccount:"


class Unauthenticated(Exception):
    """A token that belongs to no pod, or to another audience."""


class Forbidden(Exception):
    """A pod that does not belong to the resource of its request."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The pod that a token was issued to."""

    namespace: str
    name: str
    uid: str


class TokenReviewer:
    """Reviewer of tokens; keeps the answers for some seconds, by the tokens' hashes.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._reviews: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()

    async def identify(self, token: str) -> PodIdentity:
        """The pod of this token.

        Raises:
            Unauthenticated: the token is invalid, for another audience, or not bound to a pod.
            ApiError: the review itself failed.
        """
        digest = hashlib.sha256(token.encode()).digest()
        until, identity = self._reviews.get(digest, (float("-inf"), None))
        if self._clock() >= until:
            identity = await self._review(token)
            self._remember(digest, identity)
        if identity is None:
            raise Unauthenticated(f"the token is not one of a pod for the audience {TOKEN_AUDIENCE}")
        return identity

    async def labels(self, identity: PodIdentity, owner_uid: str) -> dict[str, str]:
        """The labels of the pod.

        Raises:
            Forbidden: the pod was deleted, or does not belong to this resource.
        """
        indexed = self._client.index.find("v1", "Pod", owner_uid) or ()
        pod = next((pod for pod in indexed if pod["metadata"]["uid"] == identity.uid), None)
        if pod is None:
            pod = await self._client.get("v1", "Pod", identity.namespace, identity.name)
        if pod is None or pod["metadata"]["uid"] != identity.uid:
            raise Forbidden("the pod of this token does not exist any more")
        labels: dict[str, str] = pod["metadata"].get("labels", {})
        if labels.get(OWNER_UID_LABEL) != owner_uid:
            raise Forbidden("the pod of this token does not belong to this resource")
        return labels

    def _remember(self, digest: bytes, identity: PodIdentity | None) -> None:
        seconds = REFUSED_SECONDS if identity is None else CACHE_SECONDS
        self._reviews[digest] = (self._clock() + seconds, identity)
        self._reviews.move_to_end(digest)
        if len(self._reviews) > CACHE_SIZE:
            self._reviews.popitem(last=False)

    async def _review(self, token: str) -> PodIdentity | None:
        manifest = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        review = await self._client.create(manifest) or {}
        status = review.get("status", {})
        if not status.get("authenticated") or TOKEN_AUDIENCE not in status.get("audiences", ()):
            return None
        user = status["user"]
        extra, name = user.get("extra", {}), user.get("username", "")
        if not name.startswith(_SERVICE_ACCOUNT) or _POD_NAME not in extra or _POD_UID not in extra:
            return None
        namespace = name.removeprefix(_SERVICE_ACCOUNT).split(":")[0]
        return PodIdentity(namespace, extra[_POD_NAME][0], extra[_POD_UID][0])
