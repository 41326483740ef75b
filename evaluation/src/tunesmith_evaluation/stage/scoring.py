"""Scores of all sides, and counts of what was not answered as asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith_contract.evaluation import Metric
from tunesmith_contract.report import SuiteCounts
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_evaluation.comparison.metric_scores import CorpusTerms, MetricScores
from tunesmith_evaluation.items.requests import Reply
from tunesmith_evaluation.metrics.answers import Answer
from tunesmith_evaluation.metrics.measurements import Tokens
from tunesmith_evaluation.metrics.scorer import CorpusScorer, Score, ScoredItem
from tunesmith_evaluation.statistics.kinds import ScoreKind
from tunesmith_evaluation.suites.container_scores import score_by_container

from .replies import Replies, ReplyKey
from .suites import LoadedSuite

#: Answers to the repeats of each item, in the order of the items; none where one of them is missing.
SideAnswers = Sequence[tuple[Answer, ...]]
#: Scores by name of the side in the order of the items.
SideScores = Mapping[str, Sequence[Score]]

_NO_ANSWER = Score(None, {"reason": "no answer"})


@dataclass(frozen=True, slots=True)
class ScoredSuite:
    """Suite with the replies of all sides and their scores.

    Attributes:
        loaded: the suite and its items.
        replies: replies to the repeats of each item, by name of the side in the order of the items.
        answers: complete sets of answers, by name of the side in the order of the items.
        scores: scores by key of the metric.
        max_tokens: most tokens that an answer of candidate or baseline can have; None if it is not known.
    """

    loaded: LoadedSuite
    replies: Mapping[str, Sequence[Sequence[Reply]]]
    answers: Mapping[str, SideAnswers]
    scores: Mapping[str, SideScores]
    max_tokens: int | None

    def metric_scores(self, key: str) -> MetricScores:
        """Scores by one metric, as they are compared.

        An answer whose thinking never ended scores 0. For the baseline it counts as no score: where the limit of
        tokens is too small for it, nothing is better than its zeros, and nothing worse.
        """
        scorer, items = self.loaded.scorers.get(key), self.loaded.items
        sides = list(self.scores[key].values())
        rows = [[np.nan if score.value is None else score.value for score in scores] for scores in sides]
        if self.reads_answers(key):
            baseline = list(self.answers.values())[1]
            rows[1] = [
                np.nan if any(not answer.complete for answer in some) else value
                for some, value in zip(baseline, rows[1], strict=True)
            ]
        groups = [item.group if item.group is not None else item.digest for item in items]
        columns = {
            column: [item.slices[column] for item in items] for column in self.loaded.suite.slice_columns
        }
        return MetricScores(
            suite=self.loaded.name,
            metric=key,
            kind=scorer.kind if scorer is not None else ScoreKind.UNIT_INTERVAL,
            values=np.array(rows, dtype=np.float64).reshape(len(rows), len(items)),
            groups=groups if len(set(groups)) < len(groups) else None,
            columns=columns,
            corpus=CorpusTerms(*scorer.corpus_terms(sides), scorer.upper, scorer.swings)
            if isinstance(scorer, CorpusScorer)
            else None,
            higher_is_better=scorer.higher_is_better if scorer is not None else True,
            largest=self.max_tokens if isinstance(scorer, Tokens) else None,
        )

    def empty_answers(self, side: str) -> int:
        """Number of complete answers of a side without text and without calls of tools."""
        return sum(
            answer.complete and not answer.text.strip() and not answer.calls_tools
            for answer in self.generated(side)
        )

    def describe_empty_answers(self, side: str, share: float = 0.5) -> str:
        """Number of empty answers of a side in words, where they are more than a share of its answers; else empty."""
        answers, empty = len(self.generated(side)), self.empty_answers(side)
        return (
            f"{empty:,} of {answers:,} answers of {side} are empty texts" if empty > share * answers else ""
        )

    def describe_cut_answers(self, side: str) -> str:
        """Number of answers of a side that were cut off in words, where they are more than half; else empty."""
        answers = self.generated(side)
        cut = sum(answer.truncated for answer in answers)
        return (
            f"{cut:,} of {len(answers):,} answers of {side} are cut off at maxNewTokens"
            if cut * 2 > len(answers)
            else ""
        )

    def generated(self, side: str) -> list[Answer]:
        """Answers of a side that were generated, those to all repeats of all items."""
        replies = (reply for repeats in self.replies[side] for reply in repeats if reply.request.generates)
        return [reply.answer for reply in replies if reply.answer is not None]

    def reads_answers(self, key: str) -> bool:
        """True if a metric scores what an answer says, and not its likelihood, its time or its length."""
        scorer = self.loaded.scorers.get(key)
        return scorer is None or scorer.reads_answers

    @property
    def counts(self) -> SuiteCounts:
        """Numbers of items and answers."""
        replies = [reply for side in self.replies.values() for repeats in side for reply in repeats]
        answers = [reply.answer for reply in replies if reply.answer is not None]
        return SuiteCounts(
            items=len(self.loaded.sampled),
            leaked=len(self.loaded.sampled) - len(self.loaded.items),
            broken=len({reply.request.item for reply in replies if reply.answer is None}),
            truncated=sum(answer.truncated for answer in answers),
            incomplete=sum(not answer.complete for answer in answers),
        )

    @property
    def is_empty(self) -> bool:
        """True if no item has all answers of both candidate and baseline."""
        candidate, baseline = list(self.answers.values())[:2]
        return not any(one and other for one, other in zip(candidate, baseline, strict=True))


def score_suite(suite: LoadedSuite, config: EvaluateConfig, replies: Replies) -> ScoredSuite:
    """Scores of all sides by all metrics of a suite."""
    by_side = {
        side.name: [replies[ReplyKey(side.name, suite.name, item.digest)] for item in suite.items]
        for side in config.sides
    }
    answers = {name: [_complete(repeats) for repeats in some] for name, some in by_side.items()}
    scores: dict[str, SideScores] = {
        key: dict(zip(answers, scorer.score_sides(_scored_items(suite, config, answers)), strict=True))
        for key, scorer in suite.scorers.items()
    }
    for metric in suite.suite.metrics:
        if metric.type is Metric.CONTAINER_SCORE:
            found = score_by_container(suite.suite, suite.items, answers)
            scores[metric.key] = {
                name: [score or _NO_ANSWER for score in some] for name, some in found.items()
            }
    in_order = {metric.key: scores[metric.key] for metric in suite.suite.metrics}
    return ScoredSuite(suite, by_side, answers, in_order, _max_tokens(config, by_side))


def _max_tokens(config: EvaluateConfig, replies: Mapping[str, Sequence[Sequence[Reply]]]) -> int | None:
    """Most tokens that an answer of candidate or baseline can have; None if it is not known.

    Endpoints need not keep the limit that they are asked for, and stored answers may come from a run with another one.
    """
    compared = config.sides[:2]
    if not all(side.is_loaded for side in compared):
        return None
    limits = (
        reply.request.decoding.max_new_tokens
        for side in compared
        for repeats in replies[side.name]
        for reply in repeats
    )
    return max(limits, default=None)


def _scored_items(
    suite: LoadedSuite, config: EvaluateConfig, answers: Mapping[str, SideAnswers]
) -> list[list[ScoredItem]]:
    """Items of each side, in the order of the sides."""
    return [
        [
            ScoredItem(item.question, item.expected_with(side.context_column), some)
            for item, some in zip(suite.items, answers[side.name], strict=True)
        ]
        for side in config.sides
    ]


def _complete(repeats: Sequence[Reply]) -> tuple[Answer, ...]:
    """Answers to all repeats; none if one is missing."""
    answers = tuple(reply.answer for reply in repeats if reply.answer is not None)
    return answers if len(answers) == len(repeats) else ()
