"""``tunesmith-eval run`` against endpoints and judges that are broken: it never passes, and says what is wrong."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers.scripted_server import Received, Reply, serve
from servers.scripted_teacher import said

from tunesmith_contract.exit_codes import ExitCode
from tunesmith_evaluation.__main__ import main

Script = Callable[[Received], Reply]
Gate = dict[str, str]

_BETTER: Gate = {"expect": "Better"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Undo the silence of logs after a test."""
    yield
    logging.disable(logging.NOTSET)


def right(received: Received) -> Reply:
    numbers = re.findall(r"\d+", received.body["messages"][-1]["content"])
    return said(str(sum(map(int, numbers))))


def wrong(_: Received) -> Reply:
    return said("no idea")


def message(content: Any, finish: str = "stop", **more: Any) -> Script:
    body = {"choices": [{"message": {"content": content, **more}, "finish_reason": finish}]}
    return lambda _: Reply(body=body)


def run(
    folder: Path,
    metric: dict[str, Any],
    gate: Gate = _BETTER,
    change: Callable[[str, dict[str, Any]], None] | None = None,
    **scripts: Script,
) -> int:
    """Exit code for sums that scripts answer; the first part of a URL names the script."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n} + {n}?"},
                {"role": "assistant", "content": str(2 * n)},
            ]
        }
        for n in range(24)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with serve(lambda received: scripts[received.path.split("/")[1]](received)) as server:
        spec = {
            "candidate": {"endpoint": {"url": f"{server.url}/candidate/v1", "model": "m"}},
            "baseline": {"endpoint": {"url": f"{server.url}/baseline/v1", "model": "m"}},
            "suites": [{"name": "sums", "dataset": {"uri": "rows.jsonl"}, "metrics": [metric]}],
            "gates": [{"suite": "sums", "metric": metric["type"], **gate}],
            "safety": {"disabled": True, "reason": "sums"},
        }
        if change is not None:
            change(server.url, spec)
        text = yaml.safe_dump(spec).replace("SERVER", server.url)
        (folder / "eval.yaml").write_text(text)
        return main(["run", str(folder / "eval.yaml"), "--output", str(folder / "out")])


def test_a_candidate_that_is_better_passes(tmp_path: Path) -> None:
    """The other tests here differ from it by their fault alone."""
    assert run(tmp_path, {"type": "ExactMatch"}, candidate=right, baseline=wrong) == 0


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        (message(None), "24 without an answer (baseline)"),
        (message("", reasoning_content="It is 4."), "24 never"),
        (message("", "length"), "24 cut off"),
    ],
)
def test_a_baseline_that_gives_no_answers_is_not_beaten(
    tmp_path: Path, baseline: Script, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, {"type": "ExactMatch"}, candidate=right, baseline=baseline) == 2
    out = capsys.readouterr().out
    assert words in " ".join(out.split())
    assert "more items would decide" not in out


def mostly_empty(received: Received) -> Reply:
    number = int(re.findall(r"\d+", received.body["messages"][-1]["content"])[0])
    return said("") if number % 3 else said("no idea")


@pytest.mark.parametrize(("baseline", "empty"), [(message(""), 24), (message(" \n"), 24), (mostly_empty, 16)])
@pytest.mark.parametrize("gate", [_BETTER, {"expect": "NotWorse", "margin": "0.1"}])
def test_a_baseline_whose_answers_are_empty_is_not_beaten(
    tmp_path: Path, baseline: Script, empty: int, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(tmp_path, {"type": "ExactMatch"}, gate, candidate=right, baseline=baseline)
    assert code == 2
    out = " ".join(capsys.readouterr().out.split())
    assert f"{empty} empty answers (baseline)" in out
    assert f"Note sums: {empty} of 24 answers of baseline are empty texts: check its prompt" in out
    assert "more than half of the baseline's answers are empty texts, which anything beats" in out
    assert "more items would decide" not in out


def test_a_candidate_whose_answers_are_empty_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, {"type": "ExactMatch"}, candidate=message(""), baseline=right) == 1
    assert "24 of 24 answers of candidate are empty texts" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("mode", "verdict", "words"),
    [
        (
            "Points",
            "I can't help with that.",
            "24 of 24 answers of candidate have no score: the judge gives no verdict",
        ),
        ("Pairs", '{"better": "A"}', "the judge contradicts itself on 24 of 24 pairs"),
    ],
)
def test_a_judge_that_does_not_judge_is_named(
    tmp_path: Path, mode: str, verdict: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = {"type": "Judge", "judge": {"mode": mode, "endpoint": {"url": "SERVER/judge/v1", "model": "j"}}}
    code = run(tmp_path, metric, candidate=right, baseline=wrong, judge=lambda _: said(verdict))
    assert code == 2
    out = " ".join(capsys.readouterr().out.split())
    assert words in out
    assert "more items would decide" not in out


def test_a_judge_that_refuses_every_question_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = {"type": "Judge", "judge": {"endpoint": {"url": "SERVER/judge/v1", "model": "j"}}}
    refusal = Reply(400, {"error": "no model j"})
    code = run(tmp_path, metric, candidate=right, baseline=wrong, judge=lambda _: refusal)
    assert code == ExitCode.USER_ERROR
    assert "refuses every question (HTTP 400" in capsys.readouterr().err


@pytest.mark.parametrize("odd", [{"choices": []}, {"error": "try later"}, ["no"]])
def test_an_odd_response_of_a_judge_does_not_end_the_run(
    tmp_path: Path, odd: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the first one nor a later one: the question is asked once more."""
    asked: list[None] = []

    def judge(received: Received) -> Reply:
        asked.append(None)
        if len(asked) in {1, 12}:
            return Reply(body=odd)
        question = received.body["messages"][-1]["content"]
        return said('{"points": 1}' if "no idea" in question else '{"points": 5}')

    metric = {"type": "Judge", "judge": {"endpoint": {"url": "SERVER/judge/v1", "model": "j"}}}
    assert run(tmp_path, metric, candidate=right, baseline=wrong, judge=judge) == 0
    assert len(asked) == 50
    assert "no score" not in capsys.readouterr().out


def test_a_judge_that_gives_odd_responses_alone_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = {"type": "Judge", "judge": {"endpoint": {"url": "SERVER/judge/v1", "model": "j"}}}
    code = run(tmp_path, metric, candidate=right, baseline=wrong, judge=lambda _: Reply(body={"choices": []}))
    assert code == ExitCode.USER_ERROR
    assert "gives no choices[0].message.content" in capsys.readouterr().err


def test_answers_that_are_cut_off_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that is too small for the baseline alone lets anything beat it."""
    talkative = message("Let me add them. First,", "length")
    assert run(tmp_path, {"type": "ExactMatch"}, candidate=right, baseline=talkative) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Note sums: 24 of 24 answers of baseline are cut off at maxNewTokens" in out


def test_some_empty_answers_of_the_baseline_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def some_empty(received: Received) -> Reply:
        number = int(re.findall(r"\d+", received.body["messages"][-1]["content"])[0])
        return said("no idea") if number % 3 else said("")

    assert run(tmp_path, {"type": "ExactMatch"}, candidate=right, baseline=some_empty) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Note sums: 8 of 24 answers of baseline are empty texts" in out


def test_sides_that_answer_alike_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One model by two names can't be told from two models that agree, so it is said, and decides nothing."""
    gate = {"expect": "NotWorse", "margin": "0.2"}
    assert run(tmp_path, {"type": "ExactMatch"}, gate, candidate=right, baseline=right) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Note All 24 answers of candidate and baseline are equal: look whether they are one model" in out
    assert run(tmp_path, {"type": "ExactMatch"}, gate, candidate=right, baseline=wrong) == 0
    assert "are equal" not in capsys.readouterr().out


@pytest.mark.parametrize("address", ["SERVER/candidate/v1/", "SERVER/candidate/v1/chat/completions"])
def test_one_endpoint_by_two_addresses_is_one_model(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def same(server: str, spec: dict[str, Any]) -> None:
        spec["baseline"]["endpoint"]["url"] = address.replace("SERVER", server)

    gate = {"expect": "NotWorse", "margin": "0.2"}
    assert run(tmp_path, {"type": "ExactMatch"}, gate, change=same, candidate=right) == 2
    assert "are the same model, asked in the same way" in " ".join(capsys.readouterr().out.split())


def test_a_finished_run_is_no_evidence_for_what_an_endpoint_serves_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address stays, the model behind it does not: all is asked anew, in the same folder too."""
    served: list[Script] = [right]
    asked: list[Received] = []

    def candidate(received: Received) -> Reply:
        asked.append(received)
        return served[-1](received)

    def evaluate_before(_: str, spec: dict[str, Any]) -> None:
        (tmp_path / "eval.yaml").write_text(yaml.safe_dump(spec))
        assert main(["run", str(tmp_path / "eval.yaml"), "--output", str(tmp_path / "out")]) == 0
        served.append(wrong)

    code = run(tmp_path, {"type": "ExactMatch"}, change=evaluate_before, candidate=candidate, baseline=wrong)
    assert len(asked) == 48
    assert code == 2
    assert "24 of 24 items compared" in capsys.readouterr().out
