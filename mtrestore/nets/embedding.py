"""An embedding of faces: pictures of one person lie close together. It only measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Net, act, conv


class FaceEmbedding(Net):
    """B×3×s×s in 0..1, cut by the landmark rule -> B×128 unit vectors.

    1 minus their product is the identity distance. Faces are brought to 96 px first. `features(x)`:
    the pooled layer before the projection, for distances between sets of faces.
    """

    size = 96

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 128, 192), out: int = 128) -> None:
        super().__init__()
        steps = zip((3, *widths), widths, strict=False)
        halves = [(conv(a, b, stride=2), nn.GroupNorm(8, b), act(), conv(b, b)) for a, b in steps]
        self.body = nn.Sequential(*(nn.Sequential(*half, act()) for half in halves))  # 3 x 3
        last = widths[-1]
        self.project = nn.Sequential(nn.Linear(last, last), act(), nn.Linear(last, out))

    def features(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.size, self.size):
            options = {"mode": "bicubic", "antialias": True, "align_corners": False}
            x = F.interpolate(x, (self.size, self.size), **options)
        return self.body(2 * x - 1).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.project(self.features(x)))
