"""Augmentations that a gradient passes through, for a discriminator that sees few faces.

Zhao et al., DiffAugment, NeurIPS 2020. Random numbers are torch's own, so a resumed training
repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[float, float, float | None], Tensor]  # (low, high, what changes nothing)


def colour(x: Tensor, draw: Draw) -> Tensor:
    """Brightness, saturation, contrast."""
    x = x + draw(-0.25, 0.25, 0)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * draw(0.5, 1.5, 1)
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (x - middle) * draw(0.75, 1.25, 1)


def shift(x: Tensor, draw: Draw) -> Tensor:
    """Up to an eighth of the side, mirrored at the border."""
    h, w = x.shape[-2:]
    py, px = h // 8, w // 8
    x = F.pad(x, (px, px, py, py), mode="reflect")
    down = draw(0, 2 * py + 1, py).flatten().long()
    right = draw(0, 2 * px + 1, px).flatten().long()
    rows = (torch.arange(h, device=x.device) + down[:, None])[:, None, :, None]
    columns = (torch.arange(w, device=x.device) + right[:, None])[:, None, None]
    return x.gather(2, rows.expand(-1, 3, -1, x.shape[3])).gather(3, columns.expand(-1, 3, h, -1))


def cutout(x: Tensor, draw: Draw) -> Tensor:
    """A square of half the side, grey."""
    h, w = x.shape[-2:]
    top, left = draw(-h // 4, 3 * h // 4), draw(-w // 4, 3 * w // 4)
    row = torch.arange(h, device=x.device).reshape(1, 1, h, 1)
    column = torch.arange(w, device=x.device).reshape(1, 1, 1, w)
    hole = (row >= top) & (row < top + h / 2) & (column >= left) & (column < left + w / 2)
    return torch.where(hole & (draw(1, 1, 0) > 0), 0.5, x)


CHANGES = {change.__name__: change for change in (colour, shift, cutout)}
KINDS = tuple(CHANGES)


def augment(
    pictures: list[Tensor], kinds: Sequence[str] = KINDS, chance: float = 1.0
) -> list[Tensor]:
    """The B×3×H×W pictures of each entry, all changed by one draw: sample i of one as i of all.

    chance: the share of samples that each kind changes (Karras et al., ADA, NeurIPS 2020: below 0.8
    nothing leaks into what is generated). The results are channels_last, as the nets want them:
    otherwise a discriminator's step takes a fifth longer on a CPU.
    """
    x, count = torch.cat(pictures), len(pictures[0])

    def draw(low: float, high: float, still: float | None = None) -> Tensor:
        """A number for each sample; `still` for those that chance leaves as they are."""
        numbers = torch.empty(count, 1, 1, 1, device=x.device).uniform_(low, high)
        numbers = numbers.repeat(len(pictures), 1, 1, 1)
        if still is None or chance >= 1:
            return numbers
        return torch.where(draw(0, 1) < chance, numbers, still)

    for name, change in CHANGES.items():
        if name in kinds:
            x = change(x, draw)
    return list(x.contiguous(memory_format=torch.channels_last).split(count))
