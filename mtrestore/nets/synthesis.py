"""The decoder that can draw: features s ... s/32 in, a face out; fed with random tensors, a prior.

Every join is a concatenation (Yang et al., GPEN, CVPR 2021, section 3). What lets it draw:

    batch norm and GLU after each convolution, skip-layer excitation  FastGAN, ICLR 2021, 3.1
    a gain for each channel of a join's noise, learned from 0         StyleGAN, CVPR 2019, 3.2
    a picture head at s/8 ... s, summed                               StyleGAN2, CVPR 2020, 4.1
    a learned tensor of places at s/32 and s/8: where the eyes of an aligned face are is no secret
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv, he

LEVELS = (4, 3, 2, 1, 0)  # s/2^level, in the order in which they are drawn
HEADS = (3, 2, 1, 0)  # those that draw a part of the picture
EXCITED = (2, 1, 0)  # those whose channels the deepest feature turns up or down


def gated(cin: int, cout: int, normalised: bool) -> nn.Sequential:
    """3x3 convolution, batch norm, GLU: half of the channels say how much of the others passes."""
    norm = nn.BatchNorm2d(2 * cout) if normalised else nn.Identity()
    return nn.Sequential(conv(cin, 2 * cout), norm, nn.GLU(1))


def wide_glu(x: Tensor) -> Tensor:
    """GLU of few channels and many pixels, for which torch's own is half as fast."""
    half = x.shape[1] // 2
    return x[:, :half] * torch.sigmoid(x)[:, half:]


def quad(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution to few channels, four pixels at once: a CPU computes 16 as fast as 4."""
    count, width = weight.shape[:2]
    kernel = weight.new_zeros(count, 2, 2, width, 4, 4)
    for y, z in ((0, 0), (0, 1), (1, 0), (1, 1)):
        kernel[:, y, z, :, y : y + 3, z : z + 3] = weight
    kernel, bias = kernel.reshape(4 * count, width, 4, 4), bias.repeat_interleave(4)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias, stride=2, padding=1), 2)


def smooth2(x: Tensor) -> Tensor:
    """Twice the size, bilinear: no lattice is left for the next convolution to undo."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Synthesis(nn.Module):
    """Six features, largest first -> B×3×s×s in 0..1.

    normalised: batch norm after each convolution, as the prior is trained; `folded()` is the same
    net without. The convolution before each join works at the smaller size: a third of the time.
    """

    def __init__(self, widths: Sequence[int], normalised: bool = True) -> None:
        super().__init__()
        self.widths, self.normalised = tuple(widths), normalised
        deep = widths[5]
        self.start = nn.Sequential(*(gated(deep, deep, normalised) for _ in range(2)))
        self.start_place = nn.Parameter(torch.randn(1, deep, 2, 2) * 0.3)
        self.place = nn.Parameter(torch.randn(1, widths[3], 8, 8) * 0.1)
        self.up = nn.ModuleList(gated(widths[i + 1], widths[i], normalised) for i in LEVELS)
        self.fuse = nn.ModuleList(gated(2 * widths[i], widths[i], normalised) for i in LEVELS)
        self.gain = nn.ParameterList(nn.Parameter(torch.zeros(1, widths[i], 1, 1)) for i in LEVELS)
        self.heads = nn.ModuleList(conv(widths[i], 3) for i in HEADS)
        self.excite = nn.ModuleList(
            nn.Sequential(nn.Linear(4 * deep, 64), nn.SiLU(), nn.Linear(64, widths[i]))
            for i in EXCITED
        )
        for layer in self.modules():  # He et al., ICCV 2015
            if isinstance(layer, nn.Conv2d):
                he(layer)
        for head in self.heads:
            head.get_parameter("weight").data *= 0.5

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        return self.paint(feats)[0]

    def paint(self, feats: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(the picture, the last feature, B×w0×s×s, that it was drawn from)."""
        y = feats[5] + resized(self.start_place, feats[5])  # B w5 s/32
        deep = F.adaptive_avg_pool2d(y, 2).flatten(1)
        y, picture = self.start(y), None
        for k, i in enumerate(LEVELS):
            y = self._enlarged(y, k, i)
            y = self.fuse[k](torch.cat([y, feats[i] * self.gain[k]], 1))
            if i in EXCITED:
                y = y * self._turn(deep, i)[:, :, None, None]
            if i in HEADS:
                part = self.heads[HEADS.index(i)](y)
                picture = part if picture is None else smooth2(picture) + part
        assert picture is not None, "every level draws at last"
        return (torch.tanh(picture) + 1) / 2, y

    def paint_one(
        self, feats: Sequence[Tensor], scales: Sequence[Tensor], mask: nn.Conv2d
    ) -> tuple[Tensor, Tensor]:
        """`paint` of one picture without batch norm, its passes at full size saved.

        Features, five of them times scales (1×w×1×1 each) -> (the picture, mask of the last). What
        multiplies channels at s/4 ... s multiplies the weights of the convolution instead; the
        last head and the mask are one convolution.
        """
        y = feats[5] + resized(self.start_place, feats[5])
        deep = F.adaptive_avg_pool2d(y, 2).flatten(1)
        y, picture = self.start(y), 0
        fuse: Any = self.fuse  # Sequentials that begin with a convolution
        heads: Any = self.heads  # convolutions
        for k, i in enumerate(LEVELS):
            y, gain = self._enlarged(y, k, i), self.gain[k] * scales[i]
            layer = fuse[k][0]
            if i in EXCITED:
                out = F.pad(self._turn(deep, i)[0], (0, y.shape[1]), value=1.0)
                weight = layer.weight * F.pad(gain, (0, 0, 0, 0, y.shape[1], 0), value=1.0)
                weight = weight * out[:, None, None, None]
                y = F.conv2d(torch.cat([y, feats[i]], 1), weight, layer.bias * out, padding=1)
            else:
                y = layer(torch.cat([y, feats[i] * gain], 1))
            y = F.glu(y, 1) if i else wide_glu(y)
            if i and i in HEADS:
                head = heads[HEADS.index(i)]
                picture = smooth2(picture + quad(y, head.weight, head.bias))
        last = heads[HEADS.index(0)]
        assert mask.bias is not None, "`conv` has one"
        weight, bias = torch.cat([last.weight, mask.weight]), torch.cat([last.bias, mask.bias])
        y = quad(y, weight, bias)
        return torch.sigmoid(2 * (picture + y[:, :3])), y[:, 3:]  # (tanh(z) + 1) / 2

    def _enlarged(self, y: Tensor, k: int, level: int) -> Tensor:
        """The k-th convolution, then twice the size; at s/8 the tensor of places is added."""
        y = smooth2(self.up[k](y))
        return y + resized(self.place, y) if level == 3 else y

    def _turn(self, deep: Tensor, level: int) -> Tensor:
        """B×w: how far the deepest feature turns the channels of a level up or down, 0..2."""
        return 2 * torch.sigmoid(self.excite[EXCITED.index(level)](deep))

    def shapes(self, batch: int, size: int) -> list[tuple[int, int, int, int]]:
        """The six feature shapes it takes at output size `size`."""
        return [(batch, w, size >> i, size >> i) for i, w in enumerate(self.widths)]

    def folded(self) -> Synthesis:
        """The same function without batch norm: its running statistics go into the convolutions."""
        plain = Synthesis(self.widths, normalised=False)
        state = {k: v.clone() for k, v in self.state_dict().items()}
        for name, layer in self.named_modules():
            if isinstance(layer, nn.BatchNorm2d):
                before = name.rsplit(".", 1)[0] + ".0"
                scale = layer.weight * (layer.get_buffer("running_var") + layer.eps).rsqrt()
                state[f"{before}.weight"] *= scale.detach()[:, None, None, None]
                bias = state[f"{before}.bias"] - layer.get_buffer("running_mean")
                state[f"{before}.bias"] = (bias * scale + layer.bias).detach()
        plain.load_state_dict({k: v for k, v in state.items() if k in plain.state_dict()})
        return plain


def resized(place: Tensor, x: Tensor) -> Tensor:
    """A tensor of places, at the size of the feature `x`."""
    size = x.shape[-2:]
    if place.shape[-2:] == size:
        return place
    return F.interpolate(place, size, mode="bilinear", align_corners=False)
