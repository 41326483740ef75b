"""EvalRun of a FineTuneJob's ``evaluation``."""

from tunesmith.api.finetunejob import FineTuneJob, JobEvaluation

from .names import API_VERSION, Component, child_labels, controller_labels, owner_reference, queue_labels
from .objects import KubernetesObject


def eval_run_name(job: FineTuneJob) -> str:
    """Name of the EvalRun: the same as the name of its job."""
    return job.metadata.name


def build_eval_run(job: FineTuneJob, evaluation: JobEvaluation) -> KubernetesObject:
    """The EvalRun; its candidate is the job's artifact."""
    spec = evaluation.to_dict()
    spec["candidate"] = {**spec.get("candidate", {}), "fineTuneJobRef": {"name": job.metadata.name}}
    return {
        "apiVersion": API_VERSION,
        "kind": "EvalRun",
        "metadata": {
            "name": eval_run_name(job),
            "namespace": job.metadata.namespace,
            "labels": child_labels(job, Component.EVALUATION) | queue_labels(job) | controller_labels(job),
            "ownerReferences": [owner_reference(job)],
        },
        "spec": spec,
    }
