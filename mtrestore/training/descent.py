"""Gradient descent on one net, as every stage does it: in parts of a batch, finite, clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

Losses = dict[str, float]
Groups = list[tuple[Iterable[nn.Parameter], float]]  # parameters, and their learning rate


def cosine(progress: float, warmup: float = 0.02) -> float:
    """Learning-rate factor at `progress` 0..1 of a training; after it, 0.

    A linear warm-up, then half a cosine down to 0.
    """
    progress = min(progress, 1)
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


def micro(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """A batch cut into `parts` along its first axis, fewer where it is smaller."""
    parts = max(1, min(parts, len(batch["target"])))
    chunks = {name: value.chunk(parts) for name, value in batch.items() if name != "inputs"}
    chunks["inputs"] = list(zip(*(x.chunk(parts) for x in batch["inputs"]), strict=True))
    return [dict(zip(chunks, values)) for values in zip(*chunks.values(), strict=True)]


def add(totals: Losses, terms: Mapping[str, Tensor], share: float) -> None:
    """Add the losses of a part of a batch, weighted by its share."""
    for name, value in terms.items():
        totals[name] = totals.get(name, 0.0) + value.item() * share


def check_names(names: Iterable[Any], choices: Iterable[str], rule: str) -> None:
    """ValueError, with the rule that it breaks, for a name that is not among the choices."""
    if strange := sorted(map(str, set(names) - set(choices))):
        raise ValueError(f"{rule} {', '.join(choices)}, got {strange[0]!r}")


class Stage:
    """What every stage is made of: a net that EMA follows and that ships, and its descent."""

    averaged: Any  # the module that is trained and ships
    ema: nn.Module  # its running mean, which `fit` sets
    descent: Descent

    def setup(self, fabric: Any) -> None:
        self.descent.setup(fabric)

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.averaged.state_dict(), "optimizer": self.descent.adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.averaged.load_state_dict(state["net"])
        self.descent.adam.load_state_dict(state["optimizer"])


class Descent:
    """Adam over one net's parameter groups, with or without a lightning Fabric.

    Losses and gradients that are not finite raise FloatingPointError.
    """

    def __init__(
        self, net: nn.Module, groups: Groups, betas: tuple[float, float], clip: float
    ) -> None:
        self.net: Any = net  # or what the Fabric makes of it
        self.clip = clip
        self.rates = [lr for _, lr in groups]
        options = [{"params": list(parameters), "lr": lr} for parameters, lr in groups]
        self.adam = torch.optim.Adam(options, betas=betas, fused=True)
        self.fabric: Any = None
        self.scaled = False  # float16: a scaler leaves out a step whose gradients overflow

    def setup(self, fabric: Any, *methods: str) -> None:
        """Hand net and optimiser to the Fabric: device, precision and data parallelism are its.

        `methods` of the net are called beside forward.
        """
        self.fabric = fabric
        self.scaled = getattr(fabric._precision, "scaler", None) is not None
        self.net, self.adam = fabric.setup(self.net, self.adam)
        for name in methods:
            self.net.mark_forward_method(name)

    def start(self, factor: float) -> None:
        """Begin a step at `factor` of the learning rates, without gradients."""
        for group, lr in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = lr * factor
        self.adam.zero_grad(set_to_none=True)

    def each(self, parts: Sequence[Any]) -> Iterator[Any]:
        """The parts of a batch; several processes exchange their gradients at the last one only."""
        for part in parts[:-1]:
            with self.fabric.no_backward_sync(self.net) if self.fabric else nullcontext():
                yield part
        yield parts[-1]

    def mean(self, value: float) -> float:
        """The mean over all processes, so that they decide alike."""
        if self.fabric is None or self.fabric.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.fabric.device)
        return self.fabric.all_reduce(tensor, reduce_op="mean").item()

    def backward(self, loss: Tensor, what: str = "loss") -> None:
        self._check(loss, what)
        self.fabric.backward(loss) if self.fabric else loss.backward()

    def step(self) -> None:
        if self.fabric:
            options = {"max_norm": self.clip, "error_if_nonfinite": False}
            norm = self.fabric.clip_gradients(self.net, self.adam, **options)
        else:
            norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        if not self.scaled:
            self._check(norm, "gradient")
        self.adam.step()

    def _check(self, value: Tensor, what: str) -> None:
        if not torch.isfinite(value):
            slower = f"try a smaller learning rate than {max(self.rates)}"
            raise FloatingPointError(f"the {what} is {value.item()}; {slower}")
