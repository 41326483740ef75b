"""Scorers by the settings of a metric, and similarity of embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers.scripted_server import Received, Reply, serve

from tunesmith_contract.evaluation import (
    EvaluationJudge,
    JudgeMode,
    Metric,
    MetricSettings,
    NumericTolerance,
    PricedEndpoint,
    TextMatch,
)
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_data.failures import UserError
from tunesmith_evaluation.metrics.answers import Answer, Expected, Question
from tunesmith_evaluation.metrics.embeddings import EmbeddingSimilarity, EndpointEmbedder, Vectors
from tunesmith_evaluation.metrics.registry import SCORED_ELSEWHERE, Helpers, build_scorer
from tunesmith_evaluation.metrics.sandbox.runner import CodeResult
from tunesmith_evaluation.metrics.scorer import CorpusScorer, ScoredItem

QUESTION = Question("?")
JUDGE = EvaluationJudge(endpoint=PricedEndpoint(url="http://judge/v1", model="Qwen3-32B"))
SETTINGS: dict[Metric, dict[str, Any]] = {
    Metric.REGEX: {"pattern": "a"},
    Metric.JSON_SCHEMA: {"json_schema": "{}"},
    Metric.PASS_AT_K: {"pass_at_k": 2},
    Metric.EMBEDDING_SIMILARITY: {"embedding": ChatEndpoint(url="http://e/v1", model="e5")},
    Metric.JUDGE: {"judge": JUDGE},
    Metric.FAITHFULNESS: {"judge": JUDGE},
    Metric.CONTEXT_RECALL: {"judge": JUDGE},
}
NEEDING = [Metric.REGEX, Metric.PASS_AT_K, Metric.EMBEDDING_SIMILARITY, Metric.JUDGE, Metric.CONTEXT_RECALL]


class Silent:
    """Judge, embedder and runner that are only asked for their names."""

    name = "silent"

    def ask_all(self, questions: Sequence[str], read: Any) -> list[Any]:
        return [None] * len(questions)

    def usage(self) -> dict[str, Any]:
        return {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.ones((len(texts), 1))

    def run(self, code: str, tests: str, timeout_seconds: float) -> CodeResult:
        return CodeResult(timeout_seconds == 3)


HELPERS = Helpers(lambda _: Silent(), lambda _: Silent(), Silent(), {"candidate": "Qwen/Qwen2.5-7B"})


@pytest.mark.parametrize("metric", [metric for metric in Metric if metric not in SCORED_ELSEWHERE])
def test_each_metric_has_a_scorer_of_its_name(metric: Metric) -> None:
    scorer = build_scorer(MetricSettings(type=metric, **SETTINGS.get(metric, {})), HELPERS)
    assert scorer.name == metric
    assert scorer.version


#: What is measured besides the answer.
MEASURED = {Metric.LATENCY, Metric.TOKENS, Metric.PERPLEXITY, Metric.BITS_PER_BYTE, Metric.CONTEXT_RECALL}
FULL = Expected('{"a": 4}', passages=("p",), tests="pass", group="g", json_schema="{}", refuses=True)


@pytest.mark.parametrize("metric", [m for m in Metric if m not in SCORED_ELSEWHERE | MEASURED])
@pytest.mark.parametrize(
    "answer",
    [Answer(""), Answer(" \n"), Answer("", complete=False), Answer(FULL.text, malformed_calls=1)],
    ids=["empty", "blank", "endless thinking", "unreadable call"],
)
def test_no_answer_is_no_success(metric: Metric, answer: Answer) -> None:
    scorer = build_scorer(MetricSettings(type=metric, **SETTINGS.get(metric, {})), HELPERS)
    item = ScoredItem(QUESTION, FULL, (answer, answer))
    assert scorer.check(FULL) is None
    # Zeros of both sides would let a gate on safety pass: what was never said is no score there.
    unknown = metric is Metric.SAFE_ANSWER and not answer.complete
    assert [score.value for score in scorer.score_sides([[item, item]])[0]] == [None if unknown else 0] * 2


@pytest.mark.parametrize("metric", [m for m in Metric if m not in SCORED_ELSEWHERE])
def test_an_item_that_was_not_answered_has_no_score(metric: Metric) -> None:
    scorer = build_scorer(MetricSettings(type=metric, **SETTINGS.get(metric, {})), HELPERS)
    sides = scorer.score_sides([[ScoredItem(QUESTION, FULL, ())]] * 2)
    assert [(score.value, score.detail["reason"] != "") for (score,) in sides] == [(None, True)] * 2
    assert scorer.aggregate(sides[0]) is None
    scorer.summarize(sides[0])
    if isinstance(scorer, CorpusScorer):
        assert scorer.corpus_terms(sides)[0].shape[:2] == (2, 1)


@pytest.mark.parametrize("metric", sorted(SCORED_ELSEWHERE))
def test_metrics_of_tasks_and_containers_have_none(metric: Metric) -> None:
    with pytest.raises(UserError, match="use it in such a suite"):
        build_scorer(MetricSettings(type=metric), HELPERS)


@pytest.mark.parametrize("metric", NEEDING)
def test_missing_settings_say_what_to_write(metric: Metric) -> None:
    with pytest.raises(UserError, match=r"metric mine needs .*: write "):
        build_scorer(MetricSettings(type=metric, name="mine"), HELPERS)


def test_missing_help_says_what_to_do() -> None:
    with pytest.raises(UserError, match="there is no sandbox"):
        build_scorer(MetricSettings(type=Metric.CODE_TESTS), Helpers())


def value(settings: MetricSettings, expected: Expected, text: str) -> float | None:
    return build_scorer(settings, HELPERS).score(QUESTION, expected, Answer(text)).value


def test_settings_reach_their_scorers() -> None:
    exact = MetricSettings(type=Metric.EXACT_MATCH, text=TextMatch(ignore_case=True))
    assert value(exact, Expected("Yes"), "yes") == 1
    near = MetricSettings(type=Metric.NUMERIC, tolerance=NumericTolerance(relative=0.1))
    assert value(near, Expected("100"), "109") == 1
    labels = MetricSettings(type=Metric.ACCURACY, labels=("a", "b"))
    assert "none of the labels" in (build_scorer(labels, HELPERS).check(Expected("c")) or "")
    code = MetricSettings(type=Metric.CODE_TESTS, code_timeout_seconds=3)
    assert value(code, Expected(tests="pass"), "pass") == 1
    pairs = MetricSettings(type=Metric.JUDGE, judge=JUDGE.model_copy(update={"mode": JudgeMode.PAIRS}))
    assert build_scorer(pairs, HELPERS).version == "2 pairs silent"
    warnings = build_scorer(pairs, HELPERS).summarize([])["warnings"]
    assert "Qwen3-32B and candidate are of one family" in warnings[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "a 7"),
        ({"pattern": "^a"}, "abc"),
        ({"json_schema": '{"type": "integer"}'}, "3"),
        ({"tolerance": NumericTolerance(absolute=1)}, "8"),
        ({"labels": ("a 7", "b")}, "A 7."),
    ],
)
def test_pass_at_k_decides_by_the_other_settings(settings: dict[str, Any], text: str) -> None:
    scorer = build_scorer(MetricSettings(type=Metric.PASS_AT_K, pass_at_k=1, **settings), HELPERS)
    item = ScoredItem(QUESTION, Expected("a 7"), (Answer(text), Answer("no")))
    assert scorer.score_item(item).value == 0.5


def embed_letters(request: Received) -> Reply:
    """Vectors of the counts of a, b and c, in another order than asked for."""
    texts = request.body["input"]
    data = [
        {"index": n, "embedding": [text.count(letter) for letter in "abc"]} for n, text in enumerate(texts)
    ]
    return Reply(body={"data": data[::-1]})


def test_similarity_is_the_cosine_of_an_endpoints_vectors(tmp_path: Path) -> None:
    with serve(embed_letters) as server:
        embedder = EndpointEmbedder(ChatEndpoint(url=f"{server.url}/v1", model="letters"), tmp_path)
        scorer = EmbeddingSimilarity(embedder)
        texts = ["ab", "aabb", "a", "c", "", "zzz"]
        items = [ScoredItem(QUESTION, Expected("ab"), (Answer(text),)) for text in texts]
        items.append(ScoredItem(QUESTION, Expected("ab"), (Answer("", complete=False),)))
        scores = [score.value for score in scorer.score_all(items)]
        embedder.close()
    assert scores == pytest.approx([1, 1, 2**-0.5, 0, 0, 0, 0])
    assert [request.path for request in server.received] == ["/v1/embeddings"]
    assert sorted(server.received[0].body["input"]) == ["a", "aabb", "ab", "c", "zzz"]
    assert scorer.version == "1 letters"


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": [{"index": 0, "embedding": "x"}]}, []])
def test_endpoints_with_another_protocol_are_refused(tmp_path: Path, body: Any) -> None:
    with serve(lambda _: Reply(body=body)) as server:
        embedder = EndpointEmbedder(ChatEndpoint(url=server.url, model="m"), tmp_path)
        with pytest.raises(UserError, match="use one with the OpenAI API"):
            embedder.embed(["a"])
        embedder.close()
