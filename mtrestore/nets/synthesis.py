"""The decoder that can draw: features s ... s/32 in, a face out; fed with random tensors it is the face prior.

Every join is a concatenation (Yang et al., GPEN, CVPR 2021, section 3). What lets it draw, each from where it is known:

    batch norm and GLU after each convolution, skip-layer excitation      Liu et al., FastGAN, ICLR 2021, section 3.1
    a gain for each channel of a join's noise, learned from 0             Karras et al., StyleGAN, CVPR 2019, section 3.2
    a picture head at s/8 ... s, summed                                   Karras et al., StyleGAN2, CVPR 2020, section 4.1
    a learned tensor of places at s/32 and s/8: where the eyes of an aligned face are is no secret
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv, he

HEADS = (3, 2, 1, 0)  # levels, s/2^level, that draw a part of the picture
EXCITED = (2, 1, 0)  # levels whose channels the deepest feature turns up or down


def gated(cin: int, cout: int, normalised: bool) -> nn.Sequential:
    """3x3 convolution, batch norm, GLU: half of the channels say how much of the other half passes."""
    norm = nn.BatchNorm2d(2 * cout) if normalised else nn.Identity()
    return nn.Sequential(conv(cin, 2 * cout), norm, nn.GLU(1))


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
        self.widths, self.normalised, deep = tuple(widths), normalised, widths[5]
        levels = range(4, -1, -1)  # s/16 ... s
        self.start = nn.Sequential(*(gated(deep, deep, normalised) for _ in range(2)))
        self.start_place = nn.Parameter(torch.randn(1, deep, 2, 2) * 0.3)
        self.place = nn.Parameter(torch.randn(1, widths[3], 8, 8) * 0.1)
        self.up = nn.ModuleList(gated(widths[i + 1], widths[i], normalised) for i in levels)
        self.fuse = nn.ModuleList(gated(2 * widths[i], widths[i], normalised) for i in levels)
        self.gain = nn.ParameterList(nn.Parameter(torch.zeros(1, widths[i], 1, 1)) for i in levels)
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
        for k, i in enumerate(range(4, -1, -1)):  # s/16 ... s
            y = smooth2(self.up[k](y))
            if i == 3:
                y = y + resized(self.place, y)
            y = self.fuse[k](torch.cat([y, feats[i] * self.gain[k]], 1))
            if i in EXCITED:
                y = y * (2 * torch.sigmoid(self.excite[EXCITED.index(i)](deep)))[:, :, None, None]
            if i in HEADS:
                part = self.heads[HEADS.index(i)](y)
                picture = part if picture is None else smooth2(picture) + part
        assert picture is not None, "every level draws at last"
        return (torch.tanh(picture) + 1) / 2, y

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
