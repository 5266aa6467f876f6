"""The face prior: the decoder alone learns to draw faces, as a generator fed with fresh tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets import Generator
from . import losses
from .adversary import Adversarial, Adversary, Collapse, still
from .augment import KINDS
from .descent import Descent, Losses, add, micro


class GanPrior(Adversarial):
    """Every iteration draws a fresh s/32×s/32 tensor and a fresh tensor for every join.

    A batch's `target` holds the real faces; its size is the size that is generated. hinge:
    FastGAN's losses and discriminator (see `Adversary`), else the non-saturating loss (Goodfellow
    et al., 2014) with lazy R1 (Karras et al., StyleGAN2, 2020, appendix B). hold: the share of the
    training after which the rates fall, to a tenth at its end.

    Against one face, or a few, drawn over and over: spread, the weight of `losses.spread`;
    cover_pixels and cover_features, those of `losses.energy` between pictures at 16 px and between
    the discriminator's last features, in units of the real ones' deviation. Pictures that hardly
    differ (standard deviation below 0.01) for 100 steps on end are a `Collapse`.
    """

    def __init__(
        self,
        net: Generator,
        critic: nn.Module | str | Sequence[int] | None = None,
        lr: float = 1e-3,
        critic_lr: float = 1e-4,
        r1: float | None = None,
        every: int = 16,
        augment: Sequence[str] = KINDS,
        clip: float = 10.0,
        accumulate: int = 1,
        hinge: bool = False,
        betas: tuple[float, float] = (0.0, 0.99),
        chance: float = 1.0,
        target: float | None = None,
        hold: float = 1.0,
        spread: float = 0.0,
        cover_pixels: float = 0.0,
        cover_features: float = 0.0,
    ) -> None:
        self.averaged, self.accumulate = net, accumulate
        self.hold, self.spread = hold, spread
        self.cover_pixels, self.cover_features = cover_pixels, cover_features
        self.alike, self.size = 0, 128
        betas = float(betas[0]), float(betas[1])
        self.descent = Descent(net, [(net.parameters(), lr)], betas, clip)
        options = {"hinge": hinge, "betas": betas, "chance": chance, "target": target}
        self.adversary = Adversary(
            critic or net.decoder.widths, critic_lr, r1, every, augment, **options
        )

    def factor(self, progress: float) -> float:
        """Of the learning rates: a short rise, a plateau, after `hold` a straight fall to 0.1."""
        rest = (1 - progress) / (1 - self.hold) if self.hold < 1 else 1.0
        return min(1.0, 50 * progress + 0.02, max(rest, 0.1))

    @property
    def healthy(self) -> bool:
        return super().healthy and not self.alike

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        """A step of the generator, then one of the discriminator; its losses by name."""
        self.midway = True
        truths = [part["target"] for part in micro(batch, self.accumulate)]
        factor, totals = self.factor(progress), {"loss": 0.0}
        self.descent.start(factor)
        with still(self.adversary):
            fakes, variety = self._generate(truths, totals)
        self.descent.step()
        totals |= self.adversary.train(truths, fakes, factor)
        self.alike = self.alike + 1 if self.descent.mean(variety) < 0.01 else 0
        self.size = truths[-1].shape[-1]
        if self.alike > 100:
            raise Collapse("the generated faces are all alike; lower the rates or raise r1")
        self.midway = False
        return totals | {"variety": variety}

    def _generate(self, truths: Sequence[Tensor], totals: Losses) -> tuple[list[Tensor], float]:
        """(a picture for each real one, their deviation); leaves the generator's gradient."""
        fakes, variety = [], 0.0
        for truth in self.descent.each(truths):
            share = len(truth) / sum(map(len, truths))
            drawn = self.averaged.draw(len(truth), truth.shape[-1], device=truth.device)
            pictures = self.descent.net(drawn)
            loss, feats = self.adversary.against(pictures)
            terms = self._variety(pictures, feats, truth)
            loss = loss + sum(getattr(self, name) * term for name, term in terms.items())
            self.descent.backward(loss * share, "generator's loss")
            fakes.append(pictures.detach())
            add(totals, {"loss": loss, **terms}, share)
            variety += fakes[-1].float().std(0, unbiased=False).mean().item() * share
        return fakes, variety

    def _variety(
        self, pictures: Tensor, feats: Sequence[Tensor], truth: Tensor
    ) -> dict[str, Tensor]:
        """The terms against few faces, by the name of their weight; feats: of `pictures`."""
        terms = {}
        if self.spread:
            terms["spread"] = losses.spread(pictures, truth)
        if self.cover_pixels:
            terms["cover_pixels"] = energy(pictures, truth, 16)
        if self.cover_features:
            terms["cover_features"] = energy(feats[-1], self.adversary.last_features(truth), 4)
        return terms

    @torch.no_grad()
    def picture(self, count: int = 18, size: int | None = None) -> Tensor:
        """B×3×s×s, faces of the averaged generator, from the same tensors each time.

        size: by default that of the last batch.
        """
        net = getattr(self, "ema", self.averaged)
        drawn = net.draw(count, size or self.size, torch.Generator().manual_seed(0))
        return net([x.to(next(net.parameters())) for x in drawn]).float().clamp(0, 1).cpu()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"alike": self.alike}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.alike = state["alike"]


def energy(drawn: Tensor, real: Tensor, side: int) -> Tensor:
    """`losses.energy` of B×C×H×W maps at side×side places, in units of the real ones' deviation."""
    x, y = (F.adaptive_avg_pool2d(maps.float(), side).flatten(1) for maps in (drawn, real))
    unit = y.std(0).mean()
    return losses.energy(x / unit, y / unit)
