"""Sums over groups of items that are not independent of each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """Assignment of items to groups. Groups are independent, their items may not be.

    Attributes:
        codes: number of each item's group, from 0, shape (items,).
        sizes: items of each group, shape (groups,).
    """

    codes: NDArray[np.intp]
    sizes: Floats

    @classmethod
    def of(cls, labels: Sequence[object] | None, items: int) -> "Groups":
        """Groups by the labels of the items; without labels each item is its own.

        Raises:
            ValueError: there are not as many labels as items.
        """
        if labels is None:
            return cls(np.arange(items), np.ones(items))
        if len(labels) != items:
            raise ValueError(f"{items} items, but {len(labels)} labels of groups")
        numbers: dict[object, int] = {}
        codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.intp)
        return cls(codes, np.bincount(codes, minlength=len(numbers)).astype(np.float64))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def are_single(self) -> bool:
        """True if all items are independent."""
        return len(self.sizes) == len(self.codes)

    def keep(self, kept: NDArray[np.bool_]) -> "Groups":
        """Groups of the items that are kept."""
        return Groups.of(self.codes[kept].tolist(), int(kept.sum()))

    def sum(self, values: Floats) -> Floats:
        """Sum of the values of each group's items, shape (groups,) or (groups, k).

        Args:
            values: shape (items,) or (items, k).
        """
        if self.are_single:
            return values
        columns = values.reshape(len(values), -1).T
        sums = [np.bincount(self.codes, weights=column, minlength=len(self.sizes)) for column in columns]
        return np.asarray(np.stack(sums, axis=-1).reshape(len(self.sizes), *values.shape[1:]), np.float64)
