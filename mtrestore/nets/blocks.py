"""Small pieces that the networks share: convolutions, a residual block, padding to a multiple."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class Net(nn.Module):
    """A network that states its contract: sides are multiples of `multiple`, at least `minimum` px.

    `config` holds the constructor's keyword arguments, so that a weights file can rebuild the net.
    """

    multiple: int = 1
    minimum: int = 1
    config: dict[str, Any]
    notes: dict[str, Any]  # of a weights file

    if TYPE_CHECKING:  # to torch every part of a net is a Tensor or a Module

        def __getattr__(self, name: str) -> Any: ...

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        signature, init = inspect.signature(cls.__init__), cls.__init__

        def remember(self: Any, *args: object, **kw: object) -> None:
            bound = signature.bind(self, *args, **kw)
            bound.apply_defaults()
            config = {k: v for k, v in bound.arguments.items() if k != "self"}
            init(self, *args, **kw)
            self.config = config

        remember.__signature__ = signature
        remember.__doc__ = init.__doc__
        cls.__init__ = remember


def he(layer: nn.Conv2d | nn.Linear) -> None:
    """Weights that keep the signal's size, no bias (He et al., ICCV 2015)."""
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def conv(cin: int, cout: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (stride 1) or halves it (stride 2)."""
    return nn.Conv2d(cin, cout, 3, stride, 1)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with weights and bias 0: a residual net that ends in it starts as identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def act() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class ResBlock(nn.Module):
    """x + conv(act(conv(x))): He et al., CVPR 2016, without normalisation (EDSR, CVPRW 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(width, width), act(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def up2(x: Tensor) -> Tensor:
    """Twice the size by nearest neighbours; the next convolution smooths (Odena et al., 2016)."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def padded(net: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Run `net` on B×C×H×W of any size: pad right and below to its contract, run, crop."""
    m, least = getattr(net, "multiple", 1), getattr(net, "minimum", 1)
    h, w = x.shape[-2:]
    th, tw = (max(-(-n // m) * m, -(-least // m) * m) for n in (h, w))
    if (th, tw) == (h, w):
        return net(x)
    y = net(reflect(x, th - h, tw - w))
    k = y.shape[-1] // tw
    return y[..., : h * k, : w * k]


def reflect(x: Tensor, below: int, right: int) -> Tensor:
    """Pad by mirroring, however small the picture is: torch refuses more than the side."""
    if below < x.shape[-2] and right < x.shape[-1] and x.ndim == 4 and x.is_floating_point():
        return F.pad(x, (0, right, 0, below), mode="reflect")
    for axis, pad in ((-2, below), (-1, right)):
        n = x.shape[axis]
        period = max(2 * n - 2, 1)
        i = torch.arange(n + pad, device=x.device) % period
        x = x.index_select(axis % x.ndim, torch.where(i < n, i, period - i))
    return x
