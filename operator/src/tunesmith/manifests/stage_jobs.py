"""Jobs of the stages: generate, prepare and train of a FineTuneJob, evaluate of an EvalRun."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tunesmith.api.common import Resources
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.pod_template import PodTemplate
from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.layout import FINISHED_ENV, MICRO_BATCH_ENV
from tunesmith_contract.run_config import EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import Scheme, StorageUri, parse_uri

from .container_resources import ContainerDefaults, shared_limits
from .data_pods import avoids_gpu_nodes, data_template
from .environment import Environment
from .evaluation_engine import EvaluationEngine
from .gpu_requests import NO_GPUS
from .objects import KubernetesObject
from .run_snapshots import GENERATE_KEY, Inputs, inputs_name, run_name
from .sidecars import evaluation_sidecars
from .trainer_job import TrainerPod, build_trainer_job

GENERATE_REQUESTS = {"cpu": "250m", "memory": "512Mi"}
#: A million rows are to go through a gibibyte. There is no limit unless people write one: rows that are wider than most
#: cost time, not the run.
PREPARE_REQUESTS = {"cpu": "500m", "memory": "1Gi"}
#: Requests to train or evaluate on CPUs, or a model of unknown size.
SMALL_REQUESTS = {"cpu": "1", "memory": "4Gi"}
#: Requests to evaluate endpoints and stored answers: no model is loaded.
WITHOUT_MODEL_REQUESTS = {"cpu": "500m", "memory": "1Gi"}
#: The container that asks the engine beside it, and scores.
_EVALUATOR_DEFAULTS = ContainerDefaults(
    WITHOUT_MODEL_REQUESTS, asked={"cpu": "4", "memory": "8Gi", "ephemeral-storage": "8Gi"}
)

#: From the signal to the end, in generate: answers that are on their way are paid for, so they are waited for.
GENERATE_GRACE_SECONDS = 120
#: From the signal to the end, in train: a step is finished and a small checkpoint committed.
TRAIN_GRACE_SECONDS = 120
EVALUATE_GRACE_SECONDS = 30
#: From the signal to the end, in evaluate with an endpoint: as in generate, answers on their way are waited for.
ENDPOINT_GRACE_SECONDS = 120


def build_data_job(
    job: FineTuneJob,
    inputs: Inputs,
    stage: Stage,
    attempt: int,
    environment: Environment,
    secrets: Mapping[str, str] | None = None,
    finished: FinishedWork | None = None,
) -> KubernetesObject:
    """Job of one attempt to generate or prepare rows, on nodes of their own and without GPUs.

    Args:
        stage: ``generate`` or ``prepare``.
        secrets: those that the stage opens, by role.
        finished: training that prepare may find to be finished already.
    """
    if stage is Stage.GENERATE:
        assert inputs.generate is not None
        reads = generation_uris(inputs.generate)
        pod = _data_pod(job, inputs, inputs.generate, reads, GENERATE_REQUESTS, secrets)
        fetches = any(uri.scheme is Scheme.HF for uri in reads)
        pod = replace(
            pod,
            config_key=GENERATE_KEY,
            token_secret=pod.token_secret if fetches else None,
            grace_seconds=_written_grace(pod.template) or GENERATE_GRACE_SECONDS,
        )
    else:
        assert isinstance(inputs.config, PrepareConfig)
        pod = _data_pod(job, inputs, inputs.config, data_uris(inputs.config), PREPARE_REQUESTS, secrets)
        pod = replace(pod, variables=_finished_variables(finished))
    return build_trainer_job(job, stage, attempt, pod, environment)


def build_train_job(
    job: FineTuneJob,
    inputs: Inputs,
    run: TrainConfig,
    attempt: int,
    environment: Environment,
    micro_batch_size: int | None = None,
    longest_seconds: int | None = None,
    secrets: Mapping[str, str] | None = None,
    requests: Mapping[str, str] = SMALL_REQUESTS,
    grace_seconds: int = TRAIN_GRACE_SECONDS,
) -> KubernetesObject:
    """Job of one attempt to train: a new gang that resumes from the last committed checkpoint.

    Args:
        micro_batch_size: other than the run's, after memory ran out.
        longest_seconds: how long its pods may run.
        secrets: those that the stage opens, by role.
        requests: default requests of its pods.
        grace_seconds: time to finish a step and commit a checkpoint, if the template does not say.
    """
    compute = job.spec.compute
    pod = replace(
        _trainer_pod(job, inputs, run, training_uris(run), requests, secrets),
        image=run.image,
        config_map=run_name(job),
        resources=compute.resources,
        template=compute.template,
        gpus=environment.gpus(run.gpus_per_node, compute.gpu_resource, compute.template),
        network=compute.network,
        env=compute.env,
        cache=compute.cache_volume,
        grace_seconds=_written_grace(compute.template) or grace_seconds,
        nodes=run.nodes,
        longest_seconds=longest_seconds,
        variables={MICRO_BATCH_ENV: str(micro_batch_size)} if micro_batch_size else {},
    )
    return build_trainer_job(job, Stage.TRAIN, attempt, pod, environment)


def build_evaluate_job(
    run: EvalRun,
    inputs: Inputs,
    attempt: int,
    environment: Environment,
    requests: Mapping[str, str] = SMALL_REQUESTS,
    one_node_for: str = "",
    finished: FinishedWork | None = None,
) -> KubernetesObject:
    """Job of one attempt to evaluate: all sides answer the same items, which its pods share.

    Args:
        requests: default requests of its pod.
        one_node_for: name of a claim that only pods on one node can share.
        finished: evaluation that the pods may find to be finished already.
    """
    assert isinstance(inputs.config, EvaluateConfig)
    compute = run.spec.compute
    pod = TrainerPod(
        image=inputs.image,
        config_map=inputs_name(run),
        ca_config_map=inputs_name(run),
        reads=evaluation_uris(inputs.config),
        writes=_parse((inputs.config.output, inputs.config.workspace)),
        defaults=ContainerDefaults(requests),
        resources=compute.resources,
        template=compute.template,
        token_secret=inputs.token_secret or None,
        secrets=inputs.secrets,
        gpus=environment.gpus(inputs.config.gpus, compute.gpu_resource, compute.template),
        env=compute.env,
        cache=compute.cache_volume,
        grace_seconds=_written_grace(compute.template) or _evaluation_grace(inputs.config),
        shares=inputs.config.shards,
        one_node_for=one_node_for,
        sidecars=evaluation_sidecars(run.spec.suites, inputs.image, compute.sandbox_resources),
        variables=_finished_variables(finished),
    )
    if inputs.engine_image:
        pod = _with_engine(pod, inputs.engine_image, environment, compute.evaluator_resources)
    return build_trainer_job(run, Stage.EVALUATE, attempt, pod, environment)


def _with_engine(
    pod: TrainerPod, image: str, environment: Environment, evaluator: Resources | None
) -> TrainerPod:
    """The pod with an engine beside the evaluation, which gets its GPUs, its requests and what people wrote.

    Args:
        evaluator: settings of the container that asks the engine.
    """
    engine = EvaluationEngine(
        image=image,
        needs=environment.serving_needs(image),
        gpus=pod.gpus,
        defaults=pod.defaults,
        resources=pod.resources,
        env=pod.env,
    )
    return replace(
        pod,
        gpus=NO_GPUS,
        defaults=_EVALUATOR_DEFAULTS,
        resources=evaluator,
        limited_as=pod.resources,
        engine=engine,
    )


def _finished_variables(finished: FinishedWork | None) -> dict[str, str]:
    return {FINISHED_ENV: finished.to_json()} if finished is not None else {}


def _evaluation_grace(config: EvaluateConfig) -> int:
    paid = any(side.endpoint is not None for side in config.sides)
    return ENDPOINT_GRACE_SECONDS if paid else EVALUATE_GRACE_SECONDS


def _written_grace(template: PodTemplate | None) -> int | None:
    return template.termination_grace_period_seconds if template else None


def generation_uris(config: GenerateConfig) -> tuple[StorageUri, ...]:
    """URIs that generate reads: the rows it starts from, held-out rows, and a tokenizer if rewards count tokens."""
    return _parse((config.base_model, config.generation.source, *(rows.uri for rows in config.held_out)))


def data_uris(config: PrepareConfig) -> tuple[StorageUri, ...]:
    """URIs that prepare reads: the rows, held-out rows, and base model and teacher for tokenizer and configuration."""
    distillation = config.method.distillation
    teacher = distillation.teacher.uri if distillation else None
    held_out = (rows.uri for rows in config.held_out)
    rows = (*config.train, config.generated, config.validation.uri, *held_out)
    return _parse((config.base_model, *rows, teacher))


def training_uris(run: TrainConfig) -> tuple[StorageUri, ...]:
    """URIs that train reads: the base model, the initial artifact, reward models, a teacher."""
    models = [reward.model for reward in run.method.rewards if reward.model]
    distillation = run.method.distillation
    uris = (
        run.base_model,
        run.initial.uri if run.initial else None,
        *(uri for model in models for uri in (model.uri, model.base_model)),
        distillation.teacher.uri if distillation else None,
    )
    return _parse(uris)


def evaluation_uris(config: EvaluateConfig) -> tuple[StorageUri, ...]:
    """URIs that evaluate reads: models, artifacts and stored answers, items and examples, rows of earlier training."""
    stored = (
        source.uri
        for side in config.sides
        for source in (side.adapter, side.checkpoint, side.answers)
        if source is not None
    )
    items = (
        uri
        for suite in config.suites
        for uri in (suite.dataset, *((suite.harness.data, suite.harness.include) if suite.harness else ()))
    )
    rows = (trained.uri for trained in config.trained_rows)
    models = (config.base_model, *(side.model for side in config.sides))
    return _parse((*models, *stored, *items, config.few_shot_from, *rows))


def _parse(uris: Iterable[str | None]) -> tuple[StorageUri, ...]:
    return tuple(parse_uri(uri) for uri in uris if uri)


def _trainer_pod(
    job: FineTuneJob,
    inputs: Inputs,
    config: GenerateConfig | PrepareConfig | TrainConfig,
    reads: tuple[StorageUri, ...],
    requests: Mapping[str, str],
    secrets: Mapping[str, str] | None,
) -> TrainerPod:
    """The settings that the pods of a FineTuneJob's stages share."""
    return TrainerPod(
        image=inputs.image,
        config_map=inputs_name(job),
        ca_config_map=inputs_name(job),
        reads=reads,
        writes=_parse((config.output, config.workspace)),
        defaults=ContainerDefaults(requests),
        token_secret=inputs.token_secret or None,
        secrets=secrets or {},
    )


def _data_pod(
    job: FineTuneJob,
    inputs: Inputs,
    config: GenerateConfig | PrepareConfig,
    reads: tuple[StorageUri, ...],
    requests: Mapping[str, str],
    secrets: Mapping[str, str] | None,
) -> TrainerPod:
    """A pod of a data stage: it needs no more than training does, so it can have the same limits."""
    own, training = job.spec.dataset.compute, job.spec.compute.resources
    template = data_template(job)
    pod = _trainer_pod(job, inputs, config, reads, requests, secrets)
    return replace(
        pod,
        defaults=ContainerDefaults(requests, limits=shared_limits(training)),
        resources=own.resources if own else None,
        limited_as=training,
        template=template,
        grace_seconds=_written_grace(template) or pod.grace_seconds,
        avoids_gpu_nodes=avoids_gpu_nodes(job),
    )
