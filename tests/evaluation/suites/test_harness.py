"""Tasks of lm-evaluation-harness on local data: the same scores as by the library itself, nothing downloaded."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith_contract.evaluation import HarnessTask
from tunesmith_data.failures import DataError, UserError
from tunesmith_evaluation.items.requests import Request
from tunesmith_evaluation.metrics.answers import Answer, Likelihood
from tunesmith_evaluation.metrics.scorer import ScoredItem
from tunesmith_evaluation.models.sides import ModelGroup
from tunesmith_evaluation.models.transformers_answerer import TransformersAnswerer
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.suites.harness.definition import code_digest, find_definition, load_task
from tunesmith_evaluation.suites.harness.task_items import TaskItems

SEED = 7
#: What the library's filter makes of an answer without what it looks for.
NOT_FOUND = "[invalid]"
NEW_TOKENS = 12

CHOICES = {
    "task": "colors",
    "output_type": "multiple_choice",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "What color is the {{thing}}?\nAnswer:",
    "doc_to_target": "label",
    "doc_to_choice": "choices",
    "num_fewshot": 2,
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}
SENTENCES = CHOICES | {"task": "sentences", "doc_to_text": "", "num_fewshot": 0, "target_delimiter": ""}
TEXTS = {
    "task": "numbers",
    "output_type": "generate_until",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "The {{thing}} has",
    "doc_to_target": "answer",
    "num_fewshot": 1,
    "generation_kwargs": {"until": ["a", "\n\n"], "max_gen_toks": NEW_TOKENS, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True}
    ],
    "filter_list": [
        {"name": "first", "filter": [{"function": "take_first"}]},
        {
            "name": "strict",
            "filter": [
                {"function": "regex", "regex_pattern": "(zz9)", "group_select": 0},
                {"function": "take_first"},
            ],
        },
    ],
}
LAST_WORDS = {
    "task": "last-words",
    "output_type": "loglikelihood",
    "training_split": "train",
    "test_split": "test",
    "doc_to_text": "The {{thing}} has ",
    "doc_to_target": "answer",
    "num_fewshot": 0,
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def make_rows(start: int, count: int) -> list[dict[str, Any]]:
    source = random.Random(start)
    things = ["sky", "grass", "fire", "snow", "night"]
    return [
        {
            "thing": f"{source.choice(things)} {number}",
            "label": source.randrange(3),
            "choices": [" blue as ever", " green", " red or so"],
            "answer": source.choice(["two legs", NOT_FOUND]),
        }
        for number in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colors")
    for split, rows in (("train", make_rows(100, 8)), ("test", make_rows(0, 14))):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


Define = Callable[[Mapping[str, Any]], Path]
Samples = Mapping[str, list[dict[str, Any]]]
#: Rows of a sample, counted from 1.
SAMPLED = (2, 3, 7, 12)


@pytest.fixture
def define(tmp_path: Path) -> Define:
    """Folder with the definition of a task."""

    def write(config: Mapping[str, Any]) -> Path:
        folder = tmp_path / "definitions"
        folder.mkdir(exist_ok=True)
        (folder / f"{config['task']}.yaml").write_text(yaml.safe_dump(dict(config)))
        return folder

    return write


def load(config: Mapping[str, Any], data: Path | None, include: Path, **settings: Any) -> TaskItems:
    task = load_task(HarnessTask(task=config["task"], **settings), data, include, SEED, include / "cache")
    return TaskItems(task, SEED, NEW_TOKENS, code_digest(include))


def answer_all(
    items: TaskItems, lines: list[int], model: Path, *, chat: bool = False, system_prompt: str | None = None
) -> dict[int, list[Answer]]:
    """Answers of a model to the items, by their rows."""
    questions = items.requests(lines, chat=chat, system_prompt=system_prompt)
    requests = [
        Request(
            "base",
            "task",
            str(line),
            number,
            question.prompt,
            question.decoding,
            0,
            question.expected,
            generates=question.expected is None,
        )
        for line, some in questions.items()
        for number, question in enumerate(some)
    ]
    answerer = TransformersAnswerer(ModelGroup(model, "revision", ("base",), {}, {}), gpus=0)
    replies = [reply for batch in answerer.answer(requests) for reply in batch]
    assert not [reply for reply in replies if reply.answer is None]
    answers: dict[int, list[Answer]] = {line: [] for line in lines}
    for reply in sorted(replies, key=lambda reply: reply.request.repeat):
        if reply.answer is not None:
            answers[int(reply.request.item)].append(reply.answer)
    return answers


def our_scores(
    items: TaskItems, lines: list[int], answers: Mapping[int, list[Answer]], metric: str
) -> list[float | None]:
    scorer = items.scorer(metric)
    return [
        scorer.score_item(ScoredItem(items.question(line), items.expected(line), tuple(answers[line]))).value
        for line in lines
    ]


@pytest.fixture(scope="module")
def library_model(models: Path) -> HFLM:
    causal: Any = AutoModelForCausalLM
    return HFLM(
        pretrained=causal.from_pretrained(models / "llama"),
        tokenizer=AutoTokenizer.from_pretrained(models / "llama"),
        batch_size=4,
        max_length=512,
    )


ALL = (CHOICES, SENTENCES, TEXTS, LAST_WORDS)


@pytest.fixture(scope="module")
def library_samples(data: Path, library_model: HFLM) -> Samples:
    """Samples of simple_evaluate by the name of the task, in the order of the rows, one for each filter.

    Beside the tasks, ``sample`` is the task of colors asked some of its rows.
    """
    files = {split: str(data / f"{split}.jsonl") for split in ("train", "test")}
    local = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    results = simple_evaluate(
        model=library_model,
        tasks=[*(dict(config) | local for config in ALL), CHOICES | local | {"task": "sample"}],
        task_manager=TaskManager(include_defaults=False),
        fewshot_random_seed=SEED,
        samples={"sample": [line - 1 for line in SAMPLED]}
        | {config["task"]: list(range(14)) for config in ALL},
        bootstrap_iters=0,
    )
    return {
        task: sorted(samples, key=lambda sample: int(sample["doc_id"]))
        for task, samples in results["samples"].items()
    }


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        (CHOICES, ("acc", "acc_norm")),
        (SENTENCES, ("acc", "acc_norm")),
        (TEXTS, ("exact_match,first", "exact_match,strict")),
        (LAST_WORDS, ("acc",)),
    ],
    ids=lambda value: value["task"] if isinstance(value, dict) else "",
)
def test_scores_are_those_of_the_library(
    config: dict[str, Any],
    metrics: tuple[str, ...],
    data: Path,
    define: Define,
    models: Path,
    library_samples: Samples,
) -> None:
    items = load(config, data, define(config))
    lines = list(items.lines)
    answers = answer_all(items, lines, models / "llama")
    samples = library_samples[config["task"]]
    seen: set[float] = set()
    for metric in metrics:
        name, _, wanted = metric.partition(",")
        theirs = [float(sample[name]) for sample in samples if sample["filter"] == (wanted or "none")]
        assert our_scores(items, lines, answers, metric) == theirs
        seen |= set(theirs)
    if items.needs_likelihood:
        pairs = [pair for sample in samples for (pair,) in sample["resps"]]
        ours = [answer.likelihood for line in lines for answer in answers[line]]
        assert [one and one.log_probability for one in ours] == pytest.approx(
            [float(likelihood) for likelihood, _ in pairs], rel=1e-4
        )
    else:
        texts = [text for sample in samples if sample["filter"] == "first" for (text,) in sample["resps"]]
        assert [answer.raw for line in lines for answer in answers[line]] == texts
    assert len(seen) > 1 or config is LAST_WORDS


def test_sample_has_the_examples_that_the_library_draws(
    data: Path, define: Define, library_samples: Samples
) -> None:
    items = load(CHOICES, data, define(CHOICES))
    prompts = [some[0].prompt.text for some in items.requests(SAMPLED).values()]
    assert prompts == [sample["arguments"][0][0] for sample in library_samples["sample"]]
    assert prompts == [some[0].prompt.text for some in items.requests(SAMPLED).values()]


def test_built_in_task_reads_the_layout_of_the_hub(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(number),
            "question": f"What is {number} and {number}?",
            "choices": {"text": [str(number), str(2 * number)], "label": ["A", "B"]},
            "answerKey": "B",
        }
        for number in range(3, 7)
    ]
    folder = tmp_path / "ai2_arc" / "ARC-Easy"
    folder.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(folder / "test-00000-of-00001.parquet")
    task = load_task(HarnessTask(task="arc_easy"), tmp_path / "ai2_arc", None, SEED, tmp_path / "cache")
    items = TaskItems(task, SEED, NEW_TOKENS)
    first, second = items.requests(items.lines)[1]
    assert first.prompt.text == "Question: What is 3 and 3?\nAnswer:"
    assert (first.expected, second.expected) == (" 3", " 6")
    assert items.expected(1).text == "6"
    likelihoods = tuple(Answer("", likelihood=Likelihood(value, 1, False)) for value in (-2.0, -1.0))
    scored = ScoredItem(items.question(1), items.expected(1), likelihoods)
    assert items.scorer().score_item(scored).value == 1.0
    assert items.scorer().kind is ScoreKind.BINARY


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "saved", "file"])
def test_forms_of_data(kind: str, tmp_path: Path, define: Define) -> None:
    config = {**LAST_WORDS, "task": "forms"}
    rows = [{"thing": f"cat {number}", "answer": "legs"} for number in range(3)]
    split = datasets.Dataset.from_list(rows)
    folder = tmp_path / "forms"
    folder.mkdir()
    path = folder
    if kind == "saved":
        datasets.DatasetDict({"test": split}).save_to_disk(folder)
    elif kind == "csv":
        split.to_csv(folder / "test.csv")
    elif kind == "parquet":
        (folder / "test").mkdir()
        split.to_parquet(folder / "test" / "part.parquet")
    else:
        path = folder / "rows.jsonl" if kind == "file" else folder
        split.to_json(folder / ("rows.jsonl" if kind == "file" else "test.json"))
    items = load(config, path, define(config))
    assert [items.question(line).text for line in items.lines] == [f"The cat {n} has " for n in range(3)]


def test_repeated_rows_are_left_out_and_counted(tmp_path: Path, define: Define) -> None:
    row = json.dumps({"thing": "cat", "answer": "legs"})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n{row}\n" + row.replace("cat", "dog"))
    items = load(LAST_WORDS, tmp_path / "rows.jsonl", define(LAST_WORDS))
    assert (items.lines, items.repeated) == ((1, 3), 1)


def test_examples_never_hold_a_question(tmp_path: Path, define: Define) -> None:
    rows = make_rows(0, 6)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = make_rows(50, 2)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *others]))
    items = load(CHOICES, tmp_path, define(CHOICES))
    for some in items.requests(items.lines).values():
        things = {row["thing"] for row in rows if f"the {row['thing']}?" in some[0].prompt.text}
        assert len(things) == 1
    with pytest.raises(UserError, match="does not fit its definition"):
        load(CHOICES, tmp_path, define(CHOICES), few_shot=3).requests([1])


def test_conversations_are_left_to_the_template_of_the_model(data: Path, define: Define) -> None:
    items = load(CHOICES, data, define(CHOICES))
    (question, *_) = items.requests([1], chat=True, system_prompt="Be brief.")[1]
    roles = [message["role"] for message in question.prompt.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert question.prompt.messages[0]["content"] == "Be brief."
    assert question.expected == " blue as ever"


def test_side_without_likelihoods_has_no_score(data: Path, define: Define) -> None:
    items = load(CHOICES, data, define(CHOICES))
    unknown = ScoredItem(items.question(1), items.expected(1), (Answer("blue"),) * 3)
    score = items.scorer().score_item(unknown)
    assert score.value is None
    assert score.detail["reason"] == "the side gives no log-probabilities of given answers"


def test_thinking_is_no_answer(data: Path, define: Define) -> None:
    items = load(TEXTS, data, define(TEXTS))
    expected = items.expected(1)

    def score(answer: Answer) -> float | None:
        return items.scorer().score_item(ScoredItem(items.question(1), expected, (answer,))).value

    right = expected.text
    assert score(Answer(right, raw=right)) == 1.0
    assert score(Answer(right, raw=f"<think>x</think>{right}", thinking="x")) == 1.0
    assert score(Answer("", raw=f"<think>{right}", thinking=right, complete=False)) == 0.0


def test_digest_of_the_definition_follows_what_decides(data: Path, define: Define, tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        config = CHOICES | changes
        return load(config, data, define(config)).definition_digest

    assert digest() == digest()
    assert digest() != digest(doc_to_text="Which color has the {{thing}}?")
    assert digest() != digest(num_fewshot=1)
    assert digest() != digest(target_delimiter="")


def test_digest_of_the_definition_follows_the_rows_of_its_examples(
    data: Path, define: Define, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "test.jsonl").write_bytes((data / "test.jsonl").read_bytes())
    rows = make_rows(100, 8)[::-1]
    (other / "train.jsonl").write_text("".join(json.dumps(row | {"label": 0}) + "\n" for row in rows))

    def digest(folder: Path, examples: int) -> str:
        config = CHOICES | {"num_fewshot": examples}
        return load(config, folder, define(config)).definition_digest

    assert digest(data, 2) != digest(other, 2)
    assert digest(data, 0) == digest(other, 0)


def test_digest_of_the_definition_follows_its_code(data: Path, define: Define) -> None:
    folder = define(CHOICES)
    with (folder / "colors.yaml").open("a") as stream:
        stream.write("fewshot_config: {process_docs: !function code.first, sampler: first_n}\n")

    def digest(code: str) -> str:
        (folder / "code.py").write_text(code)
        return load(CHOICES, data, folder).definition_digest

    code = "def first(rows):\n    return rows.select(range(3))\n"
    first = digest(code)
    # The function is another object, at another address.
    assert digest(code) == first
    assert digest(code.replace("3", "4")) != first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "Other"}, "program of its own"),
        ({"doc_to_image": "image"}, "images or sound"),
        ({"output_type": "loglikelihood_rolling"}, "BitsPerByte"),
        ({"unsafe_code": True}, "CodeTests"),
        ({"repeats": 4}, "repeats: 1"),
        ({"metric_list": [{"metric": "acc_mutual_info"}]}, "acc_mutual_info"),
        ({"test_split": None}, "names no test_split"),
        ({"test_split": "exam"}, "has no split exam.*test.jsonl.*add exam.jsonl"),
        ({"training_split": None}, "from its own questions.*fewShot: 0"),
        ({"fewshot_split": "dev"}, "split dev, which the data lacks: add dev.jsonl"),
        ({"fewshot_split": "test"}, "from its own questions"),
        ({"doc_to_text": "{{nothing.at.all}}"}, "does not fit its data"),
        (
            {"metric_list": [{"metric": "rouge_of_the_hub", "aggregation": "mean"}]},
            "downloaded: rouge_of_the_hub",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused_definitions(changes: dict[str, Any], message: str, data: Path, define: Define) -> None:
    config = {key: value for key, value in (CHOICES | changes).items() if value is not None}
    with pytest.raises((UserError, DataError), match=message):
        load(config, data, define(config))


def test_task_without_data_is_refused_and_nothing_downloaded(
    define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    config = CHOICES | {"dataset_path": "team/colors"}
    message = r"task colors has no data.*names team/colors.*harness.data: pvc://"
    with pytest.raises(UserError, match=message):
        load(config, None, define(config))


def test_code_of_a_definition_downloads_nothing(data: Path, define: Define, tmp_path: Path) -> None:
    folder = define(CHOICES)
    (folder / "code.py").write_text(
        "import datasets\n\n\ndef fetch(rows):\n    return datasets.load_dataset('team/colors')['test']\n"
    )
    with (folder / "colors.yaml").open("a") as stream:
        stream.write("process_docs: !function code.fetch\n")
    with pytest.raises(UserError, match=r"does not fit its data.*[Oo]ffline"):
        load(CHOICES, data, folder)


def test_data_that_a_definition_names(data: Path, define: Define) -> None:
    named = {"dataset_path": "json", "dataset_kwargs": {"data_files": "rows.jsonl"}, "num_fewshot": 0}
    folder = define(CHOICES | named)
    (folder / "rows.jsonl").write_text((data / "test.jsonl").read_text())
    assert len(load(CHOICES, None, folder).lines) == 14


@pytest.mark.parametrize(("text", "cause"), [("no JSON", ""), ("", "a file of it is empty"), ("{", "")])
def test_data_that_can_not_be_read(text: str, cause: str, define: Define, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises((UserError, DataError), match=rf"rows\.jsonl can.t be read.*{cause}"):
        load(LAST_WORDS, tmp_path / "rows.jsonl", define(LAST_WORDS))


def test_missing_data_names_the_task(define: Define, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data of task colors does not exist: nowhere"):
        load(CHOICES, tmp_path / "nowhere", define(CHOICES))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("f2", "no metric f2: write one of acc, acc_norm"),
        ("acc,other", "no metric acc,other: write one of acc, acc_norm"),
    ],
)
def test_unknown_metrics_are_refused(metric: str, message: str, data: Path, define: Define) -> None:
    with pytest.raises(UserError, match=message):
        load(CHOICES, data, define(CHOICES)).scorer(metric)


def test_metrics_that_are_no_means_are_refused(data: Path, define: Define) -> None:
    f1 = CHOICES | {"metric_list": [{"metric": "f1", "aggregation": "f1", "higher_is_better": True}]}
    with pytest.raises(UserError, match="no metric that is a mean"):
        load(f1, data, define(f1)).scorer()
    lower = CHOICES | {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": False}]}
    with pytest.raises(UserError, match="lower values are better"):
        load(lower, data, define(lower)).scorer()


def test_settings_that_not_all_sides_know_are_refused(data: Path, define: Define) -> None:
    beams = TEXTS | {"generation_kwargs": {"until": ["\n"], "num_beams": 4}}
    with pytest.raises(UserError, match="sets num_beams in generation_kwargs"):
        load(beams, data, define(beams)).requests([1])


def test_names_of_tasks(define: Define) -> None:
    folder = define(CHOICES)
    assert find_definition("colors", folder) == folder / "colors.yaml"
    assert find_definition("arc_easy", folder).name == "arc_easy.yaml"
    assert find_definition("mmlu_anatomy", folder).name == "mmlu_anatomy.yaml"
    with pytest.raises(UserError, match="has no task color: write the name of one"):
        find_definition("color", folder)
    with pytest.raises(UserError, match="ai2_arc is a group of tasks"):
        find_definition("ai2_arc", None)


def test_a_package_that_a_task_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: own\ntest_split: test\nprocess_docs: !function code.prepare\ndoc_to_text: q\ndoc_to_target: a\n"
    )
    (tmp_path / "code.py").write_text("import no_such_package\n")
    with pytest.raises(
        UserError, match=r"needs the Python package no_such_package, .*: install it"
    ) as failure:
        load_task(HarnessTask(task="own"), tmp_path / "rows.jsonl", tmp_path, SEED, tmp_path / "cache")
    assert failure.value.reason == "HarnessPackage"
