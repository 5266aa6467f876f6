"""Augmentations that a gradient passes through, for a discriminator that sees few faces (Zhao et al., DiffAugment, NeurIPS 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("colour", "shift", "cutout")


def augment(
    pictures: list[Tensor], kinds: tuple[str, ...] = KINDS, chance: float = 1.0
) -> list[Tensor]:
    """The B×3×H×W pictures of each list entry, all changed by the same fresh draw: sample i of one as sample i of the others.

    chance: the share of samples that each kind changes (Karras et al., ADA, NeurIPS 2020: below 0.8 nothing leaks into what is generated).

    colour: brightness, saturation, contrast. shift: up to an eighth of the side, mirrored at the border. cutout: a square of half the side, grey.
    Random numbers are torch's own, so a resumed training repeats them. The results are channels_last, as the nets want them: in the other
    layout a discriminator's step takes a fifth longer on a CPU.
    """
    x = torch.cat(pictures)
    b, h, w = len(pictures[0]), *x.shape[-2:]

    def draw(low: float, high: float) -> Tensor:
        return (
            torch.empty(b, 1, 1, 1, device=x.device)
            .uniform_(low, high)
            .repeat(len(pictures), 1, 1, 1)
        )

    def some(change: Tensor, still: float) -> Tensor:
        """The drawn change for `chance` of the samples, and `still`, which changes nothing, for the others."""
        return change if chance >= 1 else torch.where(draw(0, 1) < chance, change, still)

    if "colour" in kinds:
        x = x + some(draw(-0.25, 0.25), 0)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * some(draw(0.5, 1.5), 1)
        middle = x.mean((1, 2, 3), keepdim=True)
        x = middle + (x - middle) * some(draw(0.75, 1.25), 1)
    if "shift" in kinds:
        py, px = h // 8, w // 8
        x = F.pad(x, (px, px, py, py), mode="reflect")
        down, right = some(draw(0, 2 * py + 1), py), some(draw(0, 2 * px + 1), px)
        rows = (torch.arange(h, device=x.device) + down.flatten().long()[:, None])[:, None, :, None]
        columns = (torch.arange(w, device=x.device) + right.flatten().long()[:, None])[
            :, None, None
        ]
        x = x.gather(2, rows.expand(-1, 3, -1, x.shape[3])).gather(3, columns.expand(-1, 3, h, -1))
    if "cutout" in kinds:
        top, left = draw(-h // 4, 3 * h // 4), draw(-w // 4, 3 * w // 4)
        y, z = (
            torch.arange(h, device=x.device).reshape(1, 1, h, 1),
            torch.arange(w, device=x.device).reshape(1, 1, 1, w),
        )
        hole = (
            (y >= top)
            & (y < top + h / 2)
            & (z >= left)
            & (z < left + w / 2)
            & (some(draw(1, 1), 0) > 0)
        )
        x = torch.where(hole, 0.5, x)
    return list(x.contiguous(memory_format=torch.channels_last).split(b))
