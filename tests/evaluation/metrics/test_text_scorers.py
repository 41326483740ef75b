"""Scorers of text, on cases computed by hand, beside the libraries they follow, and on hostile answers."""

import random
from collections.abc import Callable

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import bleu as harness_bleu
from lm_eval.api.metrics import chrf as harness_chrf
from lm_eval.api.metrics import exact_match_hf_evaluate as harness_exact
from lm_eval.tasks.mlqa.utils import f1_score as harness_f1
from rouge_score.rouge_scorer import RougeScorer

from tunesmith_data.failures import UserError
from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.json_scorers import JSONFields, JSONSchema, JSONValid, XMLValid
from tunesmith_evaluation.metrics.numeric import Numeric, last_number
from tunesmith_evaluation.metrics.overlap_scorers import Bleu, Chrf, RougeL
from tunesmith_evaluation.metrics.scorer import TextScorer
from tunesmith_evaluation.metrics.text_scorers import Contains, ExactMatch, Regex, TokenF1
from tunesmith_evaluation.statistics.kinds import ScoreKind

COMPARING = [ExactMatch(), Contains(), TokenF1(), RougeL(), Bleu(), Chrf()]
SCHEMA = '{"type": "object", "required": ["aisle"], "properties": {"aisle": {"type": "integer"}}}'
EVERY = [*COMPARING, Regex("a+"), JSONValid(), JSONSchema(SCHEMA), JSONFields(), XMLValid(), Numeric()]
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=60) | st.text(
    'ab .,\n{}[]"1', max_size=40
)


def value(scorer: TextScorer, expected: str, text: str) -> float:
    score = scorer.score(Question(""), Expected(expected), Answer(text))
    assert score.value is not None
    return score.value


@pytest.mark.parametrize(
    ("scorer", "expected", "text", "score"),
    [
        (ExactMatch(), "aisle 4", " aisle\n4 ", 1),
        (ExactMatch(), "aisle 4", "Aisle 4", 0),
        (ExactMatch(), "aisle 4", "aisle 4.", 0),
        (ExactMatch(ignore_case=True), "Straße", "STRASSE", 1),
        (ExactMatch(ignore_punctuation=True), "aisle 4", "«aisle 4»。", 1),
        (ExactMatch(), "caf\u00e9", "cafe\u0301", 1),
        (ExactMatch(), "四号通道", "四号通道", 1),
        (ExactMatch(), "مرحبا", "مرحبا", 1),
        (Contains(), "aisle 4", "It is in aisle 4.", 1),
        (Contains(), "aisle 4", "It is in aisle 41.", 0),
        (Contains(), "4", "41 and 4", 1),
        (Contains(), "四号", "在四号通道", 0),
        (TokenF1(), "the red hinge", "A red hinge!", 1),
        (TokenF1(), "red hinge", "red bolt in hall", 2 / 6),
        (TokenF1(), "red red", "red", 2 / 3),
        (TokenF1(), "四号通道", "四号", 2 / 3),
        (TokenF1(), "red", "", 0),
        (RougeL(), "the cat sat", "the dog sat", 2 / 3),
        (RougeL(), "a b c d", "d c b a", 1 / 4),
        (RougeL(), "四号通道", "四通", 2 / 3),
        (RougeL(), "مرحبا بك", "مرحبا", 2 / 3),
        (Bleu(), "a b c d e", "", 0),
        (Regex("^[0-9]{4}$"), "", "2024", 1),
        (Regex("^[0-9]{4}$"), "", "20245", 0),
        (Regex("^[^<]*$"), "", "plain", 1),
        (Regex("^[^<]*$"), "", " ", 0),
        (JSONValid(), "", '{"a": [1, null]}', 1),
        (JSONValid(), "", '```json\n{"a": 1}\n```', 1),
        (JSONValid(), "", '```\n{"a": 1}\n```\n```\n2\n```', 0),
        (JSONValid(), "", '```{"a": 1}```', 0),
        (JSONValid(), "", 'Sure: {"a": 1}', 0),
        (JSONValid(), "", "{'a': 1}", 0),
        (JSONValid(), "", '{"a": NaN}', 0),
        (JSONValid(), "", '{"a": 1, "a": 2}', 0),
        (JSONValid(), "", "", 0),
        (JSONSchema(SCHEMA), "", '{"aisle": 4}', 1),
        (JSONSchema(SCHEMA), "", '{"aisle": "4"}', 0),
        (JSONSchema(SCHEMA), "", '{"aisle": 4', 0),
        (JSONFields(), '{"a": 1, "b": 2}', 'It is {"b": 2.0, "a": 1}.', 1),
        (JSONFields(), '{"a": 1, "b": 2}', '{"a": 1}', 1 / 2),
        (JSONFields(), '{"a": 1}', '{"a": 1, "b": 2}', 1 / 2),
        (JSONFields(), '{"a": 1}', '{"a": true}', 0),
        (JSONFields(), '{"a": " x  y"}', '{"a": "x y"}', 1),
        (JSONFields(), '{"a": 1}', '{"a": 1, "a": 1}', 0),
        (JSONFields(), '{"a": 1}', "no", 0),
        (XMLValid(), "", "<a><b/></a>", 1),
        (XMLValid(), "", '<?xml version="1.0" encoding="utf-8"?><a>é</a>', 1),
        (XMLValid(), "", "```xml\n<a/>\n```", 1),
        (XMLValid(), "", "<a>", 0),
        (XMLValid(), "", "<a/><b/>", 0),
        (XMLValid(), "", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', 0),
        (Numeric(), "4", "First 3, then 4.", 1),
        (Numeric(), "1234.5", "1.234,50 €", 1),
        (Numeric(), "12 %", "0.12", 1),
        (Numeric(), "-4", "It is \u22124 °C", 1),
        (Numeric(), "4", "5", 0),
        (Numeric(), "4", "none", 0),
        (Numeric(absolute=0.5), "4", "4.5", 1),
        (Numeric(absolute=0.5), "4", "4.51", 0),
        (Numeric(relative=0.1), "-200", "-180", 1),
        (Numeric(relative=0.1), "-200", "-179", 0),
    ],
)  # fmt: skip
def test_scores_computed_by_hand(scorer: TextScorer, expected: str, text: str, score: float) -> None:
    assert value(scorer, expected, text) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234", "1234"), ("1,234.5", "1234.5"), ("1.234,5", "1234.5"), ("1.234.567", "1234567"), ("1,5", "1.5"),
        ("1.234", "1.234"), ("0,125", "0.125"), ("1'234.5", "1234.5"), ("1\u202f234,5", "1234.5"), ("12,34,56", None),
        ("1.2.3", None), ("v2 of H2O", None), ("5-3", "3"), ("-3", "-3"),
        ("(\u22123)", "-3"), (".5", "0.5"), ("1e3", "1000"),
        ("1.5E-2", "0.015"), ("25%", "0.25"), ("2,5 %", "0.025"),
        ("\u0663\u066b\u0665", "3.5"), ("\uff11\uff12", "12"), ("in 2024.", "2024"),
        ("3, 4", "4"), ("1e99999999999999999999", None), ("", None), ("$1,000,000", "1000000"), ("3 apples", "3"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, number: str | None) -> None:
    found = last_number(text)
    assert (None if found is None else float(found)) == (None if number is None else float(number))


WORDS = [
    "the",
    "red",
    "hinge",
    "lies",
    "in",
    "aisle",
    "4",
    "of",
    "hall",
    "2",
    "bolt",
    "is",
    "no",
    "Here",
    "it's",
    "x_y",
]


def sentences(seed: int) -> list[tuple[str, str]]:
    generator = random.Random(seed)
    return [
        (
            " ".join(generator.choices(WORDS, k=generator.randint(1, 12))),
            " ".join(generator.choices(WORDS, k=generator.randint(1, 12))),
        )
        for _ in range(60)
    ]


def test_rouge_is_that_of_the_package() -> None:
    scorer = RougeScorer(["rougeL"])
    for expected, text in sentences(1):
        # The package splits words at underscores and is for ASCII alone.
        one, other = expected.replace("_", " "), text.replace("_", " ")
        assert value(RougeL(), one, other) == pytest.approx(scorer.score(one, other)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("scorer", "library", "harness"),
    [
        (Bleu(), lambda text, expected: sacrebleu.sentence_bleu(text, [expected]).score, None),
        (Chrf(), lambda text, expected: sacrebleu.sentence_chrf(text, [expected]).score, harness_chrf),
    ],
)
def test_bleu_and_chrf_are_those_of_sacrebleu(
    scorer: TextScorer,
    library: Callable[[str, str], float],
    harness: Callable[[list[tuple[str, str]]], float] | None,
) -> None:
    for expected, text in sentences(2):
        assert value(scorer, expected, text) == pytest.approx(library(text, expected) / 100)
        if harness:
            assert value(scorer, expected, text) == pytest.approx(harness([(expected, text)]) / 100)
    assert "version:" in scorer.version


def test_exact_match_is_that_of_the_harness() -> None:
    for expected, text in [
        *sentences(3)[:10],
        ("The red, hinge!", "the red hinge"),
        ("a b", "A b"),
        ("a-b", "ab"),
    ]:
        for case, marks in ((False, False), (True, False), (False, True), (True, True)):
            options = {"ignore_case": case, "ignore_punctuation": marks}
            found = harness_exact([text], [expected], **options)["exact_match"]
            assert value(ExactMatch(**options), expected, text) == found


def test_token_f1_is_that_of_the_harness() -> None:
    for expected, text in sentences(4):
        if not TokenF1().check(Expected(expected)):
            assert value(TokenF1(), expected, text) == pytest.approx(harness_f1(text, expected, "en"))
    for expected, text in [("四号通道", "在四号通道"), ("第4通道", "4号"), ("四号。", "四号")]:
        assert value(TokenF1(), expected, text) == pytest.approx(harness_f1(text, expected, "zh"))


def test_bleu_of_a_long_sentence_is_that_of_the_harness() -> None:
    expected, text = (
        "the red hinge lies in aisle four of hall two",
        "the red hinge lies in hall two of aisle four",
    )
    assert value(Bleu(), expected, text) == pytest.approx(harness_bleu([(expected, text)]) / 100)


@pytest.mark.parametrize("scorer", EVERY, ids=lambda scorer: scorer.name)
@given(expected=TEXTS, text=TEXTS)
def test_scores_of_any_text_are_in_the_unit_interval(scorer: TextScorer, expected: str, text: str) -> None:
    score = value(scorer, expected, text)
    assert 0 <= score <= 1
    assert scorer.kind is not ScoreKind.BINARY or score in (0, 1)


@pytest.mark.parametrize("scorer", [*COMPARING, JSONFields(), Numeric()], ids=lambda scorer: scorer.name)
@given(text=TEXTS)
def test_the_expected_answer_itself_scores_1_unless_it_is_refused(scorer: TextScorer, text: str) -> None:
    problem = scorer.check(Expected(text))
    assert problem or value(scorer, text, text) == 1


@pytest.mark.parametrize("scorer", [ExactMatch(), TokenF1(), RougeL()], ids=lambda scorer: scorer.name)
@given(left=TEXTS, right=TEXTS)
def test_symmetric_scores(scorer: TextScorer, left: str, right: str) -> None:
    assert value(scorer, left, right) == value(scorer, right, left)


ENTITIES = "".join(
    f'<!ENTITY {chr(code + 1)} "{f"&{chr(code)};" * 9}">' for code in range(ord("a"), ord("l"))
)
BOMB = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]><x>&l;</x>'
HOSTILE = {
    "deep list": "[" * 100_000,
    "deep object": '{"a":' * 20_000,
    "closed deep": "[" * 50_000 + "]" * 50_000,
    "many objects": "{" * 100_000,
    "huge": '{"aisle": "' + "x" * 300_000 + '"}',
    "huge number": "9" * 200_000,
    "groups": "1,111" * 50_000,
    "exponents": "1e999999" * 10_000,
    "deep xml": "<a>" * 50_000,
    "entity bomb": BOMB,
    "many words": "red hinge " * 5_000,
    "blanks in a block": "```\n" + " " * 100_000 + "x\n" + "\n" * 100_000,
    "fences": "```json\n" + "``` " * 50_000,
    "blanks": " " * 300_000 + "x",
    "surrogates": "\ud800\udfff" * 1000,
    "nul": "\0" * 1000,
    "right to left": "\u202e\u200f" * 1000 + "مرحبا",
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_score_nothing_and_take_no_time(text: str) -> None:
    for scorer in [*EVERY, Regex("(a+)+$|(x|x)*y"), JSONSchema('{"type": "string", "pattern": "^(a+)+$"}')]:
        expected = '{"aisle": 4}' if isinstance(scorer, JSONFields) else "the red hinge 4"
        assert value(scorer, expected, text) < 1 or isinstance(scorer, JSONValid | Regex)


@pytest.mark.parametrize(
    ("scorer", "expected", "advice"),
    [
        (ExactMatch(), " ", "write what the model should answer"),
        (ExactMatch(ignore_punctuation=True), "...", "compare with punctuation"),
        (TokenF1(), "The", "use ExactMatch"),
        (RougeL(), "!", "use ExactMatch"),
        (JSONFields(), "[1]", "write an object"),
        (JSONFields(), "{}", "write an object"),
        (Numeric(), "four", "write one"),
        (JSONSchema(), "", "write one into the row"),
    ],
)
def test_items_that_cannot_be_scored_say_what_to_write(
    scorer: TextScorer, expected: str, advice: str
) -> None:
    problem = scorer.check(Expected(expected, row=3))
    assert problem is not None
    assert problem.startswith("the expected answer of row 3")
    assert advice in problem


def test_each_item_may_have_its_own_schema() -> None:
    scorer = JSONSchema()
    expected = Expected(json_schema='{"type": "integer"}')
    assert scorer.check(expected) is None
    assert scorer.score(Question(""), expected, Answer("4")).value == 1
    assert scorer.score(Question(""), expected, Answer('"4"')).value == 0
    assert "wrong schema" in (scorer.check(Expected(json_schema='{"type": 1}')) or "")


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)"])
def test_patterns_that_re2_cannot_take_are_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"metric Regex.*write it in RE2's syntax") as error:
        Regex(pattern)
    assert error.value.reason == "MetricPattern"
    schema = f'{{"type": "string", "pattern": "{pattern}"}}'.replace("\\", "\\\\")
    with pytest.raises(UserError, match="metric JSONSchema"):
        JSONSchema(schema)
