"""An evaluation that was applied again takes the earlier report over where nothing that decides has changed."""

from typing import Any

import pytest
from stages.stage_world import RowBuilders, World

from tunesmith_contract.finished import FinishedWork
from tunesmith_evaluation.models.generation import Generator


def test_no_model_answers_again(world: World, make: RowBuilders, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = Generator.answer

    def counted(self: Generator, prompts: Any, decoding: Any) -> Any:
        asked.append(len(prompts))
        return answer(self, prompts, decoding)

    monkeypatch.setattr(Generator, "answer", counted)
    test = world.write_rows("test.jsonl", make.rows(8))
    settings: dict[str, Any] = {
        "sides": [{"name": "a"}, {"name": "b", "systemPrompt": "Sort."}],
        "suites": [{"name": "task", "dataset": test, "metrics": ["ExactMatch"], "maxNewTokens": 4}],
    }
    first = world.evaluate(world.evaluate_config(**settings))
    finished = FinishedWork(uid="eval", evaluation=first.evaluation)
    asked.clear()
    again = world.evaluate(world.evaluate_config("again", **settings), finished)
    assert not asked
    assert (again.reused, again.evaluation) == ("eval", first.evaluation)
    assert (world.output / "ns/again/reports/evaluate.json").is_file()

    def differs(uid: str, finished: FinishedWork = finished, **changes: Any) -> bool:
        report = world.evaluate(world.evaluate_config(uid, **settings | changes), finished)
        return report.reused is None

    prompt = {"name": "a", "systemPrompt": "Answer as the tests want."}
    assert differs("prompt", sides=[prompt, settings["sides"][1]])
    assert differs("model", sides=[{"name": "a", "model": "pvc://models/qwen3"}, settings["sides"][1]])
    other = world.write_rows("other.jsonl", make.rows(9))
    assert differs("items", suites=[settings["suites"][0] | {"dataset": other}])
    assert asked
    details = world.root / "pvc" / first.evaluation.details.uri.removeprefix("pvc://")
    details.write_bytes(details.read_bytes()[:-1])
    assert differs("changed answers")
    details.unlink()
    assert differs("lost answers")
