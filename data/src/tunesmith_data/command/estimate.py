"""Training estimate: steps, time, GPU hours and cost."""

from dataclasses import dataclass

from tunesmith_contract.methods import Method, PretrainingMethod, SFTMethod
from tunesmith_contract.report import DatasetReport
from tunesmith_contract.run_config import AdapterType
from tunesmith_contract.shared_rules.defaults import (
    answers_to_a_prompt,
    choose_activation_checkpointing,
    choose_batch_size,
    choose_packing,
    count_sequences,
    count_steps,
    rows_at_once,
)
from tunesmith_contract.shared_rules.duration import Work, work_duration, work_tokens
from tunesmith_contract.shared_rules.gpus import PRODUCTS, Product, find_product
from tunesmith_data.failures import UserError
from tunesmith_data.rows.report.data_report import TrainingEstimate

EPOCHS = 3
HOUR = 3600


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Settings of the training that is estimated.

    Attributes:
        adapter: None if all weights are trained.
        batch_size: None for Auto.
        gpu: a product's name, such as ``H100``; None if unknown.
        price_per_gpu_hour, currency: None if unknown.
    """

    method: Method
    adapter: AdapterType | None = AdapterType.LORA
    epochs: int = EPOCHS
    batch_size: int | None = None
    gpu: str | None = None
    price_per_gpu_hour: float | None = None
    currency: str | None = None


def estimate(parameters: int, dataset: DatasetReport, plan: TrainingPlan) -> TrainingEstimate:
    """Estimate of training on one GPU; an order of magnitude.

    Steps and tokens are always known; time needs a GPU and the model's size, and money a price too.

    Args:
        parameters: number of parameters of the base model; 0 if unknown.

    Raises:
        UserError: the GPU is unknown.
    """
    product = require_product(plan.gpu) if plan.gpu else None
    method = plan.method
    if product is not None:
        method = pack_on_gpu(method, automatic_batch=plan.batch_size is None)
    work = _work(parameters, dataset, plan, method, on_gpu=product is not None)
    group = answers_to_a_prompt(method)
    rows = max(1, dataset.train_rows + dataset.validation_rows)
    tokens = round(dataset.train_rows * min(dataset.tokens.total / rows, method.max_length))
    sequences = count_sequences(method, dataset.train_rows, tokens)
    untimed = TrainingEstimate(
        epochs=plan.epochs,
        batch_size=work.batch_size,
        steps=count_steps(sequences, work.batch_size, group, plan.epochs),
        tokens=round(work_tokens(work)),
    )
    return untimed if product is None or not parameters else _with_time(untimed, work, product, plan)


def require_product(gpu: str) -> Product:
    """Product data of a GPU.

    Raises:
        UserError: the GPU is unknown, or can't train; the message lists those that can.
    """
    product = find_product(gpu)
    if product is not None and product.trains:
        return product
    names = ", ".join(name.upper() for name, each in PRODUCTS if each.trains)
    if product is None:
        raise UserError("UnknownGPU", f"unknown GPU {gpu!r}: use one of {names}")
    raise UserError(
        "UnsupportedGPU", f"{gpu} has no bfloat16, in which training computes: use one of {names}"
    )


def pack_on_gpu(method: Method, *, automatic_batch: bool) -> Method:
    """The method, with packing where the operator would choose it."""
    member = method.member
    if not isinstance(member, SFTMethod | PretrainingMethod):
        return method
    packing = member.packing or choose_packing(automatic_batch, gpus=1)
    return method.model_copy(update={method.key: member.model_copy(update={"packing": packing})})


def _work(
    parameters: int, dataset: DatasetReport, plan: TrainingPlan, method: Method, *, on_gpu: bool
) -> Work:
    sequences = count_sequences(method, dataset.train_rows, dataset.tokens.total)
    group, least = answers_to_a_prompt(method), rows_at_once(method)
    return Work(
        parameters=parameters,
        rows=dataset.train_rows,
        row_tokens=dataset.tokens.total / max(1, dataset.train_rows + dataset.validation_rows),
        method=method,
        adapter=plan.adapter,
        epochs=plan.epochs,
        batch_size=plan.batch_size or choose_batch_size(sequences, group=group, least=least),
        activation_checkpointing=choose_activation_checkpointing(parameters, gpus=int(on_gpu)),
    )


def _with_time(basis: TrainingEstimate, work: Work, product: Product, plan: TrainingPlan) -> TrainingEstimate:
    duration = work_duration(work, product)
    price = plan.price_per_gpu_hour
    return basis.model_copy(
        update={
            "seconds": duration.seconds,
            "gpu_hours": duration.gpu_seconds / HOUR,
            "amount": None if price is None else duration.cost(price),
            "currency": None if price is None else plan.currency,
            "gpu": plan.gpu,
        }
    )
