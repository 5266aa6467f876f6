"""Stages of training. A stage owns its nets and optimisers and knows one thing: `update(batch)`.

`Supervised` learns input -> truth. `GanPrior` trains the face decoder alone, as a generator fed
with fresh random tensors; `FaceRestoration` then joins the encoder and trains all against the same
discriminator (Yang et al., GPEN, CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from . import losses
from .adversary import Adversary as Adversary
from .adversary import Collapse as Collapse
from .descent import Descent, Losses, Stage, add, check_names, cosine, micro
from .prior import GanPrior as GanPrior
from .restoration import FaceRestoration as FaceRestoration

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (losses.pixel, losses.frequency, losses.points, losses.same_person)
}


class Supervised(Stage):
    """Learn `net(*inputs)` ≈ target with Adam and a weighted sum of losses.

    A batch is {"inputs": tuple of tensors, "target": tensor}. `weights` names functions of
    losses.py: {"pixel": 1.0, "frequency": 0.1}. Losses or gradients that are not finite raise
    FloatingPointError before any weight is touched. `accumulate`: parts in which a batch is
    computed, for batches that do not fit into memory.
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
        check_names(self.weights, LOSSES, "weights must name losses out of")
        if accumulate > 1 and "same_person" in self.weights:
            raise ValueError(
                "same_person compares all faces of a batch, so it cannot be accumulated; "
                "leave accumulate at 1"
            )
        self.terms = {name: LOSSES[name] for name in self.weights}
        self.averaged, self.accumulate = net, accumulate
        self.descent = Descent(net, [(net.parameters(), lr)], (0.9, 0.99), clip)

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        """One step of the optimiser; `progress` 0..1 sets the learning rate.

        Returns each loss by name, and their weighted sum as `loss`.
        """
        self.descent.start(cosine(progress))
        totals: Losses = {}
        for part in self.descent.each(micro(batch, self.accumulate)):
            share = len(part["target"]) / len(batch["target"])
            out = self.descent.net(*part["inputs"])
            terms = {name: term(out, part["target"]) for name, term in self.terms.items()}
            total = losses.total(self.weights[name] * value for name, value in terms.items())
            self.descent.backward(total * share)
            add(totals, {"loss": total, **terms}, share)
        self.descent.step()
        return totals
