"""Stages of training. A stage owns its nets and optimisers and knows one thing: `update(batch)` -> named losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import losses

Losses = dict[str, float]
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {f.__name__: f for f in (losses.pixel, losses.frequency, losses.points)}


def cosine(progress: float, warmup: float = 0.02) -> float:
    """Learning-rate factor at `progress` 0..1 of a training: linear warm-up, then half a cosine down to 0, where it stays."""
    progress = min(progress, 1)
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


class Supervised:
    """Learn `net(*inputs)` ≈ target with Adam and a weighted sum of losses.

    A batch is {"inputs": tuple of tensors, "target": tensor}. `weights` names functions of losses.py:
    {"pixel": 1.0, "frequency": 0.1}. Losses or gradients that are not finite raise FloatingPointError before any weight is touched.
    """

    def __init__(self, net: nn.Module, lr: float = 6e-4, weights: Mapping[str, float] | None = None, clip: float = 1.0) -> None:
        self.net, self.lr, self.clip = net, lr, clip
        self.weights = dict(weights or {"pixel": 1.0})
        if unknown := self.weights.keys() - LOSSES.keys():
            raise ValueError(f"weights must name losses out of {', '.join(LOSSES)}, got {sorted(map(str, unknown))[0]!r}")
        self.terms = {name: LOSSES[name] for name in self.weights}
        self.optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
        self.averaged = net  # what EMA follows and what is shipped
        self.fabric: Any = None
        self.scaled = False  # float16 losses are scaled up, and the scaler leaves out a step whose gradients overflow

    def setup(self, fabric: Any) -> None:
        """Hand net and optimiser to a lightning Fabric: device, precision and data parallelism are its business."""
        self.fabric, self.scaled = fabric, getattr(fabric._precision, "scaler", None) is not None
        self.net, self.optimizer = fabric.setup(self.net, self.optimizer)

    def update(self, batch: Mapping[str, Any], progress: float = 0.0) -> Losses:
        """One step of the optimiser; `progress` 0..1 sets the learning rate. Returns each loss by name, and their sum as `loss`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * cosine(progress)
        out = self.net(*batch["inputs"])
        parts = {name: term(out, batch["target"]) for name, term in self.terms.items()}
        total = sum(self.weights[name] * part for name, part in parts.items())
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is {total.item()}; try a smaller learning rate than {self.lr}")
        self.optimizer.zero_grad(set_to_none=True)
        if self.fabric:
            self.fabric.backward(total)
            norm = self.fabric.clip_gradients(self.net, self.optimizer, max_norm=self.clip, error_if_nonfinite=False)
        else:
            total.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        if not torch.isfinite(norm) and not self.scaled:
            raise FloatingPointError(f"the gradient is {norm.item()}; try a smaller learning rate than {self.lr}")
        self.optimizer.step()
        return {"loss": total.item(), **{name: part.item() for name, part in parts.items()}}

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.averaged.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averaged.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
