"""What a prior draws: pictures of draws, walks between them, and which random tensor decides.

A draw is what `Generator.draw` gives: tensors B×C×h×w, of s first, of s/32 last. What the trainings
of the prior told lies in experiments/train/logs/ as tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import image
from ..io import files
from ..nets import FaceNet, Generator
from .page import progress
from .record import ROOT

LOGS = ROOT / "experiments" / "train" / "logs"
LEVELS = ("s", "s/2", "s/4", "s/8", "s/16", "s/32")
Draw = Sequence[Tensor]


@torch.inference_mode()
def photos(net: Generator, draw: Draw, what: str = "") -> list[np.ndarray]:
    """The picture of each of the draws, float32 RGB, s×s×3, 0..1; one at a time, B may be large.

    what: the word beside a bar; none without.
    """
    parts: Any = list(zip(*(tensor.split(1) for tensor in draw), strict=True))
    parts = progress(parts, len(parts), what) if what else parts
    return [image.to_photo(net(part)) for part in parts]


def renewed(held: Draw, fresh: Draw, level: int) -> list[Tensor]:
    """The held draw with the tensor of s/2^level from the fresh one."""
    return [*held[:level], fresh[level], *held[level + 1 :]]


@torch.inference_mode()
def variance_shares(
    net: Generator, size: int, generator: torch.Generator, count: int = 64
) -> dict[str, float]:
    """Of each random tensor, s/32 first: the variance that renewing it alone makes, over that of
    renewing all.
    """
    first, second = (net.draw(count, size, generator) for _ in range(2))
    base = net(first)

    def moved(draw: Draw) -> float:
        return float((net(draw) - base).square().mean()) / 2

    whole = max(moved(second), 1e-12)
    levels = range(len(first) - 1, -1, -1)
    return {f"s/{2**i}": moved(renewed(first, second, i)) / whole for i in levels}


def between(a: Tensor, b: Tensor, way: float) -> Tensor:
    """From a (way 0) to b (1) over the sphere, on which normally distributed draws lie.

    Shoemake, SIGGRAPH 1985; the straight line leads through draws that are too short to happen.
    """
    lengths = a.norm() * b.norm()
    angle = torch.arccos(((a * b).sum() / lengths).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, way)
    return (((1 - way) * angle).sin() * a + (way * angle).sin() * b) / angle.sin()


def walk(draw: Draw, ends: Tensor, steps: int) -> list[Tensor]:
    """A draw for each step between the two s/32 tensors of `ends`, 2×C×h×w; the rest is held.

    draw: of batch 1. Both ends are steps.
    """
    ways = np.linspace(0, 1, steps)
    deepest = torch.stack([between(ends[0], ends[1], float(way)) for way in ways])
    return [*(tensor.expand(steps, -1, -1, -1) for tensor in draw[:-1]), deepest]


@torch.inference_mode()
def restored(net: FaceNet, faces: Tensor) -> list[np.ndarray]:
    """What the synthesis decoder of a net draws from the features of B×3×s×s, without the mask."""
    return [image.to_photo(picture) for picture in net.decoder(net.skips(net.encoder(faces)))]


def rows(name: str) -> list[dict[str, str]]:
    """The rows of experiments/train/logs/NAME.csv, column -> text."""
    text = files.read_bytes(LOGS / f"{name}.csv").decode()
    return list(csv.DictReader(io.StringIO(text)))


def log(name: str) -> dict[str, list[float]]:
    """Column -> values of what a finished training told at its steps."""
    table = rows(name)
    return {column: [float(row[column]) for row in table] for column in table[0]}


def told(name: str) -> Any:
    """What is kept of a training whose weights are not, of experiments/train/logs/NAME.json."""
    return json.loads(files.read_bytes(LOGS / f"{name}.json"))


def sheet(name: str) -> np.ndarray:
    """The samples that are kept of it, of experiments/train/logs/NAME.png."""
    return image.read(LOGS / f"{name}.png")
