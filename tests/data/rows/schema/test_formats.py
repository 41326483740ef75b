"""Row formats: detection, checks, canonical form, and round trip through Parquet."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from long_form import cases
from rows.stored_rows import store_rows

from tunesmith_contract.methods import Method
from tunesmith_contract.sources import DataFormat
from tunesmith_data.failures import DataError
from tunesmith_data.rows.reading import read_source
from tunesmith_data.rows.reading.text_passages import divide_lines
from tunesmith_data.rows.schema.canonical import canonical_row
from tunesmith_data.rows.schema.formats import ANY, EVALUATION, Purpose, detect_format, purpose_of
from tunesmith_data.rows.schema.row_checks import check_row
from tunesmith_data.rows.table.parquet import read_rows

USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "hello"}, {"role": "assistant", "content": "go away"}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
RESULT = {"role": "tool", "content": "1"}
TEXTS = {"prompt": "hi", "chosen": "hello", "rejected": "go away"}
TURNS = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
REWARDS = [{"name": "exact", "exact": {}}]


def purpose(key: str) -> Purpose:
    members: dict[str, Any] = {
        "grpo": {"rewards": REWARDS},
        "distillation": {"teacher": {"uri": "pvc://models/large"}},
    }
    return purpose_of(Method.model_validate({key: members.get(key, {})}))


@pytest.mark.parametrize(
    ("key", "row", "expected"),
    [
        ("sft", {"prompt": "a", "completion": "b", "label": True}, DataFormat.PROMPT_COMPLETION),
        ("kto", {"prompt": "a", "completion": "b", "label": True}, DataFormat.UNPAIRED_PREFERENCE),
        ("kto", TEXTS, DataFormat.PREFERENCE),
        ("dpo", TURNS, DataFormat.PREFERENCE),
        ("grpo", TEXTS, DataFormat.PROMPT),
        ("grpo", {"prompt": "a", "answer": "b", "text": "c"}, DataFormat.PROMPT),
        ("distillation", {"messages": [USER, GOOD]}, DataFormat.CHAT),
        ("pretraining", {"text": "a"}, DataFormat.TEXT),
        ("dpo", {"words": "a"}, None),
    ],
)
def test_auto_takes_what_the_method_learns_from(key: str, row: Any, expected: DataFormat | None) -> None:
    assert detect_format(row, purpose(key)) is expected


@pytest.mark.parametrize(
    ("written", "prompt", "chosen", "rejected"),
    [
        (TURNS, [USER], [GOOD], [BAD]),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER], [GOOD], [BAD]),
        ({"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER], [GOOD], [BAD]),
        ({"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER], [GOOD], [BAD]),
        (TURNS | {"chosen": [GOOD, RESULT, GOOD], "rejected": [GOOD, RESULT, BAD]}, [USER], None, None),
        ({"chosen": "Q: one A: yes", "rejected": "Q: one A: you"}, "Q: one A:", " yes", " you"),
        (TEXTS, "hi", "hello", "go away"),
    ],
)
def test_an_implied_prompt_is_taken_out_of_both_answers(
    written: Any, prompt: Any, chosen: Any, rejected: Any
) -> None:
    assert not check_row(written, DataFormat.PREFERENCE)
    row = canonical_row(written | {"score": 1}, DataFormat.PREFERENCE)
    assert row == {
        "prompt": prompt,
        "chosen": chosen or written["chosen"],
        "rejected": rejected or written["rejected"],
    }


@pytest.mark.parametrize(
    ("data_format", "row", "check"),
    [
        ("Preference", {"prompt": "a", "chosen": "b"}, "missing_rejected"),
        ("Preference", TEXTS | {"chosen": ""}, "missing_chosen"),
        ("Preference", TEXTS | {"chosen": "go away"}, "same_answers"),
        ("Preference", TEXTS | {"prompt": [USER], "rejected": [BAD]}, "mixed_forms"),
        ("Preference", TURNS | {"prompt": "other"}, "mixed_forms"),
        ("Preference", {"chosen": [GOOD], "rejected": [BAD]}, "missing_prompt"),
        ("Preference", TURNS | {"chosen": [RESULT]}, "missing_chosen"),
        ("Preference", TURNS | {"prompt": [USER, GOOD]}, "prompt_ends_with_answer"),
        ("Preference", TURNS | {"chosen": [GOOD | {"mood": 1}]}, "message_unrecognized_key"),
        ("UnpairedPreference", {"prompt": "a", "completion": "b"}, "missing_label"),
        ("UnpairedPreference", {"prompt": "a", "completion": "b", "label": 1}, "missing_label"),
        ("UnpairedPreference", {"prompt": "a", "completion": "", "label": True}, "missing_completion"),
        ("PromptCompletion", {"prompt": [USER], "completion": "b"}, "mixed_forms"),
        ("PromptCompletion", {"prompt": [USER], "completion": []}, "missing_completion"),
        ("Prompt", {"prompt": []}, "missing_prompt"),
        ("Prompt", {"prompt": "a", "answer": 3}, "data_type"),
        ("Prompt", {"prompt": "a", "tools": "none"}, "data_type"),
        ("Text", {"text": " "}, "missing_text"),
        ("Text", {"text": 1}, "missing_text"),
    ],
)
def test_each_check_says_what_to_write(data_format: str, row: Any, check: str) -> None:
    findings = check_row(row, DataFormat(data_format))
    assert {finding.check for finding in findings} == {check}
    assert all(finding.found and finding.advice for finding in findings)


@pytest.mark.parametrize(
    ("data_format", "row", "expected"),
    [
        ("Chat", {"messages": [USER, GOOD]}, {"prompt": [USER], "answer": "hello"}),
        ("Chat", {"messages": [USER]}, {"prompt": [USER]}),
        ("PromptCompletion", {"prompt": "a", "completion": "b"}, {"prompt": "a", "answer": "b"}),
        ("PromptCompletion", {"prompt": [USER], "completion": [GOOD]}, {"prompt": [USER], "answer": "hello"}),
        ("Prompt", {"prompt": "a", "answer": "b", "id": 1}, {"prompt": "a", "answer": "b"}),
    ],
)
def test_online_methods_read_conversations_as_prompts(data_format: str, row: Any, expected: Any) -> None:
    assert not check_row(row, DataFormat(data_format), purpose("grpo"))
    assert canonical_row(row, DataFormat(data_format), purpose("grpo")) == expected


@pytest.mark.parametrize(
    ("reads", "row", "message"),
    [
        (
            purpose("dpo"),
            {"messages": [USER, GOOD]},
            'method dpo needs rows with "prompt", "chosen" and "rejected": rows.jsonl holds Chat rows ("messages"); '
            "write such rows, or choose method sft or grpo or rloo or distillation",
        ),
        (purpose("sft"), {"text": "a"}, "choose method pretraining"),
        (EVALUATION, TEXTS, 'an evaluation needs rows with "messages", or "prompt" and "completion"'),
    ],
)
def test_a_format_that_the_method_cannot_learn_names_one_that_it_can(
    tmp_path: Path, reads: Purpose, row: Any, message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    detected = detect_format(row)
    assert detected is not None
    for data_format in (DataFormat.AUTO, detected):
        with pytest.raises(DataError) as caught:
            read_source(path, data_format, purpose=reads)
        assert message in caught.value.message


def test_a_file_holds_text_or_messages(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(TURNS)}\n{json.dumps(TEXTS)}\n")
    (finding,) = read_source(path, DataFormat.AUTO).findings
    assert (finding.place.line, finding.check) == (2, "mixed_forms")


def test_rows_on_one_line_are_counted_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([TEXTS, TEXTS, TEXTS | {"chosen": 1}, TEXTS | {"chosen": 2}]))
    source = read_source(path, DataFormat.AUTO)
    assert (len(source.rows), len(source.invalid)) == (2, 2)


def test_text_files_are_divided_between_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "book.md"
    path.write_text("# One\n\nfirst\nsecond\n\n\n" + "long " * 1999 + "\n\nlast\n")
    source = read_source(path, DataFormat.AUTO, purpose=purpose("pretraining"))
    assert source.data_format is DataFormat.TEXT
    assert [row.line for row in source.rows] == [1, 7, 9]
    assert source.rows[0].row == {"text": "# One\n\nfirst\nsecond"}
    path.write_bytes(b"\xff")
    (finding,) = read_source(path, DataFormat.TEXT).findings
    assert finding.check == "invalid_encoding"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(1, 20))
def test_passages_lose_nothing_but_space(text: str, characters: int) -> None:
    passages = list(divide_lines(enumerate(text.split("\n"), start=1), characters))
    texts = [passage for _, passage in passages if isinstance(passage, str)]
    assert len(texts) == len(passages)
    assert "".join("".join(texts).split()) == "".join(text.split())
    assert all(passage.strip() for passage in texts)
    assert [line for line, _ in passages] == sorted(line for line, _ in passages)
    assert all(len(passage) <= 4 * characters for passage in texts)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
said = words.filter(str.strip)
calls = st.just([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])
asked = st.fixed_dictionaries({"role": st.just("user"), "content": words})
answers = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": said}, optional={"name": words, "tool_calls": calls}
)
tools = {"tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"x": {}}}}])}


def shaped(**members: tuple[Any, Any]) -> Any:
    """Rows with each member as text, or each as messages."""
    forms = zip(*members.values(), strict=True)
    return st.one_of(
        *[
            st.lists(st.fixed_dictionaries(dict(zip(members, form, strict=True)), optional=tools))
            for form in forms
        ]
    )


PROMPTS = (words, st.lists(asked, min_size=1, max_size=3))
ANSWERS = (said, st.lists(answers, min_size=1, max_size=1))
LABELS = (st.booleans(), st.booleans())
ROWS = {
    DataFormat.CHAT: st.lists(
        st.builds(lambda first, last: {"messages": [*first, last]}, st.lists(asked), answers)
    ),
    DataFormat.PROMPT_COMPLETION: shaped(prompt=PROMPTS, completion=ANSWERS),
    DataFormat.PREFERENCE: shaped(prompt=PROMPTS, chosen=ANSWERS, rejected=ANSWERS),
    DataFormat.UNPAIRED_PREFERENCE: shaped(prompt=PROMPTS, completion=ANSWERS, label=LABELS),
    DataFormat.PROMPT: shaped(prompt=PROMPTS, answer=(words, words)) | shaped(prompt=PROMPTS),
    DataFormat.TEXT: st.lists(st.fixed_dictionaries({"text": said})),
}


@given(st.sampled_from(list(ROWS)), st.data())
@settings(max_examples=cases(150, 3000))
def test_canonical_rows_are_stable_and_parquet_keeps_them(
    tmp_path_factory: pytest.TempPathFactory, data_format: DataFormat, data: Any
) -> None:
    rows = data.draw(ROWS[data_format])
    if data_format is DataFormat.PREFERENCE:
        rows = [row for row in rows if row["chosen"] != row["rejected"]]
    for row in rows:
        assert not check_row(row, data_format)
        assert canonical_row(row, data_format) == row
        assert detect_format(row, ANY) is data_format
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    store_rows(path, rows)
    assert read_rows(path) == rows
