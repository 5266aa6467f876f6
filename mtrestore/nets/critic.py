"""Discriminators: of faces, of faces when there are few, of parts of faces.

The first: Karras et al., Progressive Growing (ICLR 2018), sections 3 and 4.1, and StyleGAN2 (CVPR
2020), figure 7. Beside the verdict on the whole face it gives one on each patch (Isola et al., CVPR
2017, section 3.2.2): texture is a local matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .blocks import Net, act, conv, he
from .face import plan_of


class EqualConv(nn.Module):
    """A convolution with weights scaled to sqrt(2/fan-in) at run time: all layers learn alike.

    They are stored at a deviation of 1/20, about that of the other nets' weights, so that learning
    rates can be compared.
    """

    STORED = 0.05

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(cout, cin, kernel, kernel) * self.STORED)
        self.bias = nn.Parameter(torch.zeros(cout))
        self.gain, self.pad = (2 / (cin * kernel * kernel)) ** 0.5 / self.STORED, kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=self.pad)


class Down(nn.Module):
    """A residual block that halves the size: (conv, conv, mean) beside (mean, 1x1 conv)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            EqualConv(cin, cin, 3), act(), EqualConv(cin, cout, 3), act(), nn.AvgPool2d(2)
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2), EqualConv(cin, cout, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.skip(x)) * 0.5**0.5


def minibatch_std(x: Tensor, group: int = 4) -> Tensor:
    """Append a channel, the mean deviation over groups of samples: lack of variety can be seen.

    One group of all where none divides the batch.
    """
    b, _, h, w = x.shape
    g = next((n for n in range(min(group, b), 1, -1) if b % n == 0), b)
    y = x.reshape(g, b // g, *x.shape[1:])
    std = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))  # one number for each group
    return torch.cat([x, std.repeat(g).reshape(b, 1, 1, 1).expand(b, 1, h, w)], 1)


class Critic(Net):
    """B×3×s×s in 0..1 -> B×1 logits (high means real); s a multiple of 32.

    `judge(x)` gives the verdicts apart, and features.
    """

    multiple = 32
    minimum = 32
    PATCH = 2  # the level, s/8, whose every place is judged: it sees 36 px

    def __init__(self, widths: str | Sequence[int] = "S") -> None:
        super().__init__()
        plan = plan_of(widths)
        self.stem = nn.Sequential(EqualConv(3, plan[0], 1), act())
        self.downs = nn.ModuleList(Down(a, b) for a, b in zip(plan, plan[1:], strict=False))
        self.patch = EqualConv(plan[self.PATCH + 1], 1, 1)
        self.last = nn.Sequential(EqualConv(plan[-1] + 1, plan[-1], 3), act())
        self.head = EqualConv(plan[-1], 1, 1)

    def judge(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """([B×1×1×1 logits of the face, B×1×s/8×s/8 of its patches], features at s/2 ... s/32)."""
        y, feats = self.stem(2 * x - 1), []
        for down in self.downs:
            y = down(y)  # s/2 ... s/32
            feats.append(y)
        y = self.last(minibatch_std(y))
        return [self.head(y.mean((2, 3), keepdim=True)), self.patch(feats[self.PATCH])], feats

    def forward(self, x: Tensor) -> Tensor:
        first, second = (v.mean((2, 3)) for v in self.judge(x)[0])
        return first + second


class SpectralCritic(Net):
    """B×3×s×s in 0..1 -> B×1 logits (high means real), s a multiple of 32; for few faces.

    Spectral norm keeps it smooth (Miyato et al., ICLR 2018). `study` also redraws the picture at
    s/2 from the middle feature, s/8, which it learns on real faces: who has to redraw a face must
    look at it (Liu et al., FastGAN, ICLR 2021, section 3.2).
    """

    multiple = 32
    minimum = 32
    MIDDLE = 2  # the block whose feature, s/8, is redrawn
    LOG_SCALE = 4.0  # of the logits, to begin with: layers of norm 1 alone reach no margin

    def __init__(self, widths: str | Sequence[int] = (12, 24, 64, 128, 192, 256)) -> None:
        super().__init__()
        w = plan_of(widths)
        self.stem = nn.Sequential(spectral(3, w[0], 3), act())
        self.body = nn.ModuleList(
            nn.Sequential(spectral(a, b, 4, 2), act(), spectral(b, b, 3), act())
            for a, b in zip(w[:4], w[1:5], strict=True)
        )
        self.skip = nn.ModuleList(spectral(a, b, 1) for a, b in zip(w[:4], w[1:5], strict=True))
        self.last = nn.Sequential(spectral(w[4] + 1, w[5], 3), act())
        self.head = spectral(w[5], 1, 4, 1, 0)
        self.log_scale = nn.Parameter(torch.tensor(self.LOG_SCALE))
        up = nn.Upsample(scale_factor=2)
        self.redraw = nn.Sequential(conv(w[3], 64), act(), up, conv(64, 32), act(), up, conv(32, 3))

    def judge(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """([B×1×1×1 logits], features at s/2 ... s/16)."""
        y, feats = self.stem(2 * x - 1), []
        for body, skip in zip(self.body, self.skip, strict=True):
            y = (body(y) + skip(F.avg_pool2d(y, 2))) * 0.5**0.5
            feats.append(y)
        y = minibatch_std(F.adaptive_avg_pool2d(y, 4))
        return [self.head(self.last(y)) * self.log_scale.exp()], feats

    def study(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(logits as in `judge`, the picture redrawn at half the size)."""
        verdicts, feats = self.judge(x)
        return verdicts, (self.redraw(feats[self.MIDDLE]) + 1) / 2

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(x)[0][0].flatten(1)


class PartCritic(Net):
    """B×3×h×w in 0..1, an eye or a mouth -> B×1 logits, the mean over its places.

    Wang et al., GFPGAN, CVPR 2021, section 3.3.
    """

    multiple = 1
    minimum = 16

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 64)) -> None:
        super().__init__()
        pairs = zip((3, *widths), widths, strict=False)
        self.body = nn.ModuleList(
            nn.Sequential(spectral(a, b, 3 if n == 0 else 4, 1 if n == 0 else 2), act())
            for n, (a, b) in enumerate(pairs)
        )
        self.head = spectral(widths[-1], 1, 1)

    def judge(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """([B×1×h/8×w/8 logits], features at full size ... 1/8)."""
        y, feats = 2 * x - 1, []
        for layer in self.body:
            y = layer(y)
            feats.append(y)
        return [self.head(y)], feats

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(x)[0][0].mean((2, 3))


def spectral(
    cin: int, cout: int, kernel: int, stride: int = 1, pad: int | None = None
) -> nn.Module:
    """A convolution of largest singular value 1."""
    layer = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2 if pad is None else pad)
    he(layer)
    return spectral_norm(layer)
