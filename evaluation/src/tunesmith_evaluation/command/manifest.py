"""Manifest of an EvalRun, read into the configuration that pods get.

The manifest is the same as for a cluster, or its ``spec`` alone. Paths may stand where it has URIs. What only a cluster
knows, such as FineTuneJobs and aliases, is refused with a word on what to write; what only a cluster needs, such as
``compute``, is passed over.
"""

import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tunesmith_contract.evaluation import (
    FEWEST_ITEMS,
    SAFETY_SUITE,
    Decoding,
    EndpointBudget,
    EvaluationJudge,
    Expect,
    Gate,
    HarnessTask,
    MetricSettings,
    ModelUse,
    PricedEndpoint,
    Side,
    StoredAnswers,
    Suite,
    SuiteContainer,
    Tier,
    TokenPrices,
    TrainedRows,
)
from tunesmith_contract.layout import (
    COMMIT_FILE,
    MANIFEST_FILE,
    SecretRole,
    metric_role,
    side_role,
    suite_role,
)
from tunesmith_contract.methods import ChatEndpoint
from tunesmith_contract.run_config import EvaluateConfig, Owner
from tunesmith_contract.safety import (
    HARMLESS_SUITE,
    SAFETY_MARGIN,
    SAFETY_NEW_TOKENS,
    SAFETY_SUITES,
    safety_gates,
    safety_suites,
)
from tunesmith_contract.sources import ArtifactSource
from tunesmith_data.failures import UserError

from .members import Members
from .places import Places

#: Members that only a cluster needs.
_CLUSTER_ONLY = (
    "activeDeadlineSeconds",
    "backoffLimit",
    "compute",
    "output",
    "parallelism",
    "ttlSecondsAfterFinished",
)
_CLUSTER_SOURCES = {
    "fineTuneJobRef": "FineTuneJob: write uri and digest of its status.artifact, or of one of status.checkpoints",
    "adapterDeploymentRef": "AdapterDeployment: write uri and digest of the artifact that it serves",
}
#: Members that have the same names in the configuration of the stage.
_GATE = ("suite", "metric", "expect", "tier")
_SUITE = ("groupColumn", "sliceColumns", "limit", "repeats")
_METRIC = ("type", "name", "text", "pattern", "jsonSchema", "tolerance", "labels", "taskMetric")

_PROMPTING = ("systemPrompt", "fewShot", "contextColumn", "templateArguments")

_SAFETY_ROLE = metric_role(SAFETY_SUITE, 0)
_PINNED_IMAGE = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class ManifestRun:
    """Run that a manifest asks for.

    Attributes:
        config: configuration of the stage.
        secrets: names of the Secrets by role.
    """

    config: EvaluateConfig
    secrets: Mapping[str, str]


@dataclass(slots=True)
class _Reader:
    """Reader of a spec; it gathers the Secrets that the spec names."""

    places: Places
    secrets: dict[str, str] = field(default_factory=dict)

    def open_with(self, role: str, members: Members) -> None:
        """Note the Secret that opens a place, if the members name one."""
        reference = members.members("secretRef")
        if reference is not None:
            self.secrets[role] = _required(reference, "name", "the name of a Secret")
            reference.close()


def read_manifest(path: Path) -> dict[str, Any]:
    """The one document of a YAML or JSON file.

    Raises:
        UserError: the file can't be read, holds several documents, or names a member twice.
    """
    try:
        documents = list(yaml.load_all(path.read_bytes(), Loader=_StrictLoader))
    except FileNotFoundError:
        raise UserError("ManifestNotFound", f"{path} does not exist: write the file of an EvalRun") from None
    except OSError as error:
        raise UserError("ManifestNotFound", f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("InvalidEvalRun", f"{path} is not YAML: {' '.join(str(error).split())}") from None
    documents = [document for document in documents if document is not None]
    if not documents:
        raise UserError("InvalidEvalRun", f"{path} is empty: write an EvalRun, or its spec")
    if len(documents) > 1:
        raise UserError(
            "InvalidEvalRun", f"{path} holds {len(documents)} documents: write one EvalRun in a file"
        )
    if not isinstance(documents[0], dict):
        raise UserError("InvalidEvalRun", f"{path} holds no mapping: write an EvalRun, or its spec")
    return documents[0]


def build_run(
    manifest: dict[str, Any],
    places: Places,
    *,
    name: str,
    output: str,
    gpus: int,
    trained_on: Mapping[str, str],
) -> ManifestRun:
    """Run that a manifest asks for.

    Args:
        manifest: an EvalRun, or its spec.
        places: resolution of its places.
        name: name of the run, where the manifest has none.
        output: URI of the output folder.
        gpus: number of GPUs.
        trained_on: URI of the prepared training rows by name of a side, in which leaked items are looked for.

    Raises:
        UserError: a member is missing, wrong, unknown, or needs a cluster.
    """
    spec, written = _spec(manifest)
    reader = _Reader(places)
    for member in _CLUSTER_ONLY:
        spec.take(member)
    base = spec.members("baseModel")
    base_model = None
    if base is not None:
        base_model = places.model(_required(base, "uri", "the location of the base model"))
        reader.open_with(SecretRole.BASE_MODEL, base)
        base.close()
    sides = _sides(reader, spec)
    suites = [_suite(reader, members) for members in spec.list("suites")]
    gates = [_gate(members) for members in spec.list("gates")]
    on_safety, further_gates, notes = _safety(reader, spec, gates)
    examples = _examples(reader, spec, sides)
    settings = {name: spec.take(name) for name in ("engine", "seed")}
    confidence, advice = spec.decimal("confidence", at_least=0.5, below=1), _advice(spec)
    spec.close()
    _check_suites(suites)
    suites += on_safety
    _check_gates(gates, suites)
    _check_sides(sides, base_model, trained_on)
    config = Members(settings, spec.path).document(
        EvaluateConfig,
        *settings,
        confidence=confidence,
        owner=Owner(kind="EvalRun", namespace="", name=written or name, uid=""),
        base_model=base_model,
        sides=sides,
        suites=suites,
        gates=[*gates, *further_gates],
        notes=notes,
        advice=advice,
        few_shot_from=examples,
        trained_rows=[TrainedRows(side=side, uri=uri) for side, uri in trained_on.items()],
        gpus=gpus,
        output=output,
    )
    return ManifestRun(config, reader.secrets)


def _check_sides(sides: Sequence[Side], base_model: str | None, trained_on: Mapping[str, str]) -> None:
    """Check that models are named that compared ones stand on, and compared ones that options name.

    Raises:
        UserError: one is not.
    """
    if base_model is None and any(_needs_base(side) for side in sides):
        raise UserError(
            "InvalidEvalRun", "a compared model stands on the base model: add baseModel: {uri: …}"
        )
    unknown = set(trained_on) - {side.name for side in sides}
    if unknown:
        raise UserError(
            "InvalidOption", f"--trained-on names {min(unknown)}, but no compared model has that name"
        )


def _spec(manifest: dict[str, Any]) -> tuple[Members, str | None]:
    """The spec, and the name of the resource if there is one.

    Raises:
        UserError: the document is another resource.
    """
    if "kind" not in manifest:
        return Members(manifest["spec"] if set(manifest) == {"spec"} else manifest, "spec"), None
    if manifest["kind"] != "EvalRun" or not str(manifest.get("apiVersion", "")).startswith("tunesmith.dev/"):
        kind = f"{manifest.get('apiVersion')}, {manifest['kind']}"
        raise UserError(
            "InvalidEvalRun", f"the manifest is a {kind}: write an EvalRun of tunesmith.dev/v1alpha1"
        )
    metadata = manifest.get("metadata") or {}
    return Members(manifest.get("spec"), "spec"), metadata.get("name") if isinstance(metadata, dict) else None


def _sides(reader: _Reader, spec: Members) -> list[Side]:
    candidate = spec.members("candidate")
    if candidate is None:
        raise UserError("InvalidEvalRun", "spec.candidate is missing: write the model that is evaluated")
    baseline = spec.members("baseline") or Members({"base": {}}, "spec.baseline")
    sides = [_side(reader, candidate, "candidate"), _side(reader, baseline, "baseline")]
    for reference in spec.list("references"):
        sides.append(_side(reader, reference, _required(reference, "name", "a name for the reference")))
    names = [side.name for side in sides]
    if len(set(names)) < len(names):
        raise UserError(
            "InvalidEvalRun", f"spec.references: names have to differ, but they are {', '.join(names)}"
        )
    return sides


def _side(reader: _Reader, members: Members, name: str) -> Side:
    for member, words in _CLUSTER_SOURCES.items():
        if member in members:
            raise UserError(
                "NotOnThisComputer", f"{members.path}.{member}: only a cluster knows this {words}"
            )
    sources = [source for source in ("base", "uri", "model", "endpoint", "answers") if source in members]
    if len(sources) != 1:
        forms = (
            "base: {}, uri and digest, model: {uri: …}, endpoint: {url: …, model: …}, or answers: {uri: …}"
        )
        raise UserError("InvalidEvalRun", f"{members.path}: write exactly one source of the model: {forms}")
    values: dict[str, Any] = {"name": name}
    role = side_role(name)
    match sources[0]:
        case "base":
            Members(members.take("base", {}), f"{members.path}.base").close()
        case "uri":
            written = _required(members, "uri", "the location of an artifact or of a checkpoint")
            source, file = (
                ("checkpoint", COMMIT_FILE)
                if reader.places.is_checkpoint(written)
                else ("adapter", MANIFEST_FILE)
            )
            digest = _required(members, "digest", f"its digest, the sha256: of its {file}")
            values[source] = _artifact(reader.places.folder_uri(written), digest, members.path)
            reader.open_with(role, members)
        case "model":
            model = _child(members, "model")
            values["model"] = reader.places.model(_required(model, "uri", "the location of a model"))
            reader.open_with(role, model)
            model.close()
        case "endpoint":
            values["endpoint"] = _endpoint(reader, _child(members, "endpoint"), role)
        case _:
            answers = _child(members, "answers")
            prompted = next((name for name in _PROMPTING if name in members), None)
            if prompted is not None:
                words = "stored answers were prompted when they were generated: leave it out"
                raise UserError("InvalidEvalRun", f"{members.path}.{prompted}: {words}")
            uri = reader.places.rows(_required(answers, "uri", "the location of an items.jsonl"))
            reader.open_with(role, answers)
            values["answers"] = answers.document(
                StoredAnswers, "digest", uri=uri, side=answers.take("side", "candidate")
            )
    arguments = members.members("templateArguments")
    if arguments is not None:
        values["template_arguments"] = _template_arguments(arguments)
    return members.document(Side, "systemPrompt", "fewShot", "contextColumn", **values)


def _template_arguments(members: Members) -> dict[str, Any]:
    """Arguments of the chat template, whose values are written in JSON."""
    arguments = {}
    for name in members.names():
        written = members.text(name)
        try:
            arguments[name] = json.loads(written or "")
        except ValueError:
            message = (
                f'{members.path}.{name} is not JSON: write a value in quotes, such as "false" or \'"low"\''
            )
            raise UserError("InvalidEvalRun", message) from None
    return arguments


def _advice(spec: Members) -> ModelUse | None:
    members = spec.members("advice")
    if members is None:
        return None
    prices = members.members("prices")
    return members.document(
        ModelUse,
        "examples",
        "requestsPerMonth",
        bar=members.decimal("bar"),
        latency_budget=members.decimal("latencyBudgetSeconds"),
        training_cost=members.decimal("trainingCost"),
        prices=prices and _prices(prices),
    )


def _prices(members: Members) -> TokenPrices:
    return members.document(
        TokenPrices,
        "currency",
        prompt=members.decimal("inputPricePerMillion"),
        completion=members.decimal("outputPricePerMillion"),
    )


def _endpoint(reader: _Reader, members: Members, role: str) -> PricedEndpoint:
    reader.open_with(role, members)
    prices = members.members("prices")
    budget = members.members("budget")
    limits = budget and budget.document(
        EndpointBudget,
        calls=budget.whole("calls"),
        tokens=budget.whole("tokens"),
        amount=budget.decimal("amount", above=0),
    )
    if limits == EndpointBudget():
        raise UserError("InvalidEvalRun", f"{members.path}.budget is empty: write calls, tokens or amount")
    return members.document(
        PricedEndpoint, "model", url=_url(members), prices=prices and _prices(prices), budget=limits
    )


def _url(members: Members) -> str:
    """URL of an endpoint.

    Raises:
        UserError: it is none, or holds a password, which is not shown.
    """
    url = _required(members, "url", "the address of the endpoint, up to /v1")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            "InvalidEvalRun", f"{members.path}.url is no address: write http:// or https:// first"
        )
    if "@" in parts.netloc:
        message = f"{members.path}.url holds a user name or password: write the key into a Secret (secretRef)"
        raise UserError("InvalidEvalRun", message)
    return url


def _suite(reader: _Reader, members: Members) -> Suite:
    name = _required(members, "name", "a name for the suite")
    dataset, harness, container = (members.members(key) for key in ("dataset", "harness", "container"))
    if (dataset is None) == (harness is None):
        message = (
            f"{members.path}: write exactly one kind of items: dataset: {{uri: …}}, or harness: {{task: …}}"
        )
        raise UserError("InvalidEvalRun", message)
    values: dict[str, Any] = {}
    if dataset is not None:
        values["dataset"] = reader.places.rows(_required(dataset, "uri", "the location of the items"))
        values |= {"format": dataset.take("format"), "columns": dataset.take("columns")}
        reader.open_with(suite_role(name), dataset)
        dataset.close()
    if harness is not None:
        places = {key: harness.text(key) for key in ("data", "include")}
        values["harness"] = harness.document(
            HarnessTask,
            "task",
            "fewShot",
            "chatTemplate",
            **{key: written and reader.places.folder_uri(written) for key, written in places.items()},
        )
    if container is not None:
        container.take("resources")  # those of a pod
        values["container"] = container.document(SuiteContainer, "image", "command", "timeoutSeconds")
    metrics = [
        _metric(reader, metric, metric_role(name, index))
        for index, metric in enumerate(members.list("metrics"))
    ]
    values["max_broken"] = members.decimal("maxBroken", below=1)
    decoding = {
        "max_new_tokens": members.whole("maxNewTokens"),
        "temperature": members.decimal("temperature"),
        "top_p": members.decimal("topP", above=0, at_most=1),
        "stop": members.take("stop"),
    }
    chosen = Members({}, members.path).document(Decoding, **decoding)
    return members.document(Suite, *_SUITE, name=name, metrics=metrics, decoding=chosen, **values)


def _metric(reader: _Reader, members: Members, role: str) -> MetricSettings:
    judge, embedding = members.members("judge"), members.members("embedding")
    values: dict[str, Any] = {
        "pass_at_k": members.whole("k"),
        "code_timeout_seconds": members.whole("timeoutSeconds"),
    }
    if judge is not None:
        values["judge"] = _judge(reader, judge, role)
    if embedding is not None:
        reader.open_with(role, embedding)
        values["embedding"] = embedding.document(ChatEndpoint, "model", url=_url(embedding))
    return members.document(MetricSettings, *_METRIC, **values)


def _judge(reader: _Reader, members: Members, role: str) -> EvaluationJudge:
    endpoint = _endpoint(reader, _child(members, "endpoint"), role)
    return members.document(
        EvaluationJudge, "mode", "rubric", "maxTokens", "humanLabelColumn", endpoint=endpoint
    )


def _gate(members: Members) -> Gate:
    numbers = {
        "min_items": members.whole("minItems", at_least=FEWEST_ITEMS),
        "margin": members.decimal("margin", below=1),
        "relative_margin": members.decimal("relativeMargin", below=1),
        "floor": members.decimal("floor", below=1),
    }
    return members.document(Gate, *_GATE, **numbers)


def _safety(
    reader: _Reader, spec: Members, gates: Sequence[Gate]
) -> tuple[Sequence[Suite], list[Gate], tuple[str, ...]]:
    """The built-in suites on safety, those of their gates that the spec has not itself, and sentences for the report.

    Raises:
        UserError: they are switched off without a reason.
    """
    safety = spec.members("safety") or Members({}, "spec.safety")
    disabled, reason = safety.flag("disabled"), safety.text("reason")
    margin = float(safety.decimal("margin", above=0, at_most=0.25) or SAFETY_MARGIN)
    tokens, judge = safety.whole("maxNewTokens", at_least=16) or SAFETY_NEW_TOKENS, safety.members("judge")
    judged = None if judge is None else _judge(reader, judge, _SAFETY_ROLE)
    if judge is not None and _SAFETY_ROLE in reader.secrets:
        reader.secrets[metric_role(HARMLESS_SUITE, 0)] = reader.secrets[_SAFETY_ROLE]
    safety.close()
    if disabled and not reason:
        raise UserError("InvalidEvalRun", "spec.safety.disabled needs a reason for people: write reason: …")
    if disabled:
        return [], [], (f"The safety suites are switched off: {reason}",)
    written = {(gate.suite, gate.metric, gate.expect, gate.tier) for gate in gates}
    missing = [
        gate
        for gate in safety_gates(margin)
        if (gate.suite, gate.metric, gate.expect, gate.tier) not in written
    ]
    return safety_suites(judged, tokens), missing, ()


def _check_suites(suites: Sequence[Suite]) -> None:
    """Check what the API server checks in a cluster: names, and what metrics and repeats need.

    Raises:
        UserError: something does not fit together.
    """
    _check_distinct("spec.suites", [suite.name for suite in suites])
    for index, suite in enumerate(suites):
        path = f"spec.suites[{index}]"
        problem = _problem(suite)
        if problem:
            raise UserError("InvalidEvalRun", f"{path}: {problem}")
        _check_distinct(f"{path}.metrics", [metric.key for metric in suite.metrics])


def _problem(suite: Suite) -> str:
    """Contradiction in a suite, with the correction; empty if there is none."""
    if suite.name in SAFETY_SUITES:
        return f"the name {suite.name} belongs to a built-in suite: write another name"
    if suite.container is not None and not _PINNED_IMAGE.search(suite.container.image):
        return "container.image could be moved: write it by its digest, registry.example/team/scorer@sha256:…"
    if any(metric.pass_at_k is not None and metric.pass_at_k > suite.repeats for metric in suite.metrics):
        return "k of PassAtK can't be above repeats: raise repeats"
    if suite.repeats > 1 and not suite.decoding.temperature:
        return 'repeated answers are all alike without a temperature: write one, such as temperature: "0.7"'
    return ""


def _check_distinct(path: str, names: Sequence[str]) -> None:
    """Check that no name is there twice: a gate would mean either of them.

    Raises:
        UserError: one is.
    """
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise UserError("InvalidEvalRun", f"{path}: {repeated} is there twice: write another name for one")


def _check_gates(gates: Sequence[Gate], suites: Sequence[Suite]) -> None:
    """Check what the API server checks in a cluster.

    Raises:
        UserError: a gate names no suite or metric, or has no margin; or no gate decides.
    """
    metrics = {(suite.name, metric.key) for suite in suites for metric in suite.metrics}
    for index, gate in enumerate(gates):
        path = f"spec.gates[{index}]"
        if (gate.suite, gate.metric) not in metrics:
            known = ", ".join(sorted(f"{suite}/{metric}" for suite, metric in metrics))
            raise UserError(
                "InvalidEvalRun", f"{path} names {gate.suite}/{gate.metric}: write one of {known}"
            )
        if gate.floor and gate.relative_margin is None:
            raise UserError("InvalidEvalRun", f"{path}: floor belongs to relativeMargin: leave it out")
        if gate.relative_margin is not None and gate.margin:
            raise UserError("InvalidEvalRun", f"{path}: write margin or relativeMargin, not both")
        if gate.expect is Expect.NOT_WORSE and not gate.margin and not gate.relative_margin:
            message = (
                f'{path}: NotWorse needs the largest acceptable loss: write margin, such as margin: "0.02"'
            )
            raise UserError("InvalidEvalRun", message)
    if not any(gate.tier is Tier.BLOCKING for gate in gates):
        raise UserError(
            "InvalidEvalRun", "spec.gates: at least one gate must be Blocking, or nothing decides"
        )


def _examples(reader: _Reader, spec: Members, sides: Sequence[Side]) -> str | None:
    """URI of the rows from which worked examples are drawn.

    Raises:
        UserError: a side asks for examples, but no rows are named.
    """
    rows = spec.members("fewShotFrom")
    if rows is None:
        if any(side.few_shot for side in sides):
            raise UserError(
                "InvalidEvalRun", "fewShot needs rows to draw examples from: add fewShotFrom: {uri: …}"
            )
        return None
    uri = reader.places.rows(_required(rows, "uri", "the location of rows"))
    reader.open_with(SecretRole.EXAMPLES, rows)
    rows.close()
    return uri


def _needs_base(side: Side) -> bool:
    return side.model is None and side.endpoint is None and side.answers is None


def _child(members: Members, name: str) -> Members:
    child = members.members(name)
    if child is None:
        raise UserError("InvalidEvalRun", f"{members.path}.{name} is missing: write it")
    return child


def _required(members: Members, name: str, words: str) -> str:
    value = members.text(name)
    if not value:
        raise UserError("InvalidEvalRun", f"{members.path}.{name} is missing: write {words}")
    return value


def _artifact(uri: str, digest: str, path: str) -> ArtifactSource:
    return Members({}, path).document(ArtifactSource, uri=uri, digest=digest)


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Loader that refuses a member that is written twice, of which YAML's usual readers keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Mapping of a node.

        Raises:
            yaml.YAMLError: a key is there twice.
        """
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping
