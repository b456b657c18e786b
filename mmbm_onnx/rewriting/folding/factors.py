"""Scale factors that are not known yet, and which of them have to be the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmbm_onnx.types import IntArray

ONE = 0
"""The factor that stays 1."""


class Factors:
    """Classes of factors by number; factors of one class are the same (union-find)."""

    def __init__(self) -> None:
        self._parents: list[int] = [ONE]

    def __len__(self) -> int:
        return len(self._parents)

    def new(self, shape: Sequence[int]) -> IntArray:
        """Factors that nothing is known of, of this shape."""
        first = len(self._parents)
        count = int(np.prod(shape))
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64).reshape(shape)

    def unite(self, left: IntArray, right: IntArray) -> None:
        """Make factors the same, element by element; shapes broadcast."""
        for a, b in zip(
            *(array.ravel() for array in np.broadcast_arrays(left, right)), strict=True
        ):
            first, second = self._root(int(a)), self._root(int(b))
            if first != second:
                # The smaller one is kept: 1 is the smallest.
                self._parents[max(first, second)] = min(first, second)

    def fix(self, factors: IntArray) -> None:
        """Make them 1."""
        self.unite(factors, np.full((), ONE, np.int64))

    def roots(self, factors: IntArray) -> IntArray:
        """The number that stands for each one's class."""
        found = [self._root(int(a)) for a in factors.ravel()]
        return np.asarray(found, np.int64).reshape(factors.shape)

    def _root(self, number: int) -> int:
        parents = self._parents
        root = number
        while parents[root] != root:
            root = parents[root]
        while parents[number] != root:
            parents[number], number = root, parents[number]
        return root
