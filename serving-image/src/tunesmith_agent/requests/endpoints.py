"""Fields that a request may have, by endpoint: what is not listed is refused, with the name that is meant.

A field without a check is passed on as it is: the engine checks it, and whatever it is costs no other client anything.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith_agent.http.messages import Refusal

from .bounds import (
    Check,
    Refused,
    count_prompts,
    flags,
    integer,
    integers,
    items,
    members,
    only,
    prompts,
    text,
    texts,
)
from .media import input_check, messages_check
from .schemas import (
    check_response_format,
    check_strict_tools,
    check_structured_outputs,
    check_text_settings,
    check_tools,
)
from .switches import check_switches

CHAT, COMPLETIONS = b"/v1/chat/completions", b"/v1/completions"
EMBEDDINGS, RESPONSES = b"/v1/embeddings", b"/v1/responses"
#: Endpoints that every engine has which generates text; the others only some.
ALWAYS_OFFERED = frozenset({CHAT, COMPLETIONS})

#: Answers to one request together, which the engine generates side by side.
MAX_ANSWERS = 64
MAX_N = 16
MAX_INPUTS = 1_024
MAX_TOKENS = 10_485_760
MAX_LOG_PROBS = 20

_NOT_KEPT = "no pod keeps answers or conversations; send the whole conversation with each request"
_TEMPLATE = "conversations are rendered as the version was trained and evaluated"
_INTERNAL = "it steers parts of the engine that clients have nothing to do with"
_ANOTHER_FORM = "write structured_outputs, or response_format with a JSON schema"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the engine.

    Attributes:
        fields: check of each field that may be given; None: passed on as it is.
        combined: check of fields together; the name of the field and what is wrong, or nothing.
        fixed: fields that are set, whatever the client says.
        switches: name of the field with the switches of the chat template; empty where there is no template.
    """

    fields: Mapping[str, Check | None]
    combined: Callable[[dict[str, Any]], tuple[str, str] | None] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    switches: str = ""

    def check(self, body: dict[str, Any]) -> Refusal | None:
        """Refusal of a body with a field that is not served, or out of its bounds; None if there is none."""
        fields = self.fields
        for name, value in body.items():
            if value is None:
                continue
            if name not in fields:
                return self._refuse_unknown(name)
            check = fields[name]
            if check is not None and (problem := check(value)):
                return Refusal(400, f"{name} {problem}.", param=name)
        if self.combined is not None and (found := self.combined(body)):
            return Refusal(400, f"{found[0]} {found[1]}.", param=found[0])
        return None

    def _refuse_unknown(self, name: str) -> Refusal:
        served = [known for known, check in self.fields.items() if not isinstance(check, Refused)]
        close = difflib.get_close_matches(name[:64], served, 1)
        advice = f"write {close[0]}" if close else "leave it out"
        return Refusal(
            400, f"{name[:64]!r} is not known here: {advice}.", code="unknown_parameter", param=name[:64]
        )


#: Fields that all endpoints share: the name of the model, and what says who asks.
_COMMON: dict[str, Check | None] = {
    "model": None,
    "user": text(1_024),
    "priority": only(0),
    "cache_salt": text(128),
    "request_id": Refused("send the header x-request-id"),
    "session_id": Refused("the header x-tunesmith-key keeps a client on one version"),
    "mm_processor_kwargs": Refused(_INTERNAL),
    "media_io_kwargs": Refused(_INTERNAL),
}

#: Fields of all endpoints that generate text.
_GENERATION: dict[str, Check | None] = {
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "min_p": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "repetition_penalty": None,
    "seed": None,
    "stream": only(True, False),
    "stream_options": flags(8),
    "stop": texts(16, 256),
    "stop_token_ids": integers(64),
    "ignore_eos": None,
    "include_stop_str_in_output": None,
    "skip_special_tokens": None,
    "logit_bias": members(1_024),
    "structured_outputs": check_structured_outputs,
    "prompt_cache_key": text(1_024),
    "prompt_cache_retention": None,
    "prompt_cache_options": None,
    "safety_identifier": text(1_024),
    "service_tier": only("auto", "default"),
    "metadata": members(64),
    "store": only(False),
    "prompt_logprobs": Refused("the engine computes no log-probabilities of prompts for clients"),
    "prompt_embeds": Refused("send the prompt as text or token IDs"),
    "kv_transfer_params": Refused(_INTERNAL),
    "ec_transfer_params": Refused(_INTERNAL),
    "vllm_xargs": Refused(_INTERNAL),
    "logits_processors": Refused("it would run code in the engine"),
    **{
        name: Refused(_ANOTHER_FORM)
        for name in (
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "guided_decoding_backend",
            "guided_whitespace_pattern",
        )
    },
}

#: Fields of endpoints that cut a prompt that is too long.
_TRUNCATION: dict[str, Check | None] = {
    "truncate_prompt_tokens": integer(-1, MAX_TOKENS),
    "truncation_side": None,
    "add_special_tokens": None,
}

#: Fields of both kinds of completions.
_COMPLETION: dict[str, Check | None] = {
    **_TRUNCATION,
    "n": integer(1, MAX_N),
    "max_tokens": integer(0, MAX_TOKENS),
    "min_tokens": integer(0, MAX_TOKENS),
    "response_format": check_response_format,
    "allowed_token_ids": integers(1_024),
    "bad_words": texts(64, 128),
    "logprob_token_ids": integers(MAX_LOG_PROBS),
    "thinking_token_budget": integer(-1, MAX_TOKENS),
    "spaces_between_special_tokens": None,
    "stream_interval": integer(1, 1_000),
    "return_token_ids": None,
    "return_tokens_as_token_ids": None,
    "use_beam_search": only(False),
    "length_penalty": None,
}

#: Fields of endpoints that render conversations.
_CONVERSATION: dict[str, Check | None] = {
    "tools": check_tools,
    "tool_choice": None,
    "parallel_tool_calls": None,
    "top_logprobs": integer(0, MAX_LOG_PROBS),
    "include_reasoning": None,
    "chat_template": Refused(_TEMPLATE),
    "chat_template_kwargs": check_switches,
}


def build_endpoints(media_hosts: Iterable[str]) -> dict[bytes, Endpoint]:
    """Endpoints by path.

    Args:
        media_hosts: hosts that the engine may fetch images, audio and video from.
    """
    hosts = frozenset(media_hosts)
    return {
        CHAT: _build_chat(hosts),
        COMPLETIONS: _build_completions(),
        RESPONSES: _build_responses(hosts),
        EMBEDDINGS: _build_embeddings(),
    }


def _build_chat(hosts: frozenset[str]) -> Endpoint:
    fields = {
        **_COMMON,
        **_GENERATION,
        **_COMPLETION,
        **_CONVERSATION,
        "messages": messages_check(hosts),
        "max_completion_tokens": integer(0, MAX_TOKENS),
        "logprobs": None,
        "reasoning_effort": text(16),
        "verbosity": only("medium"),
        "modalities": only(["text"]),
        "prediction": None,
        "documents": items(64),
        "add_generation_prompt": None,
        "continue_final_message": None,
        "return_prompt_text": None,
        "echo": only(False),
        "audio": Refused("the engine answers with text"),
        "functions": Refused("write tools"),
        "function_call": Refused("write tool_choice"),
        "web_search_options": Refused("the engine calls no tools itself"),
        "moderation": Refused("the engine knows none"),
    }
    return Endpoint(fields, _check_tools, switches="chat_template_kwargs")


def _build_completions() -> Endpoint:
    fields = {
        **_COMMON,
        **_GENERATION,
        **_COMPLETION,
        "prompt": prompts(MAX_ANSWERS),
        "best_of": only(1),
        "logprobs": integer(0, MAX_LOG_PROBS),
        "echo": None,
        "suffix": only(""),
    }
    return Endpoint(fields, _check_completion)


def _build_responses(hosts: frozenset[str]) -> Endpoint:
    fields = {
        **_COMMON,
        **_GENERATION,
        **_CONVERSATION,
        "input": input_check(hosts),
        "instructions": None,
        "include": items(16),
        "max_output_tokens": integer(0, MAX_TOKENS),
        "max_tool_calls": integer(0, MAX_TOKENS),
        "reasoning": members(8),
        "text": check_text_settings,
        "truncation": None,
        "background": only(False),
        "stream_options": only({"include_obfuscation": False}),
        "previous_response_id": Refused(_NOT_KEPT),
        "previous_input_messages": Refused("send messages in input"),
        "conversation": Refused(_NOT_KEPT),
        "prompt": Refused(_NOT_KEPT),
        "context_management": Refused(_NOT_KEPT),
        "moderation": Refused("the engine knows none"),
        "access_programs": Refused("the engine knows none"),
        "image": Refused("the engine answers with text"),
    }
    # The engine's own default is to keep the answer, in the memory of one pod.
    return Endpoint(fields, _check_tools, fixed={"store": False}, switches="chat_template_kwargs")


def _build_embeddings() -> Endpoint:
    fields = {
        **_COMMON,
        **_TRUNCATION,
        "input": prompts(MAX_INPUTS),
        "dimensions": integer(1, 65_536),
        "encoding_format": only("float", "base64"),
        "messages": Refused("write input"),
    }
    return Endpoint(fields)


def _check_tools(body: dict[str, Any]) -> tuple[str, str] | None:
    problem = check_strict_tools(body) if "tools" in body else ""
    return ("tools", problem) if problem else None


def _check_completion(body: dict[str, Any]) -> tuple[str, str] | None:
    answers = count_prompts(body.get("prompt")) * (body.get("n") or 1)
    if answers > MAX_ANSWERS:
        return "n", f"times the number of prompts must be at most {MAX_ANSWERS}"
    # In one batch with any other request, log-probabilities of a prompt crash the engine on CPUs.
    if body.get("echo") and (body.get("logprobs") is not None or body.get("max_tokens") == 0):
        return (
            "echo",
            "is not served with logprobs, or with max_tokens: 0: prompts have no log-probabilities here",
        )
    return None
