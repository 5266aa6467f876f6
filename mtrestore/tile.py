"""Running a local operation over a picture that is too large to take at once.

Each tile is run with context on every side and only its core is kept, so every output pixel comes from exactly one tile and no blending
hides a seam: an operation that looks no further than `overlap` gives what it would give on the whole picture. Tiles end where the picture
ends; pixels are invented (by reflection, at the bottom and the right) only where a net wants a multiple or a least size. All tiles are
equally large, which lets compiled nets reuse their plan, and start at multiples, so that strided nets keep their phase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def tiled(
    fn: Callable[[np.ndarray], np.ndarray],
    photo: np.ndarray,
    tile: int = 256,
    overlap: int = 32,
    multiple: int = 1,
    scale: int = 1,
    minimum: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`fn` (h x w x 3 -> scale h x scale w x C) run over `photo` (H x W x 3, from 1 x 1 up) in tiles -> scale H x scale W x C.

    `tile` is the side that `fn` sees, context included, raised to a multiple of `multiple`; `overlap` is the context in pixels on each
    inner side. A picture that fits into one tile is run once. `fn` gets sides that are multiples of `multiple` and at least `minimum`.
    `progress(done, total)` is called after each tile.
    """
    if (
        min(tile, multiple, scale, minimum) < 1
        or overlap < 0
        or photo.ndim not in (2, 3)
        or 0 in photo.shape
    ):
        got = f"{photo.shape}, {tile=} {overlap=} {multiple=} {scale=} {minimum=}"
        raise ValueError(
            f"tiled needs a picture H x W x 3 that is not empty and positive sizes, got {got}"
        )
    if tile - 2 * overlap < multiple:
        least = 2 * overlap + multiple
        raise ValueError(
            f"a tile of {tile} leaves no core of {multiple} between overlaps of {overlap}; use tile={least} or more"
        )
    rows, cols = (_spread(side, tile, overlap, multiple, minimum) for side in photo.shape[:2])
    out, done = None, 0
    for y0, y1, top, bottom in rows:
        for x0, x1, left, right in cols:
            part = photo[top:bottom, left:right]
            missing = [(0, bottom - top - part.shape[0]), (0, right - left - part.shape[1])] + [
                (0, 0)
            ] * (photo.ndim - 2)
            result = np.asarray(
                fn(np.pad(part, missing, mode="reflect"))
            )  # pad copies: fn may write into its tile
            if result.shape[:2] != (scale * (bottom - top), scale * (right - left)):
                size = f"{bottom - top} x {right - left}"
                raise ValueError(
                    f"fn made {result.shape} of a tile {size}; with {scale=} it must be {scale} times as large"
                )
            if out is None:
                out = np.empty(
                    (scale * photo.shape[0], scale * photo.shape[1], *result.shape[2:]),
                    result.dtype,
                )
            core = result[
                scale * (y0 - top) : scale * (y1 - top), scale * (x0 - left) : scale * (x1 - left)
            ]
            out[scale * y0 : scale * y1, scale * x0 : scale * x1] = core
            done += 1
            if progress:
                progress(done, len(rows) * len(cols))
    return out


def strips(height: int, rows: int, halo: int = 0) -> Iterator[tuple[int, int, int, int]]:
    """Strips of a tall picture, (y0, y1, outer0, outer1): rows y0..y1 are this strip's, outer0..outer1 add `halo` rows where there are any.

    >>> list(strips(10, rows=4, halo=1))
    [(0, 4, 0, 5), (4, 8, 3, 9), (8, 10, 7, 10)]
    """
    if rows < 1 or halo < 0:
        raise ValueError(f"strips need at least one row and no negative halo, got {rows=} {halo=}")
    for y in range(0, height, rows):
        end = min(y + rows, height)
        yield y, end, max(y - halo, 0), min(end + halo, height)


NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "insufficient memory", "bad_alloc", "start new thread",  # torch, OpenCV, Python
             "could not create a primitive", "could not create a memory")  # oneDNN, whose code and buffers need memory too  # fmt: skip


def out_of_memory(e: BaseException) -> bool:
    """Whether an exception of numpy, torch, OpenCV or ONNX Runtime says that memory was not enough; for a thread as well."""
    return (
        isinstance(e, MemoryError)
        or isinstance(e.__cause__, MemoryError)
        or any(words in str(e).lower() for words in NO_MEMORY)
    )


class NoMemory(MemoryError):
    """Where memory was not enough, and what can be done."""

    def __init__(self, where: str) -> None:
        super().__init__(where)

    def __str__(self) -> str:
        return f"out of memory in {self.args[0]}; close other programs, lower working_size or scale, or shrink the photo"


def sparingly(work: Callable[[float], T], what: str) -> T:
    """work(1.0), and once more work(0.25), on smaller tiles, when memory was not enough. Raises NoMemory when that does not help."""
    for share in (1.0, 0.25):
        try:
            return work(share)
        except Exception as e:
            if not out_of_memory(e):
                raise
    raise NoMemory(f"{what}, also on smaller tiles")


def _spread(
    length: int, tile: int, overlap: int, multiple: int, minimum: int
) -> list[tuple[int, int, int, int]]:
    """Tiles along one axis, evenly spread: (core start, core end, outer start, outer end); the last outer end may pass `length`."""
    whole = -(-max(length, minimum) // multiple) * multiple
    tile = max(-(-tile // multiple), -(-minimum // multiple)) * multiple
    if whole <= tile:
        return [(0, length, 0, whole)]
    free, step = (
        (whole - tile) // multiple,
        (tile - 2 * overlap) // multiple,
    )  # in multiples: room to move, longest step
    count = -(-free // step) + 1
    starts = [i * free // (count - 1) * multiple for i in range(count)]
    cuts = [
        0,
        *((a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)),
        length,
    ]  # the middles of the overlaps
    return [(a, b, s, s + tile) for a, b, s in zip(cuts, cuts[1:], starts, strict=False)]
