"""The sharpener, last in the flow: a small super-resolution net that computes at half the size.

Pixel (un)shuffle as in Shi et al., ESPCN (CVPR 2016).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Net, ResBlock, act, conv, zero


class Sharpener(Net):
    """B×3×H×W in 0..1 -> B×3×kH×kW, k = `scale` (1 or 2); sides even.

    Fresh: the picture itself, or its bicubic enlargement.
    """

    multiple = 2
    minimum = 2

    def __init__(self, scale: int = 1, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        if scale not in (1, 2):
            raise ValueError(f"scale must be 1 or 2, got {scale!r}")
        self.scale = scale
        inner = [ResBlock(width) for _ in range(blocks)] + [act()] * (blocks > 0)
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            conv(12, width),
            act(),
            *inner,
            zero(conv(width, 3 * (2 * scale) ** 2)),
            nn.PixelShuffle(2 * scale),
        )
        self.reach = 2 * (2 + 2 * blocks) + 2  # receptive field to each side, input px

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x + self.body(x)
        base = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return base + self.body(x)
