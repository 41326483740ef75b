"""Prompts and examples: no tested question is shown, nor a near copy of one."""

from typing import Any

import pytest

from tunesmith_contract.evaluation import Decoding, Side
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.examples import ExamplePool
from tunesmith_evaluation.items.item import make_item
from tunesmith_evaluation.items.prompts import build_prompt, choose_separator, decoding_of

SEED = 5


def chat(question: str, answer: str = "x", system: str = "", **more: Any) -> dict[str, Any]:
    """Chat row."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *turns] if system else turns, **more}


def text(question: str, answer: str = "x") -> dict[str, Any]:
    """Row of plain text."""
    return {"prompt": question, "completion": answer}


LONG = "The delivery of the blue hinges to hall {} was two days late, and the customer asks for a refund of the postage"


def test_prompt_has_the_sides_system_prompt_then_examples_then_passages_then_the_question() -> None:
    item = make_item(chat("and 3 4", system="item's own"), passages={"found": ("first", "second")})
    example = make_item(chat("sort 1 2", "done", system="example's"))
    own = build_prompt(item, Side(name="a"), [example])
    assert [(turn["role"], turn["content"]) for turn in own.messages] == [
        ("system", "item's own"),
        ("user", "sort 1 2"),
        ("assistant", "done"),
        ("user", "and 3 4"),
    ]
    side = Side(
        name="b",
        system_prompt="side's",
        context_column="found",
        template_arguments={"enable_thinking": False},
    )
    other = build_prompt(item, side)
    assert [turn["content"] for turn in other.messages] == ["side's", "first\n\nsecond\n\nand 3 4"]
    assert other.template_arguments == {"enable_thinking": False}


def test_plain_text_has_examples_that_end_at_the_separator() -> None:
    item, example = make_item(text("2+2=", "4")), make_item(text("1+1=", "2"))
    prompt = build_prompt(item, Side(name="a", system_prompt="Add."), [example])
    assert (prompt.text, prompt.messages) == ("Add.\n\n1+1=2\n\n2+2=", ())


@pytest.mark.parametrize(
    ("row", "examples", "stop", "expected"),
    [
        (text("2+2=", "4"), 2, (), ("\n\n",)),
        (text("2+2=", "4"), 0, (), ()),
        (text("2+2=", "4"), 2, ("###",), ("###",)),
        (text("write", "one\n\ntwo"), 2, (), ("\n\n###\n\n",)),
        (chat("2+2"), 2, (), ()),
    ],
)
def test_an_answer_to_plain_text_ends_where_the_next_example_would_begin(
    row: dict[str, Any], examples: int, stop: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert decoding_of(Decoding(stop=stop), [make_item(row)], examples).stop == expected


def test_answers_that_contain_every_separator_are_refused() -> None:
    with pytest.raises(UserError, match="write messages"):
        choose_separator([make_item(text("write", "one\n\n###\n\ntwo"))])


def test_no_example_is_a_tested_question_whatever_the_systems_message() -> None:
    tested = [make_item(chat("which hall holds hinges", "4", system="You are a clerk."))]
    pool = [
        chat("which hall holds hinges", "4"),
        chat("which hall holds hinges", "other answer", system="Another."),
        chat("Which hall holds hinges?", "4"),
        chat("which hall holds bolts", "5"),
    ]
    (example,) = ExamplePool(pool, tested, SEED).draw(1, tested)
    assert example.question.text == "which hall holds bolts"
    with pytest.raises(UserError, match="asks for 2 examples, but fewShotFrom holds 1"):
        ExamplePool(pool, tested, SEED).draw(2, tested)


def test_no_example_is_nearly_a_tested_question_or_quotes_one() -> None:
    tested = [make_item(chat(LONG.format(4)))]
    near = LONG.format(4).replace("two days", "two days or so")
    pool = [
        chat(near),
        chat(f"Please translate: {LONG.format(4)}. Thank you very much."),
        chat("something else"),
    ]
    assert [example.question.text for example in ExamplePool(pool, tested, SEED).draw(1, tested)] == [
        "something else"
    ]
    with pytest.raises(UserError, match="holds 1 conversations"):
        ExamplePool(pool, tested, SEED).draw(2, tested)


def test_examples_depend_on_content_and_seed_alone() -> None:
    tested = [make_item(chat("tested"))]
    pool = [chat(f"question number {number} about stock") for number in range(40)]
    drawn = ExamplePool(pool, tested, SEED).draw(4, tested)
    assert drawn == ExamplePool(pool[::-1], tested, SEED).draw(4, tested)
    assert drawn[:2] == ExamplePool(pool, tested, SEED).draw(2, tested)
    assert drawn != ExamplePool(pool, tested, SEED + 1).draw(4, tested)
    assert ExamplePool([], tested, SEED).draw(0, tested) == []


def test_examples_have_an_answer_and_the_form_and_tools_of_the_items() -> None:
    tool, other = ({"type": "function", "function": {"name": name}} for name in ("one", "two"))
    pool: list[dict[str, Any]] = [
        {"prompt": "preferred", "chosen": "good", "rejected": "bad"},
        {"prompt": "bad answer", "completion": "bad", "label": False},
        {"prompt": "rewarded", "answer": "reference"},
        {"prompt": "no answer"},
        {"text": "a document"},
        chat("with a tool", tools=[tool]),
        chat("with another", tools=[other]),
        {"messages": [{"role": "user", "content": "nobody answers"}]},
    ]
    plain = [make_item(text("tested"))]
    drawn = ExamplePool(pool, plain, SEED).draw(2, plain)
    assert {(example.text, example.expected.text) for example in drawn} == {
        ("preferred", "good"),
        ("rewarded", "reference"),
    }
    with_tool = [make_item(chat("tested", tools=[tool])), make_item(chat("tested too", tools=[tool, other]))]
    shown = ExamplePool(pool, with_tool, SEED).draw(3, with_tool)
    assert {example.question.text for example in shown} == {"preferred", "rewarded", "with a tool"}
    with pytest.raises(UserError, match="holds 3"):
        ExamplePool(pool, with_tool, SEED).draw(4, with_tool)
