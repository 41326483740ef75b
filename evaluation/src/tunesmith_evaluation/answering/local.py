"""Answerers of sides whose models are read by this pod."""

from collections.abc import Iterable
from pathlib import Path

from tunesmith_contract.engine_order import ORDER_FOLDER
from tunesmith_contract.evaluation import Engine
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_evaluation.items.requests import Request
from tunesmith_evaluation.models.encoding import RequestEncoder
from tunesmith_evaluation.models.sides import LocalSides, padded_tokenizer
from tunesmith_evaluation.models.transformers_answerer import TransformersAnswerer

from .engine_process import EngineProcess
from .interface import Answerer
from .vllm import VLLMAnswerer


def local_answerers(config: EvaluateConfig, sides: LocalSides) -> list[Answerer]:
    """One answerer for each model, in the order in which they are loaded."""
    if config.engine is Engine.VLLM:
        engine = EngineProcess(Path(ORDER_FOLDER))
        return [VLLMAnswerer(group, engine, config.gpus) for group in sides.groups]
    return [TransformersAnswerer(group, config.gpus) for group in sides.groups]


def check_templates(sides: LocalSides, requests: Iterable[Request]) -> None:
    """Check that each model can be asked each suite, before the first one answers for hours.

    Raises:
        UserError: a model has no chat template, or one without an argument that a side sets.
    """
    first = {(request.side, request.suite): request for request in requests}
    for group in sides.groups:
        encoder = RequestEncoder(padded_tokenizer(group), 0)
        for (side, _), request in first.items():
            if side in group.sides:
                encoder.encode(request)
