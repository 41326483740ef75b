"""Search for hyperparameters of a FineTuneJob, and its status."""

import math
import re
from typing import Annotated

from pydantic import Field

from tunesmith_contract.run_config import Scheduler
from tunesmith_contract.search import (
    MAX_PARALLELISM,
    MAX_PARAMETERS,
    MAX_TRIALS,
    MAX_VALUES,
    ParameterName,
    Pruner,
    Sampler,
    Scale,
    SearchMode,
    TrialState,
)

from .common import StatusModel, StrictModel
from .rules import Rule, any_of, is_zero, keyed_by
from .values import DecimalString, Measured, PositiveDecimal, SearchValue

MAX_RUNGS = 7
#: Trials are named ``<name>-trial-<number>``, within the length of a name.
MAX_SEARCH_NAME = 31

_WRITTEN = (
    "((has(self.values) ? self.values : []) + (has(self.min) ? [self.min] : []) + "
    "(has(self.max) ? [self.max] : []))"
)
_NUMBER = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?$"
_WHOLE = "^[1-9][0-9]{0,7}$"
_HAS_RANGE = (
    f"has(self.min) && has(self.max) && self.min.matches(r'{_NUMBER}') && self.max.matches(r'{_NUMBER}')"
)


def _written(parameter: "SearchParameter") -> tuple[str, ...]:
    """All values of a parameter, those of a range included."""
    return (*(parameter.values or ()), *filter(None, (parameter.min, parameter.max)))


def _whole_number_rule(name: ParameterName, highest: int) -> Rule:
    return Rule(
        f"self.name != '{name}' || {_WRITTEN}.all(v, v.matches(r'{_WHOLE}') && int(v) <= {highest})",
        f'{name} takes whole numbers from 1 to {highest} in quotes, such as "8".',
        lambda parameter: (
            parameter.name != name
            or all(re.search(_WHOLE, value) and int(value) <= highest for value in _written(parameter))
        ),
    )


def _decimal_rule(
    names: tuple[ParameterName, ...], form: str, example: str, above: float = -1.0, below: float = math.inf
) -> Rule:
    """Rule on decimal numbers within bounds, which are no values themselves."""
    listed = ", ".join(f"'{name}'" for name in names)
    bounds = [f"double(v) > {above}"] + ([] if math.isinf(below) else [f"double(v) < {below}"])
    return Rule(
        f"!(self.name in [{listed}]) || {_WRITTEN}.all(v, v.matches(r'{_NUMBER}') && {' && '.join(bounds)})",
        f'{any_of(names)} takes {form} in quotes, such as "{example}".',
        lambda parameter: (
            parameter.name not in names
            or all(
                re.search(_NUMBER, value) and above < float(value) < below for value in _written(parameter)
            )
        ),
    )


_SCHEDULERS = ", ".join(f"'{name}'" for name in Scheduler)


class SearchParameter(StrictModel):
    """A hyperparameter to search, with the values that may be tried."""

    rules = (
        Rule(
            "has(self.values) ? !has(self.min) && !has(self.max) : has(self.min) && has(self.max)",
            'Write either a range, such as min: "1e-5" and max: "1e-3", or a list, such as values: ["8", "16"].',
            lambda parameter: (
                bool(parameter.values) != (parameter.min is not None and parameter.max is not None)
                and (parameter.min is None) == (parameter.max is None)
            ),
        ),
        Rule(
            f"!({_HAS_RANGE}) || double(self.min) < double(self.max)",
            "min must be smaller than max.",
            lambda parameter: (
                not parameter.min or not parameter.max or float(parameter.min) < float(parameter.max)
            ),
            field=".min",
        ),
        Rule(
            f"!has(self.scale) || self.scale != 'Log' || !({_HAS_RANGE}) || double(self.min) > 0.0",
            "scale: Log needs a min above 0: write a larger min, or scale: Linear.",
            lambda parameter: (
                parameter.scale is not Scale.LOG or not parameter.min or float(parameter.min) > 0
            ),
            field=".min",
        ),
        Rule(
            f"self.name != 'scheduler' || (has(self.values) && self.values.all(v, v in [{_SCHEDULERS}]))",
            f"scheduler takes values: {any_of(tuple(Scheduler))}.",
            lambda parameter: (
                parameter.name is not ParameterName.SCHEDULER
                or (bool(parameter.values) and set(parameter.values) <= set(Scheduler))
            ),
        ),
        _whole_number_rule(ParameterName.RANK, 512),
        _whole_number_rule(ParameterName.ALPHA, 4096),
        _whole_number_rule(ParameterName.EPOCHS, 1000),
        _whole_number_rule(ParameterName.MAX_STEPS, 10_000_000),
        _whole_number_rule(ParameterName.BATCH_SIZE, 65_536),
        _decimal_rule(
            (ParameterName.LEARNING_RATE,),
            "decimal numbers between 0 and 1",
            "2e-4",
            above=0.0,
            below=1.0,
        ),
        _decimal_rule(
            (ParameterName.WARMUP_RATIO, ParameterName.DROPOUT),
            "decimal numbers from 0 up to, but not including, 1",
            "0.1",
            below=1.0,
        ),
        _decimal_rule((ParameterName.WEIGHT_DECAY,), "decimal numbers of 0 or more", "0.01"),
        _decimal_rule(
            (ParameterName.MAX_GRAD_NORM, ParameterName.ALPHA_RATIO),
            "decimal numbers above 0",
            "1",
            above=0.0,
        ),
    )

    name: ParameterName = Field(
        description="The hyperparameter, as in hyperparameters or adapter. alphaRatio is alpha divided by rank: "
        "with it the scale of the adapter stays the same while rank changes."
    )
    values: Annotated[tuple[SearchValue, ...], Field(min_length=1, max_length=MAX_VALUES)] | None = Field(
        None,
        description='The values to choose from, in quotes, such as ["8", "16", "32"].',
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    min: DecimalString | None = Field(None, description='The lowest value of a range, such as "1e-5".')
    max: DecimalString | None = Field(None, description='The highest value of a range, such as "1e-3".')
    scale: Scale = Field(
        Scale.LINEAR,
        description="The scale of a range. Log: equal ratios are equally likely; the usual choice for "
        "learningRate. Linear: equal differences are equally likely.",
    )


class SearchHalving(StrictModel):
    """The points at which trials are compared, with pruner: SuccessiveHalving."""

    start_percent: int = Field(
        10,
        ge=1,
        le=50,
        description="The share of a trial's steps in percent at which trials are first compared.",
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        le=8,
        description="At each point the best 1/reductionFactor of the trials go on; the next point comes after "
        "reductionFactor times as many steps. With 10 and 3, trials are compared after 10, 30 and 90 percent.",
    )


class SearchBudget(StrictModel):
    """The end of a search. The first limit that is reached counts."""

    rules = (
        Rule(
            "has(self.trials) || has(self.gpuHours)",
            'budget needs a member: write trials, such as 20, or gpuHours, such as "10", or both.',
        ),
    )

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = Field(
        None, description=f"The maximum number of trials. If unset, it is {MAX_TRIALS}."
    )
    gpu_hours: PositiveDecimal | None = Field(
        None,
        description='The maximum number of GPU hours of all trials together, such as "10". A trial is started '
        "only if the rest is enough for an average trial. If unset, there is no limit.",
    )


class Search(StrictModel):
    """A search for the hyperparameters with the lowest validation loss.

    Each trial trains with other values. The artifact of the best trial becomes the artifact of the job.
    """

    rules = (
        Rule(
            "!self.parameters.exists(p, p.name == 'alpha') || !self.parameters.exists(p, p.name == 'alphaRatio')",
            "alpha and alphaRatio both set the scale of the adapter: search one of them.",
            field=".parameters",
        ),
        Rule(
            "self.pruner == 'SuccessiveHalving' || !has(self.successiveHalving)",
            "successiveHalving applies to that pruner only: write pruner: SuccessiveHalving, or leave it out.",
            field=".successiveHalving",
        ),
        Rule(
            "self.mode != 'SharedPod' || self.parallelism == 1",
            "In a shared pod, trials run one after the other: leave parallelism out, or write mode: Jobs.",
            field=".parallelism",
        ),
    )

    mode: SearchMode = Field(
        SearchMode.JOBS,
        description="The place of the trials. Jobs: a FineTuneJob for each trial, named <name>-trial-<number>; "
        "the data is prepared once. SharedPod: one after the other in the training pod of this job, which loads "
        "the base model and the data once; for adapters on one GPU.",
    )
    sampler: Sampler = Field(
        Sampler.TPE,
        description="The method that proposes values. Random: independent draws. TPE: draws that learn from the "
        "losses of earlier trials, after 10 random ones.",
    )
    pruner: Pruner = Field(
        Pruner.NONE,
        description="The method that ends trials early. None: each trial runs to its end. SuccessiveHalving: at "
        "several points, only the trials with the lowest validation losses go on. The validation rows are then "
        "measured at least that often.",
    )
    successive_halving: SearchHalving | None = Field(
        None, description="The settings of pruner: SuccessiveHalving. If unset, the defaults apply."
    )
    parameters: Annotated[tuple[SearchParameter, ...], Field(min_length=1, max_length=MAX_PARAMETERS)] = (
        Field(
            description="The hyperparameters to search. All others are the same in each trial, as in "
            "hyperparameters and adapter.",
            json_schema_extra=keyed_by("name"),
        )
    )
    parallelism: int = Field(
        1,
        ge=1,
        le=MAX_PARALLELISM,
        description="The maximum number of trials that run at the same time. TPE learns more from trials that "
        "run one after the other.",
    )
    budget: SearchBudget = Field(description="The end of the search: a number of trials, GPU hours, or both.")
    seed: int = Field(
        42,
        ge=0,
        le=4_294_967_295,
        description="The random seed of the sampler. Trials train with hyperparameters.seed.",
    )


_OF_ADAPTER = "['rank', 'alpha', 'alphaRatio', 'dropout']"

#: Rules over a whole specification.
SEARCH_RULES = (
    Rule(
        "!has(self.search) || has(self.dataset.validation.uri) || "
        f"!{is_zero('self.dataset.validation.fraction')}",
        'search compares the loss on the validation rows: write dataset.validation: {fraction: "0.1"}, or a uri.',
        field=".search",
    ),
    Rule(
        "!has(self.search) || !(has(self.method.grpo) || has(self.method.rloo))",
        "search compares validation losses, which say nothing about methods that learn from rewards: leave search "
        "out with grpo and rloo.",
        field=".search",
    ),
    Rule(
        f"!has(self.search) || has(self.adapter) || !self.search.parameters.exists(p, p.name in {_OF_ADAPTER})",
        "rank, alpha, alphaRatio and dropout are parameters of an adapter: add adapter: {}, or search others.",
        field=".search.parameters",
    ),
    Rule(
        "!has(self.search) || !has(self.method.kto) || self.method.kto.loss != 'KTO' || "
        "!self.search.parameters.exists(p, p.name == 'batchSize' && "
        "((has(p.values) && '1' in p.values) || (has(p.min) && p.min == '1')))",
        "kto compares each row with others of its batch: leave 1 out of the values of batchSize.",
        field=".search.parameters",
    ),
    Rule(
        "!has(self.search) || !has(self.budget) || !has(self.budget.gpuHours)",
        "The GPU hours of all trials are limited in search.budget.gpuHours: write the limit there.",
        field=".budget.gpuHours",
    ),
    Rule(
        "!has(self.search) || !has(self.search.budget.gpuHours) || self.compute.gpusPerNode > 0",
        "search.budget.gpuHours has no effect with gpusPerNode: 0: write search.budget.trials.",
        field=".search.budget.gpuHours",
    ),
    Rule(
        "!has(self.search) || self.search.mode != 'SharedPod' || (has(self.adapter) && self.compute.nodes == 1 && "
        "self.compute.gpusPerNode <= 1)",
        "In a shared pod, adapters are trained on one GPU: add adapter: {} with nodes: 1 and gpusPerNode: 1, or write "
        "search.mode: Jobs.",
        field=".search.mode",
    ),
)


class ComparedLoss(StatusModel):
    """The validation loss of a trial at a point at which trials are compared."""

    percent: int = Field(ge=0, le=100, description="The point: a share of the trial's steps in percent.")
    loss: Measured = Field(description="The validation loss in nats per token.")


class TrialStatus(StatusModel):
    """A trial of a search."""

    number: int = Field(ge=1, le=MAX_TRIALS, description="The number of the trial, from 1.")
    parameters: Annotated[
        dict[str, Annotated[str, Field(max_length=16)]], Field(max_length=MAX_PARAMETERS)
    ] = Field({}, description="The values of the trial, by parameter.")
    state: TrialState = Field(
        description="The state of the trial. Pruned: ended early because others were better, or by the budget."
    )
    loss: Measured | None = Field(
        None,
        description="The validation loss of the trial's artifact in nats per token; of another trial, the latest "
        "validation loss.",
    )
    gpu_seconds: Measured | None = Field(None, description="The GPU seconds of an ended trial.")
    message: str | None = Field(
        None, max_length=512, description="The cause, if the trial was pruned or failed."
    )
    compared: Annotated[tuple[ComparedLoss, ...], Field(max_length=MAX_RUNGS)] = Field(
        (),
        description="The validation losses at the points at which trials are compared.",
        json_schema_extra=keyed_by("percent"),
    )


class BestTrial(StatusModel):
    """The completed trial with the lowest validation loss so far."""

    number: int = Field(ge=1, description="The number of the trial.")
    loss: Measured = Field(description="The validation loss of its artifact in nats per token.")
    parameters: Annotated[
        dict[str, Annotated[str, Field(max_length=16)]], Field(max_length=MAX_PARAMETERS)
    ] = Field({}, description="The values of the trial, by parameter.")


class SearchStatus(StatusModel):
    """The trials of a search, and the best of them."""

    ended: str = Field(
        max_length=16, description="The number of ended trials out of the maximum, such as 12/20."
    )
    running: int = Field(0, ge=0, description="The number of trials that run or wait.")
    completed: int = Field(0, ge=0, description="The number of trials that trained to their end.")
    pruned: int = Field(0, ge=0, description="The number of trials that were ended early.")
    failed: int = Field(
        0, ge=0, description="The number of trials that failed, for instance because memory ran out."
    )
    best: BestTrial | None = Field(None, description="The best trial so far.")
    folder: str | None = Field(
        None,
        max_length=512,
        description="The location of table, plot and details of all trials, with mode: SharedPod.",
    )
    trials: Annotated[tuple[TrialStatus, ...], Field(max_length=MAX_TRIALS)] = Field(
        (), description="All trials.", json_schema_extra=keyed_by("number")
    )
