"""Fewer cases than a product, and still every value of an axis beside every value of another."""

import itertools
from collections.abc import Sequence


def pairwise(*axes: Sequence) -> list[tuple]:
    """Points of the product such that any two values of two axes meet in one of them.

    >>> pairwise([1, 2], "ab", "xy")
    [(1, 'a', 'x'), (1, 'b', 'y'), (2, 'a', 'y'), (2, 'b', 'x')]
    """

    def meetings(point: tuple[int, ...]) -> set[tuple]:
        return set(itertools.combinations(enumerate(point), 2))

    points = list(itertools.product(*(range(len(axis)) for axis in axes)))
    missing = set().union(*map(meetings, points))
    chosen = []
    while missing:
        best = max(points, key=lambda point: len(meetings(point) & missing))
        missing -= meetings(best)
        chosen.append(best)
    return [tuple(axis[i] for axis, i in zip(axes, point)) for point in sorted(chosen)]
