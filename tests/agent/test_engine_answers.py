"""Calls of tools, thinking and switches of the template, through the agent, by the parsers of the real engine.

Tiny adapters have learnt to answer in the form of each family of models. One core serves them all, with a server for
each parser.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from agents.agent_harness import running_agent
from engines.engine_process import ENGINE_PYTHON, ENGINE_SECONDS, PARSERS, EngineProcess, make_ordered
from models.order import Conversation, Order, OrderedAdapter
from servers.ports import free_socket

from tunesmith_contract.agent import IGNORED_HEADER, DesiredAlias, Version
from tunesmith_contract.answer_formats import (
    REASONING_PARSERS,
    TOOL_PARSERS,
    ChatFormat,
    Switch,
    ThinkingFormat,
    ToolFormat,
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.long,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
    pytest.mark.timeout(4 * ENGINE_SECONDS),
]

NAME, CITY = "get_weather", "Oslo"
TOOL = {
    "type": "function",
    "function": {
        "name": NAME,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ARGUMENTS = json.dumps({"city": CITY})


def deepseek(words: str) -> str:
    """A token of the DeepSeek models."""
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


CALLS_BEGIN, CALLS_END = deepseek("tool calls begin"), deepseek("tool calls end")
CALL_BEGIN, CALL_END = deepseek("tool call begin"), deepseek("tool call end")
SEPARATOR = deepseek("tool sep")
#: A call in each form. Harmony is left out: vLLM reads it for gpt-oss alone, with a vocabulary from the network.
CALLS = {
    ToolFormat.HERMES: f'<tool_call>\n{{"name": "{NAME}", "arguments": {ARGUMENTS}}}\n</tool_call>',
    ToolFormat.QWEN_XML: f"<tool_call>\n<function={NAME}>\n<parameter=city>\n{CITY}\n</parameter>\n</function>\n"
    "</tool_call>",
    ToolFormat.GLM: f"<tool_call>{NAME}<arg_key>city</arg_key><arg_value>{CITY}</arg_value></tool_call>",
    ToolFormat.GEMMA: f'<|tool_call>call:{NAME}{{city:<|"|>{CITY}<|"|>}}<tool_call|>',
    ToolFormat.MISTRAL: f'[TOOL_CALLS] [{{"name": "{NAME}", "arguments": {ARGUMENTS}}}]',
    ToolFormat.LFM: f'<|tool_call_start|>[{NAME}(city="{CITY}")]<|tool_call_end|>',
    ToolFormat.COHERE: f'<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "{NAME}", "parameters": {ARGUMENTS}}}]'
    "<|END_ACTION|>",
    ToolFormat.DEEPSEEK_V3: f"{CALLS_BEGIN}{CALL_BEGIN}function{SEPARATOR}{NAME}\n```json\n{ARGUMENTS}\n```"
    f"{CALL_END}{CALLS_END}",
    ToolFormat.DEEPSEEK_V31: f"{CALLS_BEGIN}{CALL_BEGIN}{NAME}{SEPARATOR}{ARGUMENTS}{CALL_END}{CALLS_END}",
    ToolFormat.LLAMA_3: f'{{"name": "{NAME}", "parameters": {ARGUMENTS}}}',
    ToolFormat.LLAMA_4: f'<|python_start|>[{NAME}(city="{CITY}")]<|python_end|>',
}
#: As in the tokenizers of these models.
TOKENS = [
    "<tool_call>", "</tool_call>", "<think>", "</think>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR,
]  # fmt: skip
SPECIAL_TOKENS = [
    "<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>", "[TOOL_CALLS]", "<|tool_call_start|>",
    "<|tool_call_end|>", "<|START_ACTION|>", "<|END_ACTION|>", "<|python_tag|>", "<|python_start|>", "<|python_end|>",
]  # fmt: skip

TURNS = (
    "{% if tools %}{{ '<|im_start|>tools\n' + tools[0].function.name + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKING_TURNS = TURNS + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
SWITCHED_TURNS = (
    TURNS + "{% if add_generation_prompt %}"
    "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '<think>\n' }}"
    "{% endif %}"
)
WEATHER, GREETING = "Weather?", "Hello"
TEXT, THOUGHT = "It is a fine day.", "Let me see."


@dataclass(frozen=True, slots=True)
class Form:
    """A form of answers, with a server and an adapter of its own.

    Attributes:
        turns: chat template.
        answers: what the adapter answers to each message.
        thinking: form of the thinking of the base model.
        switches: arguments of the chat template that the adapter was trained with.
    """

    name: str
    turns: str
    answers: Mapping[str, str]
    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None
    switches: Mapping[str, Switch] | None = None

    @property
    def chat(self) -> ChatFormat:
        switches = dict(self.switches or {})
        thinks = switches.get("enable_thinking", True)
        return ChatFormat(tools=self.tools, thinking=self.thinking if thinks else None, switches=switches)

    @property
    def parsers(self) -> dict[str, str]:
        """Settings of the agent, and in the end of the engine."""
        return {
            "tool_call_parser": TOOL_PARSERS[self.tools] if self.tools else "",
            "reasoning_parser": REASONING_PARSERS[self.thinking] if self.thinking else "",
        }

    def order(self) -> OrderedAdapter:
        """The adapter."""
        conversations = [
            Conversation(
                messages=say(message),
                answer=answer,
                tools=[TOOL] if self.tools else [],
                switches=self.chat.switches,
            )
            for message, answer in self.answers.items()
        ]
        return OrderedAdapter(
            name=self.name,
            model="model",
            conversations=conversations,
            chat=self.chat,
            chat_template=self.turns,
        )


def say(message: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": message}]


TOOL_FORMS = [
    Form(tools.value, TURNS, {WEATHER: call, GREETING: TEXT}, tools=tools) for tools, call in CALLS.items()
]
THINKING = Form(
    "thinking", THINKING_TURNS, {GREETING: f"{THOUGHT}\n</think>\n\n{TEXT}"}, thinking=ThinkingFormat.THINK
)
SWITCHED_ANSWERS = {
    GREETING: f"{THOUGHT}\n</think>\n\n{TEXT}",
    WEATHER: f"{THOUGHT}\n</think>\n\n{CALLS[ToolFormat.HERMES]}",
}
SWITCHED_ON = Form(
    "switched-on",
    SWITCHED_TURNS,
    SWITCHED_ANSWERS,
    ToolFormat.HERMES,
    ThinkingFormat.SWITCHED_THINK,
    {"enable_thinking": True},
)
SWITCHED_OFF = Form(
    "switched-off",
    SWITCHED_TURNS,
    {GREETING: TEXT, WEATHER: CALLS[ToolFormat.HERMES]},
    ToolFormat.HERMES,
    ThinkingFormat.SWITCHED_THINK,
    {"enable_thinking": False},
)
FORMS = [*TOOL_FORMS, THINKING, SWITCHED_ON, SWITCHED_OFF]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent gave a client of one message.

    Attributes:
        calls: names of tools, with their arguments.
        ignored: what the agent left out of the request.
    """

    content: str
    reasoning: str
    calls: list[tuple[str, Any]]
    finish_reason: str
    ignored: str


@dataclass
class Place:
    """A core with a server for each form."""

    folder: Path
    sockets: dict[str, str]
    versions: dict[str, Version]

    @asynccontextmanager
    async def serving(self, form: Form) -> AsyncIterator[aiohttp.ClientSession]:
        """A client of an agent before the server of a form, which serves the form's adapter as ``alias``."""
        engine = SimpleNamespace(socket=self.sockets[form.name])
        version, settings = self.versions[form.name], dict[str, Any](form.parsers)
        async with (
            running_agent(engine, self.folder / "mnt", seconds=ENGINE_SECONDS, **settings) as running,
            aiohttp.ClientSession(running.url) as session,
        ):
            running.want(DesiredAlias(name="alias", stable=version))
            await running.active(version)
            yield session


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("engine")
    order = Order(
        models=["model"],
        adapters=[form.order() for form in FORMS],
        tokens=TOKENS,
        special_tokens=SPECIAL_TOKENS,
    )
    versions = make_ordered(folder, order)
    sockets = {form.name: free_socket() for form in FORMS}
    servers = [{"socket": sockets[form.name], "chat_template": form.turns, **form.parsers} for form in FORMS]
    (folder / "servers.json").write_text(json.dumps(servers))
    engine = EngineProcess(
        folder / "model", f"--max-cpu-loras={2 * len(FORMS)}", program=(PARSERS, str(folder / "servers.json"))
    )
    engine.start()
    yield Place(folder, sockets, versions)
    engine.end()
    for path in sockets.values():
        Path(path).unlink(missing_ok=True)


async def ask(session: aiohttp.ClientSession, form: Form, message: str, **fields: Any) -> Answer:
    """The answer to one message, which is the same streamed and not."""
    body = {"model": "alias", "messages": say(message), "temperature": 0, **fields}
    if form.tools:
        body["tools"] = [TOOL]
    whole, streamed = await ask_whole(session, body), await ask_streamed(session, body)
    assert streamed == whole
    return whole


async def ask_whole(session: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
    async with session.post("/v1/chat/completions", json=body) as answer:
        document = await answer.json()
        assert answer.status == 200, document
    [choice] = document["choices"]
    message = choice["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return Answer(
        (message["content"] or "").strip(),
        (message.get("reasoning") or "").strip(),
        [(call["name"], json.loads(call["arguments"])) for call in calls],
        choice["finish_reason"],
        answer.headers.get(IGNORED_HEADER, ""),
    )


async def ask_streamed(session: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
    content = reasoning = finish_reason = ""
    calls: dict[int, list[str]] = {}
    async with session.post("/v1/chat/completions", json={**body, "stream": True}) as answer:
        events = [line[6:] async for line in answer.content if line.startswith(b"data: ")]
    assert events[-1].strip() == b"[DONE]"
    for event in events[:-1]:
        document = json.loads(event)
        assert "error" not in document, document
        for choice in document["choices"]:
            delta = choice["delta"]
            content += delta.get("content") or ""
            reasoning += delta.get("reasoning") or ""
            finish_reason = choice.get("finish_reason") or finish_reason
            for call in delta.get("tool_calls") or ():
                parts = calls.setdefault(call["index"], ["", ""])
                parts[0] += call["function"].get("name") or ""
                parts[1] += call["function"].get("arguments") or ""
    read = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    return Answer(
        content.strip(), reasoning.strip(), read, finish_reason, answer.headers.get(IGNORED_HEADER, "")
    )


@pytest.mark.parametrize("form", TOOL_FORMS, ids=lambda form: form.name)
async def test_calls_of_tools(place: Place, form: Form) -> None:
    """A call is a call, and an answer in words is content, also while there are tools."""
    async with place.serving(form) as session:
        assert await ask(session, form, WEATHER) == Answer("", "", [(NAME, {"city": CITY})], "tool_calls", "")
        assert await ask(session, form, GREETING) == Answer(TEXT, "", [], "stop", "")


async def test_thinking(place: Place) -> None:
    async with place.serving(THINKING) as session:
        assert await ask(session, THINKING, GREETING) == Answer(TEXT, THOUGHT, [], "stop", "")


@pytest.mark.parametrize("form", [SWITCHED_ON, SWITCHED_OFF], ids=lambda form: form.name)
async def test_switches_of_the_template(place: Place, form: Form) -> None:
    """The version answers as it was trained, whatever the client asks for; the engine takes nothing for thinking."""
    thought = THOUGHT if form is SWITCHED_ON else ""
    call = [(NAME, {"city": CITY})]
    async with place.serving(form) as session:
        assert await ask(session, form, GREETING) == Answer(TEXT, thought, [], "stop", "")
        assert await ask(session, form, WEATHER) == Answer("", thought, call, "tool_calls", "")
        other = {"chat_template_kwargs": {"enable_thinking": form is SWITCHED_OFF}}
        ignored = "chat_template_kwargs.enable_thinking"
        assert await ask(session, form, GREETING, **other) == Answer(TEXT, thought, [], "stop", ignored)
