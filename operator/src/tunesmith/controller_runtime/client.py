"""The API server through one pooled session."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from tunesmith.manifests.names import FIELD_MANAGER

from .credentials import Credentials
from .errors import ApiError, Conflict, Gone, Retryable, to_error
from .index import ChildIndex
from .kinds import is_known, path_of
from .metrics import Metrics

Body = dict[str, Any]
Bodies = list[Body]

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
#: A watch that says nothing for so long, not even a bookmark (one a minute), is taken for dead.
SILENCE_SECONDS = 150.0
WATCH_SECONDS = 600
PAGE = 500
POOL = 64
USER_AGENT = FIELD_MANAGER

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
#: JSON is YAML; the API server accepts server-side apply under this type since before it had one for JSON.
_APPLY_PATCH = "application/apply-patch+yaml"

#: What it means that nobody answered as an API server does; a proxy in between may answer anything.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError)


class Client:
    """Calls to the API server. All raise ``errors.ApiError``: Retryable, Conflict, Refused or Gone.

    Args:
        credentials: who the operator is.
        metrics: counts every call.
        index: learns of every child that is written.
        namespaces: the namespaces that ``list`` and ``watch`` go through when theirs is None; none for all.
    """

    def __init__(
        self,
        credentials: Credentials,
        metrics: Metrics,
        index: ChildIndex,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self.index = index
        self._credentials = credentials
        self._metrics = metrics
        self.namespaces = namespaces
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=POOL, ssl=self._credentials.connection.as_ssl_context())
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object; None when it is not there."""
        try:
            return await self._call("get", "GET", path_of(api_version, kind, namespace, name), kind)
        except Gone:
            return None

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Bodies:
        """All objects that match, page by page; each with ``apiVersion`` and ``kind``.

        With ``namespace`` None: of all namespaces that the operator watches.
        """
        objects: Bodies = []
        for each in (self.namespaces or (None,)) if namespace is None else (namespace,):
            found, _ = await self.list_with_version(api_version, kind, each, label_selector, field_selector)
            objects += found
        return objects

    async def list_with_version(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> tuple[Bodies, str]:
        """All objects that match in one namespace (None: in the cluster), and the list's ``resourceVersion``."""
        params = _selectors(label_selector, field_selector) | {"limit": str(PAGE)}
        path = path_of(api_version, kind, namespace)
        objects: Bodies = []
        while True:
            page = await self._call("list", "GET", path, kind, params)
            objects += (item | {"apiVersion": api_version, "kind": kind} for item in page["items"])
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return objects, metadata["resourceVersion"]
            params["continue"] = metadata["continue"]

    async def create(self, manifest: Mapping[str, Any]) -> Body | None:
        """Create the object. None when one of that name exists already: it is left as it is."""
        path = _path(manifest, collection=True)
        try:
            created = await self._call("create", "POST", path, manifest["kind"], body=manifest)
        except Conflict as error:
            if error.reason == "AlreadyExists":
                return None
            raise
        return self._learn(created)

    async def apply(self, manifest: Mapping[str, Any]) -> Body:
        """Server-side apply as field manager ``tunesmith``, taking over fields that others hold."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _path(manifest)
        return self._learn(
            await self._call("patch", "PATCH", path, manifest["kind"], params, manifest, _APPLY_PATCH)
        )

    async def patch(
        self, api_version: str, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> Body | None:
        """JSON merge patch; None when the object is not there."""
        path = path_of(api_version, kind, namespace, name)
        try:
            patched = await self._call("patch", "PATCH", path, kind, body=patch, content_type=_MERGE_PATCH)
        except Gone:
            return None
        return self._learn(patched)

    async def replace(self, manifest: Mapping[str, Any]) -> Body:
        """Replace the object as it was read (``metadata.resourceVersion``); Conflict when it changed since."""
        return await self._call("update", "PUT", _path(manifest), manifest["kind"], body=manifest)

    async def delete(self, api_version: str, kind: str, namespace: str | None, name: str, uid: str) -> None:
        """Delete the object of this UID, its dependents in the background; one that is gone counts as done."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call(
                "delete", "DELETE", path_of(api_version, kind, namespace, name), kind, body=options
            )
        except (Gone, Conflict):
            return

    async def replace_status(self, body: Mapping[str, Any], status: Mapping[str, Any]) -> Body:
        """Replace the whole status of the object as it was read; Conflict when it changed since."""
        metadata = {key: body["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        manifest = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": metadata,
            "status": status,
        }
        path = _path(manifest) + "/status"
        return await self._call("update", "PUT", path, f"{body['kind']}/status", body=manifest)

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        """The kinds of a group's version that discovery tells of; it may lag behind a new CRD."""
        group, _, version = api_version.partition("/")
        groups = await self._call("get", "GET", "/apis", "APIGroupList")
        if group not in {found["name"] for found in groups["groups"]}:
            return frozenset()
        found = await self._call("get", "GET", f"/apis/{group}/{version}", "APIResourceList")
        return frozenset(resource["kind"] for resource in found["resources"])

    async def preferred_version(self, group: str) -> str | None:
        """``group/version`` of a group as its server prefers it, of those that are known here; None: not installed."""
        try:
            found = await self._call("get", "GET", f"/apis/{group}", "APIGroup")
        except Gone:
            return None
        served = [found["preferredVersion"], *found["versions"]]
        versions = (version["groupVersion"] for version in served)
        return next((version for version in versions if is_known(version)), None)

    async def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        resource_version: str,
        label_selector: str | None = None,
    ) -> AsyncIterator[tuple[str, Body]]:
        """Events of one watch request: type (ADDED, MODIFIED, DELETED, BOOKMARK) and object.

        Ends when the server ends it.

        Raises:
            ApiError: the stream broke, fell silent, or held an error; Gone when the version is too old.
        """
        params = _selectors(label_selector, None) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        url = self._url(path_of(api_version, kind, namespace), params)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with self._http.get(url, headers=self._headers(), timeout=timeout) as response:
                self._metrics.api_calls.labels("watch", kind, str(response.status)).inc()
                if response.status >= 400:
                    raise self._error(response, await response.read())
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise to_error(int(event["object"].get("code") or 500), event["object"])
                    yield event["type"], event["object"]
        except _BROKEN as error:
            self._metrics.api_calls.labels("watch", kind, "error").inc()
            raise _unreachable(error) from error

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used inside `async with` only")
        return self._session

    def _learn(self, body: Body) -> Body:
        self.index.put(body["apiVersion"], body["kind"], body)
        return body

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        url = URL(self._credentials.connection.server.rstrip("/") + path, encoded=True)
        return url.with_query(params) if params else url

    def _headers(self, content_type: str = _JSON) -> dict[str, str]:
        fixed = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}
        return fixed | self._credentials.headers()

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        kind: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
    ) -> Body:
        """One request; ``verb`` and ``kind`` are those of RBAC."""
        data = None if body is None else orjson.dumps(body)
        url, headers = self._url(path, params), self._headers(content_type)
        try:
            async with self._http.request(method, url, data=data, headers=headers) as response:
                raw = await response.read()
        except _BROKEN as error:
            self._metrics.api_calls.labels(verb, kind, "error").inc()
            raise _unreachable(error) from error
        self._metrics.api_calls.labels(verb, kind, str(response.status)).inc()
        if response.status >= 400:
            raise self._error(response, raw)
        try:
            parsed: Body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise _unreachable(error) from error
        return parsed

    def _error(self, response: aiohttp.ClientResponse, raw: bytes) -> ApiError:
        if response.status == 401:
            self._credentials.reload()
        try:
            status = orjson.loads(raw)
        except orjson.JSONDecodeError:
            status = {}
        return to_error(
            response.status, status if isinstance(status, dict) else {}, _retry_after(response.headers)
        )


def _path(manifest: Mapping[str, Any], collection: bool = False) -> str:
    metadata = manifest["metadata"]
    name = None if collection else metadata["name"]
    return path_of(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), name)


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in selectors.items() if value}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the API server never sends a date."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _unreachable(error: Exception) -> Retryable:
    return Retryable(f"the API server can't be reached: {type(error).__name__}: {error}")


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; ``StreamReader.readline`` refuses long ones."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        *lines, last = rest.split(b"\n")
        for line in lines:
            if line:
                yield bytes(line)
        rest = bytearray(last)
