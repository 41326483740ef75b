"""Generate stage: rows of each task, filters, and the manifest."""

import json
from pathlib import Path
from typing import Any

import pytest
from servers.scripted_server import Received, Reply, ScriptedServer, serve
from servers.scripted_teacher import Teacher, kind_of, said, text_of
from stages.generation_runs import KEY, Setting, prompts
from stages.stage_world import RowBuilders, World

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_data.endpoints.client import KEY_FILE
from tunesmith_data.failures import DataError, UserError
from tunesmith_data.pod.workspace import Workspace


@pytest.fixture
def setting(world: World, tmp_path: Path) -> Setting:
    return Setting(world, tmp_path / "secrets")


def bodies(server: ScriptedServer, kind: str) -> list[Any]:
    """What was asked of a kind."""
    return [request.body for request in server.received if kind_of(request) == kind]


def test_prompts_are_answered(setting: Setting) -> None:
    with serve(Teacher()) as server:
        report = setting.run(
            setting.config(server.url, prompts(9), instructions="Be brief.", temperature=0.5, maxTokens=64)
        )
    assert setting.rows[3] == {
        "messages": [
            {"role": "user", "content": "turn 3 around"},
            {"role": "assistant", "content": "around 3 turn"},
        ]
    }
    assert (report.rows, report.made, report.calls) == (9, 9, 9)
    assert (report.prompt_tokens, report.completion_tokens) == (90, 45)
    request = server.received[0]
    assert (request.path, request.authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: request.body[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "large",
        "temperature": 0.5,
        "max_tokens": 64,
    }


def test_plain_prompts_stay_plain_and_a_systems_message_is_joined_with_the_instructions(
    setting: Setting,
) -> None:
    system = {"role": "system", "content": "You sort."}
    with serve(Teacher()) as server:
        setting.run(setting.config(server.url, [{"prompt": "say 4"}]))
        assert setting.rows == [{"prompt": "say 4", "completion": "4 say"}]
        rows = [{"prompt": [system, {"role": "user", "content": "one two"}]}]
        setting.run(setting.config(server.url, rows, instructions="Be brief."))
    assert [message["role"] for message in server.received[-1].body["messages"]] == ["system", "user"]
    assert server.received[-1].body["messages"][0]["content"] == "Be brief.\n\nYou sort."
    assert setting.rows[0]["messages"][0] == system


def test_questions_are_said_in_other_words_and_answers_stay(setting: Setting, make: RowBuilders) -> None:
    rows = make.rows(3)
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, rows, "paraphrases", paraphrases={"perRow": 2}))
    assert (report.rows, report.calls) == (6, 3)
    question, answer = (message["content"] for message in rows[0]["messages"])
    assert [row["messages"] for row in setting.rows[:2]] == [
        [{"role": "user", "content": f"{question}, way {way}"}, {"role": "assistant", "content": answer}]
        for way in (0, 1)
    ]


def test_a_preferences_question_is_said_in_other_words(setting: Setting, make: RowBuilders) -> None:
    rows = make.preferences(2)
    with serve(Teacher()) as server:
        setting.run(setting.config(server.url, rows, "paraphrases"))
    assert setting.rows[0]["chosen"] == rows[0]["chosen"]
    assert setting.rows[0]["prompt"][0]["content"].endswith(", way 0")


def test_new_rows_are_written_after_seeds(setting: Setting, make: RowBuilders) -> None:
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, make.rows(20), "selfInstruct"))
        assert (report.rows, len(setting.rows)) == (10, 10)
        assert all(
            [message["role"] for message in row["messages"]] == ["user", "assistant"] for row in setting.rows
        )
        first = setting.rows
        setting.run(setting.config(server.url, make.rows(20), "selfInstruct"))
        assert setting.rows == first
    shown = {text_of(request) for request in server.received}
    assert len(shown) == len(server.received) == 2, "each request shows other seeds, and none is made again"


def test_near_copies_of_seeds_and_of_each_other_are_left_out(setting: Setting, make: RowBuilders) -> None:
    seed = "please sort the numbers nine and four for the weekly report now"
    near = seed.replace("weekly", "monthly")
    other = "translate a short poem about winter mornings into plain German prose"
    written = [near, other, other.replace("short", "long"), "count all the vowels of a word"]
    with serve(
        Teacher(invent=lambda _: json.dumps([{"question": q, "answer": "a"} for q in written]))
    ) as server:
        config = setting.config(server.url, [make.row(seed, "4 9")], "selfInstruct", selfInstruct={"rows": 3})
        report = setting.run(config)
    assert [row["messages"][0]["content"] for row in setting.rows] == [written[1], written[3]]
    assert (report.rows, report.duplicates, report.calls) == (2, 4 * 4 - 2, 4)
    assert "the teacher repeats itself" in report.warnings[0]


def test_a_list_that_is_cut_off_brings_its_whole_rows(setting: Setting, make: RowBuilders) -> None:
    def cut(request: Received) -> Reply:
        text = '[{"question": "what is one", "answer": "1"}, {"question": "what is two", "ans'
        return said(text, finish="length")

    with serve(cut) as server:
        config = setting.config(server.url, make.rows(2), "selfInstruct", selfInstruct={"rows": 1})
        report = setting.run(config)
    assert (report.rows, report.unusable) == (1, 4 * report.calls)


def test_a_judge_that_says_the_same_in_both_orders_makes_pairs(setting: Setting) -> None:
    samples: dict[str, int] = {}

    def vary(text: str) -> str:
        samples[text] = samples.get(text, 0) + 1
        return f"{text} {'and so on ' * samples[text]}".strip()

    rows = prompts(3)
    with serve(Teacher(answer=vary)) as server:
        config = setting.config(server.url, rows, "preferences", preferences={"answers": 3}, concurrency=1)
        report = setting.run(config)
    assert (report.rows, report.calls) == (3, 3 * 5)
    row = setting.rows[0]
    assert row["prompt"] == rows[0]["prompt"]
    assert row["chosen"][0]["content"].count("and so on") == 3
    assert row["rejected"][0]["content"].count("and so on") == 1
    assert bodies(server, "compare")[0]["temperature"] == 0


def test_a_judge_that_goes_by_the_order_decides_nothing(setting: Setting) -> None:
    counter = iter(range(1000))
    teacher = Teacher(
        answer=lambda _: f"answer {next(counter)}", compare=lambda _: '{"best": "A", "worst": "B"}'
    )
    with serve(teacher) as server:
        config = setting.config(server.url, prompts(3), "preferences")
        with pytest.raises(DataError, match=r"0 rows were generated and minimumRows is 1 \(3 filtered\)"):
            setting.run(config)


def test_answers_that_are_all_the_same_need_no_judge(setting: Setting) -> None:
    with serve(Teacher()) as server, pytest.raises(DataError, match="3 filtered"):
        setting.run(setting.config(server.url, prompts(3), "preferences"))
    assert not bodies(server, "compare")


def test_another_judge_is_asked_with_its_own_key(setting: Setting) -> None:
    counter = iter(range(1000))
    (setting.world.storage.secrets / "judge" / KEY_FILE).write_text("judges-own-key-1")
    with serve(Teacher(answer=lambda _: f"answer {next(counter)}")) as teacher, serve(Teacher()) as judge:
        asked = {
            "judge": {"endpoint": {"url": f"{judge.url}/v1", "model": "strict"}, "criteria": "Be stern."}
        }
        setting.run(setting.config(teacher.url, prompts(2), "preferences", preferences=asked))
    assert {request.authorization for request in judge.received} == {"Bearer judges-own-key-1"}
    assert all("Be stern." in text_of(request) for request in judge.received)
    assert {request.authorization for request in teacher.received} == {f"Bearer {KEY}"}


def test_rows_are_kept_that_a_judge_gives_enough(setting: Setting) -> None:
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, prompts(10), filter={"judge": {"minimum": 7}}))
    assert [row["messages"][0]["content"] for row in setting.rows] == [f"turn {n} around" for n in (7, 8, 9)]
    assert (report.rows, report.filtered, report.calls) == (3, 7, 20)


def test_rewards_sort_out_before_a_judge_is_paid(setting: Setting) -> None:
    rows = [{"prompt": f"say {n}", "answer": f"{n} say" if n % 2 else "no"} for n in range(10)]
    rewards = [{"name": "right", "exact": {}}, {"name": "seven", "regex": {"pattern": "7"}, "weight": -1.0}]
    reward_filter = {"rewards": rewards, "minimumReward": 1.0, "judge": {"minimum": 3}}
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, rows, filter=reward_filter))
    assert [row["prompt"] for row in setting.rows] == ["say 3", "say 5", "say 9"]
    assert (report.filtered, len(bodies(server, "score"))) == (7, 4)


def test_length_is_counted_by_the_models_own_tokenizer(setting: Setting) -> None:
    rewards = [{"name": "brief", "length": {"maxTokens": 4}}]
    teacher = Teacher(answer=lambda text: "word " * (40 if "1" in text else 1))
    with serve(teacher) as server:
        reward_filter = {"rewards": rewards, "minimumReward": 1.0}
        setting.run(
            setting.config(server.url, prompts(3), filter=reward_filter, baseModel="pvc://models/llama")
        )
    assert len(setting.rows) == 2


def test_an_endpoint_judges_rows_with_a_secret_of_its_own(setting: Setting) -> None:
    secret = setting.world.storage.secrets / "filter-reward-grader"
    secret.mkdir()
    (secret / KEY_FILE).write_text("graders-own-key")
    with serve(Teacher()) as server, serve(lambda r: Reply(body={"rewards": [0.0, 1.0, 1.0]})) as grader:
        rewards = [{"name": "grader", "endpoint": {"url": grader.url}}]
        reward_filter = {"rewards": rewards, "minimumReward": 0.5}
        report = setting.run(setting.config(server.url, prompts(3), filter=reward_filter))
    assert (report.rows, report.filtered) == (2, 1)
    assert grader.received[0].authorization == "Bearer graders-own-key"


def test_questions_of_held_out_sets_are_neither_asked_nor_kept(setting: Setting, make: RowBuilders) -> None:
    suite = setting.world.write_rows("suite.jsonl", [make.row("Turn 2, around!", "x")])
    held_out = [{"name": "task", "uri": suite}]
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, [*prompts(4), *prompts(2)], heldOut=held_out))
        assert (report.rows, report.leaked, report.duplicates, report.made) == (3, 1, 2, 6)
        assert len(server.received) == 3
        rows = [make.row("turn 2", "x")]
        other = Teacher(paraphrase=lambda _: '{"question": "turn 2 around"}')
    with serve(other) as server, pytest.raises(DataError, match="1 leaked"):
        setting.run(setting.config(server.url, rows, "paraphrases", heldOut=held_out))


def test_the_manifest_says_all_but_keys(setting: Setting, make: RowBuilders) -> None:
    budget = {
        "calls": 100,
        "amount": "5.00",
        "currency": "EUR",
        "inputPricePerMillion": "0.15",
        "outputPricePerMillion": "0.60",
    }
    suite = setting.world.write_rows("suite.jsonl", [make.row("other", "x")])
    held_out = [{"name": "task", "uri": suite}]
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, prompts(4), budget=budget, heldOut=held_out))
    manifest = setting.manifest
    assert manifest["generation"]["endpoint"] == {"url": f"{server.url}/v1", "model": "large"}
    assert manifest["generation"]["budget"]["amount"] == "5.00"
    assert (manifest["amount"], report.amount, report.currency) == ("0.000018", "0.000018", "EUR")
    assert [source["name"] for source in manifest["sources"]] == ["source", "task"]
    assert manifest["rows"]["digest"] == report.generated.digest
    assert manifest["templates"]["score"].startswith("Judge the answer")
    left = b"".join(path.read_bytes() for path in setting.folder.rglob("*") if path.is_file())
    assert KEY.encode() not in left


def test_a_key_that_comes_back_is_told_to_nobody(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    def echo(request: Received) -> Reply:
        return Reply(400, {"error": f"you sent {request.authorization}"})

    with serve(echo) as server, pytest.raises(DataError) as failed:
        setting.run(setting.config(server.url, prompts(2)))
    assert "you sent Bearer" in failed.value.message
    assert KEY not in failed.value.message + caplog.text


def test_rows_and_how_they_were_made_stay_and_the_journal_goes(setting: Setting) -> None:
    with serve(Teacher()) as server:
        config = setting.config(server.url, prompts(3))
        setting.run(config)
    Workspace(setting.world.storage, config).prune()
    left = {
        path.relative_to(setting.folder).as_posix() for path in setting.folder.rglob("*") if path.is_file()
    }
    assert left == {"generated/generated.jsonl", "data-report/generation.json", "reports/generate.json"}


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401, {}), "Secret's token"),
        (Reply(404, {"error": "no such model"}), "correct its URL"),
        (Reply(body={"answer": 1}), "use an endpoint with the OpenAI API"),
        (Reply(body=b"<html>"), "does not answer with JSON"),
    ],
)
def test_an_endpoint_that_is_none(setting: Setting, reply: Reply, message: str) -> None:
    with serve(lambda _: reply) as server, pytest.raises(UserError, match=message):
        setting.run(setting.config(server.url, prompts(40)))
    # Eight odd responses are too many, and others are on their way then.
    assert len(server.received) < 8 + 4


def test_refused_and_empty_answers_are_counted_and_the_rest_is_kept(setting: Setting) -> None:
    def picky(request: Received) -> Reply:
        text = text_of(request)
        if " 3 " in text:
            return Reply(400, {"error": "filtered"})
        return said(None) if " 4 " in text else said("well")

    with serve(picky) as server:
        report = setting.run(setting.config(server.url, prompts(6)))
        assert (report.rows, report.unusable, report.calls) == (4, 2, 5)
    with (
        serve(lambda _: Reply(400, {"error": "no such model"})) as server,
        pytest.raises(DataError, match=r"2 unusable; refused: HTTP 400 .*no such model"),
    ):
        setting.run(setting.config(server.url, prompts(2)))


def test_wrong_source_rows_are_said_before_anything_is_paid(setting: Setting) -> None:
    with serve(Teacher()) as server:
        with pytest.raises(DataError, match="missing_prompt"):
            setting.run(setting.config(server.url, [*prompts(3), {"prompt": 3}]))
        reward_filter = {"rewards": [{"name": "right", "exact": {}}], "minimumReward": 1.0}
        with pytest.raises(DataError, match='needs an "answer"'):
            setting.run(setting.config(server.url, prompts(3), filter=reward_filter))
        assert server.received == []


def test_prepare_reads_what_was_made_behind_what_was_given(setting: Setting, make: RowBuilders) -> None:
    world = setting.world
    with serve(Teacher()) as server:
        report = setting.run(setting.config(server.url, prompts(20)))
    given = world.write_rows("rows.jsonl", make.rows(30))
    prepared = world.prepare(world.prepare_config(given, generated=report.generated.uri))
    assert prepared.dataset.rows == 50
    alone = world.prepare(world.prepare_config([], generated=report.generated.uri))
    assert (alone.dataset.rows, alone.dataset.format) == (20, "Chat")
    trained = world.train(world.train_config(alone, generation=report.manifest.digest)).training
    folder = world.output / "sha256" / trained.artifact.digest.removeprefix("sha256:")
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    made = setting.folder / "data-report/generation.json"
    assert manifest.lineage.generation == sha256_digest(made.read_bytes())
