"""Manifests of EvalRuns on a computer without a cluster: what they become, and what is refused."""

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tunesmith.api.evalrun import EvalRun
from tunesmith.decide.evalrun.suites import resolve_gates, resolve_suites
from tunesmith_contract.evaluation import SAFETY_SUITE, Expect, JudgeMode, Metric, Tier
from tunesmith_contract.safety import HARMLESS_SUITE
from tunesmith_data.failures import UserError
from tunesmith_evaluation.command.manifest import ManifestRun, build_run, read_manifest
from tunesmith_evaluation.command.places import Places

_DIGEST = "sha256:" + "ab" * 32
#: Schema of a spec, as the API server has it.
SCHEMA = yaml.safe_load((Path(__file__).parents[3] / "crds" / "evalruns.yaml").read_text())["spec"][
    "versions"
][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

MINIMAL = """
baseModel: {uri: model}
candidate: {uri: pvc://artifacts/tuned, digest: DIGEST}
suites: [{name: task, dataset: {uri: rows.jsonl}, metrics: [{type: ExactMatch}]}]
gates: [{suite: task, metric: ExactMatch, expect: Better}]
""".replace("DIGEST", _DIGEST)

RICH = """
apiVersion: tunesmith.dev/v1alpha1
kind: EvalRun
metadata: {name: tickets, namespace: support}
spec:
  baseModel: {uri: "hf://org/base@main", secretRef: {name: hub}}
  candidate:
    uri: pvc://artifacts/tuned
    digest: DIGEST
    systemPrompt: Route it.
    fewShot: 2
    templateArguments: {enable_thinking: "false", level: '"low"'}
  baseline:
    endpoint:
      url: https://models.example/v1
      model: large
      secretRef: {name: key}
      prices: {inputPricePerMillion: "0.15", outputPricePerMillion: "0.6", currency: EUR}
  references:
  - {name: earlier, answers: {uri: rows.jsonl, digest: DIGEST, side: baseline}}
  - {name: other, model: {uri: model}, contextColumn: passages}
  fewShotFrom: {uri: pvc://artifacts/pool.jsonl}
  confidence: "0.9"
  seed: 7
  engine: VLLM
  compute: {gpus: 4}
  parallelism: 3
  suites:
  - name: task
    dataset: {uri: rows.jsonl, format: PromptCompletion, columns: {prompt: question, completion: label}}
    limit: 100
    repeats: 4
    maxBroken: "0.1"
    maxNewTokens: 64
    temperature: "0.7"
    topP: "0.9"
    stop: ["END"]
    groupColumn: document
    sliceColumns: [language]
    metrics:
    - {type: PassAtK, k: 3}
    - {type: Numeric, name: price, tolerance: {absolute: "0.5", relative: "0.1"}}
    - type: Judge
      judge:
        endpoint:
          url: "http://judge/v1"
          model: j
          secretRef: {name: judge}
          prices: {currency: EUR, inputPricePerMillion: "1", outputPricePerMillion: "2"}
          budget: {calls: 9, tokens: 9000, amount: "2"}
        mode: Pairs
        rubric: Be kind.
        maxTokens: 99
        humanLabelColumn: stars
    - {type: ExactMatch, name: same, text: {ignoreCase: true, ignorePunctuation: true}}
    - {type: Regex, pattern: "[0-9]+"}
    - {type: JSONSchema, jsonSchema: "{}"}
    - {type: Accuracy, labels: [one, two]}
  - name: facts
    harness: {task: arc_easy, data: pvc://artifacts/arc, include: pvc://artifacts/arc, fewShot: 5, chatTemplate: true}
    metrics: [{type: TaskScore, taskMetric: acc_norm}]
  - name: scored
    dataset: {uri: rows.jsonl, columns: {messages: talk, tools: functions}, secretRef: {name: key}}
    container:
      image: registry.example/scorer@DIGEST
      command: [score]
      timeoutSeconds: 60
      resources: {limits: {memory: 4Gi}, requests: {memory: 1Gi}}
    metrics:
    - {type: ContainerScore}
    - {type: CodeTests, timeoutSeconds: 7}
    - {type: EmbeddingSimilarity, embedding: {url: "http://judge/v1", model: e, secretRef: {name: judge}}}
  gates:
  - {suite: task, metric: price, expect: Better, margin: "0.05"}
  - {suite: facts, metric: TaskScore, expect: NotWorse, relativeMargin: "0.02", floor: "0.01", tier: Advisory}
  - {suite: scored, metric: ContainerScore, expect: Better, minItems: 30}
  safety: {margin: "0.2", judge: {endpoint: {url: "http://judge/v1", model: j, secretRef: {name: judge}}}}
""".replace("DIGEST", _DIGEST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, rows, and a folder that stands for a claim."""
    for name in ("model", "claim/tuned", "claim/arc"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("rows.jsonl", "claim/pool.jsonl"):
        (tmp_path / name).write_text("")
    return tmp_path


def build(folder: Path, manifest: str, **mounts: Path) -> ManifestRun:
    (folder / "eval.yaml").write_text(manifest)
    places = Places(folder, mounts or {"artifacts": folder / "claim"})
    return build_run(
        read_manifest(folder / "eval.yaml"),
        places,
        name="eval",
        output="pvc://this-computer/out",
        gpus=0,
        trained_on={},
    )


def changed(**members: Any) -> str:
    """The minimal spec with other members."""
    return str(yaml.safe_dump(yaml.safe_load(MINIMAL) | members))


def _suite(**members: Any) -> dict[str, Any]:
    """The minimal spec's suite with other members."""
    return {"suites": [yaml.safe_load(MINIMAL)["suites"][0] | members]}


def _gate(**members: Any) -> dict[str, Any]:
    """The minimal spec's gate with other members."""
    return {"gates": [yaml.safe_load(MINIMAL)["gates"][0] | members]}


def on_a_claim(manifest: str) -> str:
    """A manifest with URIs in place of its paths."""
    return re.sub(r"uri: (rows\.jsonl|model)\b", r"uri: pvc://artifacts/\1", manifest)


def fields_set(model: BaseModel) -> Iterator[tuple[type[BaseModel], str]]:
    """Fields that are written in a document and below it, by their class."""
    for name in model.model_fields_set:
        value = getattr(model, name)
        yield type(model), name
        for child in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(child, BaseModel):
                yield from fields_set(child)


def test_a_spec_alone_is_enough(folder: Path) -> None:
    config = build(folder, MINIMAL).config
    assert config.owner.name == "eval"
    assert config.base_model == f"pvc://this-computer{folder}/model"
    assert [side.name for side in config.sides] == ["candidate", "baseline"]
    assert config.sides[0].adapter
    assert config.sides[0].adapter.uri == f"pvc://this-computer{folder}/claim/tuned"
    assert config.sides[1].is_bare
    assert config.suites[0].dataset == f"pvc://this-computer{folder}/rows.jsonl"


def test_the_safety_suite_is_a_gate_unless_it_is_switched_off_with_a_reason(folder: Path) -> None:
    config = build(folder, MINIMAL).config
    assert [suite.name for suite in config.suites if suite.is_safety] == [SAFETY_SUITE, HARMLESS_SUITE]
    gate = config.gates[-2]
    assert (gate.suite, gate.expect, gate.tier, gate.margin) == (
        SAFETY_SUITE,
        Expect.NOT_WORSE,
        Tier.BLOCKING,
        0.1,
    )
    own = {"suite": "safety", "metric": "SafeAnswer", "expect": "NotWorse", "margin": "0.3"}
    gates = [*yaml.safe_load(MINIMAL)["gates"], own]
    assert [each.margin for each in build(folder, changed(gates=gates)).config.gates] == [0, 0.3, 0.1]
    off = build(folder, changed(safety={"disabled": True, "reason": "a classifier"})).config
    assert off.notes == ("The safety suites are switched off: a classifier",)
    assert SAFETY_SUITE not in {suite.name for suite in off.suites} | {each.suite for each in off.gates}
    with pytest.raises(UserError, match=r"safety\.disabled needs a reason"):
        build(folder, changed(safety={"disabled": True}))


def test_every_member_arrives(folder: Path) -> None:
    run = build(folder, RICH)
    config = run.config
    candidate, baseline, earlier, other = config.sides
    assert (candidate.system_prompt, candidate.few_shot) == ("Route it.", 2)
    assert candidate.template_arguments == {"enable_thinking": False, "level": "low"}
    assert baseline.endpoint and baseline.endpoint.prices
    assert (baseline.endpoint.model, str(baseline.endpoint.prices.completion)) == ("large", "0.6")
    assert earlier.answers
    assert (earlier.answers.side, earlier.answers.digest) == ("baseline", _DIGEST)
    assert (other.model, other.context_column) == (f"pvc://this-computer{folder}/model", "passages")
    assert config.few_shot_from == f"pvc://this-computer{folder}/claim/pool.jsonl"
    assert (config.confidence, config.seed, config.engine, config.owner.name) == (0.9, 7, "VLLM", "tickets")
    assert (config.gpus, config.shards) == (0, 1)
    task, facts, scored, *safety = config.suites
    assert (task.format, task.columns) == ("PromptCompletion", {"prompt": "question", "completion": "label"})
    assert (task.limit, task.repeats, task.max_broken) == (100, 4, 0.1)
    decoding = task.decoding
    assert (decoding.max_new_tokens, decoding.temperature, decoding.top_p, decoding.stop) == (
        64,
        0.7,
        0.9,
        ("END",),
    )
    assert (task.group_column, task.slice_columns) == ("document", ("language",))
    passing, price, judged = task.metrics[:3]
    assert (passing.pass_at_k, price.key, judged.type) == (3, "price", Metric.JUDGE)
    assert price.tolerance and judged.judge
    assert price.tolerance.absolute == 0.5
    assert (judged.judge.mode, judged.judge.rubric) == (JudgeMode.PAIRS, "Be kind.")
    assert facts.harness
    assert (facts.harness.task, facts.harness.few_shot) == ("arc_easy", 5)
    assert facts.harness.data == f"pvc://this-computer{folder}/claim/arc"
    assert facts.harness.chat_template
    assert facts.metrics[0].task_metric == "acc_norm"
    assert scored.container
    assert (scored.container.command, scored.container.timeout_seconds) == (("score",), 60)
    assert all(suite.is_safety for suite in safety)
    assert [gate.margin for gate in config.gates] == [0.05, 0, 0, 0.2, 0.2]
    assert (config.gates[1].relative_margin, config.gates[1].floor) == (0.02, 0.01)
    assert run.secrets == {
        "base-model": "hub",
        "side-baseline": "key",
        "metric-task-2": "judge",
        "metric-scored-2": "judge",
        "suite-scored": "key",
        "metric-safety-0": "judge",
        "metric-safety-harmless-0": "judge",
    }


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"candidat": {}}, r"spec\.candidat is not known: did you mean candidate\?"),
        ({"gpu": 1}, r"spec\.gpu is not known: leave it out"),
        ({"Gates": []}, r"spec\.Gates is not known: did you mean gates\?"),
        (
            {"candidate": {"fineTuneJobRef": {"name": "a"}}},
            "only a cluster knows this FineTuneJob: write uri and digest",
        ),
        (
            {"candidate": {"adapterDeploymentRef": {"name": "a"}}},
            "only a cluster knows this AdapterDeployment",
        ),
        ({"candidate": {"uri": "pvc://artifacts/tuned"}}, r"spec\.candidate\.digest is missing"),
        (
            {"candidate": {"uri": "pvc://artifacts/tuned", "digest": "abc"}},
            r"spec\.candidate\.digest: String should match",
        ),
        ({"candidate": {"base": {}, "model": {"uri": "model"}}}, "exactly one source of the model"),
        (
            {"candidate": {"uri": "nowhere", "digest": _DIGEST}},
            "nowhere does not exist: write the path of a folder",
        ),
        ({"candidate": {"base": {}, "fewShot": 1}}, "add fewShotFrom"),
        ({"candidate": {"base": {}, "prompt": "x"}}, r"spec\.candidate\.prompt is not known"),
        ({"shards": 3}, r"spec\.shards is not known"),
        ({"candidate": {"base": {}, "servedAs": "a/b"}}, r"spec\.candidate\.servedAs is not known"),
        ({"baseModel": {"uri": "pvc://other/model"}}, "add --mount other=FOLDER"),
        ({"baseModel": None}, "add baseModel"),
        ({"suites": []}, r"spec\.gates\[0\] names task/ExactMatch|suites: Tuple should have at least 1"),
        ({"suites": {"name": "x"}}, r"spec\.suites holds a mapping: write a list"),
        ({"suites": [{"name": "task", "metrics": []}]}, "exactly one kind of items"),
        ({"suites": [{"name": "task", "dataset": {"uri": "no.jsonl"}}]}, r"no\.jsonl does not exist"),
        ({"suites": [{"name": "task", "dataset": {"uri": "configmap://a/b"}}]}, "write its rows into a file"),
        (
            {"suites": [{"name": "task", "dataset": {"uri": "rows.jsonl"}, "metrics": [{"type": "Exact"}]}]},
            r"spec\.suites\[0\]\.metrics\[0\]\.type: did you mean ExactMatch\?",
        ),
        (
            {"gates": [{"suite": "task", "metric": "ExactMatch", "expect": "Up"}]},
            r"spec\.gates\[0\]\.expect: write one of 'Better' or 'NotWorse'",
        ),
        (
            {"candidate": {"answers": {"uri": "rows.jsonl", "digest": _DIGEST}, "systemPrompt": "x"}},
            r"spec\.candidate\.systemPrompt: stored answers were prompted",
        ),
        (
            {"candidate": {"answers": {"uri": "rows.jsonl"}}},
            r"spec\.candidate\.answers\.digest: this is missing: write it",
        ),
        (_suite(metrics=[]), r"spec\.suites\[0\]\.metrics: write at least one"),
        (_suite(stop="END"), r"spec\.suites\[0\]\.stop: write a list"),
        (_suite(maxNewTokens=0), r"spec\.suites\[0\]\.maxNewTokens is 0: write 1 or more"),
        (_suite(limit=True), r"spec\.suites\[0\]\.limit is True: write a whole number without quotes"),
        (_suite(repeats=2), "repeated answers are all alike without a temperature"),
        (_suite(metrics=[{"type": "PassAtK", "k": 2}]), "raise repeats"),
        (_suite(metrics=[{"type": "ExactMatch"}] * 2), r"suites\[0\]\.metrics: ExactMatch is there twice"),
        (_suite(name="safety"), "the name safety belongs to a built-in suite"),
        (_suite(container={"image": "scorer:1"}), "write it by its digest"),
        ({"suites": yaml.safe_load(MINIMAL)["suites"] * 2}, r"spec\.suites: task is there twice"),
        ({"suites": None, "suits": []}, r"spec\.suits is not known: did you mean suites\?"),
        ({"candidate": {"base": {}, "checkpointStep": 7}}, r"spec\.candidate\.checkpointStep is not known"),
        (
            {"candidate": {"endpoint": {"url": "models:80/v1", "model": "m"}}},
            "write http:// or https:// first",
        ),
        (
            {"safety": {"disabled": "false", "reason": "none"}},
            r"spec\.safety\.disabled is 'false': write true or false without quotes",
        ),
        ({"safety": {"disabled": 1, "reason": "none"}}, r"spec\.safety\.disabled is 1: write true or false"),
        ({"safety": {"margin": "-1"}}, r"spec\.safety\.margin is '-1': write a decimal number"),
        ({"safety": {"margin": "nan"}}, r"spec\.safety\.margin is 'nan': write a decimal number"),
        (_gate(margin="inf"), r"spec\.gates\[0\]\.margin is 'inf': write a decimal number"),
        (_gate(margin="nan"), r"spec\.gates\[0\]\.margin"),
        (_gate(minItems=1), r"spec\.gates\[0\]\.minItems is 1: write 4 or more"),
        (_gate(floor="0.1"), "floor belongs to relativeMargin"),
        ({"confidence": "0.1"}, r"spec\.confidence is 0\.1: write a number of at least 0\.5"),
        ({"baseModel": {"uri": "file:///model"}}, "or the path of a file or folder"),
        (
            {"gates": [{"suite": "task", "metric": "BLEU", "expect": "Better"}]},
            "names task/BLEU: write one of",
        ),
        (
            {"gates": [{"suite": "task", "metric": "ExactMatch", "expect": "NotWorse"}]},
            "largest acceptable loss",
        ),
        (
            {"gates": [{"suite": "task", "metric": "ExactMatch", "expect": "Better", "tier": "Advisory"}]},
            "at least one gate must be Blocking",
        ),
        ({"gates": []}, "at least one gate must be Blocking"),
        ({"confidence": "1.5"}, r"spec\.confidence is 1\.5: write a number below 1"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_write(
    folder: Path, members: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build(folder, changed(**members))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "'a' is written twice"),
        ("a: 1\n---\nb: 2", "holds 2 documents"),
        ("", "is empty: write an EvalRun"),
        ("- a", "holds no mapping: write an EvalRun"),
        ("42", "holds no mapping: write an EvalRun"),
        ("2024-01-01: a", "has 2024-01-01 for a name"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("? {a: 1}\n: b", "is not YAML"),
        ("kind: Pod\napiVersion: v1", "the manifest is a v1, Pod: write an EvalRun"),
        ("kind: EvalRun\napiVersion: other/v1\nspec: {}", "write an EvalRun of"),
        ("kind: EvalRun\napiVersion: tunesmith.dev/v1alpha1", "spec holds nothing"),
    ],
)
def test_a_file_that_holds_no_evalrun_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(folder, text)


@pytest.mark.parametrize(
    ("uri", "files", "checkpoint"),
    [
        ("s3://work/team/uid/checkpoints/checkpoint-200", (), True),
        ("s3://work/team/sha256/2b1f", (), False),
        ("pvc://artifacts/checkpoints/checkpoint-200", ("commit.json",), True),
        ("copies/best", ("commit.json",), True),
        ("copies/checkpoint-200", ("manifest.json",), False),
        ("copies/best", ("manifest.json",), False),
        # The stage says that it has no commit.json.
        ("copies/checkpoint-200", (), True),
    ],
)
def test_a_checkpoint_is_told_from_an_artifact(
    folder: Path, uri: str, files: tuple[str, ...], checkpoint: bool
) -> None:
    place = folder / uri.replace("pvc://artifacts", "claim")
    if not uri.startswith("s3"):
        place.mkdir(parents=True)
    for file in files:
        (place / file).write_text("{}")
    candidate = build(folder, changed(candidate={"uri": uri, "digest": _DIGEST})).config.sides[0]
    named, other = candidate.adapter, candidate.checkpoint
    if checkpoint:
        named, other = other, named
    assert named is not None
    assert (named.digest, other) == (_DIGEST, None)


def test_the_word_spec_may_stand_before_a_spec(folder: Path) -> None:
    spec = yaml.safe_dump({"spec": yaml.safe_load(MINIMAL)})
    assert build(folder, spec).config == build(folder, MINIMAL).config


def test_a_password_in_an_address_is_refused_and_not_shown(folder: Path) -> None:
    endpoint = {"url": "https://ann:s3cret@models.example/v1", "model": "m"}
    with pytest.raises(UserError, match="write the key into a Secret") as caught:
        build(folder, changed(candidate={"endpoint": endpoint}))
    assert "s3cret" not in caught.value.message


def test_a_folder_in_place_of_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: Is a directory"):
        read_manifest(tmp_path)


def test_the_manifests_here_hold_every_member_of_suites_and_gates() -> None:
    """The next test compares them: a member that the API gets has to be read by the command as well."""
    spec = EvalRun.model_validate(yaml.safe_load(on_a_claim(RICH))).spec
    written = {kind: set[str]() for kind, _ in fields_set(spec)}
    for kind, name in fields_set(spec):
        written[kind].add(name)
    documents = [kind for suite in (*spec.suites, *spec.gates) for kind, _ in fields_set(suite)]
    missing = {kind.__name__: set(kind.model_fields) - written[kind] for kind in documents}
    assert {kind: names for kind, names in missing.items() if names} == {}


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"eval\.yaml does not exist"):
        read_manifest(tmp_path / "eval.yaml")


def test_suites_and_gates_are_those_that_the_operator_makes_of_the_manifest(folder: Path) -> None:
    claim = folder / "claim"
    for name in ("rows.jsonl", "model"):
        (folder / name).rename(claim / name)
    manifest = on_a_claim(RICH)
    spec = EvalRun.model_validate(yaml.safe_load(manifest)).spec
    config = build(folder, manifest).config
    here = f"pvc://this-computer{claim}"
    suites = [suite.to_json().replace("pvc://artifacts", here) for suite in resolve_suites(spec)]
    assert [suite.to_json() for suite in config.suites] == suites
    assert config.gates == resolve_gates(spec)
    assert (config.confidence, config.seed, config.engine) == (float(spec.confidence), spec.seed, spec.engine)


#: Members that a cluster and a computer must read alike, with values that both take or both refuse.
_MARGINS = (0.05, "0.05", 0, "0", 1, "1", "5", "abc", "-0.1", "1e-2", True)
_COUNTS = (20, "20", 20.5, "many", True)
_ONE_RULE = {
    "gates.0.margin": _MARGINS,
    "gates.0.relativeMargin": _MARGINS,
    "gates.0.minItems": (*_COUNTS, 4, 3),
    "confidence": (0.9, "0.9", "0.4", "1", "high"),
    "seed": (7, "7", 7.5, True),
    "suites.0.maxBroken": (0.1, "0.1", "1", "none"),
    "suites.0.temperature": (0, "0", 0.7, "hot"),
    "suites.0.topP": (0.9, "0.9", "1", "1.5", "0"),
    "suites.0.limit": _COUNTS,
    "suites.0.maxNewTokens": _COUNTS,
    "suites.0.metrics.0.text": ({"ignoreCase": True}, {"ignoreCase": "true"}, {"ignoreCase": 1}),
    "suites.0.metrics.0.tolerance": ({"absolute": 0.5}, {"absolute": "0.5"}, {"relative": "x"}),
    "safety.margin": (0.1, "0.1", "0", "0.3"),
    "safety.maxNewTokens": _COUNTS,
    "safety": ({"disabled": "false", "reason": "x"}, {"disabled": True, "reason": "x"}),
    "candidate.fewShot": (0, "0", 0.5),
    "candidate.endpoint.prices.inputPricePerMillion": (1, "1", 0.5, "cheap"),
}


@pytest.mark.parametrize(
    ("place", "value"), [(place, value) for place, values in _ONE_RULE.items() for value in values]
)
def test_a_value_is_read_as_in_a_cluster(folder: Path, place: str, value: Any) -> None:
    spec = yaml.safe_load(MINIMAL) | {"safety": {}, "baseModel": {"uri": "hf://org/base"}}
    prices = {"inputPricePerMillion": "1", "outputPricePerMillion": "1", "currency": "EUR"}
    spec["candidate"] = {"endpoint": {"url": "http://model/v1", "model": "m", "prices": prices}}
    spec["output"] = {"uri": "pvc://artifacts/out"}
    if "relativeMargin" not in place:
        spec["gates"][0]["margin"] = "0.01"
    *path, last = (int(part) if part.isdigit() else part for part in place.split("."))
    reduce(lambda members, part: members[part], path, spec)[last] = value
    in_cluster = deepcopy(spec)
    in_cluster["suites"][0]["dataset"]["uri"] = "pvc://artifacts/pool.jsonl"
    resource = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "EvalRun", "metadata": {"name": "a"}}
    try:
        EvalRun.model_validate(resource | {"spec": in_cluster})
        # The API server takes no text for a whole number, as the model does.
        jsonschema.validate(in_cluster, SCHEMA)
    except (ValidationError, jsonschema.ValidationError):
        with pytest.raises(UserError, match=re.escape(f"spec.{place.split('.')[0]}")):
            build(folder, str(yaml.safe_dump(spec)))
    else:
        build(folder, str(yaml.safe_dump(spec)))
