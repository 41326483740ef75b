"""What people said: votes on items, whoever they are and in whatever order they come."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person said of one item.

    Attributes:
        item: the item's id.
        annotator: who said it.
        value: the choice as it was shown, or the better answer; None where the person skipped the item.
        comment: what else the person wrote.
    """

    item: str
    annotator: str
    value: str | None
    comment: str = ""


@dataclass(frozen=True)
class Ballot:
    """All votes, by item and then by annotator, each in the order of their names.

    Attributes:
        values: what was said, without skips.
        skipped: how many items each annotator skipped.
        annotators: everyone who said anything, or skipped.
    """

    values: Mapping[str, Mapping[str, str]]
    skipped: Mapping[str, int]
    annotators: tuple[str, ...] = field(default=())

    def said(self, item: str) -> list[str]:
        """The values that were given to an item, sorted."""
        return sorted(self.values.get(item, {}).values())


def count_votes(votes: Iterable[Vote]) -> Ballot:
    """Sort votes; of two by the same person on the same item the last counts."""
    last: dict[tuple[str, str], Vote] = {}
    for vote in votes:
        last[vote.item, vote.annotator] = vote
    values: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for (item, annotator), vote in sorted(last.items()):
        if vote.value is not None:
            values[item][annotator] = vote.value
    skipped = Counter(vote.annotator for vote in last.values() if vote.value is None)
    annotators = tuple(sorted({annotator for _, annotator in last}))
    return Ballot(values, skipped, annotators)
