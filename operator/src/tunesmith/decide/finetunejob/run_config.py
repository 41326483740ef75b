"""From what people write to what the trainer reads: the method with its rewards, and the whole of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.api.filter_rewards import FilterReward
from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.api.methods import DPO, GRPO, KTO, RLOO, Distillation
from tunesmith.api.methods import RewardModel as RewardModelMethod
from tunesmith.api.rewards import ModelReward, Reward
from tunesmith.decide.fit.gpus import resolve_gpu_memory
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith_contract import methods as contract
from tunesmith_contract.report import Failure, GenerationReport, RunReport
from tunesmith_contract.run_config import (
    Adapter,
    AdapterSource,
    Checkpoints,
    EarlyStopping,
    Hyperparameters,
    MLflowTracking,
    PrepareConfig,
    Tracking,
    TrainConfig,
    WeightsAndBiasesTracking,
)

from .defaults import (
    Batches,
    resolve_activation_checkpointing,
    resolve_batches,
    resolve_learning_rate,
    resolve_packing,
    resolve_parallelism,
)


@dataclass(frozen=True, slots=True)
class EarlierArtifact:
    """What an earlier FineTuneJob made.

    Attributes:
        uri, digest: of its artefact.
        base_model: what it was trained on, with its revision.
        whole: the artefact is a whole model, not an adapter.
    """

    uri: str
    digest: str
    base_model: str
    whole: bool = False


def referred_jobs(spec: FineTuneJobSpec) -> tuple[str, ...]:
    """The FineTuneJobs whose artefacts the job needs before it can begin: its base model's, its rewards'."""
    models = (reward.model for reward in spec.method.rewards)
    references = (
        spec.base_model.fine_tune_job_ref,
        *(model.fine_tune_job_ref for model in models if model),
    )
    return tuple(dict.fromkeys(reference.name for reference in references if reference))


def resolve_base(
    spec: FineTuneJobSpec, earlier: Mapping[str, EarlierArtifact]
) -> tuple[str, AdapterSource | None]:
    """Where the base model lies, and the earlier artefact that training starts from.

    An earlier job's whole model is the base model itself; its adapter goes on, on the same base.

    Raises:
        KeyError: the earlier job is not among ``earlier``.
    """
    reference = spec.base_model.fine_tune_job_ref
    if reference is None:
        assert spec.base_model.uri is not None
        return spec.base_model.uri, None
    found = earlier[reference.name]
    if found.whole:
        return found.uri, None
    return found.base_model, AdapterSource(uri=found.uri, digest=found.digest)


def resolve_method(
    spec: FineTuneJobSpec, earlier: Mapping[str, EarlierArtifact] | None = None
) -> contract.Method:
    """The method as the trainer reads it.

    Raises:
        KeyError: a reward names a job that is not among ``earlier``.
    """
    method, earlier = spec.method, earlier or {}
    packing = resolve_packing(method.packing, spec.hyperparameters.batch_size, spec.compute.gpus_per_node)
    if method.sft:
        member = contract.SFTMethod(
            assistant_only_loss=method.sft.assistant_only_loss,
            packing=packing,
            max_length=method.sft.max_length,
        )
        return contract.Method(sft=member)
    if method.pretraining:
        text = contract.PretrainingMethod(packing=packing, max_length=method.pretraining.max_length)
        return contract.Method(pretraining=text)
    if method.dpo:
        return contract.Method(dpo=_dpo(method.dpo))
    if method.kto:
        return contract.Method(kto=_kto(method.kto))
    if method.grpo:
        return contract.Method(grpo=_grpo(method.grpo, earlier))
    if method.rloo:
        return contract.Method(rloo=_rloo(method.rloo, earlier))
    if method.reward:
        return contract.Method(reward=_reward_model(method.reward))
    assert method.distillation is not None
    return contract.Method(distillation=_distillation(method.distillation))


def resolve_run(
    spec: FineTuneJobSpec,
    inputs: Inputs,
    report: RunReport,
    initial: AdapterSource | None = None,
    gpu_memory: int | None = None,
    generated: GenerationReport | None = None,
) -> TrainConfig | Failure:
    """All that training is told, or what a person has to change before it can begin.

    Args:
        report: the success of prepare.
        initial: the earlier artefact that training starts from.
        gpu_memory: bytes of one GPU as the nodes' labels say; None: unknown.
        generated: what a teacher made of the rows.
    """
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    assert report.dataset is not None
    assert report.model is not None
    batches = resolve_batches(spec, config.method, report.dataset)
    if isinstance(batches, Failure):
        return batches
    compute, parameters = spec.compute, report.model.parameters
    memory = resolve_gpu_memory(compute.gpu_memory, gpu_memory)
    return TrainConfig(
        owner=config.owner,
        base_model=config.base_model,
        base_model_revision=report.model.revision,
        dataset_digest=report.dataset.digest,
        generation=generated.manifest.digest if generated else None,
        method=config.method,
        adapter=_adapter(spec),
        initial=initial,
        hyperparameters=_hyperparameters(spec, batches),
        checkpoints=Checkpoints(every_steps=spec.checkpoints.every_steps, keep=spec.checkpoints.keep),
        early_stopping=_early_stopping(spec),
        nodes=compute.nodes,
        gpus_per_node=compute.gpus_per_node,
        parallelism=resolve_parallelism(
            compute.parallelism,
            compute.offload,
            (compute.nodes, compute.gpus_per_node),
            parameters,
            spec.adapter.type if spec.adapter else None,
            memory,
        ),
        offload=compute.offload,
        activation_checkpointing=resolve_activation_checkpointing(
            compute.activation_checkpointing, parameters, compute.gpus_per_node
        ),
        formats=spec.output.formats,
        tracking=_tracking(spec),
        image=inputs.image,
        workspace=config.workspace,
        output=config.output,
    )


def _dpo(dpo: DPO) -> contract.DPOMethod:
    return contract.DPOMethod(
        beta=float(dpo.beta),
        loss=dpo.loss,
        label_smoothing=float(dpo.label_smoothing),
        max_length=dpo.max_length,
    )


def _kto(kto: KTO) -> contract.KTOMethod:
    return contract.KTOMethod(
        beta=float(kto.beta),
        loss=kto.loss,
        desirable_weight=float(kto.desirable_weight),
        undesirable_weight=float(kto.undesirable_weight),
        max_length=kto.max_length,
    )


def _reward_model(reward: RewardModelMethod) -> contract.RewardMethod:
    center = reward.center_rewards_coefficient
    return contract.RewardMethod(
        center_rewards_coefficient=None if center is None else float(center), max_length=reward.max_length
    )


def _grpo(grpo: GRPO, earlier: Mapping[str, EarlierArtifact]) -> contract.GRPOMethod:
    return contract.GRPOMethod(
        rewards=tuple(resolve_reward(reward, earlier) for reward in grpo.rewards),
        generations=grpo.generations,
        temperature=float(grpo.temperature),
        beta=float(grpo.beta),
        max_completion_length=grpo.max_completion_length,
        max_length=grpo.max_length,
        loss=grpo.loss,
    )


def _rloo(rloo: RLOO, earlier: Mapping[str, EarlierArtifact]) -> contract.RLOOMethod:
    return contract.RLOOMethod(
        rewards=tuple(resolve_reward(reward, earlier) for reward in rloo.rewards),
        generations=rloo.generations,
        temperature=float(rloo.temperature),
        beta=float(rloo.beta),
        max_completion_length=rloo.max_completion_length,
        max_length=rloo.max_length,
    )


def resolve_reward(
    reward: FilterReward, earlier: Mapping[str, EarlierArtifact] | None = None
) -> contract.Reward:
    """A reward as the trainer reads it.

    Raises:
        KeyError: it names a job that is not among ``earlier``.
    """
    schema, endpoint = reward.json_schema, reward.endpoint
    model = reward.model if isinstance(reward, Reward) else None
    return contract.Reward(
        name=reward.name,
        weight=float(reward.weight),
        exact=contract.ExactReward(ignore_case=reward.exact.ignore_case) if reward.exact else None,
        regex=contract.RegexReward(pattern=reward.regex.pattern) if reward.regex else None,
        json_schema=contract.JSONSchemaReward(json_schema=schema.text) if schema else None,
        numeric=contract.NumericReward(tolerance=float(reward.numeric.tolerance)) if reward.numeric else None,
        length=contract.LengthReward(min_tokens=reward.length.min_tokens, max_tokens=reward.length.max_tokens)
        if reward.length
        else None,
        model=_model_reward(model, earlier or {}) if model else None,
        endpoint=contract.EndpointReward(url=endpoint.url, timeout_seconds=endpoint.timeout_seconds)
        if endpoint
        else None,
        function=contract.FunctionReward(name=reward.function.name) if reward.function else None,
    )


def _model_reward(model: ModelReward, earlier: Mapping[str, EarlierArtifact]) -> contract.ModelReward:
    if model.fine_tune_job_ref is not None:
        found = earlier[model.fine_tune_job_ref.name]
        base = None if found.whole else found.base_model
        return contract.ModelReward(uri=found.uri, digest=found.digest, base_model=base)
    assert model.uri is not None
    base = model.base_model.uri if model.base_model else None
    return contract.ModelReward(uri=model.uri, digest=model.digest, base_model=base)


def _distillation(distillation: Distillation) -> contract.DistillationMethod:
    teacher, endpoint = distillation.teacher, distillation.teacher.endpoint
    asked = endpoint and contract.TeacherEndpoint(
        url=endpoint.url,
        model=endpoint.model,
        temperature=float(endpoint.temperature),
        max_tokens=endpoint.max_tokens,
    )
    return contract.DistillationMethod(
        teacher=contract.Teacher(uri=teacher.uri, endpoint=asked),
        temperature=float(distillation.temperature),
        max_completion_length=distillation.max_completion_length,
        max_length=distillation.max_length,
    )


def _adapter(spec: FineTuneJobSpec) -> Adapter | None:
    adapter = spec.adapter
    if adapter is None:
        return None
    return Adapter(
        type=adapter.type,
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=float(adapter.dropout),
        target_modules=tuple(adapter.target_modules),
        double_quantization=adapter.double_quantization is not False,
    )


def _hyperparameters(spec: FineTuneJobSpec, batches: Batches) -> Hyperparameters:
    written = spec.hyperparameters
    return Hyperparameters(
        epochs=written.epochs,
        max_steps=written.max_steps,
        learning_rate=resolve_learning_rate(written.learning_rate, spec.method.key, spec.adapter is not None),
        batch_size=batches.size,
        micro_batch_size=batches.micro,
        warmup_ratio=float(written.warmup_ratio),
        weight_decay=float(written.weight_decay),
        scheduler=written.scheduler,
        max_grad_norm=float(written.max_grad_norm),
        seed=written.seed,
    )


def _early_stopping(spec: FineTuneJobSpec) -> EarlyStopping | None:
    early = spec.early_stopping
    if early is None:
        return None
    return EarlyStopping(patience=early.patience, min_delta=float(early.min_delta))


def _tracking(spec: FineTuneJobSpec) -> Tracking:
    tracking = spec.tracking
    mlflow, wandb = tracking.mlflow, tracking.weights_and_biases
    return Tracking(
        tensor_board=tracking.tensor_board,
        mlflow=mlflow and MLflowTracking(experiment=mlflow.experiment),
        weights_and_biases=wandb and WeightsAndBiasesTracking(project=wandb.project, entity=wandb.entity),
    )
