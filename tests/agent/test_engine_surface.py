"""Arguments, request fields and parsers of the installed vLLM, compared with those that were judged."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from simulation.serving_world import World, build_adapter

from tunesmith.api.engine_arguments import OWNED_ARGUMENTS, EngineArgument
from tunesmith.manifests.engine_container import NO_HOST, EngineNeeds, engine_arguments
from tunesmith_agent.requests.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, build_endpoints
from tunesmith_contract.answer_formats import (
    EQUIVALENT_PARSERS,
    REASONING_PARSERS,
    THINKING_TOKENS,
    TOOL_PARSERS,
    TOOL_TOKENS,
    ThinkingFormat,
    ToolFormat,
)

ENGINE_PYTHON = os.environ.get("TUNESMITH_ENGINE_PYTHON", "")
ARGUMENT = TypeAdapter(EngineArgument)
#: Arguments that were read and left to people, because they open and load nothing.
JUDGED = frozenset(Path(__file__).with_name("judged_engine_arguments.txt").read_text().split())

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not ENGINE_PYTHON, reason="TUNESMITH_ENGINE_PYTHON names no engine"),
]

_SURFACE = """
import json
import sys
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingCompletionRequest
from vllm.parser.parser_manager import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

requests = {
    "/v1/chat/completions": ChatCompletionRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/embeddings": EmbeddingCompletionRequest,
}


# Why the engine does not start with a parser for a tokenizer that has these tokens; empty if it does.
def find_problem(kind, parser, tokens):
    vocabulary = {token: number for number, token in enumerate(["a", *tokens])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")))
    try:
        ParserManager.get_parser(enable_auto_tools=True, tokenizer=tokenizer, **{kind: parser})
    except Exception as error:
        return str(error)
    return ""


parser = make_arg_parser(FlexibleArgumentParser())
arguments = parser.parse_args(json.loads(sys.argv[1]))
print(json.dumps({
    "parsed": {
        name: getattr(arguments, name)
        for name in ("allowed_media_domains", "tool_call_parser", "reasoning_parser", "enable_auto_tool_choice", "seed")
    },
    "paths": sorted(build_app(parser.parse_args([]), ("generate",)).openapi()["paths"]),
    "options": [action.option_strings for action in parser._actions if action.option_strings],
    "fields": {path: sorted(request.model_fields) for path, request in requests.items()},
    "problems": [find_problem(*start) for start in json.loads(sys.argv[2])],
    "tools": sorted(ToolParserManager.list_registered()),
    "reasoning": sorted(ReasoningParserManager.list_registered()),
}))
"""

#: Fields that vLLM ignores: they concern OpenAI's own service, or may only ask for what is so anyway.
IGNORED = frozenset(
    {
        "best_of",
        "metadata",
        "modalities",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "verbosity",
    }
)
_PARSERS = [
    *(("tool_parser_name", name, TOOL_TOKENS.get(form, ())) for form, name in TOOL_PARSERS.items()),
    *(
        ("reasoning_parser_name", name, THINKING_TOKENS.get(form, ()))
        for form, name in REASONING_PARSERS.items()
    ),
]
#: Starts with each parser: for a tokenizer with the tokens that it needs, and without them.
STARTS = [[(kind, name, sorted(tokens)), (kind, name, [])] for kind, name, tokens in _PARSERS]


@pytest.fixture(scope="module")
def surface() -> Any:
    engine = {"gpus": 1, "args": ["--seed=7"]}
    resource = World(build_adapter("one"), engine=engine).resource
    needs = EngineNeeds(tools=ToolFormat.HERMES, thinking=ThinkingFormat.SWITCHED_THINK)
    arguments = json.dumps(engine_arguments(resource, needs))
    starts = json.dumps([start for starts in STARTS for start in starts])
    run = subprocess.run(
        [ENGINE_PYTHON, "-c", _SURFACE, arguments, starts], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def is_refused(argument: str) -> bool:
    try:
        ARGUMENT.validate_python(argument)
    except ValidationError:
        return True
    return False


def test_the_operators_arguments_are_read_as_they_are_meant(surface: Any) -> None:
    assert surface["parsed"] == {
        "allowed_media_domains": [NO_HOST],
        "tool_call_parser": "hermes",
        "reasoning_parser": "qwen3",
        "enable_auto_tool_choice": True,
        "seed": 7,
    }


def test_every_argument_was_judged(surface: Any) -> None:
    """A later vLLM brings arguments that nobody has read."""
    long = {name[2:] for names in surface["options"] for name in names if name.startswith("--")}
    positive = {name for name in long if not (name.startswith("no-") and name[3:] in long)}
    refused = {name for name in positive if is_refused(f"--{name}")}
    assert positive - refused - JUDGED == set()
    assert refused & JUDGED == set()
    assert set(OWNED_ARGUMENTS) - long == {"omni"}
    assert JUDGED - positive == set()


def test_no_short_form_of_a_refused_argument(surface: Any) -> None:
    for names in surface["options"]:
        if any(is_refused(name) for name in names if name.startswith("--") and not name.startswith("--no-")):
            assert all(is_refused(name) for name in names if not name.startswith("--")), names


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS])
def test_every_field_that_is_passed_on_is_known(surface: Any, path: bytes) -> None:
    """What the engine does not know it would ignore in silence."""
    fields = build_endpoints([])[path].fields
    passed = {
        name
        for name, check in fields.items()
        if check is None or not check(object()).startswith("is not served")
    }
    assert passed - set(surface["fields"][path.decode()]) - IGNORED == set()


def test_every_parser_is_registered(surface: Any) -> None:
    named = set(EQUIVALENT_PARSERS) | {name for names in EQUIVALENT_PARSERS.values() for name in names}
    assert set(TOOL_PARSERS.values()) <= set(surface["tools"])
    assert set(REASONING_PARSERS.values()) <= set(surface["reasoning"])
    assert named <= set(surface["tools"]) | set(surface["reasoning"])


def test_each_parser_starts_where_its_tokens_are(surface: Any) -> None:
    """The engine does not start with a parser that it has by name alone: it may lack a package, or tokens."""
    problems = iter(surface["problems"])
    for (_, name, tokens), _ in STARTS:
        assert (name, next(problems)) == (name, "")
        assert (name, bool(next(problems))) == (name, bool(tokens))


def test_endpoints_are_found_in_the_engines_document(surface: Any) -> None:
    paths = set(surface["paths"])
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses"} <= paths
    assert "/v1/embeddings" not in paths
