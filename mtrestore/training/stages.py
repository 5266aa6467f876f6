"""Stages of training. A stage owns its nets and optimisers and knows one thing: `update(batch)` -> named losses.

`Supervised` learns input -> truth. `GanPrior` trains the face decoder alone, as a generator fed with fresh random tensors;
`FaceRestoration` then joins the encoder and trains all against the same discriminator (Yang et al., GPEN, CVPR 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets import Critic, FaceNet, Generator, PartCritic, SpectralCritic
from . import losses
from .augment import KINDS, augment
from .parts import crop_parts

Losses = dict[str, float]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (losses.pixel, losses.frequency, losses.points, losses.same_person)
}


class Collapse(FloatingPointError):
    """An adversarial training that learns nothing more; the run stops at its last good state."""


def cosine(progress: float, warmup: float = 0.02) -> float:
    """Learning-rate factor at `progress` 0..1 of a training: linear warm-up, then half a cosine down to 0, where it stays."""
    progress = min(progress, 1)
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def micro(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """A batch cut into `parts` along its first axis (fewer where it is smaller), for gradients that are accumulated."""
    parts = max(1, min(parts, len(batch["target"])))
    inputs = list(zip(*(x.chunk(parts) for x in batch["inputs"]), strict=True))
    others = {name: value.chunk(parts) for name, value in batch.items() if name != "inputs"}
    return [
        {"inputs": i, **{name: chunks[n] for name, chunks in others.items()}}
        for n, i in enumerate(inputs)
    ]


class Descent:
    """Adam over one net's parameter groups: finite losses and gradients only, clipped, with or without a lightning Fabric."""

    def __init__(
        self,
        net: nn.Module,
        groups: Sequence[tuple[nn.Module, float]],
        betas: tuple[float, float],
        clip: float,
    ) -> None:
        self.net: Any = net  # as the Fabric wraps it
        self.rates, self.clip = [lr for _, lr in groups], clip
        self.adam = torch.optim.Adam(
            [{"params": list(m.parameters()), "lr": lr} for m, lr in groups],
            betas=betas,
            fused=True,
        )
        self.fabric: Any = None
        self.scaled = False  # float16 losses are scaled up, and the scaler leaves out a step whose gradients overflow

    def setup(self, fabric: Any, *methods: str) -> None:
        """Hand net and optimiser to the Fabric: device, precision and data parallelism are its business. `methods` are called beside forward."""
        self.fabric, self.scaled = fabric, getattr(fabric._precision, "scaler", None) is not None
        self.net, self.adam = fabric.setup(self.net, self.adam)
        for name in methods:
            self.net.mark_forward_method(name)

    def start(self, factor: float) -> None:
        """Begin a step at `factor` of the learning rates, without gradients."""
        for group, lr in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = lr * factor
        self.adam.zero_grad(set_to_none=True)

    def each(self, parts: Sequence[Any]) -> Iterator[Any]:
        """The parts of a batch, one after the other; several processes exchange their gradients at the last one only."""
        for part in parts[:-1]:
            with self.fabric.no_backward_sync(self.net) if self.fabric else nullcontext():
                yield part
        yield parts[-1]

    def mean(self, value: float) -> float:
        """The mean over all processes, so that they decide alike."""
        if self.fabric is None or self.fabric.world_size == 1:
            return value
        return self.fabric.all_reduce(
            torch.tensor(value, device=self.fabric.device), reduce_op="mean"
        ).item()

    def backward(self, loss: Tensor, what: str = "loss") -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the {what} is {loss.item()}; try a smaller learning rate than {max(self.rates)}"
            )
        self.fabric.backward(loss) if self.fabric else loss.backward()

    def step(self) -> None:
        if self.fabric:
            norm = self.fabric.clip_gradients(
                self.net, self.adam, max_norm=self.clip, error_if_nonfinite=False
            )
        else:
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        if not torch.isfinite(norm) and not self.scaled:
            raise FloatingPointError(
                f"the gradient is {norm.item()}; try a smaller learning rate than {max(self.rates)}"
            )
        self.adam.step()


class Supervised:
    """Learn `net(*inputs)` ≈ target with Adam and a weighted sum of losses.

    A batch is {"inputs": tuple of tensors, "target": tensor}. `weights` names functions of losses.py:
    {"pixel": 1.0, "frequency": 0.1}. Losses or gradients that are not finite raise FloatingPointError before any weight is touched.
    `accumulate`: parts in which a batch is computed, for batches that do not fit into memory.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float = 6e-4,
        weights: Mapping[str, float] | None = None,
        clip: float = 1.0,
        accumulate: int = 1,
    ) -> None:
        self.weights = dict(weights or {"pixel": 1.0})
        if unknown := self.weights.keys() - LOSSES.keys():
            raise ValueError(
                f"weights must name losses out of {', '.join(LOSSES)}, got {sorted(map(str, unknown))[0]!r}"
            )
        if accumulate > 1 and "same_person" in self.weights:
            raise ValueError(
                "same_person compares all faces of a batch, so it cannot be accumulated; leave accumulate at 1"
            )
        self.terms = {name: LOSSES[name] for name in self.weights}
        self.descent, self.accumulate = Descent(net, [(net, lr)], (0.9, 0.99), clip), accumulate
        self.averaged = net  # what EMA follows and what is shipped

    def setup(self, fabric: Any) -> None:
        self.descent.setup(fabric)

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        """One step of the optimiser; `progress` 0..1 sets the learning rate. Returns each loss by name, and their sum as `loss`."""
        self.descent.start(cosine(progress))
        told: Losses = {}
        for part in self.descent.each(micro(batch, self.accumulate)):
            share = len(part["target"]) / len(batch["target"])
            out = self.descent.net(*part["inputs"])
            parts = {name: term(out, part["target"]) for name, term in self.terms.items()}
            total = losses.total(self.weights[name] * value for name, value in parts.items())
            self.descent.backward(total * share)
            for name, value in {"loss": total, **parts}.items():
                told[name] = told.get(name, 0.0) + value.item() * share
        self.descent.step()
        return told

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.averaged.state_dict(), "optimizer": self.descent.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averaged.load_state_dict(state["net"])
        self.descent.adam.load_state_dict(state["optimizer"])


class Adversary:
    """The discriminator, its optimiser, and what keeps it in check: lazy R1, augmentation, and a balance that is watched.

    critic: the net, or its widths. r1: gamma, 0 for none; None takes StyleGAN2-ADA's 0.0002 · s² / batch. every: steps between two R1
    terms, each weighted `every`-fold. paired: each picture made is compared with its own truth, else real and made are judged apart.
    hinge: apart, by the hinge loss and a `SpectralCritic` that also redraws the real ones (Liu et al., FastGAN, ICLR 2021).
    chance: the share of pictures that is augmented; with a `target` it moves, so that the mean sign of the verdicts on real pictures stays
    there: above it the discriminator has begun to remember them (Karras et al., ADA, NeurIPS 2020, section 3.2).

    balance: running share of verdicts that are right, 0.5 chance and 1 overwhelming. `ready` once it has told real from fake, or when it
    comes trained: before, nobody should train against it. More than `patience` steps on end above 0.995 are a `Collapse`.
    """

    ADAPTED = 5e5  # pictures in which the chance would go from 0 to 1

    def __init__(
        self, critic: nn.Module | str | Sequence[int], lr: float, r1: float | None = None, every: int = 16, kinds: Sequence[str] = KINDS,
        patience: int = 1000, paired: bool = False, hinge: bool = False, betas: tuple[float, float] = (0.0, 0.99),
        chance: float = 1.0, target: float | None = None,
    ) -> None:  # fmt: skip
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(
                f"augment must name some of {', '.join(KINDS)}, got {sorted(unknown)[0]!r}"
            )
        net: Any = (
            critic
            if isinstance(critic, nn.Module)
            else (SpectralCritic if hinge else Critic)(critic)
        )
        self.critic = net.to(memory_format=torch.channels_last)
        self.r1, self.every, self.kinds, self.patience = r1, every, tuple(kinds), patience
        self.paired, self.hinge, self.target = paired, hinge, target
        self.descent = Descent(self.critic, [(self.critic, lr)], betas, 10.0)
        self.watch = {
            "steps": 0, "balance": 0.5, "ready": int(isinstance(critic, nn.Module)), "overwhelmed": 0, "chance": chance, "sign": 0.0,
        }  # fmt: skip

    @property
    def ready(self) -> bool:
        return bool(self.watch["ready"])

    @property
    def healthy(self) -> bool:
        return not self.watch["overwhelmed"]

    def judge(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The discriminator's verdicts and features, in the Fabric's precision."""
        with self.descent.fabric.autocast() if self.descent.fabric else nullcontext():
            return self.descent.net.judge(pictures)

    def study(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """A spectral discriminator's verdicts, and the pictures as it redraws them at half the size."""
        with self.descent.fabric.autocast() if self.descent.fabric else nullcontext():
            return self.descent.net.study(pictures)

    def varied(self, pictures: list[Tensor]) -> list[Tensor]:
        """The pictures, augmented by one draw."""
        return augment(pictures, self.kinds, self.watch["chance"])

    def wanted(self, verdicts: list[Tensor]) -> Tensor:
        """The loss of a generator whose pictures were judged so."""
        return (
            -losses.total(v.float().mean() for v in verdicts)
            if self.hinge
            else losses.real(verdicts)
        )

    def compare(
        self, truth: Tensor, fake: Tensor, told: Losses, share: float
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """(the loss, verdicts on real, verdicts on generated pictures)."""
        if self.hinge:
            (on_real, redrawn), (on_fake, _) = self.study(truth), self.judge(fake)
            redraw = F.l1_loss(redrawn.float(), F.avg_pool2d(truth, 2))
            told["redraw"] = told.get("redraw", 0.0) + redraw.item() * share
            hinge = losses.hinge_real(on_real, 0.2) + losses.hinge_fake(on_fake, 0.2)
            return hinge + 2 * redraw, on_real, on_fake
        on_real, on_fake = self.judge(truth)[0], self.judge(fake)[0]
        loss = (
            losses.ranked(on_real, on_fake)
            if self.paired
            else losses.real(on_real) + losses.fake(on_fake)
        )
        return loss, on_real, on_fake

    def train(self, truths: Sequence[Tensor], made: Sequence[Tensor], factor: float) -> Losses:
        """One step on real and generated pictures, in parts of the same sizes; augmented alike where they are pairs."""
        self.descent.start(factor)
        count, right, sign, told = sum(map(len, truths)), 0.0, 0.0, {"critic": 0.0}
        penalise = self.r1 != 0 and self.watch["steps"] % self.every == 0
        for truth, fake in self.descent.each(list(zip(truths, made, strict=True))):
            share, fake = len(truth) / count, fake.detach()
            truth, fake = (
                self.varied([truth, fake])
                if self.paired
                else self.varied([truth]) + self.varied([fake])
            )
            loss, on_real, on_fake = self.compare(truth, fake, told, share)
            told["critic"] += loss.item() * share
            sign += share * on_real[0].sign().mean().item()
            if penalise:
                gamma = 2e-4 * truth.shape[-1] ** 2 / count if self.r1 is None else self.r1
                penalty = losses.r1(self.critic, truth)  # not through the Fabric: in full precision
                told["r1"] = told.get("r1", 0.0) + penalty.item() * share
                loss = loss + self.every * gamma / 2 * penalty
            self.descent.backward(loss * share, "discriminator's loss")
            if self.paired:
                hits = [a > b for a, b in zip(on_real, on_fake, strict=True)]
            else:
                hits = [v > 0 for v in on_real] + [v < 0 for v in on_fake]
            right += share * sum(h.float().mean().item() for h in hits) / len(hits)
        self.descent.step()
        watch = self.watch
        watch["steps"] += 1
        watch["balance"] += 0.02 * (self.descent.mean(right) - watch["balance"])
        watch["ready"] = int(watch["ready"] or watch["balance"] > 0.7)
        watch["overwhelmed"] = watch["overwhelmed"] + 1 if watch["balance"] > 0.995 else 0
        watch["sign"] += 0.02 * (self.descent.mean(sign) - watch["sign"])
        if self.target is not None:
            towards = math.copysign(count / self.ADAPTED, watch["sign"] - self.target)
            watch["chance"] = min(max(watch["chance"] + towards, 0.0), 0.7)
        if watch["overwhelmed"] > self.patience:
            raise Collapse(
                f"the discriminator was right on more than 99.5 % for {self.patience} steps; lower its rate or raise r1"
            )
        return told | {
            "balance": watch["balance"],
            "sign": watch["sign"],
            "chance": watch["chance"],
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "optimizer": self.descent.adam.state_dict(),
            "watch": dict(self.watch),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.descent.adam.load_state_dict(state["optimizer"])
        self.watch |= state["watch"]


class Adversarial:
    """What both adversarial stages are made of: a net and its descent, and the adversary. `midway` is True inside a step."""

    averaged: Any  # the net that EMA follows
    descent: Descent
    adversary: Adversary
    midway = False

    @property
    def healthy(self) -> bool:
        """Whether the state is one to go on from: no collapse in sight, and not in the middle of a step."""
        return self.adversary.healthy and not self.midway

    def setup(self, fabric: Any) -> None:
        self.descent.setup(fabric)
        self.adversary.descent.setup(fabric, "judge", *(["study"] if self.adversary.hinge else []))

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.averaged.state_dict(),
            "optimizer": self.descent.adam.state_dict(),
            "adversary": self.adversary.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averaged.load_state_dict(state["net"])
        self.descent.adam.load_state_dict(state["optimizer"])
        self.adversary.load_state_dict(state["adversary"])


class GanPrior(Adversarial):
    """Train the decoder alone: every iteration draws a fresh s/32×s/32 tensor and a fresh tensor for every join.

    A batch's `target` holds the real faces; its size is the size that is generated. hinge: FastGAN's losses and discriminator (see
    `Adversary`), else the non-saturating loss (Goodfellow et al., 2014) with lazy R1 (Karras et al., StyleGAN2, 2020, appendix B).
    hold: the share of the training after which the rates fall, to a tenth at its end.

    Against one face, or a few, drawn over and over: spread, the weight of `losses.spread`;
    cover_pixels and cover_features, those of `losses.energy` between pictures at 16 px and between
    the discriminator's last features, in units of the real ones' deviation. Pictures that hardly
    differ (standard deviation below 0.01) for 100 steps on end are a `Collapse`.
    """

    def __init__(
        self, net: Generator, critic: nn.Module | str | Sequence[int] | None = None, lr: float = 1e-3, critic_lr: float = 1e-4, r1: float | None = None,
        every: int = 16, augment: Sequence[str] = KINDS, clip: float = 10.0, accumulate: int = 1, hinge: bool = False,
        betas: tuple[float, float] = (0.0, 0.99), chance: float = 1.0, target: float | None = None, hold: float = 1.0,
        spread: float = 0.0, cover_pixels: float = 0.0, cover_features: float = 0.0,
    ) -> None:  # fmt: skip
        self.averaged, self.accumulate, self.hold, self.spread = net, accumulate, hold, spread
        self.cover_pixels, self.cover_features = cover_pixels, cover_features
        self.alike, self.size = 0, 128
        betas = float(betas[0]), float(betas[1])
        self.descent = Descent(net, [(net, lr)], betas, clip)
        options = {"hinge": hinge, "betas": betas, "chance": chance, "target": target}
        self.adversary = Adversary(
            critic or net.decoder.widths, critic_lr, r1, every, augment, **options
        )

    def factor(self, progress: float) -> float:
        """Of the learning rates: a short rise, a plateau, and after `hold` a straight fall to a tenth."""
        rest = (1 - progress) / (1 - self.hold) if self.hold < 1 else 1.0
        return min(1.0, 50 * progress + 0.02, max(rest, 0.1))

    @property
    def healthy(self) -> bool:
        return super().healthy and not self.alike

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        self.midway = True
        parts, factor = micro(batch, self.accumulate), self.factor(progress)
        net, adversary, told, variety, made = (
            self.descent.net,
            self.adversary,
            {"loss": 0.0},
            0.0,
            [],
        )
        self.descent.start(factor)
        adversary.critic.requires_grad_(False)
        for part in self.descent.each(parts):
            truth, share = part["target"], len(part["target"]) / len(batch["target"])
            pictures = net(self.averaged.draw(len(truth), truth.shape[-1], device=truth.device))
            verdicts, feats = adversary.judge(adversary.varied([pictures])[0])
            loss = adversary.wanted(verdicts)
            for name, weight, term in self.variety(pictures, feats[-1], truth):
                told[name] = told.get(name, 0.0) + term.item() * share
                loss = loss + weight * term
            self.descent.backward(loss * share, "generator's loss")
            made.append(pictures.detach())
            told["loss"] += loss.item() * share
            variety += made[-1].float().std(0, unbiased=False).mean().item() * share
        adversary.critic.requires_grad_(True)
        self.descent.step()
        judged = adversary.train([part["target"] for part in parts], made, factor)
        self.alike, self.size = (
            self.alike + 1 if self.descent.mean(variety) < 0.01 else 0,
            truth.shape[-1],
        )
        if self.alike > 100:
            raise Collapse("the generated faces are all alike; lower the rates or raise r1")
        self.midway = False
        return told | judged | {"variety": variety}

    def variety(
        self, pictures: Tensor, last: Tensor, truth: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        """(name, weight, loss) of each term against drawing one face, or a few, over and over.

        last: the discriminator's last features of the pictures, augmented as it sees them.
        """

        def energy(drawn: Tensor, real: Tensor, side: int) -> Tensor:
            x, y = (F.adaptive_avg_pool2d(maps.float(), side).flatten(1) for maps in (drawn, real))
            unit = y.std(0).mean()
            return losses.energy(x / unit, y / unit)

        if self.spread:
            yield "spread", self.spread, losses.spread(pictures, truth)
        if self.cover_pixels:
            yield "cover_pixels", self.cover_pixels, energy(pictures, truth, 16)
        if self.cover_features:
            with torch.no_grad():
                real = self.adversary.judge(self.adversary.varied([truth])[0])[1][-1]
            yield "cover_features", self.cover_features, energy(last, real, 4)

    @torch.no_grad()
    def picture(self, count: int = 18, size: int | None = None) -> Tensor:
        """Faces of the averaged generator from tensors that are the same each time, by default at the last batch's size: B×3×s×s."""
        net: Any = getattr(self, "ema", self.averaged)
        drawn = net.draw(count, size or self.size, torch.Generator().manual_seed(0))
        return net([x.to(next(net.parameters())) for x in drawn]).float().clamp(0, 1).cpu()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"alike": self.alike}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.alike = state["alike"]


class FaceRestoration(Adversarial):
    """Encoder and decoder restore; the discriminator tells restored from real; three rates, encoder > decoder > discriminator.

    Losses, each with a weight and left out at 0. Against the truth: `pixel` (where the batch knows how wide its recipes blur, at the size at
    which something is left to compare), `frequency`, `ldl` (artefacts). By judges that do not learn: `landmarks` (LandmarkNet), `identity`
    and `perception` (a third party's face net, an extra). By discriminators: `features` and `adversarial` of the face, for which each
    restored face is compared with its own truth; `parts` and `gram` of eyes and mouth (Wang et al., GFPGAN, CVPR 2021, section 3.3). The
    discriminators' losses wait until the discriminator has told restored from real; without adversarial losses it does not learn.
    All but the first three need the batch's `points`. GPEN (CVPR 2021, section 3.3) publishes rates of 100:10:1.

    frozen: so many steps at first in which only the encoder learns (and the mask, where the net has one). noise: the chance that a much
    blurred face (to a quarter of its size or less) is drawn from the deep code alone, its finest three skips replaced by noise.
    """

    ema: Any  # the averaged net, which fit sets
    TERMS = {
        "pixel": 1.0, "frequency": 0.0, "features": 0.02, "adversarial": 0.01, "ldl": 0.0, "landmarks": 0.0, "identity": 0.0, "perception": 0.0,
        "parts": 0.0, "gram": 0.0,
    }  # fmt: skip
    LABELLED = ("landmarks", "identity", "perception", "parts", "gram")

    def __init__(
        self, net: FaceNet, critic: nn.Module | str | Sequence[int] | None = None, lr: float = 4e-4, decoder_lr: float = 2e-4, critic_lr: float = 1e-4,
        weights: Mapping[str, float] | None = None, r1: float | None = None, every: int = 16, augment: Sequence[str] = ("shift",),
        clip: float = 1.0, accumulate: int = 1, frozen: int = 0, noise: float = 0.0, judges: Mapping[str, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        self.weights = self.TERMS | dict(weights or {})
        if unknown := self.weights.keys() - self.TERMS.keys():
            raise ValueError(
                f"weights must name losses out of {', '.join(self.TERMS)}, got {sorted(map(str, unknown))[0]!r}"
            )
        self.averaged, self.accumulate, self.frozen, self.noise, self.steps = (
            net,
            accumulate,
            frozen,
            noise,
            0,
        )
        groups = [
            (net.encoder, lr),
            (net.decoder, decoder_lr),
            *([(net.mask, lr)] if net.draws else []),
        ]
        self.descent = Descent(net, groups, (0.0, 0.99), clip)
        self.adversary = Adversary(
            critic or net.decoder.widths, critic_lr, r1, every, augment, paired=True
        )
        options = {"kinds": (), "paired": True, "r1": 0}
        self.parts = {
            part: Adversary(PartCritic(), critic_lr, **options)
            for part in ("eyes", "mouth")
            if self.wants("parts", "gram")
        }
        self.judges = dict(judges or {})
        self.last: Tensor | None = None

    def wants(self, *terms: str) -> bool:
        """Whether one of these losses has a weight."""
        return any(self.weights[term] for term in terms)

    def setup(self, fabric: Any) -> None:
        super().setup(fabric)
        for part in self.parts.values():
            part.descent.setup(fabric, "judge")
        self.judges = {name: judge.to(fabric.device) for name, judge in self.judges.items()}

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        self.midway = True
        parts, factor, adversary = micro(batch, self.accumulate), cosine(progress), self.adversary
        if missing := [t for t in self.LABELLED if self.weights[t] and "points" not in batch]:
            raise ValueError(f"the loss {missing[0]} needs landmarks; set labels: true in batches")
        made, told, frozen = [], {}, self.steps < self.frozen
        self.descent.start(factor)
        if frozen:
            self.descent.adam.param_groups[1]["lr"] = 0.0
        learners = [adversary, *self.parts.values()]
        for learner in learners:
            learner.critic.requires_grad_(False)
        for part in self.descent.each(parts):
            share = len(part["target"]) / len(batch["target"])
            restored = self.descent.net(*part["inputs"], **self._drawn(part))
            terms = self._terms(restored, part)
            total = losses.total(self.weights[name] * value for name, value in terms.items())
            self.descent.backward(total * share)
            made.append(restored.detach())
            for name, value in {"loss": total, **terms}.items():
                told[name] = told.get(name, 0.0) + value.item() * share
        for learner in learners:
            learner.critic.requires_grad_(True)
        self.descent.step()
        if self.wants("adversarial", "parts") and not frozen:
            told |= self._judges_learn(parts, made, max(factor, 0.3))
        self.steps += 1
        self.last, self.midway = (
            torch.cat([batch["inputs"][0][:6], torch.cat(made)[:6], batch["target"][:6]]),
            False,
        )
        return told

    def _drawn(self, part: Mapping[str, Any]) -> dict[str, Tensor]:
        """Which faces are drawn from the deep code alone."""
        if not self.noise or "blur" not in part:
            return {}
        chosen = torch.rand(len(part["blur"]), device=part["blur"].device) < self.noise
        return {"noise": chosen & (self._halvings(part) >= 2)}

    @staticmethod
    def _halvings(part: Mapping[str, Any]) -> Tensor:
        """B whole numbers 0..3: how often a face can be halved before it holds all that its recipe left."""
        return torch.log2(part["blur"].clamp(min=0.1) / 1.2).round().clamp(0, 3).long()

    def _terms(self, restored: Tensor, part: Mapping[str, Any]) -> dict[str, Tensor]:
        """Every loss of the restored faces, by name."""
        truth, adversary, terms = part["target"], self.adversary, {}
        known = "blur" in part
        terms["pixel"] = (
            losses.scaled_pixel(restored, truth, self._halvings(part))
            if known
            else losses.pixel(restored, truth)
        )
        terms["frequency"] = losses.frequency(restored, truth)
        if self.wants("ldl"):
            with torch.no_grad():
                steady = self.ema(*part["inputs"])
            terms["ldl"] = losses.ldl(restored, truth, steady)
        if self.wants("landmarks"):
            terms["landmarks"] = losses.landmark(restored, part["points"], self.judges["landmarks"])
        if self.wants("identity", "perception"):
            terms["identity"], terms["perception"] = losses.likeness(
                restored, truth, part["points"], self.judges["likeness"]
            )
        if adversary.ready and self.wants("features", "adversarial"):
            seen, real = adversary.varied([restored, truth])
            verdicts, found = adversary.judge(seen)
            with torch.no_grad():
                standard, wanted = adversary.judge(real)
            terms |= {
                "features": losses.features(found, wanted),
                "adversarial": losses.ranked(verdicts, standard),
            }
        if adversary.ready and self.parts:
            terms |= self._part_terms(restored, truth, part["points"])
        return terms

    def _part_terms(self, restored: Tensor, truth: Tensor, points: Tensor) -> dict[str, Tensor]:
        """The losses of eyes and mouth."""
        terms: dict[str, Any] = {"parts": 0.0, "gram": 0.0}
        for learner, mine, real in zip(
            self.parts.values(),
            crop_parts(restored, points),
            crop_parts(truth, points),
            strict=True,
        ):
            verdicts, found = learner.judge(mine)
            with torch.no_grad():
                standard, wanted = learner.judge(real)
            terms["parts"] = terms["parts"] + losses.ranked(verdicts, standard) / 2
            terms["gram"] = terms["gram"] + losses.gram(found, wanted) / 2
        return terms

    def _judges_learn(
        self, parts: Sequence[Mapping[str, Any]], made: Sequence[Tensor], factor: float
    ) -> Losses:
        """A step of every discriminator."""
        truths = [part["target"] for part in parts]
        told = self.adversary.train(truths, made, factor)
        if not self.parts:
            return told
        points = [part["points"] for part in parts]
        real, fake = (
            [crop_parts(x, p) for x, p in zip(faces, points, strict=True)]
            for faces in (truths, made)
        )
        for n, (name, learner) in enumerate(self.parts.items()):
            part_told = learner.train([r[n] for r in real], [f[n] for f in fake], factor)
            told |= {f"{name} critic": part_told["critic"], f"{name} balance": part_told["balance"]}
        return told

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"steps": self.steps}
        return state | (
            {"parts": {name: part.state_dict() for name, part in self.parts.items()}}
            if self.parts
            else {}
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state.get("steps", 0)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])

    def picture(self) -> Tensor | None:
        """Inputs, restorations and truths of the last batch, up to six each, one after the other."""
        return None if self.last is None else self.last.float().clamp(0, 1).cpu()
