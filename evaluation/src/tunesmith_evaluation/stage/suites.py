"""Suites of a run with their items and scorers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith_contract.evaluation import Side, Suite
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.failures import UserError
from tunesmith_evaluation.items.item import EvaluationItem
from tunesmith_evaluation.items.reading import sample_items
from tunesmith_evaluation.metrics.scorer import Scorer
from tunesmith_evaluation.suites.loading import SuiteItems

if TYPE_CHECKING:
    from tunesmith_evaluation.suites.harness.task_items import TaskQuestion


@dataclass(frozen=True, slots=True)
class LoadedSuite:
    """Suite with its items.

    Attributes:
        data: the suite with all its items and its scorers.
        sampled: items within its limit, in their order.
        leaked: digests of items that a side was trained on: nobody is asked them.
    """

    data: SuiteItems
    sampled: Sequence[EvaluationItem]
    leaked: frozenset[str] = field(default_factory=frozenset)

    @property
    def suite(self) -> Suite:
        """The suite."""
        return self.data.suite

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.data.suite.name

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        """Scorers of its metrics by their key."""
        return self.data.scorers

    @property
    def rows(self) -> Sequence[EvaluationItem]:
        """All items of its data."""
        return self.data.items

    @property
    def items(self) -> list[EvaluationItem]:
        """Items that are asked."""
        return [item for item in self.sampled if item.digest not in self.leaked]

    @property
    def is_own_data(self) -> bool:
        """True if its items are rows of a user; False for the safety suites and tasks of a harness."""
        return self.data.task is None and not self.suite.is_safety

    def task_questions(self, side: Side) -> "dict[str, tuple[TaskQuestion, ...]] | None":
        """Questions of a task by the item's digest; None if the items are the questions."""
        return None if self.data.task is None else self.data.task_questions(side, self.sampled)


def sample_suite(data: SuiteItems, seed: int) -> LoadedSuite:
    """Suite with a sample of its items."""
    return LoadedSuite(data, sample_items(data.items, data.suite.limit, seed))


def check_context_columns(config: EvaluateConfig, suites: Iterable[LoadedSuite]) -> None:
    """Check that each column of passages is one of some suite: else a side would silently answer without them.

    Raises:
        UserError: a side names a column that no suite has.
    """
    found = set(_columns_with_passages(suites))
    for side in config.sides:
        if side.context_column and side.context_column not in found:
            message = (
                f"side {side.name}: no suite has passages in {side.context_column}: correct contextColumn, or add the "
                "column to the rows"
            )
            raise UserError("NoPassages", message)


def _columns_with_passages(suites: Iterable[LoadedSuite]) -> Iterator[str]:
    for suite in suites:
        for item in suite.rows:
            yield from (column for column, passages in item.passages.items() if passages)
