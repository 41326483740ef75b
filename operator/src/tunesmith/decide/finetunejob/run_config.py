"""Configuration of training, resolved from the spec and the report of prepare."""

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.decide.fit.gpus import resolve_gpu_memory
from tunesmith.decide.search.settings import runs_trial_jobs, search_settings
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.report import Failure, GenerationReport, RunReport
from tunesmith_contract.run_config import (
    Adapter,
    Checkpoints,
    EarlyStopping,
    Hyperparameters,
    Parallelism,
    PrepareConfig,
    Tracking,
    TrainConfig,
)
from tunesmith_contract.search import ParameterName
from tunesmith_contract.sources import ArtifactSource

from .defaults import (
    Batches,
    resolve_activation_checkpointing,
    resolve_batches,
    resolve_learning_rate,
    resolve_parallelism,
)
from .method import plain_data


def resolve_run(
    spec: FineTuneJobSpec,
    inputs: Inputs,
    report: RunReport,
    initial: ArtifactSource | None = None,
    gpu_memory: int | None = None,
    generated: GenerationReport | None = None,
    prepared_by: str | None = None,
) -> TrainConfig | Failure:
    """The configuration of training, or the failure that a person has to correct before it can begin.

    Args:
        report: the success of prepare.
        initial: the artifact of another job that training starts from.
        gpu_memory: bytes of one GPU as the nodes' labels say; None: unknown.
        generated: the report on generated rows.
        prepared_by: UID of another job whose prepared rows are trained on.
    """
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    assert report.dataset is not None
    assert report.model is not None
    batches = resolve_batches(spec, config.method, report.dataset)
    if isinstance(batches, Failure):
        return batches
    adapter = Adapter.model_validate(plain_data(spec.adapter)) if spec.adapter else None
    rate = resolve_learning_rate(spec.hyperparameters, config.method, adapter, batches.size, report)
    compute, early, parameters = spec.compute, spec.early_stopping, report.model.parameters
    memory = resolve_gpu_memory(compute.gpu_memory, gpu_memory)
    return TrainConfig(
        owner=config.owner,
        base_model=config.base_model,
        base_model_revision=report.model.revision,
        dataset_digest=report.dataset.digest,
        prepared_by=prepared_by,
        generation=generated.manifest.digest if generated else None,
        search=search_settings(spec.search) if spec.search and not runs_trial_jobs(spec.search) else None,
        method=config.method,
        adapter=adapter,
        initial=initial,
        hyperparameters=_hyperparameters(spec, batches, rate),
        checkpoints=Checkpoints.model_validate(plain_data(spec.checkpoints)),
        early_stopping=EarlyStopping.model_validate(plain_data(early)) if early else None,
        nodes=compute.nodes,
        gpus_per_node=compute.gpus_per_node,
        parallelism=_parallelism(spec, parameters, memory),
        offload=compute.offload,
        activation_checkpointing=resolve_activation_checkpointing(
            compute.activation_checkpointing, parameters, compute.gpus_per_node
        ),
        formats=spec.output.formats,
        tracking=Tracking.model_validate(plain_data(spec.tracking)),
        template_arguments=config.template_arguments,
        image=inputs.image,
        workspace=config.workspace,
        output=config.output,
    )


def _parallelism(spec: FineTuneJobSpec, parameters: int, gpu_memory: int | None) -> Parallelism:
    compute, adapter = spec.compute, spec.adapter.type if spec.adapter else None
    devices = (compute.nodes, compute.gpus_per_node)
    return resolve_parallelism(compute.parallelism, compute.offload, devices, parameters, adapter, gpu_memory)


def with_largest_rank(run: TrainConfig) -> TrainConfig:
    """The run with the largest rank that a search in its pod may try, which takes the most memory.

    No other parameter takes more: a larger batch goes through the model in parts of the same size.
    """
    parameters = run.search.parameters if run.search else ()
    ranks = [
        int(value)
        for parameter in parameters
        if parameter.name is ParameterName.RANK
        for value in (*parameter.values, *((parameter.max,) if parameter.max else ()))
    ]
    if run.adapter is None or not ranks:
        return run
    return run.model_copy(update={"adapter": run.adapter.model_copy(update={"rank": max(ranks)})})


def _hyperparameters(spec: FineTuneJobSpec, batches: Batches, rate: float) -> Hyperparameters:
    written = spec.hyperparameters
    resolved = {"learningRate": rate, "batchSize": batches.size, "microBatchSize": batches.micro}
    return Hyperparameters.model_validate(plain_data(written) | resolved)
