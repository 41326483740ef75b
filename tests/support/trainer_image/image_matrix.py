"""The training runs that are tried in the trainer image: few, and together with every value of every dimension."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunesmith_contract.methods import DPOLoss
from tunesmith_contract.uris import Scheme

Document = dict[str, Any]

BASE_MODEL = "pvc://models/student"
TEACHER_MODEL = "pvc://models/teacher"
STEPS = 2
BATCH = 4
_MAX_LENGTH = {"maxLength": 128}


@dataclass(frozen=True)
class TrainingRun:
    """One job: what it learns from, how, and where the artifact goes.

    Attributes:
        rows: name of a data set in ``DATA_SETS``.
        method: the member of ``method`` in ``run.json``, for servers that have just been started.
        adapter: its type; None trains all weights.
        store: the scheme of the output.
        after: name of the run whose artifact this one needs.
        steps, batch: number of steps, and of rows in each.
        held_out: share of the rows for validation.
        series: name of the pod that it shares with other runs; None gives each of its stages a pod of its own.
        prepared_by: name of the run of the same series whose prepared rows it trains on; None for its own.
    """

    name: str
    rows: str
    method: "Callable[[Servers], Document]"
    adapter: str | None
    formats: tuple[str, ...]
    store: Scheme
    after: str | None = None
    steps: int = STEPS
    batch: int = BATCH
    held_out: float = 0.1
    series: str | None = None
    prepared_by: str | None = None


@dataclass
class Servers:
    """Addresses that runs need, and artifacts of earlier runs by name."""

    teacher: str
    rewards: str
    artifacts: dict[str, Document] = field(default_factory=dict)


def _fixed(method: Document) -> "Callable[[Servers], Document]":
    return lambda servers: method


def _rewards_of_rules(servers: Servers) -> Document:
    schema = json.dumps({"type": "object"})
    rewards: list[Document] = [
        {"exact": {}},
        # Random answers differ in these, so that there is something to learn.
        {"regex": {"pattern": "[gkp]"}},
        {"regex": {"pattern": "[dmw]"}},
        {"regex": {"pattern": "^.{20}"}},
        {"jsonSchema": {"jsonSchema": schema}},
        {"numeric": {}},
        {"length": {"maxTokens": 4}},
        {"function": {"name": "trl.rewards:think_format_reward"}},
    ]
    named = [{"name": f"rule-{number}", **reward} for number, reward in enumerate(rewards)]
    return {"grpo": {"rewards": named, "generations": 4, "maxCompletionLength": 6, **_MAX_LENGTH}}


def _rewards_of_models(servers: Servers) -> Document:
    judge = servers.artifacts["reward"]
    rewards = [
        {"name": "judge", "model": {"uri": judge["uri"], "digest": judge["digest"], "baseModel": BASE_MODEL}},
        {"name": "remote", "endpoint": {"url": servers.rewards}},
    ]
    return {"rloo": {"rewards": rewards, "generations": 2, "maxCompletionLength": 6, **_MAX_LENGTH}}


def _distillation_by_endpoint(servers: Servers) -> Document:
    endpoint = {"url": servers.teacher, "model": "large", "maxTokens": 16}
    return {"distillation": {"teacher": {"endpoint": endpoint}, "maxCompletionLength": 6, **_MAX_LENGTH}}


_DISTILLATION = {"distillation": {"teacher": {"uri": TEACHER_MODEL}, "maxCompletionLength": 6, **_MAX_LENGTH}}

# A series writes to one store beside claims: a pod has one Secret for what it writes.
_ON_REGISTRY, _ON_BUCKET = "series-on-registry", "series-on-bucket"

#: One run has a pod for each of its stages, with every format. The others share a pod for each store, as imports take
#: longer than a run; what judges another one's answers is trained before.
RUNS = (
    TrainingRun(
        "reward",
        "preferences",
        _fixed({"reward": _MAX_LENGTH}),
        "LoRA",
        ("Adapter",),
        Scheme.OCI,
        series="judge",
    ),
    TrainingRun(
        "grpo", "prompts", _rewards_of_rules, "QLoRA", ("Adapter", "Merged"), Scheme.S3, series=_ON_BUCKET
    ),
    TrainingRun(
        "distillation",
        "prompts",
        _fixed(_DISTILLATION),
        "RSLoRA",
        ("Adapter",),
        Scheme.PVC,
        series=_ON_BUCKET,
    ),
    TrainingRun(
        "distillation-endpoint",
        "prompts",
        _distillation_by_endpoint,
        "DoRA",
        ("Adapter", "Merged"),
        Scheme.S3,
        series=_ON_BUCKET,
    ),
    TrainingRun(
        "sft", "chats", _fixed({"sft": _MAX_LENGTH}), "LoRA", ("Adapter", "Merged", "GGUF"), Scheme.PVC
    ),
    TrainingRun(
        "pretraining",
        "texts",
        _fixed({"pretraining": _MAX_LENGTH}),
        None,
        ("Adapter", "GGUF"),
        Scheme.AZ,
        series="series-on-azure",
    ),
    TrainingRun(
        "kto",
        "judged",
        _fixed({"kto": _MAX_LENGTH}),
        "DoRA",
        ("Adapter", "Merged"),
        Scheme.GS,
        series="series-on-google",
    ),
    TrainingRun(
        "dpo",
        "preferences",
        _fixed({"dpo": _MAX_LENGTH}),
        "RSLoRA",
        ("Adapter", "Merged"),
        Scheme.OCI,
        series=_ON_REGISTRY,
    ),
    TrainingRun(
        "rloo",
        "prompts",
        _rewards_of_models,
        "LoRA",
        ("Adapter",),
        Scheme.OCI,
        after="reward",
        series=_ON_REGISTRY,
    ),
)


def _loss_run(loss: DPOLoss) -> TrainingRun:
    smoothing = 0.1 if loss is DPOLoss.EXO_PAIR else 0
    first = next(iter(DPOLoss))
    return TrainingRun(
        f"loss-{loss.lower()}",
        "few-preferences",
        _fixed({"dpo": {"loss": loss, "labelSmoothing": smoothing, **_MAX_LENGTH}}),
        None if loss is DPOLoss.APO_ZERO else "LoRA",
        ("Adapter",),
        Scheme.PVC,
        steps=1,
        batch=2,
        held_out=0,
        series=_ON_BUCKET,
        prepared_by=None if loss is first else f"loss-{first.lower()}",
    )


#: As short as can be: they differ in their loss alone, but that one trains all weights, with a second model as its
#: reference. EXO needs a label smoothing.
DPO_LOSS_RUNS = tuple(_loss_run(loss) for loss in DPOLoss)


def make_data_sets(count: int = 24) -> dict[str, list[Document]]:
    """Rows of each kind that a method learns from, by name."""
    chance = random.Random(0)
    pairs = [sorted(chance.sample(range(1000), 2)) for _ in range(count)]

    def user(low: int, high: int) -> list[Document]:
        return [{"role": "user", "content": f"lower of {high} {low}"}]

    def assistant(number: int) -> list[Document]:
        return [{"role": "assistant", "content": json.dumps({"lower": number})}]

    preferences = [
        {"prompt": user(low, high), "chosen": assistant(low), "rejected": assistant(high)}
        for low, high in pairs
    ]
    return {
        "chats": [{"messages": user(low, high) + assistant(low)} for low, high in pairs],
        "texts": [{"text": f"Of {high} and {low} the lower one is {low}. " * 8} for low, high in pairs],
        "preferences": preferences,
        "few-preferences": preferences[:2],
        "judged": [
            {
                "prompt": user(low, high),
                "completion": assistant(low if number % 2 else high),
                "label": bool(number % 2),
            }
            for number, (low, high) in enumerate(pairs)
        ],
        "prompts": [{"prompt": user(low, high), "answer": json.dumps({"lower": low})} for low, high in pairs],
    }
