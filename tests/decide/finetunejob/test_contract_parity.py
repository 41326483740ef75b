"""Contract documents say what the spec says: the same fields, the same numbers, no Secrets."""

from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from simulation.simulated_cluster import DIGEST, ENVIRONMENT, GENERATE, START, fine_tune_job

from tunesmith.api.common import StrictModel
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.generate import GenerateBudget, GenerateFilter
from tunesmith.api.generate import Judge as JudgeSpec
from tunesmith.api.labels import ArgillaSource as ArgillaSpec
from tunesmith.api.methods import DPO, GRPO, KTO, RLOO, SFT, Distillation, Pretraining, RewardModel
from tunesmith.api.outputs import Checkpoints as CheckpointsSpec
from tunesmith.api.outputs import Tracking as TrackingSpec
from tunesmith.api.recipe import Adapter as AdapterSpec
from tunesmith.api.recipe import EarlyStopping as EarlyStoppingSpec
from tunesmith.api.recipe import Hyperparameters as HyperparametersSpec
from tunesmith.api.sources import Validation
from tunesmith.decide.finetunejob.generation import resolve_generation
from tunesmith.decide.finetunejob.inputs import build_inputs
from tunesmith.decide.finetunejob.method import plain_data, resolve_method
from tunesmith.decide.finetunejob.referenced_jobs import ReferencedArtifact
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract import methods
from tunesmith_contract.base import Document
from tunesmith_contract.generation import CallBudget, GenerationFilter, Judge
from tunesmith_contract.labels import ArgillaSource, LabelAggregate, LabelOutput
from tunesmith_contract.run_config import (
    Adapter,
    AdapterType,
    Checkpoints,
    EarlyStopping,
    Hyperparameters,
    PersonalData,
    Tracking,
    ValidationSource,
)

ARTIFACTS = {"liked": ReferencedArtifact("pvc://artifacts/liked", DIGEST, "hf://org/base@r1")}
SECRET = {"secretRef": {"name": "hub"}}

counts = st.integers(1, 1000)
names = st.sampled_from(["alpha", "beta-2", "c"])
decimals = st.builds(str, st.decimals(0, 1000, places=6, allow_nan=False))
positive = st.builds(str, st.decimals("0.000001", 1000, places=6, allow_nan=False))
signed = st.builds(str, st.decimals(-1000, 1000, places=6, allow_nan=False))
fractions = st.builds(str, st.decimals(0, "0.999999", places=6, allow_nan=False))
lengths = st.integers(4096, 8192)
secrets = st.just(SECRET["secretRef"])
words = st.text("abc ", min_size=1, max_size=12)


def choices(kind: type[Enum]) -> st.SearchStrategy[str]:
    """Values of an enum, as people write them."""
    return st.sampled_from([str(member.value) for member in kind])


def fields(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of some of these members: what is left out takes its default."""
    return st.fixed_dictionaries({}, optional=members)


def one_of_members(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of exactly one of these members."""
    return st.one_of([st.fixed_dictionaries({name: value}) for name, value in members.items()])


def merged(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """One object of the members of several."""
    return st.tuples(*parts).map(
        lambda values: {key: item for value in values for key, item in value.items()}
    )


def fixed(**members: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object of all these members."""
    strategies = {
        key: item if isinstance(item, st.SearchStrategy) else st.just(item) for key, item in members.items()
    }
    return st.fixed_dictionaries(strategies)


chat_endpoints = merged(fixed(url="http://model.example/v1", model=words), fields(secretRef=secrets))
filter_kinds: dict[str, st.SearchStrategy[Any]] = {
    "exact": fields(ignoreCase=st.booleans()),
    "regex": fixed(pattern=words),
    "jsonSchema": fixed(schema='{"type": "object"}'),
    "numeric": fields(tolerance=decimals),
    "length": merged(fixed(maxTokens=st.integers(100, 200)), fields(minTokens=st.integers(0, 100))),
    "endpoint": merged(
        fixed(url="http://grader.example/score"),
        fields(timeoutSeconds=counts, secretRef=secrets),
    ),
    "function": fixed(name="package.module:function"),
}
reward_models = st.one_of(
    fixed(fineTuneJobRef={"name": "liked"}),
    merged(
        fixed(uri="pvc://models/reward"),
        fields(
            digest=st.just(DIGEST),
            baseModel=st.just({"uri": "hf://org/base"}),
            secretRef=secrets,
        ),
    ),
)


def rewards(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rewards of these kinds, with names of their own."""
    reward = merged(fixed(name=names), fields(weight=signed), one_of_members(**filter_kinds, **kinds))
    return st.lists(reward, min_size=1, max_size=3, unique_by=lambda item: item["name"])


online = merged(
    fixed(rewards=rewards(model=reward_models), maxLength=lengths),
    fields(generations=st.integers(2, 64), temperature=positive, beta=decimals, maxCompletionLength=counts),
)
members: dict[str, st.SearchStrategy[Any]] = {
    "sft": fields(assistantOnlyLoss=st.booleans(), packing=st.booleans(), maxLength=lengths),
    "pretraining": fields(packing=st.booleans(), maxLength=lengths),
    "dpo": st.one_of(
        fields(beta=positive, loss=st.sampled_from(["Sigmoid", "IPO", "Hinge"]), maxLength=lengths),
        fixed(loss="Robust", labelSmoothing=st.sampled_from(["0.1", "0.25"])),
    ),
    "kto": fields(
        beta=positive,
        loss=choices(methods.KTOLoss),
        desirableWeight=decimals,
        undesirableWeight=decimals,
        maxLength=lengths,
    ),
    "reward": fields(centerRewardsCoefficient=decimals, maxLength=lengths),
    "grpo": merged(online, fields(loss=choices(methods.GRPOLoss))),
    "rloo": online,
    "distillation": merged(
        fixed(
            teacher=st.one_of(
                merged(fixed(uri="pvc://models/large"), fields(secretRef=secrets)),
                fixed(endpoint=merged(chat_endpoints, fields(temperature=decimals, maxTokens=counts))),
            ),
            maxLength=lengths,
        ),
        fields(temperature=positive, maxCompletionLength=counts),
    ),
}
rows = merged(fixed(uri="pvc://data/rows.jsonl"), fields(secretRef=secrets))
judges = fields(endpoint=chat_endpoints, criteria=words, maxTokens=counts)
tasks: dict[str, st.SearchStrategy[Any]] = {
    "answers": fixed(prompts=rows),
    "paraphrases": merged(fixed(rows=rows), fields(perRow=st.integers(1, 20))),
    "selfInstruct": fixed(seeds=rows, rows=counts),
    "preferences": merged(fixed(prompts=rows), fields(answers=st.integers(2, 8), judge=judges)),
}
filters = st.one_of(
    fixed(judge=merged(judges, fixed(minimum=st.sampled_from(["1", "7.5", "10"])))),
    fixed(rewards=rewards(), minimumReward=signed),
)
generations = merged(
    fixed(endpoint=chat_endpoints, budget=GENERATE["budget"]),
    fields(
        instructions=words,
        temperature=positive,
        maxTokens=counts,
        concurrency=st.integers(1, 64),
        requestsPerMinute=counts,
        filter=filters,
        minimumRows=counts,
    ),
)
#: The method that learns from what each task makes.
LEARNERS = {"preferences": "dpo"}


def job_with(**spec: Any) -> FineTuneJob:
    """A FineTuneJob as the API server returns it, defaults filled in."""
    return FineTuneJob.parse(fine_tune_job(**spec))


def expected(value: Any) -> Any:
    """Plain data of a spec as the contract has it: numbers for decimal strings, URIs for sources, no Secrets."""
    if isinstance(value, dict):
        return {key: expected(item) for key, item in value.items() if key != "secretRef"}
    if isinstance(value, list):
        return [expected(item) for item in value]
    return comparable(value)


def comparable(value: Any) -> Any:
    """A number for what is written as one."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def normalized(value: Any) -> Any:
    """Plain data of a contract document, with numbers for amounts of money."""
    if isinstance(value, dict):
        return {key: normalized(item) for key, item in value.items()}
    return [normalized(item) for item in value] if isinstance(value, list) else comparable(value)


def assert_says(document: Document, spec: dict[str, Any]) -> None:
    """The document has all that the spec says, and for the rest its own defaults."""
    said = normalized(document.to_dict())
    assert_contains(said, expected(spec))


def assert_contains(whole: Any, part: Any) -> None:
    """All members of the part are in the whole, with the same values."""
    if isinstance(part, dict):
        assert isinstance(whole, dict)
        for key, item in part.items():
            assert_contains(whole.get(key), item)
    elif isinstance(part, list):
        assert len(whole) == len(part)
        for has, wants in zip(whole, part, strict=True):
            assert_contains(has, wants)
    else:
        assert whole == part


@pytest.mark.parametrize("key", members)
@settings(max_examples=40)
@given(data=st.data())
def test_a_method_says_what_is_written(key: str, data: st.DataObject) -> None:
    dataset = {"train": {"uri": "pvc://data/rows.jsonl"}, "validation": {"fraction": "0.1"}}
    spec = job_with(method={key: data.draw(members[key])}, dataset=dataset).spec
    method = resolve_method(spec, ARTIFACTS)
    assert method.key == key
    wanted = spec.method.to_dict()[key]
    for reward in wanted.get("rewards", ()):
        if "jsonSchema" in reward:
            reward["jsonSchema"] = {"jsonSchema": reward["jsonSchema"]["schema"]}
        model = reward.get("model", {})
        if model.pop("fineTuneJobRef", None):
            artifact = ARTIFACTS["liked"]
            model |= {"uri": artifact.uri, "digest": artifact.digest, "baseModel": artifact.base_model}
        elif "baseModel" in model:
            model["baseModel"] = model["baseModel"]["uri"]
    assert_says(method.member, wanted)
    assert "hub" not in method.to_json()


@pytest.mark.parametrize("task", tasks)
@settings(max_examples=40)
@given(data=st.data())
def test_generation_says_what_is_written(task: str, data: st.DataObject) -> None:
    written = data.draw(merged(generations, fixed(**{task: tasks[task]})))
    job = job_with(dataset={"generate": written}, method={LEARNERS.get(task, "sft"): {}})
    generate = job.spec.dataset.generate
    config = resolve_generation(job, "pvc://models/tiny")
    assert generate is not None
    assert config is not None
    wanted = generate.to_dict()
    source, field = generate.source_field.split(".")
    wanted[source][field] = wanted[source][field]["uri"]
    for reward in wanted.get("filter", {}).get("rewards", ()):
        if "jsonSchema" in reward:
            reward["jsonSchema"] = {"jsonSchema": reward["jsonSchema"]["schema"]}
    assert_says(config.generation, wanted)
    assert config.generation.source == generate.source.uri
    assert "hub" not in config.to_json()


@settings(max_examples=40)
@given(
    written=merged(
        fields(
            format=st.sampled_from(["Auto", "Chat", "PromptCompletion"]), personalData=choices(PersonalData)
        ),
        st.one_of(
            fields(onInvalidRow=st.just("Fail")), fixed(onInvalidRow="Drop", maxInvalidFraction=fractions)
        ),
        st.one_of(
            fields(deduplicate=st.sampled_from(["Exact", "None"])),
            merged(fixed(deduplicate="Near"), fields(nearThreshold=st.sampled_from(["0.5", "0.9", "1"]))),
        ),
    )
)
def test_prepare_says_what_is_written(written: dict[str, Any]) -> None:
    job = job_with(
        dataset={"train": {"uri": "pvc://data/rows.jsonl"}, "validation": {"fraction": "0.1"}} | written
    )
    inputs = build_inputs(job, {}, START, ENVIRONMENT)
    assert isinstance(inputs, Inputs)
    wanted = job.spec.dataset.to_dict()
    del wanted["train"]
    assert_says(inputs.config, wanted)


PARTS: list[tuple[type[StrictModel], type[Document], st.SearchStrategy[Any]]] = [
    (
        AdapterSpec,
        Adapter,
        st.one_of(
            fields(
                type=st.sampled_from(["LoRA", "RSLoRA", "DoRA"]),
                rank=st.integers(1, 512),
                alpha=counts,
                dropout=fractions,
                targetModules=st.lists(
                    st.sampled_from(["q_proj", "v_proj"]), min_size=1, max_size=2, unique=True
                ),
            ),
            fixed(type=AdapterType.QLORA.value, doubleQuantization=st.booleans()),
        ),
    ),
    (EarlyStoppingSpec, EarlyStopping, fields(patience=counts, minDelta=decimals)),
    (CheckpointsSpec, Checkpoints, fields(everySteps=counts, keep=st.integers(1, 100))),
    (
        TrackingSpec,
        Tracking,
        fields(
            tensorBoard=st.booleans(),
            mlflow=fixed(experiment=words, **SECRET),
            weightsAndBiases=merged(fixed(project=words, **SECRET), fields(entity=words)),
        ),
    ),
    (
        Validation,
        ValidationSource,
        st.one_of(
            fixed(fraction=st.sampled_from(["0.1", "0.5"]), groupField="customer"),
            fixed(fraction=fractions),
            fixed(uri="pvc://data/validation.jsonl", **SECRET),
        ),
    ),
    (
        ArgillaSpec,
        ArgillaSource,
        merged(
            fixed(url="http://argilla.example", dataset=words),
            fields(
                workspace=words,
                aggregate=choices(LabelAggregate),
                minAnnotators=st.integers(1, 100),
                output=choices(LabelOutput),
                approveFrom=st.integers(1, 10),
            ),
        ),
    ),
]


@pytest.mark.parametrize(("kind", "contract", "written"), PARTS, ids=[kind.__name__ for kind, _, _ in PARTS])
@settings(max_examples=40)
@given(data=st.data())
def test_a_part_says_what_is_written(
    kind: type[StrictModel], contract: type[Document], written: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    part = kind.model_validate(data.draw(written))
    assert_says(contract.model_validate(plain_data(part)), part.to_dict())


@pytest.mark.parametrize(
    ("kind", "contract"),
    [
        *((kind, contract) for kind, contract, _ in PARTS),
        (SFT, methods.SFTMethod),
        (Pretraining, methods.PretrainingMethod),
        (DPO, methods.DPOMethod),
        (KTO, methods.KTOMethod),
        (RewardModel, methods.RewardMethod),
        (GRPO, methods.GRPOMethod),
        (RLOO, methods.RLOOMethod),
        (Distillation, methods.DistillationMethod),
        (HyperparametersSpec, Hyperparameters),
        (GenerateBudget, CallBudget),
        (GenerateFilter, GenerationFilter),
        (JudgeSpec, Judge),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_api_and_contract_have_the_same_fields(kind: type[BaseModel], contract: type[BaseModel]) -> None:
    """A setting that only one side has would be refused at run time, or never be used."""
    assert set(kind.model_fields) - {"secret_ref"} == set(contract.model_fields)
