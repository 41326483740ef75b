"""An API server in memory for tests of one part: objects with versions, and failures on demand; no HTTP."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from tunesmith.controller_runtime.errors import ApiError, Conflict
from tunesmith.controller_runtime.index import ChildIndex
from tunesmith.manifests.objects import Body


class FakeApi:
    """Has the methods of ``Client`` that the parts under test use.

    ``failures`` maps (verb, kind) to errors that the next such calls raise; ``calls`` lists what was called.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str | None, str], Body] = {}
        self.calls: list[tuple[str, str]] = []
        self.failures: dict[tuple[str, str], list[ApiError]] = {}
        self.index = ChildIndex(lambda uid: None)
        self.version = 0

    def add(self, body: Body) -> Body:
        """Put an object there, with a new version."""
        self.version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self.version)
        body["metadata"].setdefault("uid", f"uid-{self.version}")
        self.objects[_key(body)] = body
        return copy.deepcopy(body)

    async def get(self, api_version: str, kind: str, namespace: str | None, name: str) -> Body | None:
        self._count("get", kind)
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self, api_version: str, kind: str, namespace: str | None, *_: Any, field_selector: str = ""
    ) -> list[Body]:
        self._count("list", kind)
        fields = [field.split("=") for field in field_selector.split(",") if field]
        return [
            copy.deepcopy(body)
            for key, body in self.objects.items()
            if key[0] == kind and all(_member(body, path) in (value, None) for path, value in fields)
        ]

    async def pages(
        self, api_version: str, kind: str, namespace: str | None, label_selector: str = ""
    ) -> AsyncIterator[tuple[Sequence[Body], int]]:
        bodies = await self.list(api_version, kind, namespace)
        name, _, value = label_selector.partition("=")
        yield (
            [body for body in bodies if not name or body["metadata"].get("labels", {}).get(name) == value],
            self.version,
        )

    async def create(self, manifest: Mapping[str, Any]) -> Body | None:
        try:
            self._count("create", manifest["kind"])
        except Conflict as error:
            if error.reason == "AlreadyExists":
                return None
            raise
        return None if _key(manifest) in self.objects else self.add(dict(manifest))

    async def apply(self, manifest: Mapping[str, Any]) -> Body:
        self._count("apply", manifest["kind"])
        return self.add(dict(manifest))

    async def patch(
        self, api_version: str, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]
    ) -> Body | None:
        self._count("patch", kind)
        body = self.objects.get((kind, namespace, name))
        return None if body is None else self.add({**body, **patch})

    async def replace(self, manifest: Mapping[str, Any]) -> Body:
        self._count("replace", manifest["kind"])
        return self._replace(manifest, dict(manifest))

    async def delete(self, api_version: str, kind: str, namespace: str | None, name: str, uid: str) -> None:
        self._count("delete", kind)
        body = self.objects.get((kind, namespace, name))
        if body is not None and body["metadata"]["uid"] == uid:
            del self.objects[kind, namespace, name]

    async def replace_status(self, body: Mapping[str, Any], status: Mapping[str, Any]) -> Body:
        self._count("status", body["kind"])
        return self._replace(body, {**self.objects[_key(body)], "status": dict(status)})

    def _replace(self, read: Mapping[str, Any], body: Body) -> Body:
        known = self.objects.get(_key(read))
        if known is None or known["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified", 409, "Conflict")
        return self.add(body)

    def _count(self, verb: str, kind: str) -> None:
        self.calls.append((verb, kind))
        failures = self.failures.get((verb, kind))
        if failures:
            raise failures.pop(0)


def _key(body: Mapping[str, Any]) -> tuple[str, str | None, str]:
    return body["kind"], body["metadata"].get("namespace"), body["metadata"].get("name", "")


class FakeClock:
    """A clock that a test moves; runs the calls that are due, as an event loop does."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    __call__ = time

    def call_later(self, delay: float, callback: Any, *args: Any) -> "FakeTimer":
        timer = FakeTimer(self.now + delay, callback, args)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer.when() <= end]:
            timer = min(due, key=FakeTimer.when)
            self._timers.remove(timer)
            self.now = max(self.now, timer.when())
            timer.run()
        self.now = end


class FakeTimer:
    """One call of the future."""

    def __init__(self, when: float, callback: Any, args: tuple[Any, ...]) -> None:
        self._when = when
        self._call = (callback, args)
        self._cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._cancelled = True

    def run(self) -> None:
        callback, args = self._call
        if not self._cancelled:
            callback(*args)


async def until(done: Callable[[], object]) -> None:
    """Let the other tasks run until something is true; TimeoutError when it does not become so."""
    async with asyncio.timeout(10):
        while True:
            if done():
                return
            await asyncio.sleep(0.001)


def _member(body: Any, path: str) -> Any:
    """Member of an object by its path, such as ``regarding.name``; None for an absent one."""
    for name in path.split("."):
        body = (body or {}).get(name)
    return body
