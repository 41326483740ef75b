"""Arguments of the engine that people may not write, in every spelling of vLLM's parser."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunesmith.api.adapterdeployment import Adapter, Engine
from tunesmith.api.engine_arguments import OWNED_ARGUMENTS, EngineArgument

ARGUMENT = TypeAdapter(EngineArgument)


def is_refused(argument: str) -> bool:
    try:
        ARGUMENT.validate_python(argument)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize(
    "arguments",
    [
        ("--enforce-eager", "--dtype", "float32", "--max-num-seqs=8"),
        ("-O3", "-O", "2", "-q", "fp8", "-ep", "--seed", "-1"),
        ('--compilation-config={"level": 3}', "--attention-config.backend=FLASHINFER"),
        ("--spec-method=ngram", "--spec-tokens=3", "--kv_cache_dtype", "fp8"),
    ],
)
def test_what_may_be_written(arguments: tuple[str, ...]) -> None:
    assert Engine(args=arguments).args == arguments


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("-dpa", "Write the long form"),
        ("-n5", "Write the long form"),
        ("-asc=4", "Write the long form"),
        ("-sc", "Write the long form"),
        ("--", "set from other fields"),
        ("--chat-template=/etc/passwd", "set from other fields"),
        ("--tool-call-p=x", "engine.toolCallParser"),
        ('--compilation-config={"cache_dir": "/x"}', "names files or code"),
        ("--compilation-config.debug_dump_path=/x", "names files or code"),
        ('{"inductor_passes": {"a": "os.system"}}', "names files or code"),
        ('{"cache\\u005fdir": "/x"}', "names files or code"),
    ],
)
def test_what_may_not_be_written(argument: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Engine(args=("--enforce-eager", argument))


@given(data=st.data(), owned=st.sampled_from(OWNED_ARGUMENTS))
def test_every_spelling_is_refused(data: st.DataObject, owned: str) -> None:
    """Whole or cut short, with dashes or underscores, with a value or a member behind it."""
    length = data.draw(st.integers(1, len(owned)))
    letters = [data.draw(st.sampled_from("-_")) if letter == "-" else letter for letter in owned[:length]]
    behind = data.draw(st.sampled_from(["", "=", "=x", ".a.b=x", ".a", ".a+=x", "=a.b=c"]))
    assert is_refused(f"--{''.join(letters)}{behind}")


@pytest.mark.parametrize("host", ["images.example.com", "10.0.0.1", "a-b.example"])
def test_hosts_of_media(host: str) -> None:
    assert Engine(media_hosts=(host,)).media_hosts == (host,)


@pytest.mark.parametrize(
    "host", ["https://example.com", "example.com/x", "example.com:80", "Example.com", "", "*.x.org"]
)
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValidationError, match="Write the name of a host"):
        Engine(media_hosts=(host,))


def test_no_alias_is_the_base_model() -> None:
    source: Any = {"uri": "pvc://artifacts/sha256/x", "digest": f"sha256:{'a' * 64}"}
    with pytest.raises(ValidationError, match="write another name"):
        Adapter(name="base", source=source)
    with pytest.raises(ValidationError, match="Write the name that clients send"):
        Adapter(name="expenses@0123456789ab", source=source)
