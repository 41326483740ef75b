"""Requests to endpoints of the OpenAI API, and the replies in their responses."""

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any

from tunesmith_contract.evaluation import PricedEndpoint
from tunesmith_data.endpoints.chat import openai_message
from tunesmith_data.endpoints.client import EndpointBusy, UnexpectedResponse
from tunesmith_evaluation.items.requests import Problem, Reply, Request
from tunesmith_evaluation.metrics.answers import Answer
from tunesmith_evaluation.metrics.reading import read_answer, read_message

CHAT = "chat/completions"
COMPLETIONS = "completions"

#: Words by which servers say that a request is longer than the model's context.
_TOO_LONG = (
    "context_length_exceeded",
    "maximum context length",
    "context length",
    "too long",
    "max_model_len",
)
_FILTERED = ("content_filter", "content management policy", "content policy")
_FILTER = "content_filter"
#: Reasons by which servers say that an answer was cut at its longest length, and that it failed or was given up.
_CUT = frozenset({"length", "max_tokens", "model_length"})
_FAILED = frozenset({"error", "abort", "cancelled"})
_SHOWN_CHARACTERS = 200


def api_of(request: Request) -> str:
    """API that a request goes to: plain text is continued as it is, a conversation by the model's own template."""
    return CHAT if request.prompt.messages else COMPLETIONS


def api_url(base: str, api: str) -> str:
    """URL of an API below a base URL such as ``…/v1``; the URL of one of the APIs is taken as well."""
    root = base.rstrip("/")
    for suffix in (CHAT, COMPLETIONS):
        root = root.removesuffix(f"/{suffix}")
    return f"{root}/{api}"


def request_body(endpoint: PricedEndpoint, request: Request) -> dict[str, Any]:
    """Body of a request, with every decoding parameter that the API knows: none is left to the server's defaults."""
    decoding, prompt = request.decoding, request.prompt
    body: dict[str, Any] = {
        "model": endpoint.model,
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "frequency_penalty": 0,
        "presence_penalty": 0,
    }
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    if decoding.temperature > 0:
        # Servers differ in the widths that they take.
        body["seed"] = request.seed % 2**31
    if not prompt.messages:
        return body | {"prompt": prompt.text}
    body["messages"] = [openai_message(dict(message)) for message in prompt.messages]
    if prompt.tools:
        body["tools"] = [dict(tool) for tool in prompt.tools]
    if prompt.template_arguments:
        body["chat_template_kwargs"] = dict(prompt.template_arguments)
    return body


def read_response(request: Request, response: Any, seconds: float | None, name: str) -> Reply:
    """Reply in a response; an answer that a filter held back is a problem of this request alone.

    Args:
        request: the request.
        response: the endpoint's JSON.
        seconds: time from the request to the response; None if unknown.
        name: the endpoint's name in messages.

    Raises:
        UnexpectedResponse: the response does not follow OpenAI's protocol.
        EndpointBusy: the endpoint gave the answer up.
    """
    choice, content = _first_choice(request, response, name)
    prompt_tokens, completion_tokens, thinking_tokens = _usage(response)
    finish = choice.get("finish_reason")
    if finish in _FAILED:
        raise EndpointBusy(f"the answer ended by finish_reason {finish}")
    problem = _problem(content, finish)
    if problem:
        return Reply(request, None, Problem.UNANSWERED, problem, prompt_tokens)
    answer = _read_content(request, content, truncated=finish in _CUT)
    if completion_tokens is not None:
        thinking = min(thinking_tokens, completion_tokens)
        answer = answer.with_usage(thinking_tokens=thinking, answer_tokens=completion_tokens - thinking)
    return Reply(request, answer.with_usage(seconds=seconds), prompt_tokens=prompt_tokens)


def _first_choice(request: Request, response: Any, name: str) -> tuple[Mapping[str, Any], Any]:
    """First choice of a response, and its message or text.

    Raises:
        UnexpectedResponse: there is none.
    """
    member = "message" if request.prompt.messages else "text"
    kinds: tuple[type, ...] = (Mapping,) if request.prompt.messages else (str, NoneType)
    try:
        choice = response["choices"][0]
        content = choice[member]
    except (KeyError, IndexError, TypeError):
        choice, content = None, ...
    if not isinstance(choice, Mapping) or not isinstance(content, kinds):
        shown = json.dumps(response, ensure_ascii=False)[:_SHOWN_CHARACTERS]
        message = f"{name} gives no choices[0].{member} ({shown}): use an endpoint with the OpenAI API"
        raise UnexpectedResponse(message)
    return choice, content


def _problem(content: Any, finish: Any) -> str:
    """Reason why a choice is no answer of the model; empty if it is one."""
    if finish == _FILTER:
        return "the endpoint's content filter held the answer back"
    if content is None:
        return "the endpoint gives no text"
    if isinstance(content, Mapping) and finish not in _CUT:
        given = (
            content.get(member) for member in ("tool_calls", "refusal", "reasoning_content", "reasoning")
        )
        if content.get("content") is None and not any(given):
            return "the endpoint gives a message without content"
    return ""


def read_refusal(request: Request, message: str) -> Reply:
    """Reply to a request that the endpoint rejects (400, 413, 422).

    Args:
        message: status and response of the endpoint.
    """
    lower = message.lower()
    if any(words in lower for words in _FILTERED):
        return Reply(request, None, Problem.UNANSWERED, f"the endpoint's content filter: {message}")
    problem = Problem.TOO_LONG if any(words in lower for words in _TOO_LONG) else Problem.UNANSWERED
    return Reply(request, None, problem, f"the endpoint rejects the request: {message}")


def _read_content(request: Request, content: Any, *, truncated: bool) -> Answer:
    """Answer in a choice; a refusal in a field of its own is what the model answers.

    Where an endpoint gives thoughts alone, or nothing at all up to the longest length (some hide thoughts), thinking
    never ended.
    """
    tools = request.prompt.tools
    if not isinstance(content, Mapping):
        answer = read_answer(content, tools=tools, truncated=truncated)
    else:
        refusal = content.get("refusal")
        if not content.get("content") and not content.get("tool_calls") and isinstance(refusal, str):
            content = {**content, "content": refusal}
        answer = read_message(content, tools=tools, truncated=truncated)
    is_silent = not answer.text.strip() and not answer.calls_tools
    return answer.with_usage(complete=answer.complete and not (is_silent and (truncated or answer.thinking)))


def _usage(response: Any) -> tuple[int | None, int | None, int]:
    """Tokens of the prompt, of the whole answer, and of its thinking; None where the endpoint doesn't tell."""
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None, None, 0
    details = usage.get("completion_tokens_details")
    thinking = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), thinking or 0


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
