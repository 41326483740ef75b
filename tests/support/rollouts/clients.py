"""Clients of a served alias: conversations with sticky keys, streamed and not, on connections that a Service spreads.

What counts as failed: any status but 200, an answer that breaks off, marks that differ within one answer, no answer
within ``PATIENCE``. What does not, and is counted apart:

- ``refused``: a connection that no pod accepted. A client that connects tries the next pod, as any client of a Service.
- ``cut``: in progress on a pod between the SIGKILL to its agent and the end of that process, some hundredths of a
  second later. Nobody can save such a request. The pod may be the one that the client reached, or another one, to which
  that one had forwarded the request: then it is 502, or breaks off.
- ``bad``: 500 of a version that is made to fail; silence while one has weight that is made to hang.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from agents.wire import Answer, Wire, post
from rollouts.serving_pods import PodProcesses

from tunesmith.manifests.serving_deployment import AGENT_PORT
from tunesmith_contract.agent import STICKINESS_HEADER, VERSION_HEADER

PATIENCE = 30.0
#: The same while a version is rolled out that hangs; more than the agents' ``abandoned_seconds``.
HANG_PATIENCE = 3.0
CONNECT_PATIENCE = 20.0
CONNECT_PAUSE = 0.02
#: Share of requests for which a client opens a new connection, to any pod.
NEW_CONNECTION = 0.15
#: A conversation sends so many requests one after the other, over different connections.
BURST = 3
#: First words of the marks of versions that answer 500, and of those that never answer.
FAILS, HANGS = "fails", "hangs"


class End(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    CUT = "cut"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Reply:
    """End of one request; times are monotonic seconds.

    Attributes:
        version: the name that the agent says.
        mark: what the version answered with.
    """

    conversation: int
    began: float
    ended: float
    end: End
    pod: str
    version: str = ""
    mark: str = ""
    detail: str = ""


@dataclass
class _Connection:
    pod: PodProcesses
    wire: Wire


class Endpoints(Protocol):
    """Pods behind a Service: where a new connection may lead, and all that there were."""

    @property
    def endpoints(self) -> list[PodProcesses]: ...

    @property
    def all(self) -> list[PodProcesses]: ...


def marks_of_pieces(pieces: Sequence[str]) -> set[str]:
    """Marks in a stream each of whose pieces has a whole one."""
    return set(pieces)


def mark_of_text(pieces: Sequence[str]) -> set[str]:
    """The mark that the pieces of a stream make together."""
    return {"".join(pieces)}


@dataclass
class Load:
    """Clients that ask without end, until ``stop`` is set.

    Args:
        aliases: each conversation is with one of them.
        rate: requests per second of all clients together, if the machine is fast enough.
        read_pieces: gives the marks in the pieces of a stream.

    Attributes:
        expects_hang: a version that hangs has weight.
    """

    pods: Endpoints
    aliases: Sequence[str]
    conversations: int
    clients: int
    rate: float
    random: random.Random
    read_pieces: Callable[[Sequence[str]], set[str]] = marks_of_pieces
    replies: list[Reply] = field(default_factory=list)
    refused: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    expects_hang: bool = False

    async def run(self) -> None:
        """Ask until ``stop`` is set; requests in progress end first."""
        waiting = deque(range(self.conversations))
        self.random.shuffle(waiting)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.clients):
                group.create_task(self._converse(waiting))

    async def until(self, count: int) -> None:
        """Wait until there were so many requests."""
        while True:
            if len(self.replies) >= count:
                return
            await asyncio.sleep(CONNECT_PAUSE)

    async def _converse(self, waiting: deque[int]) -> None:
        """One client: takes up the conversation that was quiet longest, again and again."""
        connections: list[_Connection | None] = [None, None]
        next_at = time.monotonic()
        while not self.stop.is_set():
            conversation = waiting.popleft()
            for _ in range(BURST):
                place = self.random.randrange(2)
                connections[place] = await self._ask(conversation, connections[place])
            waiting.append(conversation)
            next_at = max(next_at + BURST * self.clients / self.rate, time.monotonic() - 1)
            await asyncio.sleep(max(next_at - time.monotonic(), 0))
        for connection in connections:
            if connection is not None:
                connection.wire.writer.transport.abort()

    async def _ask(self, conversation: int, connection: _Connection | None) -> _Connection | None:
        """One request; returns the connection if it can be used again."""
        is_old = connection is not None and connection.wire.reader.at_eof()
        if connection is not None and (is_old or self.random.random() < NEW_CONNECTION):
            connection.wire.writer.transport.abort()
            connection = None
        if connection is None:
            connection = await self._connect()
        is_streamed = self.random.random() < 0.5
        body = {
            "model": self.aliases[conversation % len(self.aliases)],
            "messages": [{"role": "user", "content": "Lunch"}],
            "stream": is_streamed,
        }
        began, pod = time.monotonic(), connection.pod
        try:
            connection.wire.writer.write(post(body, f"{STICKINESS_HEADER}: conversation-{conversation}"))
            answer = await self._wait(connection.wire)
            reply = self._judge(conversation, began, pod, answer, is_streamed)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            answer = None
            reply = self._judge_break(conversation, began, pod, error)
        self.replies.append(reply)
        if answer is None or answer.headers.get("connection") == "close":
            connection.wire.writer.transport.abort()
            return None
        return connection

    async def _wait(self, wire: Wire) -> Answer:
        async with asyncio.timeout(HANG_PATIENCE if self.expects_hang else PATIENCE):
            return await wire.answer()

    def _judge(
        self, conversation: int, began: float, pod: PodProcesses, answer: Answer, is_streamed: bool
    ) -> Reply:
        version, ended = answer.headers.get(VERSION_HEADER, ""), time.monotonic()
        marks = self._read_marks(answer.body, is_streamed) if answer.status == 200 else set()
        end, detail = End.ANSWERED, ""
        if answer.status == 500 and b"on purpose" in answer.body:
            end, marks = End.BAD, {FAILS}
        elif answer.status != 200 or len(marks) != 1:
            is_cut = answer.status == 502 and self._was_killed(began, ended)
            end = End.CUT if is_cut else End.FAILED
            detail = f"{answer.status} {sorted(marks)} {answer.body[:300]!r}"
        mark = marks.pop() if marks else ""
        return Reply(conversation, began, ended, end, pod.name, version, mark, detail)

    def _read_marks(self, body: bytes, is_streamed: bool) -> set[str]:
        """The marks in an answer.

        Raises:
            ValueError: it is not what the engine sent, or not whole.
        """
        if not is_streamed:
            return {json.loads(body)["choices"][0]["message"]["content"]}
        events = [part.removeprefix(b"data: ") for part in body.split(b"\n\n") if part]
        if events[-1] != b"[DONE]":
            raise ValueError("the stream has no end")
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
        return self.read_pieces([delta.get("content") or "" for delta in deltas])

    def _judge_break(self, conversation: int, began: float, pod: PodProcesses, error: Exception) -> Reply:
        ended = time.monotonic()
        end = End.FAILED
        if isinstance(error, TimeoutError):
            end = End.BAD if self.expects_hang else End.FAILED
        elif self._was_killed(began, ended):
            end = End.CUT
        killed = [round(gone - began, 3) for _, gone in pod.killed]
        detail = f"{error!r}; gone {killed} and deleted {pod.ended_at - began:.3f} s after the request began"
        return Reply(conversation, began, ended, end, pod.name, detail=detail)

    def _was_killed(self, began: float, ended: float) -> bool:
        """True if the agent of any pod was killed in this time: it may have answered the request for another pod."""
        kills = (each for pod in self.pods.all for each in pod.killed)
        return any(began <= gone and killed <= ended for killed, gone in kills)

    async def _connect(self) -> _Connection:
        """A connection to any endpoint; the next one is tried where none listens.

        Raises:
            TimeoutError: nobody accepted one in time.
        """
        async with asyncio.timeout(CONNECT_PATIENCE):
            while True:
                if endpoints := self.pods.endpoints:
                    pod = self.random.choice(endpoints)
                    with contextlib.suppress(OSError):
                        reader, writer = await asyncio.open_connection(pod.address, AGENT_PORT)
                        return _Connection(pod, Wire(reader, writer))
                self.refused += 1
                await asyncio.sleep(CONNECT_PAUSE)
