"""Parts of faces as tensors, cut so that a gradient finds its way back, for losses to look at.

Points are B×468×2 in units of the picture's side, 0 and 1 its outer edges, as LandmarkNet gives
them, so they hold at every size. A part is a square, upright in the face: a similarity (B×2×3)
takes its units to the picture's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..crop import EYE_RULE

LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)  # the viewer's; corners of each
MOUTH = (61, 291)
NOSE = 1
EYE_SIDE, MOUTH_SIDE = 40, 60  # px of a face of 256 px, at which GFPGAN looks, too

# Points of MediaPipe's mesh that carry a likeness: both eyes, both brows, the lips.
EYES = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYES += (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409)
LIPS += (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415)


def five(points: Tensor) -> Tensor:
    """B×468×2 -> B×5×2: viewer's left and right eye, nose tip, left and right mouth corner."""
    eyes = [points[:, list(corners)].mean(1) for corners in (LEFT_EYE, RIGHT_EYE)]
    return torch.stack([*eyes, points[:, NOSE], *(points[:, i] for i in MOUTH)], 1)


def square(centre: Tensor, side: Tensor, axis: Tensor, mirrored: bool = False) -> Tensor:
    """B×2×3, the square of a side about a centre whose x axis points along `axis` (B×2)."""
    x = F.normalize(axis, dim=1) * side[:, None]
    y = torch.stack([-x[:, 1], x[:, 0]], 1)
    if mirrored:
        x = -x
    return torch.stack([x, y, centre - (x + y) / 2], 2)


def frame(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(five points, x axis, unit of length: eye distance or 0.9 × eyes to mouth) of a face."""
    p = five(points)
    across, down = p[:, 1] - p[:, 0], p[:, 3:].mean(1) - p[:, :2].mean(1)
    axis = across + torch.stack([down[:, 1], -down[:, 0]], 1)
    return p, axis, torch.maximum(across.norm(dim=1), 0.9 * down.norm(dim=1))


def eye_square(points: Tensor) -> Tensor:
    """The square of `crop.eye_crop`, for which LandmarkNet was made."""
    p, axis, unit = frame(points)
    eyes, mouth = p[:, :2].mean(1), p[:, 3:].mean(1)
    return square(eyes + EYE_RULE[1] * (mouth - eyes), EYE_RULE[0] * unit, axis)


def fitted(points: Tensor, places: Tensor) -> Tensor:
    """The square in which points (B×N×2) lie nearest to `places` (N×2, in its own units)."""
    middle, mean = places.mean(0), points.mean(1)
    z, w = places - middle, points - mean[:, None]
    scale = z.square().sum()
    a = (w * z).sum((1, 2)) / scale  # the turn and scale a + ib that takes z to w, least squares
    b = (w[..., 1] * z[:, 0] - w[..., 0] * z[:, 1]).sum(1) / scale
    turn = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    return torch.cat([turn, (mean - turn @ middle)[..., None]], 2)


def cut(pictures: Tensor, squares: Tensor, size: int) -> Tensor:
    """B×C×size×size: what lies in the squares, bilinear, mirrored beyond the picture's edge.

    A square that holds k times more pixels than `size` is cut from k×k means, k a whole number.
    """
    turn, shift = squares[:, :, :2], squares[:, :, 2]
    k = int(turn[:, :, 0].norm(dim=1).mean().item() * pictures.shape[-1] / size)
    if k > 1 and min(pictures.shape[-2:]) >= 2 * k:
        pictures = F.avg_pool2d(pictures, k)
    theta = torch.cat([turn, (turn.sum(2) + 2 * shift - 1)[..., None]], 2)  # -1..1 for 0..1
    shape = [len(pictures), pictures.shape[1], size, size]
    grid = F.affine_grid(theta.to(pictures), shape, align_corners=False)
    return F.grid_sample(pictures, grid, "bilinear", "reflection", align_corners=False)


def crop_parts(pictures: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """(eyes 2B×3×40×40, mouths B×3×60×60) of faces of 256 px, as many pixels less of smaller ones.

    The first B eyes are the viewer's left ones, then come the right ones, mirrored so that one net
    can judge both. The squares are upright and as large as the face: 0.57 and 0.86 of the eye
    distance, which are 40 and 60 px on the median face.
    """
    p, axis, unit = frame(points)
    eye, mouth = (max(4, round(side * pictures.shape[-1] / 256)) for side in (EYE_SIDE, MOUTH_SIDE))
    left = cut(pictures, square(p[:, 0], 0.57 * unit, axis), eye)
    right = cut(pictures, square(p[:, 1], 0.57 * unit, axis, mirrored=True), eye)
    lips = p[:, 3:].mean(1)
    return torch.cat([left, right]), cut(pictures, square(lips, 0.86 * unit, axis), mouth)


def placed(points: Tensor, squares: Tensor) -> Tensor:
    """The picture's points (B×N×2) in the squares' units."""
    turn, shift = squares[:, :, :2], squares[:, :, 2]
    return torch.linalg.solve(turn, (points - shift[:, None]).transpose(1, 2)).transpose(1, 2)


def chips(pictures: Tensor, points: Tensor, places: Sequence[Sequence[float]], size: int) -> Tensor:
    """B×C×size×size with eyes and mouth corners at `places` (4×2, px centres of the chip)."""
    goal = (torch.as_tensor(places, dtype=points.dtype, device=points.device) + 0.5) / size
    return cut(pictures, fitted(five(points)[:, [0, 1, 3, 4]], goal), size)
