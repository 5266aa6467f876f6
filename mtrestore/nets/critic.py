"""The discriminator of the face net: residual, with equalised learning rates and minibatch standard deviation.

Karras et al., Progressive Growing (ICLR 2018), sections 3 and 4.1, and StyleGAN2 (CVPR 2020), figure 7: residual blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Net, act
from .face import WIDTHS


class EqualConv(nn.Module):
    """A convolution whose weights are N(0,1) and scaled by sqrt(1/fan-in) at run time: every layer learns at the same rate."""

    def __init__(self, cin: int, cout: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.gain, self.stride, self.pad = (cin * kernel * kernel) ** -0.5, stride, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.pad)


class Down(nn.Module):
    """A residual block that halves the size: (conv, conv, mean) beside (1x1 conv, mean), summed over sqrt(2)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.body = nn.Sequential(EqualConv(cin, cin, 3), act(), EqualConv(cin, cout, 3), act(), nn.AvgPool2d(2))
        self.skip = nn.Sequential(EqualConv(cin, cout, 1), nn.AvgPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.skip(x)) * 0.5**0.5


def minibatch_std(x: Tensor, group: int = 4) -> Tensor:
    """Append one channel: the mean standard deviation over groups of samples, so that lack of variety can be seen."""
    b, _, h, w = x.shape
    g = next((n for n in range(min(group, b), 1, -1) if b % n == 0), b)  # one group of all where none divides the batch
    y = x.reshape(g, b // g, *x.shape[1:])
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # one number for each group
    return torch.cat([x, std.repeat(g).reshape(b, 1, 1, 1).expand(b, 1, h, w)], 1)


class Critic(Net):
    """B×3×s×s in 0..1 -> B×1 logits (high means real); s a multiple of 32. `features(x)` also returns each level's features."""

    multiple = 32
    minimum = 32

    def __init__(self, widths: str | Sequence[int] = "S") -> None:
        super().__init__()
        plan = WIDTHS[widths] if isinstance(widths, str) else tuple(widths)
        self.stem = nn.Sequential(EqualConv(3, plan[0], 1), act())
        self.downs = nn.ModuleList(Down(a, b) for a, b in zip(plan, plan[1:], strict=False))
        self.last = nn.Sequential(EqualConv(plan[-1] + 1, plan[-1], 3), act())
        self.head = EqualConv(plan[-1], 1, 1)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y, feats = self.stem(2 * x - 1), []
        for down in self.downs:
            y = down(y)  # s/2 ... s/32
            feats.append(y)
        y = self.last(minibatch_std(y))
        return self.head(y.mean((2, 3), keepdim=True)).flatten(1), feats

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]
