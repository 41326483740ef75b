"""An agent whose engine is a script: it speaks the real protocol with a real token, and serves nobody."""

import asyncio
import contextlib
import json
import ssl
import threading
from types import TracebackType
from typing import Self

import aiohttp

from tunesmith_contract.agent import (
    AGENT_PATH,
    FEATURES,
    AccessReport,
    AgentReport,
    DesiredState,
    LoadedVersion,
    LoadState,
    UsageOfOthers,
    VersionCounters,
)

REPORT_SECONDS = 0.2


class ScriptedAgent:
    """Runs in a thread; holds at once whatever it is told to, and connects again for ever.

    Args:
        url: of the operator, by an address that is reachable from here.
        host_name: the name in the operator's certificate.
        authority: PEM that signed it.
        token: the pod's projected token.
    """

    def __init__(
        self,
        url: str,
        host_name: str,
        authority: str,
        token: str,
        namespace: str,
        name: str,
        pod: tuple[str, str],
    ) -> None:
        self._url = url + AGENT_PATH.format(namespace=namespace, name=name)
        self._host_name, self._token, self._pod = host_name, token, pod
        self._tls = ssl.create_default_context(cadata=authority)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="scripted agent")
        self.desired = DesiredState(generation=0)
        self.counters: dict[tuple[str, str], tuple[int, int]] = {}
        self.access: AccessReport | None = None
        self.usage: UsageOfOthers | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(timeout=10)

    async def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while not self._stopped.is_set():
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.ws_connect(
                        self._url, ssl=self._tls, server_hostname=self._host_name
                    ) as socket:
                        await self._talk(socket)
                await asyncio.sleep(REPORT_SECONDS)
        # aiohttp closes TLS connections behind the session's back; the loop must live to see it.
        await asyncio.sleep(REPORT_SECONDS)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        reports = asyncio.create_task(self._send_reports(socket))
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(message.data)
        finally:
            reports.cancel()
            await asyncio.gather(reports, return_exceptions=True)

    def _take(self, data: str) -> None:
        if "countedByOthers" in json.loads(data):
            self.usage = UsageOfOthers.model_validate_json(data)
        else:
            self.desired = DesiredState.model_validate_json(data)

    async def _send_reports(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while not self._stopped.is_set():
            await socket.send_str(self._report().to_json())
            await asyncio.sleep(REPORT_SECONDS)
        await socket.close()

    def _report(self) -> AgentReport:
        versions = tuple(
            LoadedVersion(alias=alias.name, digest=version.digest, state=LoadState.ACTIVE)
            for alias in self.desired.aliases
            for version in (alias.stable, alias.candidate, alias.previous)
            if version
        )
        counters = tuple(
            VersionCounters(alias=alias, digest=digest, requests=requests, errors=errors)
            for (alias, digest), (requests, errors) in self.counters.items()
        )
        return AgentReport(
            pod_name=self._pod[0],
            pod_uid=self._pod[1],
            boot_id="boot",
            engine_ready=True,
            applied_generation=self.desired.generation,
            applied_digest=self.desired.digest(),
            features=FEATURES,
            versions=versions,
            counters=counters,
            access=self.access,
        )
