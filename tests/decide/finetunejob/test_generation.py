"""Rows that a teacher makes: the stage before prepare, what it is told and given, and what status says of it."""

from copy import deepcopy
from typing import Any

import pytest
from simulation.simulated_cluster import (
    DIGEST,
    EVALUATION,
    GENERATE,
    START,
    UID,
    failure,
    fine_tune_job,
    success,
)
from simulation.training_world import World, created, generating, world

from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.manifests.run_snapshots import parse_inputs
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.progress import ProgressMetric, TrainerStatus
from tunesmith_contract.run_config import GenerateConfig, TrainConfig, parse_run_config

ROWS = f"pvc://artifacts/team/team/{UID}/generated/generated.jsonl"


def inputs_of(cluster: World) -> Any:
    """The snapshot."""
    return parse_inputs(cluster.objects[("ConfigMap", "expenses-0f3c9d-inputs")])


def config_of(cluster: World) -> GenerateConfig:
    """What the stage is told."""
    config: GenerateConfig = inputs_of(cluster).generate
    return config


def pod_spec(cluster: World) -> Any:
    """The pod of the live attempt."""
    return cluster.job()["spec"]["template"]["spec"]


def secrets_of(cluster: World) -> dict[str, str]:
    """Secret by the name of its volume."""
    volumes = pod_spec(cluster)["volumes"]
    return {item["name"]: item["secret"]["secretName"] for item in volumes if "secret" in item}


def news(**metrics: object) -> LiveProgress:
    """A pod's word on how far it is."""
    told = tuple(ProgressMetric(name=name, value=str(value)) for name, value in metrics.items())
    status = TrainerStatus(last_updated_time=START, progress_percentage=42, metrics=told)
    return LiveProgress("generate", 1, status)


def test_rows_are_generated_before_they_are_prepared() -> None:
    cluster = generating()
    assert cluster.status["phase"] == "Generating"
    assert cluster.condition("Ready")["reason"] == "Generating"
    assert (cluster.condition("DataReady")["status"], cluster.condition("DataReady")["reason"]) == (
        "Unknown",
        "Generating",
    )
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-generate-1"
    plan = cluster.succeed("generate")
    assert created(plan) == ["expenses-0f3c9d-result-generate-1", "expenses-0f3c9d-prepare-1"]
    assert cluster.status["phase"] == "Preparing"
    cluster.succeed("prepare")
    run = parse_run_config(cluster.objects[("ConfigMap", "expenses-0f3c9d-run")]["data"]["run.json"])
    assert isinstance(run, TrainConfig) and run.generation == DIGEST, (
        "the artifact will say what its rows came of"
    )
    cluster.succeed("train")
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["attempts"] == 3
    assert cluster.events == ["Generating", "Preparing", "Generated", "Prepared", "Training", "Trained"]


def test_a_job_without_a_teacher_has_no_such_stage() -> None:
    cluster = world()
    assert cluster.status["phase"] == "Preparing"
    assert inputs_of(cluster).generate is None
    assert inputs_of(cluster).config.generated is None
    assert "generation" not in cluster.status


def test_what_was_made_and_what_it_took_is_in_status() -> None:
    cluster = generating()
    cluster.succeed("generate")
    assert cluster.status["generation"] == {
        "rows": 500,
        "made": 520,
        "filtered": 20,
        "duplicates": 0,
        "leaked": 0,
        "unusable": 0,
        "calls": 1040,
        "promptTokens": 90_000,
        "completionTokens": 70_000,
        "amount": "0.055500",
        "currency": "EUR",
        "uri": "pvc://artifacts/team/generated.jsonl",
        "digest": DIGEST,
        "manifest": "pvc://artifacts/team/generation.json",
        "warnings": [],
    }
    before = cluster.status["generation"]
    cluster.forget_status()
    cluster.reconcile()
    assert cluster.status["generation"] == before


def test_a_running_teacher_says_how_far_it_is() -> None:
    cluster = generating()
    cluster.progress = news(generated_rows=7, calls=15, prompt_tokens=900, completion_tokens="many")
    cluster.reconcile()
    found = cluster.status["generation"]
    assert {name: found[name] for name in ("rows", "calls", "promptTokens", "completionTokens")} == {
        "rows": 7,
        "calls": 15,
        "promptTokens": 900,
        "completionTokens": 0,
    }
    assert cluster.status["progress"]["percent"] == "42%"
    cluster.progress = None
    cluster.end(ExitCode.INFRASTRUCTURE)
    assert cluster.status["generation"]["calls"] == 15, "what only a pod knew stays until there is news"


def test_warnings_are_told_once() -> None:
    cluster = generating()
    report = success("generate")
    assert report.generation
    warned = report.generation.model_copy(
        update={"warnings": ("the budget was used up after 9 of 20 source rows",)}
    )
    plan = cluster.end(0, report.model_copy(update={"generation": warned}))
    told = [event for event in plan.events if event.reason == "Generated"]
    assert [event.type for event in told] == ["Warning"]
    assert told[0].message == (
        "500 rows were generated: 1040 calls, 160000 tokens, 0.055500 EUR. "
        "The budget was used up after 9 of 20 source rows."
    )
    assert not [event for event in cluster.reconcile().events if event.reason == "Generated"]


def test_the_stage_is_told_all_that_was_written() -> None:
    generate = deepcopy(GENERATE) | {
        "instructions": "Be brief.",
        "maxTokens": 300,
        "requestsPerMinute": 60,
        "minimumRows": 20,
        "filter": {
            "judge": {"minimum": "7.5", "endpoint": {"url": "http://judge/v1", "model": "strict"}},
            "rewards": [{"name": "right", "exact": {}, "weight": "2"}],
            "minimumReward": "1.5",
        },
    }
    dataset = {
        "train": {"uri": "configmap://rows/train.jsonl"},
        "validation": {"uri": "pvc://data/validation.jsonl"},
        "generate": generate,
    }
    cluster = world(dataset=dataset, evaluation=EVALUATION, hyperparameters={"seed": 7})
    config = config_of(cluster)
    generation = config.generation
    assert (generation.endpoint.url, generation.task, generation.source) == (
        "https://teacher.example/v1",
        "answers",
        "pvc://data/prompts.jsonl",
    )
    assert (generation.instructions, generation.temperature, generation.max_tokens) == ("Be brief.", 0.7, 300)
    assert (generation.requests_per_minute, generation.minimum_rows, config.seed) == (60, 20, 7)
    assert str(generation.budget.amount) == "5.00"
    assert generation.filter.judge and generation.filter.judge.minimum == 7.5
    assert (generation.filter.rewards[0].weight, generation.filter.minimum_reward) == (2.0, 1.5)
    assert [(each.name, each.uri) for each in config.held_out] == [
        ("validation", "pvc://data/validation.jsonl"),
        ("task", "pvc://data/test.jsonl"),
    ]
    assert config.base_model is None
    prepare = inputs_of(cluster).config
    assert (prepare.train, prepare.generated) == (("configmap://rows/train.jsonl",), ROWS)


@pytest.mark.parametrize(
    ("task", "source"),
    [
        ({"paraphrases": {"rows": {"uri": "pvc://data/rows"}, "perRow": 2}}, "pvc://data/rows"),
        ({"selfInstruct": {"seeds": {"uri": "pvc://data/seeds"}, "rows": 9}}, "pvc://data/seeds"),
        ({"preferences": {"prompts": {"uri": "pvc://data/p"}, "answers": 3}}, "pvc://data/p"),
    ],
)
def test_each_task_reaches_the_stage(task: dict[str, Any], source: str) -> None:
    method: dict[str, Any] = {"dpo": {}} if "preferences" in task else {"sft": {}}
    generate = {name: value for name, value in GENERATE.items() if name != "answers"} | task
    cluster = generating(generate, method=method)
    assert config_of(cluster).generation.source == source
    written = config_of(cluster).generation.to_dict()[next(iter(task))]
    assert (written.get("perRow"), written.get("rows"), written.get("answers")) in [
        (2, source, None),
        (None, 9, None),
        (None, None, 3),
    ]


def test_the_pod_reads_its_own_configuration_and_waits_for_answers() -> None:
    pod = pod_spec(generating())
    (config,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    assert config["configMap"]["items"] == [{"key": "generate.json", "path": "run.json"}]
    assert pod["containers"][0]["command"][-1] == "generate"
    assert pod["terminationGracePeriodSeconds"] == 120
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"data", "artifacts"}, "neither the model nor rows that it does not read"


def test_the_pod_gets_the_secrets_that_it_needs_and_no_other() -> None:
    generate = deepcopy(GENERATE) | {
        "answers": {"prompts": {"uri": "s3://rows/prompts.jsonl", "secretRef": {"name": "prompts"}}},
        "filter": {
            "judge": {
                "minimum": "7",
                "endpoint": {"url": "http://judge/v1", "model": "j", "secretRef": {"name": "judge"}},
            },
            "rewards": [{"name": "grader", "endpoint": {"url": "http://g", "secretRef": {"name": "grader"}}}],
            "minimumReward": "1",
        },
    }
    spec = {
        "baseModel": {"uri": "hf://org/model@main", "secretRef": {"name": "hub"}},
        "dataset": {
            "train": {"uri": "s3://rows/train.jsonl", "secretRef": {"name": "rows"}},
            "generate": generate,
        },
        "tracking": {"mlflow": {"experiment": "x", "secretRef": {"name": "mlflow"}}},
    }
    cluster = world(**spec)
    assert secrets_of(cluster) == {
        "secret-generator": "teacher",
        "secret-seeds": "prompts",
        "secret-filter-judge": "judge",
        "secret-filter-reward-grader": "grader",
    }
    assert "HF_TOKEN" not in {item["name"] for item in pod_spec(cluster)["containers"][0]["env"]}
    cluster.succeed("generate")
    assert secrets_of(cluster) == {"secret-base-model": "hub", "secret-train": "rows"}


def test_a_reward_that_counts_tokens_brings_the_base_models_tokenizer() -> None:
    sieve = {"rewards": [{"name": "brief", "length": {"maxTokens": 9}}], "minimumReward": "1"}
    base = {"uri": "hf://org/model@main", "secretRef": {"name": "hub"}}
    cluster = generating(GENERATE | {"filter": sieve}, baseModel=base)
    assert config_of(cluster).base_model == "hf://org/model@main"
    assert secrets_of(cluster)["secret-base-model"] == "hub"
    assert "HF_TOKEN" in {item["name"] for item in pod_spec(cluster)["containers"][0]["env"]}


def test_a_failed_attempt_is_tried_again_and_counts_for_the_whole_job() -> None:
    cluster = generating(backoffLimit=1)
    plan = cluster.end(ExitCode.INFRASTRUCTURE)
    assert (cluster.status["phase"], cluster.condition("Ready")["reason"]) == ("Generating", "Retrying")
    cluster.pass_time(plan.requeue_after or 0)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"] == "expenses-0f3c9d-generate-2"
    cluster.succeed("generate")
    cluster.end(ExitCode.INFRASTRUCTURE)
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BackoffLimitExceeded"


def test_too_few_rows_fail_the_job() -> None:
    cluster = generating()
    cluster.end(ExitCode.DATA_ERROR, failure("generate", "DataError", "3 rows were generated"))
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["message"] == "3 rows were generated"
    assert cluster.condition("DataReady")["status"] == "False"


def test_it_is_suspended_and_queued_like_the_other_stages() -> None:
    cluster = World(fine_tune_job(dataset={"generate": GENERATE}, suspend=True))
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.live_jobs()) == ("Suspended", [])
    queued = World(fine_tune_job(dataset={"generate": GENERATE}))
    queued.resource["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    queued.reconcile()
    assert queued.job()["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_deadline_counts_from_the_first_stage_on() -> None:
    cluster = generating(activeDeadlineSeconds=100)
    cluster.pass_time(101)
    cluster.reconcile()
    assert cluster.job()["spec"]["activeDeadlineSeconds"] == 1
    cluster.exceed_deadline(cluster.job())
    cluster.reconcile()
    assert cluster.condition("Stalled")["reason"] == "DeadlineExceeded"
