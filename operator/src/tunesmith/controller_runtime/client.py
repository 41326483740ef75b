"""Client of the API server: typed errors, metrics, and an index that is updated with each write."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Self

import aiohttp
import orjson
from yarl import URL

from tunesmith.manifests.names import FIELD_MANAGER
from tunesmith.manifests.objects import Body

from .connection import CONNECT_SECONDS, Connection, bounded_retry_after
from .errors import ApiError, Conflict, Gone, Retryable, to_error
from .index import ChildIndex
from .kinds import is_known, path_of
from .metrics import Metrics
from .server_clock import ServerClock

Bodies = list[Body]

#: A watch without any event for so long, not even a bookmark (one a minute), counts as dead.
SILENCE_SECONDS = 150.0
WATCH_SECONDS = 600
#: Small, so that a page takes little memory, and passes go on between two of them.
PAGE = 100
#: Far below the connections that calls share: while all watches list anew, passes still go on.
LISTS_OF_WATCHES = 16
USER_AGENT = FIELD_MANAGER

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
#: JSON is YAML; the API server accepts server-side apply under this type since before it had one for JSON.
_APPLY_PATCH = "application/apply-patch+yaml"

#: Errors of a server that can't be reached, or that answers as no API server does: a proxy may answer anything.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError)


class Client:
    """Calls to the API server. All raise ``errors.ApiError``: Retryable, Conflict, Refused or Gone.

    Args:
        connection: the sessions; opened and closed with the client.
        metrics: counts every call.
        index: updated with every child that is written.
        namespaces: the namespaces that ``list`` covers when its own is None; none for all.

    Attributes:
        clock: the API server's time.
        lists_of_watches: bounds how many watches list at a time.
        pages_read: pages of lists that have come so far.
    """

    def __init__(
        self,
        connection: Connection,
        metrics: Metrics,
        index: ChildIndex,
        namespaces: tuple[str, ...] = (),
    ) -> None:
        self.index = index
        self.namespaces = namespaces
        self.clock = ServerClock()
        self.pages_read = 0
        self.lists_of_watches = asyncio.Semaphore(LISTS_OF_WATCHES)
        self._connection = connection
        self._metrics = metrics

    async def __aenter__(self) -> Self:
        await self._connection.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._connection.__aexit__(*exception)

    async def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object; None when the API server says that it is not there, and not when a proxy knows no such page."""
        try:
            return await self._call("get", "GET", path_of(api_version, kind, namespace, name), kind)
        except Gone as error:
            if error.reason == "NotFound":
                return None
            raise Retryable(error.message, error.code, error.reason) from error

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
        async for page, _ in self.pages(api_version, kind, namespace, label_selector, field_selector):
            objects += page
        return objects

    async def pages(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[tuple[Bodies, int]]:
        """The objects that ``list`` would return, page by page, each page with the list's ``resourceVersion``."""
        namespaces = (self.namespaces or (None,)) if namespace is None else (namespace,)
        for name in namespaces:
            params = _selectors(label_selector, field_selector) | {"limit": str(PAGE)}
            path = path_of(api_version, kind, name)
            while True:
                page = await self._page(path, kind, params)
                metadata = page["metadata"]
                items = page.get("items") or ()
                self.pages_read += 1
                yield (
                    [{**item, "apiVersion": api_version, "kind": kind} for item in items],
                    int(metadata["resourceVersion"]),
                )
                if not metadata.get("continue"):
                    break
                params["continue"] = metadata["continue"]

    async def current_version(self, api_version: str, kind: str, namespace: str | None) -> int:
        """The API server's present ``resourceVersion``, never an older one from a cache."""
        page = await self._page(path_of(api_version, kind, namespace), kind, {"limit": "1"})
        return int(page["metadata"]["resourceVersion"])

    async def _page(self, path: str, kind: str, params: Mapping[str, str]) -> Body:
        page = await self._call("list", "GET", path, kind, params)
        if not str((page.get("metadata") or {}).get("resourceVersion")).isdecimal():
            raise Retryable(f"the API server answered no list of {kind}")
        return page

    async def create(self, manifest: Body) -> Body | None:
        """Create the object. None when one of that name exists already: it is left as it is."""
        path = _path(manifest, collection=True)
        try:
            created = await self._call("create", "POST", path, manifest["kind"], body=manifest)
        except Conflict as error:
            if error.reason == "AlreadyExists":
                return None
            raise
        return self._add_to_index(created)

    async def apply(self, manifest: Body) -> Body:
        """Server-side apply as field manager ``tunesmith``, taking over fields that others hold."""
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = _path(manifest)
        return self._add_to_index(
            await self._call("patch", "PATCH", path, manifest["kind"], params, manifest, _APPLY_PATCH)
        )

    async def patch(
        self, api_version: str, kind: str, namespace: str | None, name: str, patch: Body
    ) -> Body | None:
        """JSON merge patch; None when the object is not there."""
        path = path_of(api_version, kind, namespace, name)
        try:
            patched = await self._call("patch", "PATCH", path, kind, body=patch, content_type=_MERGE_PATCH)
        except Gone:
            return None
        return self._add_to_index(patched)

    async def replace(self, manifest: Body) -> Body:
        """Replace the object as it was read (``metadata.resourceVersion``); Conflict when it changed since."""
        return self._add_to_index(
            await self._call("update", "PUT", _path(manifest), manifest["kind"], body=manifest)
        )

    async def delete(self, api_version: str, kind: str, namespace: str | None, name: str, uid: str) -> None:
        """Delete the object of this UID, its dependents in the background; one that is gone counts as done."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call(
                "delete", "DELETE", path_of(api_version, kind, namespace, name), kind, body=options
            )
        except (Gone, Conflict):
            return

    async def replace_status(self, body: Body, status: Body) -> Body:
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

    async def serves_group(self, group: str) -> bool:
        """True for an API group in the API server's discovery, whose own server may be down."""
        groups = await self._call("get", "GET", "/apis", "APIGroupList")
        return group in {served["name"] for served in groups["groups"]}

    async def served_kinds(self, api_version: str) -> frozenset[str]:
        """The kinds of a group's version in the API server's discovery; it may lag behind a new CRD."""
        group, _, version = api_version.partition("/")
        if not await self.serves_group(group):
            return frozenset()
        resources = await self._call("get", "GET", f"/apis/{group}/{version}", "APIResourceList")
        return frozenset(resource["kind"] for resource in resources["resources"])

    async def preferred_version(self, group: str) -> str | None:
        """The server's preferred ``group/version`` among those in ``kinds``; None where the group is not served."""
        try:
            served = await self._call("get", "GET", f"/apis/{group}", "APIGroup")
        except Gone:
            return None
        versions = (version["groupVersion"] for version in (served["preferredVersion"], *served["versions"]))
        return next((version for version in versions if is_known(version)), None)

    async def watch(
        self,
        api_version: str,
        kind: str,
        namespace: str | None,
        resource_version: int,
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
            "resourceVersion": str(resource_version),
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with (
                await self._connection.watches() as session,
                session.get(
                    self._url(path_of(api_version, kind, namespace), params),
                    headers=_headers(),
                    timeout=timeout,
                ) as response,
            ):
                self._metrics.api_calls.labels("watch", kind, str(response.status)).inc()
                if response.status >= 400:
                    raise self._error(response, await response.read())
                async for line in _lines(response.content):
                    event = _object(orjson.loads(line), kind)
                    body = _object(event.get("object"), kind)
                    if event.get("type") == "ERROR":
                        code = body.get("code")
                        raise to_error(code if isinstance(code, int) and code >= 400 else 500, body)
                    yield str(event.get("type")), body
        except _BROKEN as error:
            self._metrics.api_calls.labels("watch", kind, "error").inc()
            raise self._unreachable(error) from error

    def _add_to_index(self, body: Body) -> Body:
        self.index.put(body["apiVersion"], body["kind"], body)
        return body

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        url = URL(self._connection.server + path, encoded=True)
        return url.with_query(params) if params else url

    async def _call(
        self,
        verb: str,
        method: str,
        path: str,
        kind: str,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = _JSON,
    ) -> Body:
        """One request; ``verb`` and ``kind`` are those of RBAC."""
        data = None if body is None else orjson.dumps(body)
        sent = time.monotonic()
        try:
            async with (
                await self._connection.calls() as session,
                session.request(
                    method, self._url(path, params), data=data, headers=_headers(content_type)
                ) as response,
            ):
                self.clock.learn(response.headers.get("Date"), time.monotonic() - sent)
                raw = await response.read()
        except _BROKEN as error:
            self._metrics.api_calls.labels(verb, kind, "error").inc()
            raise self._unreachable(error) from error
        self._metrics.api_calls.labels(verb, kind, str(response.status)).inc()
        if response.status >= 400:
            raise self._error(response, raw)
        try:
            parsed = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise self._unreachable(error) from error
        return _object(parsed, kind)

    def _error(self, response: aiohttp.ClientResponse, raw: bytes) -> ApiError:
        if response.status == 401:
            self._connection.reject_credentials()
        try:
            status = orjson.loads(raw)
        except orjson.JSONDecodeError:
            status = {}
        return to_error(
            response.status, status if isinstance(status, dict) else {}, bounded_retry_after(response.headers)
        )

    def _unreachable(self, error: Exception) -> Retryable:
        # A client certificate that is refused shows as the cause of a lost connection.
        if isinstance(error, aiohttp.ClientSSLError) or isinstance(error.__cause__, ssl.SSLError):
            self._connection.read_again()
        return Retryable(f"the API server can't be reached: {type(error).__name__}: {error}")


def _path(manifest: Body, collection: bool = False) -> str:
    metadata = manifest["metadata"]
    name = None if collection else metadata["name"]
    return path_of(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), name)


def _object(answer: object, kind: str) -> Body:
    """The answer, which a proxy may have given in the API server's place."""
    if not isinstance(answer, dict):
        raise Retryable(f"the API server answered a request for {kind} with something else")
    return answer


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in selectors.items() if value}


def _headers(content_type: str = _JSON) -> dict[str, str]:
    return {"Accept": _JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}


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
