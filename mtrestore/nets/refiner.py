"""The refiner: what the guided filter lost or let through, mended at full size by thin ResBlocks.

The guided filter copies the noise of its full-size guide. Seeing filter output OH0 and guide IH
side by side (concat), a few channels are enough to tell one from the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Net, ResBlock, act, conv, zero


class Refiner(Net):
    """(OH0, IH), each B×3×H×W -> OH = OH0 + f(concat(OH0, IH)). Fresh, it returns OH0.

    width: 4 or 8. concat=False shows it OH0 alone, for the ablation. mood: B×(width + 2), moves the
    first layer's bias, keeps a share of IH and scales f.
    """

    def __init__(self, width: int = 4, blocks: int = 2, concat: bool = True) -> None:
        super().__init__()
        self.concat = concat
        inner = [ResBlock(width) for _ in range(blocks)] + [act()] * (blocks > 0)
        first = conv(6 if concat else 3, width)
        self.body = nn.Sequential(first, act(), *inner, zero(conv(width, 3)))
        self.reach = 2 + 2 * blocks  # receptive field to each side, px: the context of a strip

    def forward(self, oh0: Tensor, ih: Tensor, mood: Tensor | None = None) -> Tensor:
        first = self.body[0](torch.cat([oh0, ih], 1) if self.concat else oh0)
        if mood is None:
            return oh0 + self.body[1:](first)
        mood = mood[..., None, None]
        mixed = oh0 + mood[:, -2:-1] * (ih - oh0)
        return mixed + (1 + mood[:, -1:]) * self.body[1:](first + mood[:, :-2])
