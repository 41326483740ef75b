"""Loop that makes rows: requests in batches, filters and scores, until rows or budget are used up."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tunesmith_contract.generation import Generation, ScoringJudge
from tunesmith_data.endpoints.chat import messages_of
from tunesmith_data.endpoints.journal import ChatAnswer, Spending
from tunesmith_data.endpoints.journaled_chat import ChatRequest
from tunesmith_data.endpoints.token_budget import TokenBudget
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from . import prompts
from .budgeted_chat import BudgetedChat
from .json_answers import find_score
from .row_filter import OutcomeCounts, RewardFilter, RowOutcome, SeenQuestions, filter_drafts
from .similar_questions import HeldOutQuestions
from .tasks import DraftRow, GenerationTask, TaskInput, TaskOutput

#: Inputs of a batch, for each concurrent request.
_INPUTS_PER_REQUEST = 4
#: Maximum bytes of a token in most texts: estimates the length of answers that a judge will read.
_BYTES_PER_TOKEN = 4

OnAnswer = Callable[[], None]


@dataclass(frozen=True, slots=True)
class ChatClients:
    """Chat clients of teacher, judge and scorer; without a scorer, rows are not scored."""

    teacher: BudgetedChat
    judge: BudgetedChat
    scorer: BudgetedChat | None

    @property
    def all(self) -> tuple[BudgetedChat, ...]:
        """All clients."""
        return (self.teacher, self.judge, *([self.scorer] if self.scorer else []))

    def close(self) -> None:
        """Close their connections."""
        for client in self.all:
            client.close()


@dataclass(slots=True)
class GeneratedRows:
    """Rows generated so far.

    Attributes:
        rows: the kept rows, in the order of their inputs.
        outcomes: outcome of all rows considered.
        items: number of inputs processed.
        exhausted: the budget did not cover another input.
        warnings: warnings for the report.
    """

    rows: list[Row] = field(default_factory=list)
    outcomes: OutcomeCounts = field(default_factory=OutcomeCounts)
    items: int = 0
    exhausted: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Maker of rows: task, clients, budget and filters.

    Attributes:
        task: the generation task.
        clients: chat clients.
        budget: the token budget. An input is started only if its maximum is available, so that no answer is paid for
            whose judge is not.
        seen_questions, held_out, rewards: filters of rows.
        spec: the generation's configuration.
    """

    task: GenerationTask
    clients: ChatClients
    budget: TokenBudget
    seen_questions: SeenQuestions
    held_out: HeldOutQuestions
    rewards: RewardFilter
    spec: Generation

    def make(self, items: Iterable[TaskInput], generated: GeneratedRows, on_answer: OnAnswer) -> None:
        """Process the inputs, and add the rows that result.

        Args:
            generated: rows are added to it; ``on_answer``, called after each answer, may read its progress.
        """
        remaining = iter(items)
        waiting = list(islice(remaining, self._batch_size(generated)))
        while waiting and self._batch_size(generated) > 0:
            chunk = list(self._within_budget(waiting))
            if not chunk:
                generated.exhausted = True
                return
            self._process(chunk, generated, on_answer)
            waiting = waiting[len(chunk) :]
            waiting += islice(remaining, max(0, self._batch_size(generated) - len(waiting)))

    def _batch_size(self, generated: GeneratedRows) -> int:
        """Number of inputs in the next batch, limited by the rows still wanted."""
        limit = _INPUTS_PER_REQUEST * self.spec.concurrency
        if self.task.wanted is None:
            return limit
        return min(limit, math.ceil((self.task.wanted - len(generated.rows)) / self.task.rows_per_item))

    def _within_budget(self, items: Sequence[TaskInput]) -> Iterator[TaskInput]:
        """First inputs that the budget covers completely; answered ones cost nothing."""
        need = Spending()
        for item in items:
            need = need.plus(self._max_spending(item))
            if not self.budget.allows(need):
                return
            yield item

    def _max_spending(self, item: TaskInput) -> Spending:
        """Maximum spending of an input, judges included."""
        requests = self.task.ask(item, self.clients.teacher)
        teacher_spending = self.clients.teacher.max_spending(requests)
        if not teacher_spending.calls:
            return teacher_spending
        context_bytes = sum(
            request.max_usage.prompt + _BYTES_PER_TOKEN * request.max_usage.completion for request in requests
        )
        judged = self.clients.judge.estimate_spending(context_bytes, self.task.comparisons)
        rows, scorer = self.task.rows_per_item, self.clients.scorer
        scored = scorer.estimate_spending(context_bytes, rows) if scorer else Spending()
        return teacher_spending.plus(judged).plus(scored)

    def _process(self, items: Sequence[TaskInput], generated: GeneratedRows, on_answer: OnAnswer) -> None:
        """Process a batch of inputs, and add the rows that pass the filters."""
        outputs = self._ask(items, on_answer)
        generated.outcomes.add(RowOutcome.UNUSABLE, sum(output.unusable for output in outputs))
        generated.outcomes.add(RowOutcome.FILTERED, sum(output.undecided for output in outputs))
        drafts = [draft for output in outputs for draft in output.made]
        filtered = filter_drafts(drafts, self.seen_questions, self.held_out, self.rewards, generated.outcomes)
        good = self._filter_by_score(filtered, generated.outcomes, on_answer)
        wanted = self.task.wanted
        kept = good[: None if wanted is None else max(0, wanted - len(generated.rows))]
        generated.rows += [draft.row for draft in kept]
        generated.outcomes.add(RowOutcome.KEPT, len(kept))
        generated.items += len(items)

    def _ask(self, items: Sequence[TaskInput], on_answer: OnAnswer) -> list[TaskOutput]:
        """Rows from the teacher's answers to each input, compared by the judge where the task asks for it."""
        teacher, judge = self.clients.teacher, self.clients.judge
        answers = _RequestGroups(teacher, [self.task.ask(item, teacher) for item in items])
        answers.ask_all(self.spec.concurrency, on_answer)
        answers_by_input = list(answers)
        verdicts = _RequestGroups(
            judge,
            [
                self.task.compare(item, texts, judge)
                for item, texts in zip(items, answers_by_input, strict=True)
            ],
        )
        verdicts.ask_all(self.spec.concurrency, on_answer)
        return [self.task.read(*exchange) for exchange in zip(items, answers_by_input, verdicts, strict=True)]

    def _filter_by_score(
        self, drafts: Sequence[DraftRow], outcomes: OutcomeCounts, on_answer: OnAnswer
    ) -> list[DraftRow]:
        """Rows with a sufficient score from the judge."""
        scorer, scoring = self.clients.scorer, self.spec.filter.judge
        if scorer is None or scoring is None:
            return list(drafts)
        scores = _RequestGroups(scorer, [[_scoring_request(draft.row, scoring, scorer)] for draft in drafts])
        scores.ask_all(self.spec.concurrency, on_answer)
        values = [find_score(answer.text) if answer else None for (answer,) in scores]
        good = [
            draft for draft, score in zip(drafts, values, strict=True) if score and score >= scoring.minimum
        ]
        outcomes.add(RowOutcome.FILTERED, len(drafts) - len(good))
        return good


class _RequestGroups:
    """Requests to one client, in groups, and their answers."""

    def __init__(self, client: BudgetedChat, groups: Sequence[Sequence[ChatRequest]]) -> None:
        self._client = client
        self._groups = groups

    def ask_all(self, concurrency: int, on_answer: OnAnswer) -> None:
        """Send all requests."""
        self._client.ask_all((request for group in self._groups for request in group), concurrency, on_answer)

    def __iter__(self) -> Iterator[list[ChatAnswer | None]]:
        return ([self._client.answer_to(request) for request in group] for group in self._groups)


def _scoring_request(row: Row, scoring: ScoringJudge, scorer: BudgetedChat) -> ChatRequest:
    text = prompts.SCORE.format(
        criteria=prompts.as_paragraph(scoring.criteria), question=prompt_text(row), answer=answer_text(row)
    )
    return scorer.build_request(messages_of(text))
