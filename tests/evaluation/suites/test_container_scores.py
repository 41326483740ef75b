"""Input of a container from items and answers, and its scores in the form of all others."""

import json

from tunesmith_contract.evaluation import Metric, MetricSettings, Suite, SuiteContainer
from tunesmith_contract.evaluation_container import ContainerScore
from tunesmith_evaluation.items.item import EvaluationItem, make_item
from tunesmith_evaluation.metrics.answers import Answer, Call
from tunesmith_evaluation.suites.container_files import ContainerScores
from tunesmith_evaluation.suites.container_scores import describe_exchange, scores_by_side

SUITE = Suite(
    name="fruits",
    dataset="pvc://data/fruits.jsonl",
    container=SuiteContainer(image="scorer", timeout_seconds=60),
    metrics=(MetricSettings(type=Metric.CONTAINER_SCORE),),
    repeats=2,
)
TEXT = make_item({"prompt": "Which fruit?", "completion": "pear"}, line=1)
CHAT = make_item(
    {
        "prompt": [{"role": "user", "content": "Call it."}],
        "completion": [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "call", "arguments": {"who": "it"}}}
                ],
            }
        ],
        "tools": [{"type": "function", "function": {"name": "call"}}],
    },
    line=2,
)
ITEMS: list[EvaluationItem] = [TEXT, CHAT]
ANSWERS = {
    "candidate": [
        (Answer("pear"), Answer("plum", truncated=True)),
        (Answer("", tool_calls=(Call("call", {}),)),),
    ],
    "baseline": [(), (Answer("", thinking="hm", complete=False),)],
}


def test_input_holds_questions_and_all_answers() -> None:
    config, (text, chat) = describe_exchange(SUITE, ITEMS, ANSWERS)
    assert json.loads(config.to_json()) == {
        "version": 1,
        "suite": "fruits",
        "sides": ["candidate", "baseline"],
        "items": 2,
        "repeats": 2,
        "timeoutSeconds": 60,
        "heartbeatSeconds": 300,
    }
    assert (text.prompt, text.messages, text.expected) == ("Which fruit?", None, "pear")
    assert [answer.text for answer in text.answers["candidate"]] == ["pear", "plum"]
    assert text.answers["candidate"][1].truncated
    assert text.answers["baseline"] == ()
    assert chat.messages == ({"role": "user", "content": "Call it."},)
    assert json.loads(chat.to_json())["expectedCalls"] == [{"name": "call", "arguments": {"who": "it"}}]
    assert json.loads(chat.to_json())["answers"]["candidate"][0]["toolCalls"] == [
        {"name": "call", "arguments": {}}
    ]
    assert not chat.answers["baseline"][0].complete


def test_scores_are_in_the_order_of_the_items() -> None:
    lines = [
        ContainerScore(digest=CHAT.digest, side="candidate", score=0.25, detail={"words": 1}),
        ContainerScore(digest=TEXT.digest, side="candidate", score=1),
        ContainerScore(digest=CHAT.digest, side="baseline", score=None, reason="no answer"),
    ]
    result = ContainerScores({(line.digest, line.side): line for line in lines})
    scores = scores_by_side(result, ITEMS, ANSWERS)
    assert [score and score.value for score in scores["candidate"]] == [1.0, 0.25]
    assert scores["candidate"][1] is not None
    assert scores["candidate"][1].detail == {"words": 1}
    assert scores["baseline"][0] is None
    assert scores["baseline"][1] is not None
    assert scores["baseline"][1].value is None
    assert scores["baseline"][1].detail == {"reason": "no answer"}
