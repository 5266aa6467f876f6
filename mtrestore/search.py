"""Where a detector looks: the whole photo, tiles fine enough for a small face, other directions.

A detector finds faces from about 20 px of what it is shown. First it is shown the photo small and
in all four directions; then overlapping tiles, in each direction that has a face (in all where none
has), so large that a face of 16 px has 20: at most USUAL pixels, or MOST where these show no face
or a small one. A note says what that leaves out. Where faces overlap the surest stays; all but
those of the first upright look have to be found again, alone, upright and mirrored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from .crop import eye_crop
from .image import as_photo, as_samples, resize
from .tile import Span, spread

# uint8 RGB H x W x 3 -> (N, 15): x0 y0 x1 y1, five points x y, score 0..1
Detector = Callable[[np.ndarray], np.ndarray]
Size = tuple[int, ...]  # height, width, and perhaps channels
LEAST_SIDE = 16  # px on the photo: a smaller face is not restored
VISIBLE = 20  # px: what a face needs in what the detector is shown
TILE = 1024  # px shown at once
OVERLAP = 128  # px shown twice: larger faces were seen before, at a smaller scale
USUAL = 2.5e6  # px shown in tiles in each direction, without what is shown twice
MOST = 12e6  # the same where no face, or a small one, was found
CELL = 128  # px of a face's surroundings when it is looked at alone


class Scores(NamedTuple):
    """What a face needs upright at the first look, what makes a clearer copy needless, and what a
    face needs anywhere else.
    """

    enough: float
    sure: float
    elsewhere: float


def everywhere(
    detector: Detector, photo: np.ndarray, scale: float, scores: Scores
) -> tuple[np.ndarray, list[str]]:
    """Rows (N, 15) in the photo's pixels, surest first, and notes; the first look is at `scale`."""
    height, width = photo.shape[:2]
    if min(height, width) * scale < LEAST_SIDE:
        return np.zeros((0, 15)), []
    overlap = min(TILE // 2, int(min(height, width) * scale))
    upright, *turned = looks(detector, photo, scale, range(4), overlap)
    rows = suppress(upright[upright[:, 14] >= scores.enough])
    rows = _joined(detector, photo, rows, np.concatenate(turned), scores)
    rows, scales = _finer(detector, photo, rows, scale, scores)
    if not len(rows) or rows[0, 14] < scores.sure:
        answers = looks(detector, photo, scale, range(4), overlap, cleared)
        clear = max(map(suppress, answers), key=_surest)
        if _surest(clear) >= max(scores.elsewhere, _surest(rows)):
            rows = clear[clear[:, 14] >= scores.elsewhere]
    return rows, _unseen(scales, height * width)


def whole(look: Detector, picture: np.ndarray) -> np.ndarray:
    """Rows of a detector that is believed: of the first of upright, turned, and cleared that has
    any.
    """
    for copies, directions in ((picture, (0,)), (picture, (1, 2, 3)), (cleared(picture), range(4))):
        best = max((_answer(look, copies, turns) for turns in directions), key=_surest)
        if len(best):
            break
    return best


def suppress(rows: np.ndarray, overlap: float = 0.4, inside: float = 0.7) -> np.ndarray:
    """Non-maximum suppression: rows (N, 15), surest first, without those that overlap a surer one
    or lie mostly inside it or around it.
    """
    return rows[_winners(rows, overlap, inside)]


def cleared(picture: np.ndarray) -> np.ndarray:
    """Softened against noise and grain, then stretched to full contrast: for dark, faded and noisy
    pictures.
    """
    soft = cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32)
    low, high = np.percentile(soft[::4, ::4], (1, 99))
    return np.clip((soft - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)


def looks(
    detector: Detector,
    photo: np.ndarray,
    scale: float,
    directions: Iterable[int],
    overlap: int = OVERLAP,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Rows, for each direction (quarter turns), of all tiles of a photo shown at `scale`.

    A face belongs to the tile in whose core its middle lies, give or take a quarter of `overlap`.
    """
    spans = [_spans(n, int(TILE / scale), int(overlap / scale)) for n in photo.shape[:2]]
    answers = {turns: [np.zeros((0, 15))] for turns in directions}
    for (y0, y1, top, bottom), (x0, x1, left, right) in itertools.product(*spans):
        part = photo[top:bottom, left:right]
        height, width = (max(1, round(n * scale)) for n in part.shape[:2])
        picture = resize(part, (height, width))
        if picture.dtype != np.uint8:
            picture = as_samples(as_photo(picture), np.uint8)
        picture = change(picture) if change else picture
        for turns, rows in answers.items():
            row = on_photo(
                _answer(detector, picture, turns), part.shape, picture.shape, (left, top)
            )
            middle = (row[:, :2] + row[:, 2:4]) / 2
            away = np.maximum((x0, y0) - middle, middle - (x1, y1)).max(1)
            rows.append(row[away <= overlap / scale / 4])
    return [np.concatenate(rows) for rows in answers.values()]


def _spans(length: int, tile: int, overlap: int) -> list[Span]:
    """As few tiles along one side as will do, and no larger than they must be."""
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    return spread(length, -(-(length + (count - 1) * overlap) // count), overlap // 2)


def _finer(
    detector: Detector, photo: np.ndarray, rows: np.ndarray, scale: float, scores: Scores
) -> tuple[np.ndarray, list[float]]:
    """Rows with those that tiles add, and the finest scale shown in each direction."""
    scales = [scale] * 4
    large = rows[rows[:, 14] >= scores.sure]
    directions = {0, *_quarter(rows)} if len(rows) else set(range(4))
    for most in (USUAL, MOST):
        finest = min(VISIBLE / LEAST_SIDE, (most / (photo.shape[0] * photo.shape[1])) ** 0.5)
        if finest > 1.05 * scale:
            scale = finest
            more = np.concatenate(looks(detector, photo, scale, directions))
            more = more[_sides(more) * scale <= 1.5 * OVERLAP]
            rows = _joined(detector, photo, rows, more[~_parts(more, large)], scores)
            scales = [scale if turns in directions else scales[turns] for turns in range(4)]
        if len(rows) and _sides(rows).min() * scale >= 2 * VISIBLE:
            break
        directions = {0, *_quarter(rows)}
    return rows, scales


def _unseen(scales: list[float], pixels: int) -> list[str]:
    """A note of the faces that were too small at the scales of the four directions."""
    upright, turned = (int(np.ceil(VISIBLE / scale)) for scale in (scales[0], min(scales)))
    if upright <= LEAST_SIDE:
        return []
    size = f"{upright} px" if turned == upright else f"{upright} px, turned ones under {turned} px,"
    large = f"in so large a photo ({pixels / 1e6:.0f} megapixels)"
    return [f"faces under {size} were not looked for {large}; name one with --box x0,y0,x1,y1"]


def _joined(
    detector: Detector, photo: np.ndarray, rows: np.ndarray, more: np.ndarray, scores: Scores
) -> np.ndarray:
    """Rows, and those of `more` that no surer one overlaps and that are found again."""
    both = np.concatenate([rows, more[more[:, 14] >= scores.elsewhere]])
    winners = _winners(both)
    new = both[winners[winners >= len(rows)]]
    return suppress(np.concatenate([rows, new[_again(detector, photo, new) >= scores.enough]]))


def _again(detector: Detector, photo: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Scores of rows' faces when each is shown alone, upright and mirrored, on sheets of them."""
    scores = np.zeros(len(rows))
    across = min(TILE // CELL, int(np.ceil(len(rows) ** 0.5)))
    for start in range(0, len(rows), across**2 or 1):
        sheet = np.full((across * CELL, across * CELL, 3), 128, np.uint8)
        middles = {}
        for i in range(start, min(start + across**2, len(rows))):
            y, x = np.array(divmod(i - start, across)) * CELL
            try:
                face = eye_crop(rows[i, 4:14].reshape(5, 2), CELL).cut(photo)
            except ValueError:  # no eyes above a mouth
                continue
            sheet[y : y + CELL, x : x + CELL] = as_samples(face[:, ::-1], np.uint8)
            middles[i] = np.array((x, y)) + CELL / 2
        answer = _answer(detector, sheet, 0)
        for i, middle in middles.items():
            near = np.abs((answer[:, :2] + answer[:, 2:4]) / 2 - middle).max(1) < CELL / 5
            near &= (_sides(answer) > CELL / 4) & (_sides(answer) < CELL)
            scores[i] = answer[near, 14].max(initial=0)
    return scores


def _answer(look: Detector, picture: np.ndarray, turns: int) -> np.ndarray:
    """Rows that a detector finds in a turned picture, in the picture's pixels, surest first."""
    rows = look(np.ascontiguousarray(np.rot90(picture, turns)))
    rows = suppress(np.asarray(rows, np.float64).reshape(-1, 15))
    height, width = picture.shape[:2]
    x, y = rows[:, 0:14:2], rows[:, 1:14:2]
    x, y = [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)][turns]
    xy = np.stack([x, y], -1)
    xy[:, :2] = np.sort(xy[:, :2], axis=1)  # a turned box's corners change places
    return np.c_[xy.reshape(-1, 14), rows[:, 14]]


def on_photo(
    rows: np.ndarray, large: Size, small: Size, corner: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Rows on a picture of shape `small`, on the part of a photo, of shape `large`, it shows."""
    ratio = np.array(large[1::-1]) / np.array(small[1::-1])
    xy = (rows[:, :14].reshape(-1, 7, 2) + 0.5) * ratio - 0.5 + corner
    return np.c_[xy.reshape(-1, 14), rows[:, 14]]


def _winners(rows: np.ndarray, overlap: float = 0.4, inside: float = 0.7) -> np.ndarray:
    """Indices of the rows that `suppress` leaves, surest first."""
    areas = np.prod(rows[:, 2:4] - rows[:, :2], axis=1)
    winners = np.zeros(0, int)
    for i in np.argsort(-rows[:, 14], kind="stable"):
        low = np.maximum(rows[i, :2], rows[winners, :2])
        high = np.minimum(rows[i, 2:4], rows[winners, 2:4])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        union, lesser = areas[i] + areas[winners] - shared, np.minimum(areas[i], areas[winners])
        if not ((shared > overlap * union) | (shared > inside * lesser)).any():
            winners = np.append(winners, i)
    return winners


def _parts(rows: np.ndarray, large: np.ndarray) -> np.ndarray:
    """Which rows lie in a face of more than twice their side: an eye, a pattern of a dress."""
    middle = (rows[:, None, :2] + rows[:, None, 2:4]) / 2
    inside = ((middle > large[:, :2]) & (middle < large[:, 2:4])).all(-1)
    return np.asarray((inside & (2 * _sides(rows)[:, None] < _sides(large))).any(1))


def _quarter(rows: np.ndarray) -> np.ndarray:
    """The turns of np.rot90 that bring each row's face upright, from its eyes to its mouth."""
    points = rows[:, 4:14].reshape(-1, 5, 2)
    x, y = (points[:, 3:].mean(1) - points[:, :2].mean(1)).T
    return np.rint(np.arctan2(-x, y) / (np.pi / 2)).astype(int) % 4


def _sides(rows: np.ndarray) -> np.ndarray:
    """The longer side of each row's box."""
    return (rows[:, 2:4] - rows[:, :2]).max(1, initial=0)


def _surest(rows: np.ndarray) -> float:
    return rows[:, 14].max(initial=-np.inf)
