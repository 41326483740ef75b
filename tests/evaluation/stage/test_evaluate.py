"""Evaluate stage: every side answers each item once, what is not answered is counted, killed runs continue."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stages.stage_world import EvaluateReport, RowBuilders, World

from tunesmith_contract.base import sha256_digest
from tunesmith_contract.evaluation import Decoding
from tunesmith_contract.report import TERMINATION_MESSAGE_BYTES, GateProblem
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.requests import Prompt, Request
from tunesmith_evaluation.models.encoding import RequestEncoder
from tunesmith_evaluation.models.generation import Generator
from tunesmith_evaluation.models.sides import ModelGroup, padded_tokenizer
from tunesmith_evaluation.stage import scorers

METRICS = ["ExactMatch", "JSONFields"]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_the_whole_way_on_each_architecture(world: World, make: RowBuilders, architecture: str) -> None:
    model = f"pvc://models/{architecture}"
    rows = make.rows(60)
    train, test = world.write_rows("train.jsonl", rows[:40]), world.write_rows("test.jsonl", rows[40:])
    prepared = world.prepare(world.prepare_config(train, baseModel=model))
    trained = world.train(world.train_config(prepared, baseModel=model, hyperparameters={"maxSteps": 3}))
    artifact = trained.training.artifact
    config = world.evaluate_config(
        baseModel=model,
        sides=[
            {"name": "tuned", "adapter": {"uri": artifact.uri, "digest": artifact.digest}},
            {"name": "shots", "fewShot": 3, "systemPrompt": "Sort."},
            {"name": "bare"},
        ],
        suites=[{"name": "task", "dataset": test, "metrics": METRICS, "maxNewTokens": 8, "limit": 12}],
        fewShotFrom=train,
    )
    report = world.evaluate(config)
    evaluation = report.evaluation
    assert evaluation.sides == ("tuned", "shots", "bare")
    assert [(result.metric, result.items) for result in evaluation.results] == [
        (name, 12) for name in METRICS
    ]
    assert evaluation.base_model_revision == prepared.model.revision
    assert len(report.to_termination_message()) <= TERMINATION_MESSAGE_BYTES
    details = world.root / "pvc" / evaluation.details.uri.removeprefix("pvc://")
    assert sha256_digest(details.read_bytes()) == evaluation.details.digest
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert len(lines) == 12
    assert {name for line in lines for name in line["answers"]} == {"tuned", "shots", "bare"}
    assert any(line["answers"]["tuned"][0]["text"] != line["answers"]["bare"][0]["text"] for line in lines)
    assert evaluation.usage[0].revision == artifact.digest
    assert all(
        usage.prompt_tokens > 12 and usage.completion_tokens and usage.latency for usage in evaluation.usage
    )


def test_a_whole_model_is_a_side_beside_its_base(world: World, make: RowBuilders) -> None:
    rows = make.rows(60)
    train, test = world.write_rows("train.jsonl", rows[:40]), world.write_rows("test.jsonl", rows[40:])
    prepared = world.prepare(world.prepare_config(train))
    learned = {"learningRate": 5e-3, "maxSteps": 3}
    trained = world.train(world.train_config(prepared, adapter=None, hyperparameters=learned))
    artifact = trained.training.artifact
    config = world.evaluate_config(
        sides=[
            {"name": "whole", "adapter": {"uri": artifact.uri, "digest": artifact.digest}},
            {"name": "bare"},
        ],
        suites=[{"name": "task", "dataset": test, "metrics": METRICS, "maxNewTokens": 8, "limit": 4}],
    )
    report = world.evaluate(config)
    details = world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    lines = [json.loads(line) for line in details.read_text().splitlines()]
    assert any(line["answers"]["whole"][0]["text"] != line["answers"]["bare"][0]["text"] for line in lines)


def items_of(world: World, report: EvaluateReport) -> list[dict[str, Any]]:
    """Lines of the file of items."""
    path = world.root / "pvc" / report.evaluation.details.uri.removeprefix("pvc://")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_run_asks_only_what_is_open(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = world.write_rows("test.jsonl", make.rows(40))
    config = world.evaluate_config(
        sides=[{"name": "a"}, {"name": "b", "systemPrompt": "Sort."}],
        suites=[{"name": "task", "dataset": test, "metrics": ["ExactMatch"], "maxNewTokens": 4}],
    )
    asked: list[int] = []
    answer = Generator.answer

    def killed(self: Generator, prompts: Any, decoding: Decoding) -> Any:
        asked.append(len(prompts))
        for number, batch in enumerate(answer(self, prompts, decoding)):
            yield batch
            if len(asked) == 2 and number == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(Generator, "answer", killed)
    with pytest.raises(KeyboardInterrupt):
        world.evaluate(config)
    (journal,) = (world.output / "ns/eval/answers/0").glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 72
    with journal.open("ab") as stream:
        stream.write(b'["three", "\xc3')
    report = world.evaluate(config)
    assert asked == [40, 40, 8]
    assert report.evaluation.results[0].items == 40
    assert len(list(journal.parent.glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"decoding": {"maxNewTokens": 5}},
        {"decoding": {"maxNewTokens": 4, "stop": ["x"]}},
        {"decoding": {"maxNewTokens": 4, "temperature": 0.5}},
        {"side": {"systemPrompt": "Sort!"}},
        {"side": {"model": "pvc://models/qwen3"}},
        {"side": {"templateArguments": {"add_generation": True}}},
    ],
)
def test_answers_are_used_again_only_for_the_same_question(
    world: World, make: RowBuilders, change: dict[str, Any]
) -> None:
    """Everything an answer depends on is in the key of the journal."""
    request = Request("a", "task", "sha256:0", 0, Prompt(text="one"), Decoding(max_new_tokens=4), 1)
    decoding = Decoding.model_validate({"maxNewTokens": 4} | change.get("decoding", {}))
    side = change.get("side", {})
    prompt = Prompt(
        text=side.get("systemPrompt", "") + "one", template_arguments=side.get("templateArguments", {})
    )
    other = Request("a", "task", "sha256:0", 0, prompt, decoding, 1)
    identity = {"model": side.get("model")}
    assert other.key(identity) != request.key({"model": None})
    assert request.key({"model": None}) == replace(request, side="b", seed=2).key({"model": None})


def test_one_bad_item_is_counted_and_fails_nothing(world: World, make: RowBuilders) -> None:
    rows = [*make.rows(6), make.row("long " * 600, "x"), make.row("refuse this", "x")]
    template = world.root / "pvc/strict"
    shutil.copytree(world.root / "pvc/models/llama", template)
    (template / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if 'refuse' in m.content %}{{ raise_exception('not this') }}{% endif %}"
        "{{ m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    )
    suite = {"name": "task", "dataset": world.write_rows("t.jsonl", rows), "metrics": ["ExactMatch"]}
    config = world.evaluate_config(
        sides=[{"name": "a"}, {"name": "b", "model": "pvc://strict"}],
        suites=[{**suite, "maxNewTokens": 4}],
        gates=[{"suite": "task", "metric": "ExactMatch", "expect": "NotWorse", "margin": 0.5, "minItems": 1}],
    )
    report = world.evaluate(config)
    (counts,) = report.evaluation.suites
    assert (counts.items, counts.leaked, counts.broken) == (8, 0, 2)
    # The side that answered was compared with no answer: it can't be in favor of either.
    assert report.evaluation.gates[0].problem is GateProblem.TOO_MANY_BROKEN
    reasons = {
        (line["line"], side): reason.partition(":")[0]
        for line in items_of(world, report)
        for side, reason in line.get("problems", {}).items()
    }
    assert reasons == {(7, "a"): "TooLong", (7, "b"): "TooLong", (8, "b"): "RefusedByTemplate"}
    truncated = sum(
        answer["finishReason"] == "Length"
        for line in items_of(world, report)
        for answers in line["answers"].values()
        for answer in answers
    )
    assert counts.truncated == truncated > 0


def test_a_suite_without_any_answer_is_skipped(world: World, make: RowBuilders) -> None:
    long = [make.row("long " * 600 + str(number), "x") for number in range(3)]
    suites = [
        {
            "name": name,
            "dataset": world.write_rows(f"{name}.jsonl", rows),
            "metrics": ["ExactMatch"],
            "maxNewTokens": 2,
        }
        for name, rows in (("good", make.rows(3)), ("bad", long))
    ]
    gates = [
        {"suite": name, "metric": "ExactMatch", "expect": "NotWorse", "margin": 0.9}
        for name in ("good", "bad")
    ]
    config = world.evaluate_config(sides=[{"name": "a"}, {"name": "b"}], suites=suites, gates=gates)
    report = world.evaluate(config)
    assert [result.suite for result in report.evaluation.results] == ["good"]
    assert [gate.problem for gate in report.evaluation.gates] == [
        GateProblem.BASELINE_EMPTY,
        GateProblem.SKIPPED,
    ]


def test_each_side_uses_the_template_of_its_own_model(world: World, make: RowBuilders) -> None:
    other = world.root / "pvc/other"
    shutil.copytree(world.root / "pvc/models/llama", other)
    (other / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    seen: dict[str, str] = {}
    encode = RequestEncoder.encode

    def spy(self: RequestEncoder, request: Request) -> Any:
        encoded: Any = encode(self, request)
        seen[request.side] = str(self._renderer.tokenizer.decode(encoded.prompt.ids))
        return encoded

    suite = {
        "name": "task",
        "dataset": world.write_rows("t.jsonl", [make.row("q", "x")]),
        "metrics": ["ExactMatch"],
    }
    config = world.evaluate_config(
        sides=[{"name": "a"}, {"name": "b", "model": "pvc://other"}], suites=[{**suite, "maxNewTokens": 2}]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestEncoder, "encode", spy)
        world.evaluate(config)
    assert seen == {"a": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "b": "[q]"}


def test_switches_of_the_template_reach_it_and_unknown_ones_are_refused(
    world: World, make: RowBuilders
) -> None:
    thinking = world.root / "pvc/thinking"
    shutil.copytree(world.root / "pvc/models/llama", thinking)
    (thinking / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}{% if enable_thinking %}<think>\n{% endif %}"
    )
    encoder = RequestEncoder(padded_tokenizer(ModelGroup(thinking, "r", ("a",), {}, {})), 0)

    def encode(**arguments: Any) -> Any:
        prompt = Prompt(({"role": "user", "content": "q"},), template_arguments=arguments)
        return encoder.encode(Request("a", "s", "i", 0, prompt, Decoding(), 0))

    assert encode(enable_thinking=True).opening == "<think>"
    assert encode(enable_thinking=False).opening == ""
    wrongs: list[dict[str, Any]] = [{"enable_thinkin": True}, {"tools": []}, {"chat_template": "x"}]
    for wrong in wrongs:
        with pytest.raises(UserError, match=f"takes no argument {next(iter(wrong))}: remove it"):
            encode(**wrong)


def test_repeats_are_samples_of_their_own(world: World, make: RowBuilders) -> None:
    suite = {
        "name": "task",
        "dataset": world.write_rows("t.jsonl", make.rows(3)),
        "metrics": ["ExactMatch"],
        "repeats": 3,
        "decoding": {"maxNewTokens": 6, "temperature": 1.0},
    }
    sides = [{"name": "a"}, {"name": "b"}]
    first = world.evaluate(world.evaluate_config(sides=sides, suites=[suite]))
    lines = items_of(world, first)
    for line in lines:
        texts = {side: [answer["text"] for answer in answers] for side, answers in line["answers"].items()}
        assert texts["a"] == texts["b"], "the same model, the same seeds"
        assert len(set(texts["a"])) > 1
    again = world.evaluate(world.evaluate_config(uid="again", sides=sides, suites=[{**suite, "limit": 2}]))
    by_digest = {line["digest"]: line for line in lines}
    for line in items_of(world, again):
        same = [answer["text"] for answer in line["answers"]["a"]]
        assert same == [answer["text"] for answer in by_digest[line["digest"]]["answers"]["a"]]


def test_a_model_without_a_template_is_refused_before_any_other_answers(
    world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = world.root / "pvc/plain"
    shutil.copytree(world.root / "pvc/models/llama", plain)
    (plain / "chat_template.jinja").unlink()
    monkeypatch.setattr(Generator, "answer", None)
    suite = {"name": "task", "dataset": world.write_rows("t.jsonl", make.rows(3)), "metrics": ["ExactMatch"]}
    sides: list[dict[str, Any]] = [{"name": "a"}, {"name": "b", "model": "pvc://plain"}]
    with pytest.raises(UserError, match="has no chat template"):
        world.evaluate(world.evaluate_config(sides=sides, suites=[suite]))
    sides = [{"name": "a"}, {"name": "b", "templateArguments": {"enable_thinking": False}}]
    with pytest.raises(UserError, match="takes no argument enable_thinking"):
        world.evaluate(world.evaluate_config(sides=sides, suites=[suite]))


def test_judges_whose_names_join_to_the_same_text_keep_journals_of_their_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals: list[Path] = []

    def open_judge(spec: object, secret: Path, tokens: int, journal: Path, push: object) -> ExitStack:
        journals.append(journal)
        return ExitStack()

    monkeypatch.setattr(scorers, "open_judge", open_judge)
    judge = {"endpoint": {"url": "http://judge/v1", "model": "j"}}
    config = world.evaluate_config(
        sides=[{"name": "one"}, {"name": "two"}],
        suites=[
            {
                "name": suite,
                "dataset": "pvc://d/x",
                "metrics": [{"type": "Judge", "name": name, "judge": judge}],
            }
            for suite, name in (("a-b", "c"), ("a", "b-c"))
        ],
    )
    storage = world.storage
    workspace = SimpleNamespace(own_answers=world.root / "own", push=None)
    monkeypatch.setattr(scorers, "build_scorer", lambda metric, helpers: helpers.judge(metric))
    with scorers.open_scorers(config, storage, workspace):  # type: ignore[arg-type]
        assert len(set(journals)) == 2


def test_a_model_is_not_compared_with_itself(world: World, make: RowBuilders) -> None:
    """By another name, a model that is asked in the same way has nothing to be worse than."""
    gate = {
        "suite": "task",
        "metric": "BitsPerByte",
        "expect": "NotWorse",
        "relativeMargin": 0.9,
        "minItems": 1,
    }
    suite = {
        "name": "task",
        "dataset": world.write_rows("test.jsonl", make.rows(55)),
        "metrics": ["BitsPerByte"],
        "maxNewTokens": 1,
    }
    sides = [{"name": "new"}, {"name": "old", "model": "pvc://models/llama"}]
    evaluation = world.evaluate(world.evaluate_config(sides=sides, suites=[suite], gates=[gate])).evaluation
    assert evaluation.gates[0].problem is GateProblem.SAME_MODELS
