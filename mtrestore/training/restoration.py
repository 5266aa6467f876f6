"""The joint stage: encoder and decoder restore, discriminators tell restored faces from real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..nets import FaceNet, PartCritic
from . import losses
from .adversary import Adversarial, Adversary, still
from .descent import Descent, Losses, add, check_names, cosine, micro
from .parts import crop_parts


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

    frozen: so many steps at first in which only the encoder learns. A mask that learned with it
    would hand the input through before the decoder was asked to draw anything. noise: the chance
    that a much blurred face (to a quarter of its size or less) is drawn from the deep code alone,
    its finest three skips replaced by noise.
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
        judges: Mapping[str, nn.Module] | None = None,
    ) -> None:
        check_names(weights or {}, self.TERMS, "weights must name losses out of")
        self.weights = self.TERMS | dict(weights or {})
        self.averaged, self.accumulate = net, accumulate
        self.frozen, self.noise = frozen, noise
        self.steps = 0
        groups = [(net.encoder, lr), (net.decoder, decoder_lr)]
        groups += [(net.mask, decoder_lr)] if net.draws else []
        self.descent = Descent(net, groups, (0.0, 0.99), clip)
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
        if frozen:
            for group in self.descent.adam.param_groups[1:]:
                group["lr"] = 0.0
        with still(self.adversary, *self.parts.values()):
            restored, totals = self._restore(parts)
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
            faces = self.descent.net(*part["inputs"], **self._noise(part))
            terms = self._terms(faces, part)
            total = losses.total(self.weights[name] * value for name, value in terms.items())
            self.descent.backward(total * share)
            restored.append(faces.detach())
            add(totals, {"loss": total, **terms}, share)
        return restored, totals

    def _noise(self, part: Mapping[str, Any]) -> dict[str, Tensor]:
        """Which faces are drawn from the deep code alone."""
        if not self.noise or "blur" not in part:
            return {}
        chance = torch.rand(len(part["blur"]), device=part["blur"].device)
        return {"noise": (chance < self.noise) & (halvings(part["blur"]) >= 2)}

    def _terms(self, restored: Tensor, part: Mapping[str, Any]) -> dict[str, Tensor]:
        """Every loss of the restored faces, by name."""
        truth = part["target"]
        points: Any = part.get("points")  # there, where a loss needs them: `update` asked
        if "blur" in part:
            pixel = losses.scaled_pixel(restored, truth, halvings(part["blur"]))
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
        state = super().state_dict() | {"steps": self.steps}
        if self.parts:
            state["parts"] = {name: part.state_dict() for name, part in self.parts.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = state.get("steps", 0)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])

    def picture(self) -> Tensor | None:
        """Inputs, restorations and truths of the last batch, up to six each, in this order."""
        return None if self.last is None else self.last.float().clamp(0, 1).cpu()


def halvings(blur: Tensor) -> Tensor:
    """B whole numbers 0..3: how often a face can be halved before it holds all that was left.

    blur: how wide each recipe blurs, px (`degrade.blur_scale`).
    """
    return torch.log2(blur.clamp(min=0.1) / 1.2).round().clamp(0, 3).long()
