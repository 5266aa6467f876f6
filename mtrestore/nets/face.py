"""The face net: s×s down to s/32×s/32 and back, every skip joined by CONCAT.

Yang et al., GPEN, CVPR 2021, section 3. Encoder and decoder are two modules because they are
trained apart: the decoder alone is a generator that is fed random tensors in place of the encoder's
features; then the encoder joins (`FaceNet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Net, act, conv, he, up2, zero
from .synthesis import Synthesis

WIDTHS = {  # at full size in sixteens, as a CPU convolves
    "XS": (8, 16, 24, 32, 48, 64),
    "S": (16, 32, 64, 128, 192, 256),
    "M": (16, 48, 96, 160, 256, 320),
}
JOINS = ("concat", "add", "add-matched", "none")
DECODERS = ("plain", "synthesis")


def plan_of(widths: str | Sequence[int]) -> Sequence[int]:
    """The six widths, s ... s/32, of a plan's name."""
    plan = WIDTHS.get(widths, ()) if isinstance(widths, str) else widths
    if not isinstance(plan, Sequence) or len(plan) != 6:
        names = ", ".join(WIDTHS)
        raise ValueError(f"widths must be one of {names} or six numbers, got {widths!r}")
    return plan


class Encoder(nn.Module):
    """B×3×s×s -> six features: s, s/2, ... s/32."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, widths[0]), act())
        self.downs = nn.ModuleList(
            nn.Sequential(conv(a, b, stride=2), act(), conv(b, b), act())
            for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        feats = [self.stem(2 * x - 1)]
        for down in self.downs:
            feats.append(down(feats[-1]))
        return feats


class Join(nn.Module):
    """Bring a decoder feature up and join it with the encoder's feature of that size.

    `add-matched` has two convolutions where `concat` has one of twice the input width: the same
    parameter count, so that an ablation compares the join and not the budget. `none` ignores the
    skip.
    """

    def __init__(self, cin: int, cout: int, join: str) -> None:
        super().__init__()
        self.join = join
        self.up = nn.Sequential(conv(cin, cout), act())
        first = conv(2 * cout if join == "concat" else cout, cout)
        self.fuse = nn.Sequential(
            first, act(), *((conv(cout, cout), act()) if join == "add-matched" else ())
        )

    def forward(self, y: Tensor, skip: Tensor) -> Tensor:
        y = self.up(up2(y))
        if self.join == "concat":
            y = torch.cat([y, skip], 1)
        elif self.join != "none":
            y = y + skip
        return self.fuse(y)


class Decoder(nn.Module):
    """Six features (largest first) -> B×3×s×s. Fed with random tensors it is a generator."""

    def __init__(self, widths: Sequence[int], join: str = "concat") -> None:
        super().__init__()
        if join not in JOINS:
            raise ValueError(f"join must be one of {', '.join(JOINS)}, got {join!r}")
        self.widths = tuple(widths)
        self.start = nn.Sequential(conv(widths[-1], widths[-1]), act())
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=False)
        self.joins = nn.ModuleList(Join(a, b, join) for a, b in pairs)
        self.to_rgb = conv(widths[0], 3)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        y = self.start(feats[-1])  # B w5 s/32
        for join, skip in zip(self.joins, feats[-2::-1], strict=True):  # s/16, s/8, ... s
            y = join(y, skip)
        return self.to_rgb(y)  # B 3 s s

    def shapes(self, batch: int, size: int) -> list[tuple[int, int, int, int]]:
        """The six feature shapes it takes at output size `size`."""
        return [(batch, w, size >> i, size >> i) for i, w in enumerate(self.widths)]


class Generator(Net):
    """The decoder alone: six random tensors -> a face B×3×s×s, 0..1.

    Yang et al., CVPR 2021, section 3.1, with concatenated noise. decoder: `synthesis`, which can
    draw (synthesis.py), or `plain`, the face net's own, which never learned more than stripes.
    """

    multiple = 32
    minimum = 32
    decoder: Any  # Decoder or Synthesis

    def __init__(
        self, widths: str | Sequence[int] = "S", join: str = "concat", decoder: str = "plain"
    ) -> None:
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
        if decoder == "synthesis":
            if join != "concat":
                raise ValueError(f"the synthesis decoder joins by concat, got join={join!r}")
            self.decoder = Synthesis(plan_of(widths))
            return
        self.decoder = Decoder(plan_of(widths), join)
        # The deepest tensor is to be heard through eleven layers (He et al., ICCV 2015).
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                he(layer)
        # The noise at the joins begins faint, as StyleGAN's does, or that tensor is drowned.
        for up in self.decoder.joins if join == "concat" else ():
            up.fuse[0].weight.data[:, up.fuse[0].out_channels :] *= 0.1

    def draw(
        self,
        batch: int,
        size: int,
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
    ) -> list[Tensor]:
        """Fresh N(0,1) tensors: one of s/32×s/32 and one of every join's shape."""
        shapes = self.decoder.shapes(batch, size)
        return [torch.randn(shape, generator=generator, device=device) for shape in shapes]

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        picture = self.decoder(feats)
        return picture if isinstance(self.decoder, Synthesis) else (picture + 1) / 2


class FaceNet(Net):
    """A degraded face B×3×s×s in 0..1 -> the restored face, same shape; s any multiple of 32.

    widths: a plan's name (`S` 4.3 M parameters, `M` 7.2 M, `XS` for tests and classes) or six
    numbers for s ... s/32. join: how skips enter the decoder: `concat` (the paper's), `add`,
    `add-matched` (add, with concat's parameter count), `none`. residual: the decoder's picture is
    added to the input and its last layer starts at zero, so that training starts from the identity
    and a clean face costs nothing to learn; False gives the decoder's picture alone. decoder:
    `plain`, or `synthesis`, the one that can draw: its face is mixed with the input by a mask m of
    its own, m·x + (1 - m)·face, and `residual` says nothing.
    """

    multiple = 32
    minimum = 32
    decoder: Any  # Decoder or Synthesis

    def __init__(
        self,
        widths: str | Sequence[int] = "S",
        join: str = "concat",
        residual: bool = True,
        decoder: str = "plain",
    ) -> None:
        super().__init__()
        plan = plan_of(widths)
        self.encoder, self.residual = Encoder(plan), residual
        self.draws = decoder == "synthesis"
        if decoder not in DECODERS or (self.draws and join != "concat"):
            rule = f"decoder must be one of {', '.join(DECODERS)}, synthesis with join='concat'"
            raise ValueError(f"{rule}, got {decoder!r} with {join!r}")
        if self.draws:
            self.decoder = Synthesis(plan, normalised=False)
            for layer in self.encoder.modules():  # else biases outweigh what comes of the picture
                if isinstance(layer, nn.Conv2d):
                    he(layer)
            for level, width in enumerate(plan[:5]):
                self.register_buffer(f"scale{level}", torch.ones(1, width, 1, 1))
            self.code = nn.BatchNorm2d(plan[5], affine=False)
            self.mask = zero(conv(plan[0], 1))
            nn.init.constant_(self.get_parameter("mask.bias"), -2.0)
            return
        self.decoder = Decoder(plan, join)
        if residual:
            zero(self.decoder.to_rgb)

    def take(self, generator: Generator) -> None:
        """The trained generator's decoder becomes this net's, batch norm folded in.

        A residual net keeps its last layer.
        """
        if self.draws:
            self.decoder.load_state_dict(generator.decoder.folded().state_dict())
            return
        self.decoder.load_state_dict(generator.decoder.state_dict())
        if self.residual:
            zero(self.decoder.to_rgb)

    @torch.no_grad()
    def fit_scales(self, x: Tensor) -> None:
        """Bring each channel of the features of B×3×s×s to the noise's variance, 1, of the deepest
        also to its mean, 0.

        Once, before training, from one batch (Salimans and Kingma, NeurIPS 2016, section 3).
        """
        *joined, deepest = self.encoder(x)
        for level, feature in enumerate(joined):
            std = feature.std((0, 2, 3), keepdim=True).clamp(min=1e-3)
            self.get_buffer(f"scale{level}").copy_(1 / std)
        self.code.get_buffer("running_mean").copy_(deepest.mean((0, 2, 3)))
        self.code.get_buffer("running_var").copy_(deepest.var((0, 2, 3)))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise: B whole numbers 0..5; so many skips of a picture, from s on, are noise."""
        if x.shape[-1] % 32 or x.shape[-2] % 32:
            h, w = (-(-n // 32) * 32 for n in x.shape[-2:])
            raise ValueError(
                "the face net needs sides that are multiples of 32, "
                f"got {x.shape[-2]}x{x.shape[-1]}; try {h}x{w}"
            )
        feats = self.encoder(x)  # s, s/2, ... s/32
        if self.draws:
            return self._mixed(x, feats, noise)
        y = self.decoder(feats)  # B 3 s s
        return x + y if self.residual else (y + 1) / 2

    def deepest(self, feature: Tensor) -> Tensor:
        """The encoder's last feature B×w×h×w as the prior knows its own: each channel of mean 0 and
        deviation 1 (batch norm), and every place of length sqrt(w), as normally distributed numbers
        are (Karras et al., ICLR 2018, section 4.2). Without the first, half of us are one man.
        """
        y = self.code(feature)
        return y * (y.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    def skips(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """The encoder's six features as the drawing decoder takes them."""
        scaled = [f * self.get_buffer(f"scale{level}") for level, f in enumerate(feats[:5])]
        return [*scaled, self.deepest(feats[5])]

    def _mixed(self, x: Tensor, feats: Sequence[Tensor], noise: Tensor | None) -> Tensor:
        """m·x + (1 - m)·face: the picture, and the face drawn from its features."""
        tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]  # in its docs
        alone = len(x) == 1 and noise is None and not tracing
        if alone and torch.is_inference_mode_enabled():
            scales = [self.get_buffer(f"scale{level}") for level in range(5)]
            feats = [*feats[:5], self.deepest(feats[5])]
            face, m = self.decoder.paint_one(feats, scales, self.mask)
            return torch.lerp(face, x, torch.sigmoid(m))
        feats = self.skips(feats)
        if noise is not None:
            for level in range(5):
                fresh = torch.randn_like(feats[level])
                feats[level] = torch.where(level < noise[:, None, None, None], fresh, feats[level])
        face, y = self.decoder.paint(feats)
        m = torch.sigmoid(self.mask(y))  # B 1 s s
        return m * x + (1 - m) * face
