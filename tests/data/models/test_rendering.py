"""Rendering: exactly the answer's tokens are marked, under every kind of chat template."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from models.tiny_models import CHAT_TEMPLATE, make_tokenizer
from trl.chat_template_utils import qwen2_5_chat_template

from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer, RenderError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETS = (
    "{% for message in messages %}{% if loop.last or message['role'] != 'assistant' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES = "{{ raise_exception('roles must alternate') }}"
TEXTS = ["good day", "grüß dich", "bye now"]
ROW = {
    "messages": [
        {"role": "system", "content": "be nice"},
        {"role": "user", "content": "good day"},
        {"role": "assistant", "content": "grüß dich"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": " bye now"},
    ]
}


def decode(rendered: Renderer, ids: Sequence[int]) -> str:
    """The text of one row's tokens."""
    text = rendered.tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text


def renderer(template: str | None, *, answers_only: bool = True) -> Renderer:
    return Renderer(make_tokenizer(TEXTS, template), answers_only=answers_only)


@pytest.mark.parametrize(
    "template", [CHAT_TEMPLATE, CHATML, qwen2_5_chat_template], ids=["own", "prefix", "trl"]
)
def test_answers_are_the_assistants_words_and_their_end(template: str) -> None:
    rendered = renderer(template)
    rendered.require_chat()
    tokens = rendered.tokens(ROW)
    learned = [token for token, answer in zip(tokens.ids, tokens.answer, strict=True) if answer]
    # TRL's templates count the line breaks around a turn to it.
    assert decode(rendered, learned).replace("\n", "") == "grüß dich<|im_end|> bye now<|im_end|>"
    assert [label for label in tokens.labels(True) if label != -100] == learned
    assert tokens.labels(False) == tokens.ids


def test_prompt_is_what_stands_before_the_answer() -> None:
    rendered = renderer(CHATML)
    prompt = rendered.tokenizer(rendered.prompt(ROW["messages"][:-1]), add_special_tokens=False)["input_ids"]
    tokens = rendered.tokens(ROW)
    assert tokens.ids[: len(prompt)] == prompt
    assert tokens.answer[len(prompt)]


def test_a_template_whose_answers_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(UserError, match="assistantOnlyLoss"):
        renderer(FORGETS).require_chat()
    assert all(renderer(FORGETS, answers_only=False).tokens(ROW).answer)


def test_templates_that_are_missing_or_refuse() -> None:
    with pytest.raises(UserError, match="no chat template"):
        renderer(None).require_chat()
    with pytest.raises(RenderError, match="alternate"):
        renderer(REFUSES).tokens(ROW)
    with pytest.raises(UserError, match="alternate"):
        renderer(REFUSES).require_chat()


def test_plain_text_learns_completion_and_end() -> None:
    rendered = renderer(None)
    tokens = rendered.tokens({"prompt": "good day: ", "completion": "bye now"})
    learned = [token for token, answer in zip(tokens.ids, tokens.answer, strict=True) if answer]
    assert rendered.tokenizer.decode(learned) == "bye now<|im_end|>"
    assert rendered.tokenizer.decode(tokens.ids) == "good day: bye now<|im_end|>"


THINKS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SAID = [{"role": "assistant", "content": "grüß dich"}]
CALL = {"role": "assistant", "content": "one moment"}
RESULT = {"role": "tool", "content": "42"}


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHATML, FORGETS, THINKS], ids=str)
@pytest.mark.parametrize(("key", "extra"), [("completion", {}), ("chosen", {"rejected": SAID})])
def test_of_a_completion_only_what_follows_the_prompt_is_learned(
    template: str, key: str, extra: dict[str, object]
) -> None:
    rendered = renderer(template)
    rendered.require_chat(every_turn=False)
    prompt = ROW["messages"][:-1]
    tokens = rendered.tokens({"prompt": prompt, key: SAID, **extra})
    learned = [token for token, answer in zip(tokens.ids, tokens.answer, strict=True) if answer]
    assert rendered.tokenizer.decode(learned) == "grüß dich<|im_end|>"
    assert tokens.answered[tokens.start :] == learned
    assert decode(rendered, tokens.ids[: tokens.start]).endswith("bye<|im_end|>\n<|im_start|>assistant\n")


def test_of_several_messages_only_the_assistants_are_learned() -> None:
    rendered = renderer(CHATML)
    row = {"prompt": ROW["messages"][:-1], "completion": [CALL, RESULT, *SAID]}
    tokens = rendered.tokens(row)
    learned = [token for token, answer in zip(tokens.ids, tokens.answer, strict=True) if answer]
    assert rendered.tokenizer.decode(learned) == "one moment<|im_end|>grüß dich<|im_end|>"


def test_a_prompt_ends_where_the_assistant_is_to_speak_and_text_with_its_end() -> None:
    rendered = renderer(CHATML)
    prompt = rendered.tokens({"prompt": ROW["messages"][:2]})
    assert decode(rendered, prompt.ids).endswith("<|im_start|>assistant\n")
    assert prompt.start == len(prompt.ids)
    text = rendered.tokens({"text": "good day"})
    assert rendered.tokenizer.decode(text.ids) == "good day<|im_end|>"
    assert all(text.answer)


#: Marks of the template among the words: what a row says is no mark, or is one, for both ways of counting alike.
WORDS = st.text(max_size=20) | st.sampled_from(
    ["good day", "<|im_end|>", "<|im_start|>user\n", "  \n", "grüß dich 👍"]
)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)


def chat(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]


ROWS = st.lists(
    TURNS.map(lambda turns: {"messages": chat(turns)})
    | st.builds(lambda prompt, said: {"prompt": prompt, "completion": said}, WORDS, WORDS)
    | TURNS.map(lambda turns: {"prompt": chat(turns)[:-1], "completion": chat(turns)[-1:]})
    | TURNS.map(lambda turns: {"prompt": chat(turns)[:-1]})
    | WORDS.map(lambda text: {"text": text}),
    max_size=5,
)


@pytest.fixture(scope="module", params=[CHAT_TEMPLATE, CHATML], ids=["own", "prefix"])
def counting(request: pytest.FixtureRequest) -> Renderer:
    """A tokenizer whose file asks for short rows of one length."""
    rendered = renderer(request.param)
    rendered.tokenizer.backend_tokenizer.enable_truncation(4)
    rendered.tokenizer.backend_tokenizer.enable_padding(length=64)
    return rendered


@settings(max_examples=cases(200, 4000))
@given(ROWS)
def test_many_rows_are_counted_as_each_of_them_is(counting: Renderer, rows: list[Any]) -> None:
    assert counting.lengths(rows) == [len(counting.tokens(row).ids) for row in rows]


def test_nothing_of_a_file_that_asks_for_short_rows_is_taken_over(counting: Renderer) -> None:
    counting.tokenizer.backend_tokenizer.enable_truncation(4)
    counting.tokenizer.backend_tokenizer.enable_padding(length=1000)
    rows: list[dict[str, Any]] = [ROW, {"text": "good day " * 10}]
    lengths = [length for length in counting.lengths(rows) if isinstance(length, int)]
    assert lengths == [len(counting.tokens(row).ids) for row in rows]
    assert 4 < min(lengths) <= max(lengths) < 1000
