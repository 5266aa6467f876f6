"""The whole-photo restorer: a plain residual U-Net (Ronneberger et al., MICCAI 2015).

Plain on purpose: on a CPU 3x3 convolutions reach four times the arithmetic rate of depthwise or
attention blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import Net, ResBlock, act, conv, up2, zero


class RestorerNet(Net):
    """A degraded picture B×3×H×W in 0..1 -> x + f(x), the clean one; sides multiples of 8.

    (Of 2 to the number of widths - 1.) Blind to kind and strength of degradation. `f` ends in a
    zero layer: an untrained net is the identity.
    """

    minimum = 8

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128), blocks: int = 1) -> None:
        super().__init__()
        self.multiple = m = 2 ** (len(widths) - 1)
        # Receptive field to each side: stem, levels down and up, middle.
        sight = 2 + (m - 1) * (2 * blocks + 2) + 2 * m * (blocks + 1)
        self.reach = -(-sight // m) * m  # the context a tile needs to equal the whole
        self.stem = conv(3, widths[0])
        self.enc = nn.ModuleList(
            nn.Sequential(*(ResBlock(w) for _ in range(blocks))) for w in widths[:-1]
        )
        self.downs = nn.ModuleList(
            conv(a, b, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.middle = nn.Sequential(*(ResBlock(widths[-1]) for _ in range(blocks + 1)))
        ups = list(zip(widths[-2::-1], widths[:0:-1], strict=False))
        # Before enlarging: a quarter of the work.
        self.thin = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in ups)
        self.fuse = nn.ModuleList(nn.Sequential(conv(2 * a, a), act()) for a, b in ups)
        self.to_rgb = zero(conv(widths[0], 3))

    def forward(self, x: Tensor) -> Tensor:
        y, skips = self.stem(x), []
        for enc, down in zip(self.enc, self.downs, strict=True):
            skips.append(enc(y))
            y = down(skips[-1])  # half the size
        y = self.middle(y)
        for thin, fuse in zip(self.thin, self.fuse, strict=True):
            y = fuse(torch.cat([up2(thin(y)), skips.pop()], 1))
        return x + self.to_rgb(y)
