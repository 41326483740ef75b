"""Declared parameters as Optuna's distributions, and their values as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from tunesmith_contract.search import (
    WHOLE_NUMBERS,
    Parameter,
    ParameterName,
    ParameterValue,
    Scale,
    SearchSettings,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: Significant digits of a proposed number: more would not change the result of a training.
DIGITS = 4

Parameters = Mapping[ParameterName, ParameterValue]


def distributions(settings: SearchSettings) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each parameter, by name."""
    return {parameter.name.value: _distribution(parameter) for parameter in settings.parameters}


def to_values(settings: SearchSettings, parameters: Parameters) -> dict[str, Any]:
    """Values of a trial as Optuna has them: numbers of ranges, words of lists."""
    return {
        parameter.name.value: _to_value(parameter, parameters[parameter.name])
        for parameter in settings.parameters
    }


def to_parameters(settings: SearchSettings, values: Mapping[str, Any]) -> dict[ParameterName, ParameterValue]:
    """Values that Optuna chose as text; numbers are rounded, within their range."""
    return {
        parameter.name: _to_text(parameter, values[parameter.name.value]) for parameter in settings.parameters
    }


def untried_combinations(
    settings: SearchSettings, tried: Sequence[Parameters]
) -> Iterator[dict[ParameterName, ParameterValue]]:
    """Combinations of the values that were not tried, in a fixed order.

    Raises:
        ValueError: a parameter has a range of decimal numbers, so there are too many combinations to list.
    """
    choices = [_choices(parameter) for parameter in settings.parameters]
    names = [parameter.name for parameter in settings.parameters]
    seen = [dict(parameters) for parameters in tried]
    combinations = (dict(zip(names, values, strict=True)) for values in product(*choices))
    return (combination for combination in combinations if combination not in seen)


def is_finite(settings: SearchSettings) -> bool:
    """True where every parameter has a list of values, or a range of whole numbers."""
    return all(parameter.values or parameter.name in WHOLE_NUMBERS for parameter in settings.parameters)


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.values:
        return CategoricalDistribution(parameter.values)
    low, high = _bounds(parameter)
    logarithmic = parameter.scale is Scale.LOG
    if parameter.name in WHOLE_NUMBERS:
        return IntDistribution(int(low), int(high), log=logarithmic)
    return FloatDistribution(low, high, log=logarithmic)


def _bounds(parameter: Parameter) -> tuple[float, float]:
    assert parameter.min is not None
    assert parameter.max is not None
    return float(parameter.min), float(parameter.max)


def _to_value(parameter: Parameter, text: str) -> Any:
    if parameter.values:
        return text
    low, high = _bounds(parameter)
    number = min(max(float(text), low), high)
    return int(number) if parameter.name in WHOLE_NUMBERS else number


def _to_text(parameter: Parameter, value: Any) -> str:
    if parameter.values:
        return str(value)
    if parameter.name in WHOLE_NUMBERS:
        return str(int(value))
    assert parameter.min is not None
    assert parameter.max is not None
    low, high = _bounds(parameter)
    rounded = float(f"{value:.{DIGITS}g}")
    if rounded <= low:
        return parameter.min
    return parameter.max if rounded >= high else f"{value:.{DIGITS}g}"


def _choices(parameter: Parameter) -> Sequence[str]:
    if parameter.values:
        return parameter.values
    if parameter.name not in WHOLE_NUMBERS:
        raise ValueError(f"{parameter.name} has a range of decimal numbers")
    low, high = _bounds(parameter)
    return [str(number) for number in range(int(low), int(high) + 1)]
