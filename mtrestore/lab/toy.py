"""A GAN small enough to see whole: points in the unit square instead of faces.

A point is a picture of one pixel, B×2×1×1, so that `GanPrior`, its adversary and its losses, which
train the prior of faces, train these nets as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def layers(inside: int, width: int, out: int) -> nn.Sequential:
    """Three fully connected layers, as 1×1 convolutions."""
    first, second = nn.Conv2d(inside, width, 1), nn.Conv2d(width, width, 1)
    return nn.Sequential(
        first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), nn.Conv2d(width, out, 1)
    )


class Points(nn.Module):
    """The generator: a draw from a normal distribution, B×latent×1×1 -> points, B×2×1×1."""

    def __init__(self, width: int = 64, latent: int = 2) -> None:
        super().__init__()
        self.latent, self.body = latent, layers(latent, width, 2)

    def draw(
        self,
        count: int,
        size: int = 1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> list[Tensor]:
        return [torch.randn(count, self.latent, 1, 1, generator=generator, device=device)]

    def forward(self, drawn: list[Tensor]) -> Tensor:
        return 0.5 + 0.25 * self.body(drawn[0])


class Verdict(nn.Module):
    """The discriminator: points, B×2×1×1 -> logits, B×1×1×1, high for real."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = layers(2, width, 1)

    def judge(self, points: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return [self.body(4 * (points - 0.5))], []

    def forward(self, points: Tensor) -> Tensor:
        return self.judge(points)[0][0].flatten(1)


def centres(modes: int) -> np.ndarray:
    """N×2: the middles of so many clusters on a ring of radius 0.35 about (0.5, 0.5)."""
    angle = 2 * np.pi * np.arange(modes) / modes
    return 0.5 + 0.35 * np.stack([np.cos(angle), np.sin(angle)], 1)


def ring(modes: int, batch: int, seed: int, spread: float = 0.02) -> Callable[[int], dict]:
    """Batches of points around the centres, normally distributed with `spread`."""
    middles = centres(modes)

    def batches(step: int) -> dict:
        rng = np.random.default_rng([seed, step])
        points = middles[rng.integers(modes, size=batch)] + rng.normal(0, spread, (batch, 2))
        target = torch.from_numpy(np.float32(points))[..., None, None]
        return {"inputs": (target,), "target": target}

    return batches


def shares(points: np.ndarray, modes: int, near: float = 0.1) -> np.ndarray:
    """The share of N×2 points that lie within `near` of each centre, and of no other."""
    distance = np.linalg.norm(points[:, None] - centres(modes)[None], axis=-1)
    closest = distance.argmin(1)[distance.min(1) < near]
    return np.bincount(closest, minlength=modes) / len(points)
