"""Makes rows, some items at a time: asks, sifts, lets a judge score; stops when there are enough, or all is spent."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tunesmith_contract.generation import Generation, ScoringJudge
from tunesmith_data.endpoints.chat import messages_of
from tunesmith_data.endpoints.journal import Answer, Spent
from tunesmith_data.endpoints.journaled_chat import Question
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from . import prompts
from .budgeted_chat import BudgetedChat
from .json_answers import find_score
from .row_filter import Copies, Fate, RewardSieve, Tally, sift
from .similar_questions import HeldOutQuestions
from .tasks import Draft, Drafts, Item, Task
from .token_budget import Purse

#: Items that are asked about before what came of them is looked at, for each request on its way.
_ITEMS_PER_REQUEST = 4
#: Bytes of a token, at most, in most texts: answers whose length is not known yet are told to a judge.
_BYTES_PER_TOKEN = 4

Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Voices:
    """Who is asked; ``scorer`` None: nobody scores."""

    teacher: BudgetedChat
    judge: BudgetedChat
    scorer: BudgetedChat | None

    @property
    def all(self) -> tuple[BudgetedChat, ...]:
        """Each of them."""
        return (self.teacher, self.judge, *([self.scorer] if self.scorer else []))

    def close(self) -> None:
        """Close their connections."""
        for voice in self.all:
            voice.close()


@dataclass(slots=True)
class Yield:
    """What has been made so far.

    Attributes:
        rows: those that are kept, in the order of their items.
        tally: what became of all that were considered.
        items: how many items were gone through.
        exhausted: the budget did not pay for another one.
        warnings: what to look at.
    """

    rows: list[Row] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    items: int = 0
    exhausted: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Maker:
    """All that makes rows.

    Attributes:
        task: what is made.
        voices: who is asked.
        purse: what may be spent. An item is begun only if all that it may take is there, so that no answer is paid for
            whose judge is not.
        copies, held_out, rewards: which rows are left out.
        spec: what was asked for.
    """

    task: Task
    voices: Voices
    purse: Purse
    copies: Copies
    held_out: HeldOutQuestions
    rewards: RewardSieve
    spec: Generation

    def make(self, items: Iterable[Item], so_far: Yield, ended: Progress) -> None:
        """Go through the items, and add what comes of them.

        Args:
            so_far: what is added to; it tells how far this is when ``ended`` is called, after each answer.
        """
        left = iter(items)
        waiting = list(islice(left, self._at_once(so_far)))
        while waiting and self._at_once(so_far) > 0:
            chunk = list(self._affordable(waiting))
            if not chunk:
                so_far.exhausted = True
                return
            self._go_through(chunk, so_far, ended)
            waiting = waiting[len(chunk) :]
            waiting += islice(left, max(0, self._at_once(so_far) - len(waiting)))

    def _at_once(self, so_far: Yield) -> int:
        """Items to ask about next: no more than bring the rows that are wanted yet."""
        most = _ITEMS_PER_REQUEST * self.spec.concurrency
        if self.task.wanted is None:
            return most
        return min(most, math.ceil((self.task.wanted - len(so_far.rows)) / self.task.rows_per_item))

    def _affordable(self, items: Sequence[Item]) -> Iterator[Item]:
        """The first items, as far as the budget pays for all that each may take; answered ones take nothing."""
        need = Spent()
        for item in items:
            need = need.together(self._most(item))
            if not self.purse.affords(need):
                return
            yield item

    def _most(self, item: Item) -> Spent:
        """What an item takes at most, its judges included."""
        questions = self.task.ask(item, self.voices.teacher)
        asked = self.voices.teacher.cost(questions)
        if not asked.calls:
            return asked
        heard = sum(
            question.most.prompt + _BYTES_PER_TOKEN * question.most.completion for question in questions
        )
        judged = self.voices.judge.most(heard, self.task.comparisons)
        rows, scorer = self.task.rows_per_item, self.voices.scorer
        scored = scorer.most(heard, rows) if scorer else Spent()
        return asked.together(judged).together(scored)

    def _go_through(self, items: Sequence[Item], so_far: Yield, ended: Progress) -> None:
        """Ask about some items, and add what is left of what was made."""
        made = self._ask(items, ended)
        so_far.tally.add(Fate.UNUSABLE, sum(each.unusable for each in made))
        so_far.tally.add(Fate.FILTERED, sum(each.undecided for each in made))
        drafts = [draft for each in made for draft in each.made]
        left = sift(drafts, self.copies, self.held_out, self.rewards, so_far.tally)
        good = self._scored(left, so_far.tally, ended)
        wanted = self.task.wanted
        kept = good[: None if wanted is None else max(0, wanted - len(so_far.rows))]
        so_far.rows += [draft.row for draft in kept]
        so_far.tally.add(Fate.KEPT, len(kept))
        so_far.items += len(items)

    def _ask(self, items: Sequence[Item], ended: Progress) -> list[Drafts]:
        """What the teacher says to each item and, where answers are compared, the judge to them."""
        teacher, judge = self.voices.teacher, self.voices.judge
        answers = _Exchange(teacher, [self.task.ask(item, teacher) for item in items])
        answers.take_place(self.spec.concurrency, ended)
        heard = list(answers)
        verdicts = _Exchange(
            judge, [self.task.compare(item, said, judge) for item, said in zip(items, heard, strict=True)]
        )
        verdicts.take_place(self.spec.concurrency, ended)
        return [self.task.read(*each) for each in zip(items, heard, verdicts, strict=True)]

    def _scored(self, drafts: Sequence[Draft], tally: Tally, ended: Progress) -> list[Draft]:
        """Those that the judge gives enough."""
        scorer, scoring = self.voices.scorer, self.spec.filter.judge
        if scorer is None or scoring is None:
            return list(drafts)
        scores = _Exchange(scorer, [[_score_question(draft.row, scoring, scorer)] for draft in drafts])
        scores.take_place(self.spec.concurrency, ended)
        found = [find_score(answer.text) if answer else None for (answer,) in scores]
        good = [
            draft for draft, score in zip(drafts, found, strict=True) if score and score >= scoring.minimum
        ]
        tally.add(Fate.FILTERED, len(drafts) - len(good))
        return good


class _Exchange:
    """Questions to one respondent, in groups, and their answers."""

    def __init__(self, respondent: BudgetedChat, groups: Sequence[Sequence[Question]]) -> None:
        self._respondent = respondent
        self._groups = groups

    def take_place(self, concurrency: int, ended: Progress) -> None:
        """Ask all of them."""
        self._respondent.ask_all((each for group in self._groups for each in group), concurrency, ended)

    def __iter__(self) -> Iterator[list[Answer | None]]:
        return ([self._respondent.answer_to(each) for each in group] for group in self._groups)


def _score_question(row: Row, scoring: ScoringJudge, scorer: BudgetedChat) -> Question:
    text = prompts.SCORE.format(
        criteria=prompts.told(scoring.criteria), question=prompt_text(row), answer=answer_text(row)
    )
    return scorer.question(messages_of(text))
