"""``run.json`` of many jobs, as this release writes them."""

from collections.abc import Iterator
from typing import Any

from simulation.simulated_cluster import ENVIRONMENT, GENERATE, START, eval_run, fine_tune_job, success
from simulation.training_world import World

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.planning import ObservedEvaluation, plan_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.decide.plan import Create

#: Specs by name: each uses settings that have no default value.
SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole model": {"adapter": None},
    "generated rows": {"dataset": {"generate": GENERATE}},
    "preferences": {"method": {"dpo": {"beta": "0.2", "loss": "IPO"}}},
    "tuned": {
        "hyperparameters": {
            "epochs": 2,
            "learningRate": "0.0001",
            "scheduler": "Cosine",
            "warmupRatio": "0.1",
        },
        "checkpoints": {"everySteps": 50, "keep": 5},
        "earlyStopping": {"patience": 5},
        "adapter": {"rank": 64, "alpha": 128, "dropout": "0.05", "type": "RSLoRA"},
        "dataset": {
            "train": {"uri": "configmap://rows/train.jsonl"},
            "validation": {"uri": "configmap://rows/test.jsonl"},
            "deduplicate": "Near",
            "onInvalidRow": "Drop",
        },
    },
    "gang": {
        "compute": {"nodes": 2, "gpusPerNode": 4},
        "baseModel": {"uri": "hf://org/model@main"},
        "dataset": {"train": {"uri": "s3://rows/train.jsonl"}, "validation": {"fraction": "0.1"}},
        "output": {"uri": "s3://artifacts/team"},
        "tracking": {"mlflow": {"experiment": "x", "secretRef": {"name": "mlflow"}}},
    },
}


def begin(spec: dict[str, Any]) -> World:
    """A job that has begun to train."""
    body = fine_tune_job(**spec)
    body["spec"] = {key: value for key, value in body["spec"].items() if value is not None}
    cluster = World(body)
    cluster.reconcile()
    for _ in range(len(cluster.live_jobs()) and 2):
        stage = cluster.job()["metadata"]["labels"]["tunesmith.dev/stage"]
        if stage != "train":
            cluster.finish(cluster.job(), 0, success(stage))
            cluster.reconcile()
    return cluster


def begun_jobs() -> dict[str, Any]:
    """By the name of the job: its spec with all default values, its snapshots, and the values that status shows."""
    jobs = {}
    for name, spec in SPECS.items():
        cluster = begin(spec)
        config_maps = {body["metadata"]["name"]: body["data"] for body in cluster.children("ConfigMap")}
        jobs[name] = {
            "spec": FineTuneJob.parse(cluster.resource).spec.to_dict(),
            "configMaps": config_maps,
            "resolved": cluster.status["resolved"],
        }
    return jobs


def write_training_files() -> Iterator[tuple[str, str]]:
    """Name and text of the files of all stages of the jobs."""
    for name, spec in SPECS.items():
        cluster = begin(spec)
        for kind, child in sorted(cluster.objects):
            data = cluster.objects[kind, child].get("data", {})
            for key in ("run.json", "generate.json"):
                if key in data:
                    yield f"{name}: {child.rpartition('-')[2]} {key}", data[key]


def write_evaluation_file() -> str:
    """The file of an EvalRun."""
    job = fine_tune_job()
    job["status"] = {
        "phase": "Succeeded",
        "artifact": {"uri": "pvc://artifacts/x", "digest": f"sha256:{'a' * 64}", "kind": "LoRA"},
        "resolved": {"baseModel": "pvc://models/tiny", "baseModelRevision": "r1"},
    }
    sources = SideSources({"expenses": FineTuneJob.parse(job)})
    run = EvalRun.parse(eval_run(compute={"gpus": 0}))
    plan = plan_evaluation(run, ObservedEvaluation(sources=sources), START, ENVIRONMENT)
    texts = [
        action.manifest["data"]["run.json"]
        for action in plan.actions
        if isinstance(action, Create) and "run.json" in action.manifest.get("data", {})
    ]
    return str(texts[0])
