"""Running a local operation over a picture that is too large to take at once.

Each tile is run with context on every side and only its core is kept, so every output pixel comes
from exactly one tile and no blending hides a seam: an operation that looks no further than the
context gives what it would give on the whole picture. Tiles end where the picture ends; pixels are
invented (by reflection, at the bottom and the right) only where a net wants a multiple or a least
size. The tiles of `tiled` are equally large, which lets compiled nets reuse their plan, and start
at multiples, so that strided nets keep their phase.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .image import as_photo, as_samples

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Span = tuple[
    int, int, int, int
]  # of a tile along one axis: core start and end, outer start and end


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
    """`fn` (h x w x 3 -> scale h x scale w x C) run over `photo` (H x W x 3) in equal tiles.

    Gives scale H x scale W x C, from 1 x 1 up. `tile` is the side that `fn` sees, context included,
    raised to a multiple of `multiple`; `overlap` is the context in pixels on each inner side. A
    picture that fits into one tile is run once. `fn` gets sides that are multiples of `multiple`
    and at least `minimum`. `progress(done, total)` is called after each tile.
    """
    sizes = f"{tile=} {overlap=} {multiple=} {scale=} {minimum=}"
    empty = photo.ndim not in (2, 3) or 0 in photo.shape
    if empty or overlap < 0 or min(tile, multiple, scale, minimum) < 1:
        raise ValueError(
            "tiled needs a picture H x W x 3 that is not empty and positive sizes, "
            f"got {photo.shape}, {sizes}"
        )
    if tile - 2 * overlap < multiple:
        raise ValueError(
            f"a tile of {tile} leaves no core of {multiple} between overlaps of {overlap}; "
            f"use tile={2 * overlap + multiple} or more"
        )
    rows, columns = (spread(side, tile, overlap, multiple, minimum) for side in photo.shape[:2])
    count = itertools.count(1)

    def run(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        part = photo[top:bottom, left:right]
        below = bottom - top - part.shape[0]
        beside = right - left - part.shape[1]
        missing = [(0, below), (0, beside), (0, 0)][: photo.ndim]
        result = np.asarray(fn(np.pad(part, missing, mode="reflect")))  # a copy: fn may write on it
        if result.shape[:2] != (scale * (bottom - top), scale * (right - left)):
            raise ValueError(
                f"fn made {result.shape} of a tile {bottom - top} x {right - left}; "
                f"with {scale=} it must be {scale} times as large"
            )
        if progress:
            progress(next(count), len(rows) * len(columns))
        return result

    return _joined(run, rows, columns, scale, np.asarray)


def tiled_samples(
    net: Callable[[torch.Tensor, int, int], torch.Tensor],
    samples: np.ndarray,
    tile: tuple[int, int],
    reach: int,
    scale: int = 1,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """`net` run over samples (H x W x 3, uint8, uint16 or float32), which keep their type.

    `net(x, y0, x0)` takes 1 x 3 x h x w in 0..1 and its first row and column, and gives the same
    times `scale`. `tile` is the core's rows and columns; `reach` the context, cut off where the
    picture ends. One pass, and no copy of the whole in floats.
    """
    import torch  # here: a bad file is refused without it

    def run(top: int, bottom: int, left: int, right: int) -> torch.Tensor:
        x = torch.from_numpy(as_photo(samples[top:bottom, left:right])).to(device)
        x = x.permute(2, 0, 1)[None].contiguous()  # channels_last: 3 times slower at 3 channels
        return net(x, top, left)[0].permute(1, 2, 0)

    def finish(core: torch.Tensor) -> np.ndarray:
        return as_samples(core.float().cpu().numpy(), samples.dtype)

    rows, columns = (
        list(strips(side, most, reach)) for side, most in zip(samples.shape, tile, strict=False)
    )
    return _joined(run, rows, columns, scale, finish)


def _joined(
    run: Callable[[int, int, int, int], Any],
    rows: list[Span],
    columns: list[Span],
    scale: int,
    finish: Callable[[Any], np.ndarray],
) -> np.ndarray:
    """The finished core of each run(top, bottom, left, right) at its place in one picture."""
    out = None
    for (y0, y1, top, bottom), (x0, x1, left, right) in itertools.product(rows, columns):
        across = slice(scale * (y0 - top), scale * (y1 - top))
        along = slice(scale * (x0 - left), scale * (x1 - left))
        core = finish(run(top, bottom, left, right)[across, along])
        if out is None:
            size = (scale * rows[-1][1], scale * columns[-1][1])
            out = np.empty((*size, *core.shape[2:]), core.dtype)
        out[scale * y0 : scale * y1, scale * x0 : scale * x1] = core
    assert out is not None, "a picture has a tile"
    return out


def strips(height: int, rows: int, halo: int = 0) -> Iterator[Span]:
    """(y0, y1, outer0, outer1): rows y0..y1 are a strip's own, the outer ones add up to `halo`.

    >>> list(strips(10, rows=4, halo=1))
    [(0, 4, 0, 5), (4, 8, 3, 9), (8, 10, 7, 10)]
    """
    if rows < 1 or halo < 0:
        raise ValueError(f"strips need at least one row and no negative halo, got {rows=} {halo=}")
    for y in range(0, height, rows):
        end = min(y + rows, height)
        yield y, end, max(y - halo, 0), min(end + halo, height)


NO_MEMORY = (
    *("allocate memory", "not enough memory", "out of memory", "insufficient memory", "bad_alloc"),
    "start new thread",  # Python; the others are torch's and OpenCV's
    *("could not create a primitive", "could not create a memory"),  # oneDNN's code and buffers
)


def out_of_memory(e: BaseException) -> bool:
    """Whether numpy, torch, OpenCV or ONNX Runtime say that memory was not enough, or a thread."""
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
        return (
            f"out of memory in {self.args[0]}; close other programs, lower working_size or scale, "
            "or shrink the photo"
        )


def sparingly(work: Callable[[float], T], what: str) -> T:
    """work(1.0), and work(0.25), on smaller tiles, where memory was not enough; raises NoMemory."""
    for share in (1.0, 0.25):
        try:
            return work(share)
        except Exception as e:
            if not out_of_memory(e):
                raise
    raise NoMemory(f"{what}, also on smaller tiles")


def spread(length: int, tile: int, overlap: int, multiple: int = 1, minimum: int = 1) -> list[Span]:
    """Equal tiles, evenly spread along one axis; the last outer end may pass `length`."""
    whole = -(-max(length, minimum) // multiple) * multiple
    tile = max(-(-tile // multiple), -(-minimum // multiple)) * multiple
    if whole <= tile:
        return [(0, length, 0, whole)]
    room = (whole - tile) // multiple  # in multiples, as is the longest step
    longest = (tile - 2 * overlap) // multiple
    last = -(-room // longest)
    starts = [i * room // last * multiple for i in range(last + 1)]
    middles = [(a + tile + b) // 2 for a, b in itertools.pairwise(starts)]  # of the overlaps
    cores = itertools.pairwise([0, *middles, length])
    return [(a, b, s, s + tile) for (a, b), s in zip(cores, starts, strict=True)]
