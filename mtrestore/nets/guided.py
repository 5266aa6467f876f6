"""The guided filter (He et al., ECCV 2010), its deep form (Wu et al., CVPR 2018), the upsampler.

A linear map q = A·g + b from guide to result is solved in small windows of the small pictures, then
applied to the large guide: detail comes from the large picture, the correction from the small one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Net, act, zero
from .refiner import Refiner


def box(x: Tensor, radius: int) -> Tensor:
    """Mean over (2r+1)² windows, cut off at the borders; cumulative sums would lose digits."""
    return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)


def solve(guide: Tensor, target: Tensor, radius: int, eps: Tensor | float) -> tuple[Tensor, Tensor]:
    """(A, b) of equations 5, 6 and 8 of the paper, each B×C×h×w, channel by channel.

    In float64: var = E[g²] − E[g]² cancels in float32, wrong by thousands of levels at small eps.
    """
    g, p = guide.double(), target.double()
    mean_g, mean_p = box(g, radius), box(p, radius)
    var = box(g * g, radius) - mean_g * mean_g
    cov = box(g * p, radius) - mean_g * mean_p
    a = cov / (var.clamp_min(0) + eps)
    b = mean_p - a * mean_g
    return box(a, radius).to(guide.dtype), box(b, radius).to(guide.dtype)


def rows_of(x: Tensor, size: tuple[int, int], y0: int, y1: int) -> Tensor:
    """Rows y0..y1 of `x` brought bilinearly to `size` = (H, W), without the rest of it."""
    h, (height, width) = x.shape[-2], size
    rows = torch.arange(y0, y1, device=x.device, dtype=torch.float64)
    y = ((rows + 0.5) * h / height - 0.5).clamp(0, h - 1)
    low = y.floor().long()
    t = (y - low).to(x.dtype)[:, None]
    band = torch.lerp(x[..., low, :], x[..., (low + 1).clamp_max(h - 1), :], t)
    return F.interpolate(band, size=(y1 - y0, width), mode="bilinear", align_corners=False)


def noise_level(pictures: Tensor) -> Tensor:
    """B×C×H×W -> B: the deviation of white noise as the finest diagonal detail shows it.

    median / 0.6745 (Donoho & Johnstone, 1994); detail is a − b − c + d over 2×2 blocks, halved.
    Sharp texture passes for a little noise; a side of one pixel shows none.
    """
    x = pictures[..., : pictures.shape[-2] // 2 * 2, : pictures.shape[-1] // 2 * 2]
    if not x.numel():
        return x.new_zeros(len(x))
    detail = (x[..., ::2, ::2] - x[..., 1::2, ::2] - x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 2
    return detail.abs().flatten(1).median(1).values / 0.6745


class GuidedFilter(nn.Module):
    """The classical filter: (small guide, small target, large guide) -> large result.

    Exact where target is affine in guide.
    """

    def __init__(self, radius: int = 1, eps: float = 1e-3) -> None:
        super().__init__()
        self.radius, self.eps = radius, eps

    def forward(self, small: Tensor, target: Tensor, large: Tensor) -> Tensor:
        a, b = solve(small, target, self.radius, self.eps)
        height, width = large.shape[-2:]
        rows = ((height, width), 0, height)
        return rows_of(a, *rows) * large + rows_of(b, *rows)


class DeepGuidedFilter(Net):
    """The guided filter with a learned pointwise guidance map, x + f(x), and a learned eps.

    (small, clean, large) -> OH0. Fresh it is the classical filter: f is zero. `solve` works small,
    `apply_rows` on any rows of the large picture.
    """

    def __init__(self, radius: int = 1, eps: float = 1e-3, width: int = 8) -> None:
        super().__init__()
        self.radius = radius
        # torch.log of a tensor without values would load the compiler: two seconds.
        self.log_eps = nn.Parameter(torch.tensor(math.log(eps)))
        self.map = nn.Sequential(nn.Conv2d(3, width, 1), act(), zero(nn.Conv2d(width, 3, 1)))

    def guidance(self, x: Tensor) -> Tensor:
        return x + self.map(x)

    def solve(
        self, small: Tensor, clean: Tensor, shift: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        return solve(self.guidance(small), clean, self.radius, (self.log_eps + shift).exp())

    def apply_rows(self, ab: tuple[Tensor, Tensor], strip: Tensor, height: int, y0: int) -> Tensor:
        """OH0 for the rows of `strip`, which begins at row `y0` of a picture of `height` rows."""
        size, rows = (height, strip.shape[-1]), (y0, y0 + strip.shape[-2])
        return rows_of(ab[0], size, *rows) * self.guidance(strip) + rows_of(ab[1], size, *rows)

    def forward(self, small: Tensor, clean: Tensor, large: Tensor) -> Tensor:
        return self.apply_rows(self.solve(small, clean), large, large.shape[-2], 0)


State = tuple[Tensor, Tensor, Tensor | None]


class GuidedUpsampler(Net):
    """Deep guided filter, then refiner: (small, clean, large) -> OH at the large size.

    A few numbers about the whole picture set the mood: how noisy the large picture is, how much the
    restorer changed the small one, and their ratio. They move the filter's eps, the refiner's first
    bias and how much of the large picture itself is kept, so that a clean photo comes through
    untouched; it costs nothing at full size. refine=False leaves the filter alone, concat=False
    hides the large picture from the refiner, adapt=False leaves the mood out: arms of the ablation.
    `apply_rows` does a strip; with `reach` rows of context on both sides it equals those rows of
    the whole.
    """

    def __init__(
        self,
        radius: int = 1,
        eps: float = 1e-3,
        guide_width: int = 8,
        width: int = 4,
        blocks: int = 2,
        refine: bool = True,
        concat: bool = True,
        adapt: bool = True,
    ) -> None:
        super().__init__()
        self.filter = DeepGuidedFilter(radius, eps, guide_width)
        self.refiner = Refiner(width, blocks, concat) if refine else None
        self.mood = None
        if refine and concat and adapt:
            self.mood = nn.Sequential(nn.Linear(3, 16), act(), zero(nn.Linear(16, width + 3)))
        self.reach = self.refiner.reach if self.refiner else 0

    def solve(self, small: Tensor, clean: Tensor, noise: Tensor, ratio: float) -> State:
        """(A, b, mood), all that the large picture needs.

        noise: `noise_level` of the large picture, B; ratio: its width over the small one's.
        """
        if self.mood is None:
            return *self.filter.solve(small, clean), None
        change = (clean - small).square().mean((1, 2, 3)).sqrt()
        levels = torch.stack([noise, change], 1).float()
        ratios = torch.full_like(levels[:, :1], ratio)
        mood = self.mood(torch.cat([(255 * levels + 0.5).log(), ratios.log()], 1))
        return *self.filter.solve(small, clean, mood[:, :1, None, None]), mood[:, 1:]

    def apply_rows(self, state: State, strip: Tensor, height: int, y0: int) -> Tensor:
        oh0 = self.filter.apply_rows(state[:2], strip, height, y0)
        return self.refiner(oh0, strip, state[2]) if self.refiner else oh0

    def forward(self, small: Tensor, clean: Tensor, large: Tensor) -> Tensor:
        state = self.solve(small, clean, noise_level(large), large.shape[-1] / small.shape[-1])
        return self.apply_rows(state, large, large.shape[-2], 0)
