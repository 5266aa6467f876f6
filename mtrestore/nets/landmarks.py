"""Dense landmarks: the 468 points of the face mesh on an upright, perhaps badly degraded face."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import Net, act, conv, he

POINTS = 468


class LandmarkNet(Net):
    """B×3×128×128 in 0..1 -> B×468×2, x and y in units of the crop's side (0, 1: its outer edges).

    The last layer adds to `mean`, the mean shape of the training labels: an untrained net answers
    with an average face.
    """

    size = multiple = minimum = 128

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96, 128), hidden: int = 256) -> None:
        super().__init__()
        steps = zip((3, *widths), widths, strict=False)
        self.body = nn.Sequential(
            *(nn.Sequential(conv(a, b, stride=2), act(), conv(b, b), act()) for a, b in steps)
        )  # 4 x 4
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(widths[-1] * 16, hidden), act(), nn.Linear(hidden, 2 * POINTS)
        )
        # He et al., ICCV 2015: torch's default shrinks the signal 80-fold, which costs 600 steps.
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                he(layer)
        nn.init.zeros_(self.head[-1].get_parameter("weight"))
        self.register_buffer("mean", torch.full((POINTS, 2), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.head(self.body(2 * x - 1)).reshape(-1, POINTS, 2)
