"""What a net costs: numbers to keep, operations, and time on this machine."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def gflop(call: Callable, *arguments: Any) -> float:
    """Billions of floating-point operations of one call; a product and its sum are two."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops() / 1e9


def milliseconds(call: Callable, *arguments: Any, times: int = 3) -> float:
    """The median of so many calls, after one that warms up."""
    took = []
    with torch.inference_mode():
        for _ in range(times + 1):
            began = perf_counter()
            call(*arguments)
            took.append(1000 * (perf_counter() - began))
    return median(took[1:])


def of(net: nn.Module, x: Tensor) -> dict[str, float]:
    """A row for a table: parameters, MiB of a file in float16, GFLOP and ms for the input `x`."""
    return {
        "parameters": parameters(net),
        "MiB in fp16": parameters(net) / 2**19,
        "GFLOP": gflop(net, x),
        "ms": milliseconds(net, x),
    }
