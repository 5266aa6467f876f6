"""The joint stage: encoder and decoder restore, discriminators tell restored faces from real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nets import FaceNet, PartCritic
from . import losses
from .adversary import Adversarial, Adversary, still
from .descent import Descent, Groups, Losses, add, check_names, cosine, micro
from .parts import crop_parts

USUAL = 0.04  # RMS of a convolution's weights (He et al.) from 128 channels


class FaceRestoration(Adversarial):
    """Three learning rates, encoder > decoder > discriminator; GPEN publishes 100:10:1.

    Losses, each with a weight and left out at 0. Against the truth: `pixel` (where the batch knows
    how wide its recipes blur, at the size at which something is left to compare), `frequency`,
    `ldl` (artefacts). By judges that do not learn: `landmarks` (LandmarkNet), `identity` and
    `perception` (a third party's face net, an extra). By discriminators: `features` and
    `adversarial` of the face, for which each restored face is compared with its own truth; `parts`
    and `gram` of eyes and mouth (Wang et al., GFPGAN, CVPR 2021, section 3.3). The discriminators'
    losses wait until the discriminator has told restored from real; without adversarial losses it
    does not learn. Those of LABELLED need the batch's `points`.

    frozen: so many steps at first in which the encoder learns, and of a decoder that draws what it
    hears of its joins: the rest stays as the prior left it (Wang et al., GFPGAN, hold theirs so).
    noise: the chance that a much blurred face (to a quarter of its size or less) has its finest
    three skips replaced by noise. deep: the chance that any face has all five, as when the prior
    learned, and is drawn from the deepest feature alone; it is compared at a quarter of its size.
    Without, that feature dies in 200 steps: a skip is the shorter way.
    """

    TERMS = {"pixel": 1.0, "frequency": 0.0, "features": 0.02, "adversarial": 0.01, "ldl": 0.0}
    LABELLED = ("landmarks", "identity", "perception", "parts", "gram")
    TERMS |= dict.fromkeys(LABELLED, 0.0)

    def __init__(
        self,
        net: FaceNet,
        critic: nn.Module | str | Sequence[int] | None = None,
        lr: float = 4e-4,
        decoder_lr: float = 2e-4,
        critic_lr: float = 1e-4,
        weights: Mapping[str, float] | None = None,
        r1: float | None = None,
        every: int = 16,
        augment: Sequence[str] = ("shift",),
        clip: float = 1.0,
        accumulate: int = 1,
        frozen: int = 0,
        noise: float = 0.0,
        deep: float = 0.0,
        betas: tuple[float, float] = (0.0, 0.99),
        judges: Mapping[str, nn.Module] | None = None,
    ) -> None:
        check_names(weights or {}, self.TERMS, "weights must name losses out of")
        self.weights = self.TERMS | dict(weights or {})
        self.averaged, self.accumulate = net, accumulate
        self.frozen, self.noise, self.deep = frozen, noise, deep
        self.steps = 0
        groups: Groups = [(net.encoder.parameters(), lr)]
        groups += rates(net, lr, decoder_lr)
        self.descent = Descent(net, groups, betas, clip)
        self.adversary = Adversary(
            critic or net.decoder.widths, critic_lr, r1, every, augment, paired=True
        )
        names = ("eyes", "mouth") if self.weighs("parts", "gram") else ()
        options = {"kinds": (), "paired": True, "r1": 0}
        self.parts = {name: Adversary(PartCritic(), critic_lr, **options) for name in names}
        self.judges = dict(judges or {})
        self.last: Tensor | None = None

    def weighs(self, *terms: str) -> bool:
        """Whether one of these losses has a weight."""
        return any(self.weights[term] for term in terms)

    def setup(self, fabric: Any) -> None:
        super().setup(fabric)
        for part in self.parts.values():
            part.setup(fabric)
        self.judges = {name: judge.to(fabric.device) for name, judge in self.judges.items()}

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        """A step of the net, then one of each discriminator; its losses by name."""
        self.midway = True
        for term in self.LABELLED:
            if self.weights[term] and "points" not in batch:
                raise ValueError(f"the loss {term} needs landmarks; set labels: true in batches")
        parts, factor = micro(batch, self.accumulate), cosine(progress)
        frozen = self.steps < self.frozen
        self.descent.start(factor)
        with still(self.adversary, *self.parts.values()):
            restored, totals = self._restore(parts)
        if frozen:
            hold(self.averaged)
        self.descent.step()
        if self.weighs("adversarial", "parts") and not frozen:
            totals |= self._judges_learn(parts, restored, max(factor, 0.3))
        self.steps += 1
        rows = batch["inputs"][0], torch.cat(restored), batch["target"]
        self.last = torch.cat([row[:6] for row in rows])
        self.midway = False
        return totals

    def _restore(self, parts: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], Losses]:
        """(the restored faces of each part, the losses); leaves the net's gradient."""
        restored, totals = [], {}
        for part in self.descent.each(parts):
            share = len(part["target"]) / sum(len(p["target"]) for p in parts)
            noise = self._noise(part)
            faces = self.descent.net(*part["inputs"], noise=noise)
            terms = self._terms(faces, part, noise)
            total = losses.total(self.weights[name] * value for name, value in terms.items())
            self.descent.backward(total * share)
            restored.append(faces.detach())
            add(totals, {"loss": total, **terms}, share)
        return restored, totals

    def _noise(self, part: Mapping[str, Any]) -> Tensor | None:
        """How many of each face's skips are noise, if any."""
        if not (self.noise or self.deep) or "blur" not in part:
            return None
        chance, deep = torch.rand(2, len(part["blur"]), device=part["blur"].device)
        fine = 3 * ((chance < self.noise) & (halvings(part["blur"]) >= 2))
        return torch.where(deep < self.deep, 5, fine)

    def _terms(
        self, restored: Tensor, part: Mapping[str, Any], noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every loss of the restored faces, by name. noise: how many of their skips were noise."""
        truth = part["target"]
        points: Any = part.get("points")  # there, where a loss needs them: `update` asked
        if "blur" in part:
            k = halvings(part["blur"])
            k = k if noise is None else torch.where(noise == 5, k.clamp(min=2), k)
            pixel = losses.scaled_pixel(restored, truth, k)
        else:
            pixel = losses.pixel(restored, truth)
        terms = {"pixel": pixel, "frequency": losses.frequency(restored, truth)}
        if self.weighs("ldl"):
            with torch.no_grad():
                steady = self.ema(*part["inputs"])
            terms["ldl"] = losses.ldl(restored, truth, steady)
        if self.weighs("landmarks"):
            terms["landmarks"] = losses.landmark(restored, points, self.judges["landmarks"])
        if self.weighs("identity", "perception"):
            judge = self.judges["likeness"]
            identity, perception = losses.likeness(restored, truth, points, judge)
            terms |= {"identity": identity, "perception": perception}
        if self.adversary.ready and self.weighs("features", "adversarial"):
            verdicts, features = self.adversary.rival(*self.adversary.augment([restored, truth]))
            terms["features"] = losses.features(*features)
            terms["adversarial"] = losses.ranked(*verdicts)
        if self.adversary.ready and self.parts:
            terms |= self._part_terms(crop_parts(restored, points), crop_parts(truth, points))
        return terms

    def _part_terms(self, restored: Sequence[Tensor], truth: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of eyes and mouth."""
        ranks, grams = [], []
        for learner, mine, real in zip(self.parts.values(), restored, truth, strict=True):
            verdicts, features = learner.rival(mine, real)
            ranks.append(losses.ranked(*verdicts) / 2)
            grams.append(losses.gram(*features) / 2)
        return {"parts": losses.total(ranks), "gram": losses.total(grams)}

    def _judges_learn(
        self, parts: Sequence[Mapping[str, Any]], restored: Sequence[Tensor], factor: float
    ) -> Losses:
        """A step of every discriminator."""
        truths = [part["target"] for part in parts]
        totals = self.adversary.train(truths, restored, factor)
        if not self.parts:
            return totals
        points = [part["points"] for part in parts]
        real, fake = (map(crop_parts, faces, points) for faces in (truths, restored))
        for (name, learner), mine, theirs in zip(self.parts.items(), zip(*real), zip(*fake)):
            watch = learner.train(mine, theirs, factor)
            totals |= {f"{name} critic": watch["critic"], f"{name} balance": watch["balance"]}
        return totals

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"steps": self.steps, "rates": self.descent.rates}
        if self.parts:
            state["parts"] = {name: part.state_dict() for name, part in self.parts.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state.get("steps", 0)
        self.descent.rates = state.get("rates", self.descent.rates)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])

    def picture(self) -> Tensor | None:
        """Inputs, restorations and truths of the last batch, up to six each, in this order."""
        return None if self.last is None else self.last.float().clamp(0, 1).cpu()


def rates(net: FaceNet, lr: float, decoder_lr: float) -> Groups:
    """The decoder's parameters, and at which rate they learn.

    Those of a decoder that draws follow their size, as in LAMB (You et al., ICLR 2020): folded
    batch norm left weights of 0.007 and of 0.5, and a step that moves the large ones breaks the
    small. The gains of the joins, near 0 in a prior, learn as fast as the encoder they let in.
    """
    if not net.draws:
        return [(net.decoder.parameters(), decoder_lr)]
    groups: Groups = [(net.decoder.gain, lr), (net.mask.parameters(), decoder_lr)]
    layers = [m for m in net.decoder.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    sizes = [layer.weight.detach().square().mean().sqrt().item() / USUAL for layer in layers]
    groups += [(m.parameters(), decoder_lr * size) for m, size in zip(layers, sizes, strict=True)]
    return [*groups, ([net.decoder.start_place, net.decoder.place], decoder_lr)]


def hold(net: FaceNet) -> None:
    """Drop every gradient but the encoder's and that of what a drawing decoder hears of its joins:
    their gains, and the second half of what the convolutions behind them take in."""
    learners = {*net.encoder.parameters()}
    if net.draws:
        learners |= {*net.decoder.gain}
        for fuse in net.decoder.fuse:
            weight = fuse[0].weight
            weight.grad[:, : weight.shape[1] // 2] = 0
            learners.add(weight)
    for parameter in net.parameters():
        if parameter not in learners:
            parameter.grad = None


def halvings(blur: Tensor) -> Tensor:
    """B whole numbers 0..3: how often a face can be halved before it holds all that was left.

    blur: how wide each recipe blurs, px (`degrade.blur_scale`).
    """
    return torch.log2(blur.clamp(min=0.1) / 1.2).round().clamp(0, 3).long()
