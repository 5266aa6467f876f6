"""The discriminator: how it judges, how it learns, and what keeps it in check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets import Critic, SpectralCritic
from . import losses
from .augment import KINDS, augment
from .descent import Descent, Losses, Stage, add, check_names


class Collapse(FloatingPointError):
    """An adversarial training that learns nothing more; the run stops at its last good state."""


class Adversary:
    """The discriminator, its optimiser, lazy R1, augmentation, and a balance that is watched.

    critic: the net, or its widths. r1: gamma, 0 for none; None takes StyleGAN2-ADA's
    0.0002 · s² / batch. every: steps between two R1 terms, each weighted `every`-fold. paired: each
    generated picture is compared with its own truth, else real and generated are judged apart.
    hinge: apart, by the hinge loss and a `SpectralCritic` that also redraws the real ones (Liu et
    al., FastGAN, ICLR 2021). chance: the share of pictures that is augmented; with a `target` it
    moves, so that the mean sign of the verdicts on real pictures stays there: above it the
    discriminator has begun to remember them (Karras et al., ADA, NeurIPS 2020, section 3.2).

    balance: running share of verdicts that are right, 0.5 chance and 1 overwhelming. `ready` once
    it has told real from fake, or when it comes trained: before, nobody should train against it.
    More than `patience` steps on end above 0.995 are a `Collapse`.
    """

    ADAPTED = 5e5  # pictures in which the chance would go from 0 to 1

    def __init__(
        self,
        critic: nn.Module | str | Sequence[int],
        lr: float,
        r1: float | None = None,
        every: int = 16,
        kinds: Sequence[str] = KINDS,
        patience: int = 1000,
        paired: bool = False,
        hinge: bool = False,
        betas: tuple[float, float] = (0.0, 0.99),
        chance: float = 1.0,
        target: float | None = None,
    ) -> None:
        check_names(kinds, KINDS, "augment must name some of")
        ready = isinstance(critic, nn.Module)
        net: Any = critic if ready else (SpectralCritic if hinge else Critic)(critic)
        self.critic: nn.Module = net.to(memory_format=torch.channels_last)
        self.r1, self.every = r1, every
        self.kinds, self.patience = tuple(kinds), patience
        self.paired, self.hinge = paired, hinge
        self.target = target
        self.descent = Descent(self.critic, [(self.critic.parameters(), lr)], betas, 10.0)
        self.watch = {"steps": 0, "balance": 0.5, "ready": int(ready), "overwhelmed": 0}
        self.watch |= {"chance": chance, "sign": 0.0}

    @property
    def ready(self) -> bool:
        return bool(self.watch["ready"])

    @property
    def healthy(self) -> bool:
        return not self.watch["overwhelmed"]

    def setup(self, fabric: Any) -> None:
        self.descent.setup(fabric, "judge", *(["study"] if self.hinge else []))

    def judge(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The discriminator's verdicts and features, in the Fabric's precision."""
        with self._precision():
            return self.descent.net.judge(pictures)

    def study(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """A spectral discriminator's verdicts, and the pictures redrawn at half the size."""
        with self._precision():
            return self.descent.net.study(pictures)

    def _precision(self) -> Any:
        return self.descent.fabric.autocast() if self.descent.fabric else nullcontext()

    def augment(self, pictures: list[Tensor]) -> list[Tensor]:
        """The pictures, augmented by one draw."""
        return augment(pictures, self.kinds, self.watch["chance"])

    def generator_loss(self, verdicts: list[Tensor]) -> Tensor:
        """The loss of a generator whose pictures got these verdicts."""
        if self.hinge:
            return -losses.total(v.float().mean() for v in verdicts)
        return losses.real(verdicts)

    def against(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(the loss of a generator that drew these pictures, their features)."""
        verdicts, feats = self.judge(self.augment([pictures])[0])
        return self.generator_loss(verdicts), feats

    def last_features(self, truth: Tensor) -> Tensor:
        """The last features of real pictures, augmented too, without gradient."""
        with torch.no_grad():
            return self.judge(self.augment([truth])[0])[1][-1]

    def rival(self, restored: Tensor, truth: Tensor) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Verdicts on (restored, truth), and features of both; the truth without gradient."""
        mine = self.judge(restored)
        with torch.no_grad():
            theirs = self.judge(truth)
        return list(zip(mine, theirs, strict=True))

    def compare(self, truth: Tensor, fake: Tensor) -> tuple[dict[str, Tensor], list, list]:
        """({"critic": the loss, ...}, verdicts on real, verdicts on generated pictures)."""
        if self.hinge:
            (real, redrawn), (generated, _) = self.study(truth), self.judge(fake)
            redraw = F.l1_loss(redrawn.float(), F.avg_pool2d(truth, 2))
            hinge = losses.hinge_real(real, 0.2) + losses.hinge_fake(generated, 0.2)
            return {"critic": hinge + 2 * redraw, "redraw": redraw}, real, generated
        real, generated = self.judge(truth)[0], self.judge(fake)[0]
        if self.paired:
            return {"critic": losses.ranked(real, generated)}, real, generated
        return {"critic": losses.real(real) + losses.fake(generated)}, real, generated

    def train(self, truths: Sequence[Tensor], fakes: Sequence[Tensor], factor: float) -> Losses:
        """One step on real and generated pictures, in parts of the same sizes.

        Augmented alike where they are pairs.
        """
        self.descent.start(factor)
        count, totals = sum(map(len, truths)), {}
        right = sign = 0.0
        penalise = self.r1 != 0 and self.watch["steps"] % self.every == 0
        for truth, fake in self.descent.each(list(zip(truths, fakes, strict=True))):
            share = len(truth) / count
            truth, fake = self._pair(truth, fake.detach())
            terms, on_real, on_fake = self.compare(truth, fake)
            sign += share * on_real[0].sign().mean().item()
            loss = terms["critic"]
            if penalise:
                gamma = 2e-4 * truth.shape[-1] ** 2 / count if self.r1 is None else self.r1
                terms["r1"] = losses.r1(self.critic, truth)  # without the Fabric: full precision
                loss = loss + self.every * gamma / 2 * terms["r1"]
            add(totals, terms, share)
            self.descent.backward(loss * share, "discriminator's loss")
            right += share * self._right(on_real, on_fake)
        self.descent.step()
        self._watch(self.descent.mean(right), self.descent.mean(sign), count)
        return totals | {name: self.watch[name] for name in ("balance", "sign", "chance")}

    def _pair(self, truth: Tensor, fake: Tensor) -> list[Tensor]:
        if self.paired:
            return self.augment([truth, fake])
        return self.augment([truth]) + self.augment([fake])

    def _right(self, real: Sequence[Tensor], generated: Sequence[Tensor]) -> float:
        """The share of verdicts that are right."""
        if self.paired:
            hits = [a > b for a, b in zip(real, generated, strict=True)]
        else:
            hits = [v > 0 for v in real] + [v < 0 for v in generated]
        return sum(h.float().mean().item() for h in hits) / len(hits)

    def _watch(self, right: float, sign: float, count: int) -> None:
        """Move the running numbers by a step on `count` pictures; raises Collapse."""
        watch = self.watch
        watch["steps"] += 1
        watch["balance"] += 0.02 * (right - watch["balance"])
        watch["ready"] = int(watch["ready"] or watch["balance"] > 0.7)
        watch["overwhelmed"] = watch["overwhelmed"] + 1 if watch["balance"] > 0.995 else 0
        watch["sign"] += 0.02 * (sign - watch["sign"])
        if self.target is not None:
            towards = math.copysign(count / self.ADAPTED, watch["sign"] - self.target)
            watch["chance"] = min(max(watch["chance"] + towards, 0.0), 0.7)
        if watch["overwhelmed"] > self.patience:
            raise Collapse(
                f"the discriminator was right on more than 99.5 % for {self.patience} steps; "
                "lower its rate or raise r1"
            )

    def state_dict(self) -> dict[str, Any]:
        state = {"critic": self.critic.state_dict(), "optimizer": self.descent.adam.state_dict()}
        return state | {"watch": dict(self.watch)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.descent.adam.load_state_dict(state["optimizer"])
        self.watch |= state["watch"]


@contextmanager
def still(*adversaries: Adversary) -> Iterator[None]:
    """The discriminators get no gradient in this block: somebody else learns from them."""
    for adversary in adversaries:
        adversary.critic.requires_grad_(False)
    yield
    for adversary in adversaries:
        adversary.critic.requires_grad_(True)


class Adversarial(Stage):
    """A stage with an adversary."""

    adversary: Adversary
    midway = False  # True inside a step

    @property
    def healthy(self) -> bool:
        """Whether one may go on from this state: no collapse in sight, and not midway."""
        return self.adversary.healthy and not self.midway

    def setup(self, fabric: Any) -> None:
        super().setup(fabric)
        self.adversary.setup(fabric)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"adversary": self.adversary.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.adversary.load_state_dict(state["adversary"])
