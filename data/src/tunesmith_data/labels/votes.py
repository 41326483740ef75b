"""Votes of annotators, and votes grouped by item."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .task_items import LabelItem


@dataclass(frozen=True, slots=True)
class Vote:
    """Vote of one annotator on one item.

    Attributes:
        item: the item's id.
        annotator: name of the person.
        value: the choice as it was shown, or the better answer; None where the person skipped the item.
        comment: comment of the person.
    """

    item: str
    annotator: str
    value: str | None
    comment: str = ""


@dataclass(frozen=True)
class VoteTable:
    """All votes, by item and then by annotator, each in the order of their names.

    Attributes:
        values: the votes, without skipped items.
        skipped: number of items that each annotator skipped.
        annotators: everyone who voted or skipped.
    """

    values: Mapping[str, Mapping[str, str]]
    skipped: Mapping[str, int]
    annotators: tuple[str, ...] = field(default=())

    def values_for(self, item: str) -> list[str]:
        """Sorted values of all votes on an item."""
        return sorted(self.values.get(item, {}).values())


def count_votes(votes: Iterable[Vote]) -> VoteTable:
    """Group votes by item and annotator; the last vote of an annotator on an item counts."""
    last: dict[tuple[str, str], Vote] = {}
    for vote in votes:
        last[vote.item, vote.annotator] = vote
    values: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for (item, annotator), vote in sorted(last.items()):
        if vote.value is not None:
            values[item][annotator] = vote.value
    skipped = Counter(vote.annotator for vote in last.values() if vote.value is None)
    annotators = tuple(sorted({annotator for _, annotator in last}))
    return VoteTable(values, skipped, annotators)


@dataclass(frozen=True)
class LabelAnswers:
    """Items by id, and all votes on them.

    Drafts are no votes; an item that an annotator discarded counts as skipped.
    """

    items: Mapping[str, LabelItem]
    votes: Sequence[Vote]

    @property
    def votes_by_item(self) -> VoteTable:
        """The votes by item and annotator."""
        return count_votes(self.votes)
