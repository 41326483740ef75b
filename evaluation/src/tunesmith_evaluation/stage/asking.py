"""Requests of a run."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith_contract.evaluation import Side
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_evaluation.items.item import EvaluationItem
from tunesmith_evaluation.items.prompts import build_prompt, choose_separator, decoding_of
from tunesmith_evaluation.items.requests import Request

from .examples import Examples
from .suites import LoadedSuite

if TYPE_CHECKING:
    from tunesmith_evaluation.suites.harness.task_items import TaskQuestion


def plan_requests(
    config: EvaluateConfig, suites: Sequence[LoadedSuite], examples: Examples
) -> Iterator[Request]:
    """Requests of all sides, suites, items and repeats."""
    for suite in suites:
        for side in config.sides:
            questions = suite.task_questions(side)
            if questions is None:
                yield from _row_requests(config, suite, side, examples[suite.name])
            else:
                yield from _task_requests(config, suite, side, questions)


def _row_requests(
    config: EvaluateConfig, suite: LoadedSuite, side: Side, examples: Sequence[EvaluationItem]
) -> Iterator[Request]:
    """Requests of a side for items that are questions themselves."""
    decoding = decoding_of(suite.suite.decoding, suite.sampled, len(examples))
    texts = [*suite.sampled, *examples]
    separator = choose_separator(texts) if examples and any(not item.messages for item in texts) else "\n\n"
    likelihood = any(scorer.needs_likelihood for scorer in suite.scorers.values())
    # A container scores the text of answers.
    generates = suite.suite.container is not None or any(
        not scorer.needs_likelihood for scorer in suite.scorers.values()
    )
    for item in suite.items:
        prompt = build_prompt(item, side, examples[: side.few_shot], separator)
        for repeat in range(suite.suite.repeats if generates else 1):
            yield Request(
                side=side.name,
                suite=suite.name,
                item=item.digest,
                repeat=repeat,
                prompt=prompt,
                decoding=decoding,
                seed=_seed(config.seed, item, repeat),
                # The likelihood is the same for every repeat, but each is scored.
                expected=item.expected.text if likelihood else None,
                generates=generates,
            )


def _task_requests(
    config: EvaluateConfig,
    suite: LoadedSuite,
    side: Side,
    questions: "Mapping[str, tuple[TaskQuestion, ...]]",
) -> Iterator[Request]:
    """Requests of a side for a harness task, which may ask several questions of an item, such as its choices."""
    for item in suite.items:
        for place, question in enumerate(questions[item.digest]):
            yield Request(
                side=side.name,
                suite=suite.name,
                item=item.digest,
                repeat=place,
                prompt=question.prompt,
                decoding=question.decoding,
                seed=_seed(config.seed, item, place),
                expected=question.expected,
                generates=question.expected is None,
            )


def _seed(seed: int, item: EvaluationItem, repeat: int) -> int:
    """Seed of sampling, 63 bits, which depends on the run's seed, the item and the repeat alone."""
    digest = hashlib.sha256(f"{seed}:{item.digest}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1
