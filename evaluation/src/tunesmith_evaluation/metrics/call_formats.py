"""Calls of tools in the text of an answer, in the formats in which chat templates write them.

==============  ====================================================================================================
format          form
==============  ====================================================================================================
Hermes, Qwen    ``<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>``
Qwen 3 Coder    ``<tool_call><function=f><parameter=x>1</parameter></function></tool_call>``
GLM             ``<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>``
Llama 3         ``{"name": "f", "parameters": {"x": 1}}``, perhaps after ``<|python_tag|>``, several with ``;``
Llama 4, LFM    ``[f(x=1)]``, also between ``<|python_start|>`` and ``<|python_end|>`` or LFM's own marks
Mistral         ``[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}}]`` or ``[TOOL_CALLS]f[ARGS]{"x": 1}``
Gemma 4         ``<|tool_call>call:f{x:1,y:<|"|>text<|"|>}<tool_call|>``
Granite, Phi    ``<|tool_call|>[{"name": "f", "arguments": {"x": 1}}]``
DeepSeek        name and arguments in a block of JSON, between marks with full-width bars
gpt-oss         ``<|channel|>commentary to=functions.f<|message|>{"x": 1}<|call|>``
==============  ====================================================================================================

Endpoints give calls apart from the text: ``Call.read_openai``.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import Call
from .thinking import channel_messages

#: Calls beyond this number in one answer are not read: hostile answers must not take forever.
MAX_CALLS = 1000

_TOOL_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\s]+)\s*>(.*)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)\s*>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_ARGUMENT = re.compile(
    r"<arg_key>([^<]*)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|(?=<arg_key>)|\Z)", re.DOTALL
)
_DEEPSEEK = re.compile(
    r"<\uff5ctool\u2581call\u2581begin\uff5c>(.*?)(?:<\uff5ctool\u2581call\u2581end\uff5c>|\Z)", re.DOTALL
)
_DEEPSEEK_BEGIN = "<\uff5ctool\u2581call\u2581begin\uff5c>"
_DEEPSEEK_SEPARATOR = "<\uff5ctool\u2581sep\uff5c>"
_DEEPSEEK_FRAME = re.compile(r"<\uff5ctool\u2581calls\u2581(?:begin|end)\uff5c>")
_CODE_BLOCK = re.compile(r"```(?:json)?(.*?)```", re.DOTALL)
_PYTHON_MARKS = re.compile(r"<\|python_(?:start|end|tag)\|>")
_PYTHON_LIST = re.compile(r"\[\s*[A-Za-z_][\w.]*\(.*\)\s*\]", re.DOTALL)
_LFM = re.compile(r"<\|tool_call_start\|>(.*?)(?:<\|tool_call_end\|>|\Z)", re.DOTALL)
_GEMMA = re.compile(r"<\|tool_call>(.*?)(?:<tool_call\|>|(?=<\|tool_call>)|\Z)", re.DOTALL)
_GEMMA_CALL = re.compile(r"call:([^\s{]+)(\{.*\})", re.DOTALL)
_GEMMA_QUOTE = '<|"|>'
_GEMMA_KEY = re.compile(r"([{,]\s*)([^\s{}\[\],:\"]+)\s*:")
_MISTRAL = "[TOOL_CALLS]"
_GRANITE = re.compile(r"<\|/?tool_call\|>")

_LONGEST_PYTHON = 100_000
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class FoundCalls:
    """Calls in an answer.

    Attributes:
        text: the answer without them.
        calls: those that can be read.
        malformed: number of those that can't.
    """

    text: str
    calls: tuple[Call, ...] = ()
    malformed: int = 0


#: Schemas of parameters by the name of their tool.
_Schemas = Mapping[str, Mapping[str, Any]]


def find_calls(text: str, tools: Sequence[Mapping[str, Any]], raw: str | None = None) -> FoundCalls:
    """Calls in an answer without thinking; use it only where the model was offered tools.

    Args:
        text: the answer.
        tools: schemas of the tools that the model was offered, in OpenAI's form.
        raw: the answer as generated, where channels are kept; None for the answer itself.
    """
    if raw is not None and "<|channel|>" in raw:
        called = [message for message in channel_messages(raw) if message.recipient]
        return _collect(text, [Call.read(message.recipient, message.text) for message in called])
    if "<tool_call>" in text:
        return _find_marked(text, _parameter_schemas(tools))
    for find in _FORMATS:
        found = find(text)
        if found is not None:
            return found
    return FoundCalls(text)


def _parameter_schemas(tools: Sequence[Mapping[str, Any]]) -> _Schemas:
    functions = [tool.get("function", tool) for tool in tools]
    return {
        str(function.get("name")): (function.get("parameters") or {}).get("properties") or {}
        for function in functions
    }


def _find_marked(text: str, schemas: _Schemas) -> FoundCalls:
    """Calls between ``<tool_call>`` marks."""
    bodies = [match[1] for match in _TOOL_CALL.finditer(text)][:MAX_CALLS]
    return _collect(_TOOL_CALL.sub("", text), [_read_marked(body.strip(), schemas) for body in bodies])


def _read_marked(body: str, schemas: _Schemas) -> Call | None:
    """Call by a mark for each argument, else by JSON; None if one is cut off."""
    if body.startswith("<function="):
        match = _FUNCTION.fullmatch(body)
        if not match or body.count("<parameter=") != body.count("</parameter>"):
            return None
        return _typed_call(match[1], _PARAMETER.findall(match[2]), schemas)
    if "<arg_key>" in body or re.fullmatch(r"[\w.-]+", body):
        if body.count("<arg_key>") != body.count("</arg_value>"):
            return None
        return _typed_call(body.partition("<arg_key>")[0].strip(), _ARGUMENT.findall(body), schemas)
    return _read_object(_load(body))


def _typed_call(name: str, written: Sequence[tuple[str, str]], schemas: _Schemas) -> Call | None:
    """Call whose arguments are plain text: JSON where it is some, unless the tool's schema asks for text."""
    properties = schemas.get(name, {})
    arguments = {}
    for key, text in written:
        schema = properties.get(key.strip())
        is_text = isinstance(schema, Mapping) and schema.get("type") == "string"
        value = _NOTHING if is_text else _load(text.strip())
        arguments[key.strip()] = text if value is _NOTHING else value
    return Call.read(name, arguments)


def _find_mistral(text: str) -> FoundCalls | None:
    before, *parts = text.split(_MISTRAL)
    if not parts:
        return None
    calls: list[Call | None] = []
    for part in parts[:MAX_CALLS]:
        value = _load(part.strip())
        if isinstance(value, list):
            calls += map(_read_object, value)
            continue
        name, _, arguments = re.sub(r"\[CALL_ID\][^\[{]*", "", part).replace("[ARGS]", "").partition("{")
        calls.append(Call.read(name, "{" + arguments.strip()))
    return _collect(before, calls)


def _find_granite(text: str) -> FoundCalls | None:
    before, *parts = _GRANITE.split(text)
    return _collect(before, list(_read_values("".join(parts)))) if parts else None


def _find_deepseek(text: str) -> FoundCalls | None:
    if _DEEPSEEK_BEGIN not in text:
        return None
    calls = []
    for match in _DEEPSEEK.finditer(text):
        head, _, tail = match[1].partition(_DEEPSEEK_SEPARATOR)
        block = _CODE_BLOCK.search(tail)
        # Version 3 writes the type first and arguments in a block, later ones name and arguments alone.
        name, arguments = (tail[: block.start()], block[1]) if block else (head, tail)
        calls.append(Call.read(name, arguments))
    return _collect(_DEEPSEEK_FRAME.sub("", _DEEPSEEK.sub("", text)), calls[:MAX_CALLS])


def _find_gemma(text: str) -> FoundCalls | None:
    bodies = [match[1].strip() for match in _GEMMA.finditer(text)]
    return (
        _collect(_GEMMA.sub("", text), [_read_gemma(body) for body in bodies[:MAX_CALLS]]) if bodies else None
    )


def _read_gemma(body: str) -> Call | None:
    """Call with keys without quotes, and texts between quotes of Gemma's own."""
    match = _GEMMA_CALL.fullmatch(body)
    if not match:
        return None
    parts = match[2].split(_GEMMA_QUOTE)
    written = [
        json.dumps(part) if index % 2 else _GEMMA_KEY.sub(r'\1"\2":', part)
        for index, part in enumerate(parts)
    ]
    return Call.read(match[1], "".join(written)) if len(parts) % 2 else None


def _find_lfm(text: str) -> FoundCalls | None:
    bodies = [match[1].strip() for match in _LFM.finditer(text)]
    if not bodies:
        return None
    found = [_read_python_list(body) for body in bodies[:MAX_CALLS]]
    return _collect(_LFM.sub("", text), [call for calls in found for call in calls])


def _find_python(text: str) -> FoundCalls | None:
    """A list of calls in Python's syntax as the whole answer."""
    stripped = _PYTHON_MARKS.sub("", text).strip()
    return _collect("", _read_python_list(stripped)) if _PYTHON_LIST.fullmatch(stripped) else None


def _read_python_list(text: str) -> list[Call | None]:
    """Calls in Python's syntax with literals as arguments; one that can't be read for text that is no list."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the model's text
            expression = ast.parse(text[:_LONGEST_PYTHON], mode="eval").body
        nodes = expression.elts if isinstance(expression, ast.List) else []
        return [_read_python(node) for node in nodes[:MAX_CALLS]] or [None]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [None]


def _read_python(node: ast.expr) -> Call | None:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        return None
    values = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
    return Call(ast.unparse(node.func), values)


def _find_objects(text: str) -> FoundCalls | None:
    """Objects with ``name`` and ``parameters`` or ``arguments`` as the whole answer, as Llama 3 writes them."""
    marked = "<|python_tag|>" in text
    stripped = _PYTHON_MARKS.sub("", text).strip()
    calls: list[Call | None] = [None] if marked else []
    if stripped.startswith(("{", "[")):
        calls = list(_read_values(stripped))
    if not marked and (not calls or None in calls):
        return None
    return _collect("", calls)


def _read_values(text: str) -> Iterator[Call | None]:
    """Calls in JSON values that stand one after another, with ``;``, commas or blanks between them."""
    decoder = json.JSONDecoder()
    position = 0
    for _ in range(MAX_CALLS):
        while position < len(text) and (text[position].isspace() or text[position] in ";,"):
            position += 1
        if position >= len(text):
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            yield None
            return
        yield from map(_read_object, value if isinstance(value, list) else [value])


def _read_object(value: Any) -> Call | None:
    """Call of an object with a name and arguments."""
    if not isinstance(value, dict):
        return None
    if "function" in value:
        return Call.read_openai(value)
    arguments = value.get("arguments", value.get("parameters", _NOTHING))
    return None if arguments is _NOTHING else Call.read(value.get("name"), arguments)


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOTHING


def _collect(text: str, calls: list[Call | None]) -> FoundCalls:
    good = tuple(call for call in calls if call is not None)
    return FoundCalls(text.strip(), good, len(calls) - len(good))


_FORMATS: tuple[Callable[[str], FoundCalls | None], ...] = (
    _find_gemma,
    _find_lfm,
    _find_mistral,
    _find_granite,
    _find_deepseek,
    _find_python,
    _find_objects,
)
