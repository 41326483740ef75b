"""Configuration of training, resolved from the spec and the report of prepare."""

from tunesmith.api.finetunejob import FineTuneJobSpec
from tunesmith.decide.fit.gpus import resolve_gpu_memory
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.report import Failure, GenerationReport, RunReport
from tunesmith_contract.run_config import (
    Adapter,
    Checkpoints,
    EarlyStopping,
    Hyperparameters,
    PrepareConfig,
    Tracking,
    TrainConfig,
)
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
) -> TrainConfig | Failure:
    """The configuration of training, or the failure that a person has to correct before it can begin.

    Args:
        report: the success of prepare.
        initial: the artifact of another job that training starts from.
        gpu_memory: bytes of one GPU as the nodes' labels say; None: unknown.
        generated: the report on generated rows.
    """
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    assert report.dataset is not None
    assert report.model is not None
    batches = resolve_batches(spec, config.method, report.dataset)
    if isinstance(batches, Failure):
        return batches
    compute, early, parameters = spec.compute, spec.early_stopping, report.model.parameters
    memory = resolve_gpu_memory(compute.gpu_memory, gpu_memory)
    return TrainConfig(
        owner=config.owner,
        base_model=config.base_model,
        base_model_revision=report.model.revision,
        dataset_digest=report.dataset.digest,
        generation=generated.manifest.digest if generated else None,
        method=config.method,
        adapter=Adapter.model_validate(plain_data(spec.adapter)) if spec.adapter else None,
        initial=initial,
        hyperparameters=_hyperparameters(spec, batches),
        checkpoints=Checkpoints.model_validate(plain_data(spec.checkpoints)),
        early_stopping=EarlyStopping.model_validate(plain_data(early)) if early else None,
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
        tracking=Tracking.model_validate(plain_data(spec.tracking)),
        image=inputs.image,
        workspace=config.workspace,
        output=config.output,
    )


def _hyperparameters(spec: FineTuneJobSpec, batches: Batches) -> Hyperparameters:
    written = spec.hyperparameters
    rate = resolve_learning_rate(written.learning_rate, spec.method.key, spec.adapter is not None)
    resolved = {"learningRate": rate, "batchSize": batches.size, "microBatchSize": batches.micro}
    return Hyperparameters.model_validate(plain_data(written) | resolved)
