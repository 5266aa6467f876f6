"""Losses as plain functions of two batches; a stage adds them up with weights and reports each by name."""

from __future__ import annotations

import torch
from torch import Tensor


def pixel(restored: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier distance, a smooth L1: mean sqrt((x − y)² + 1e-6), in 0..1 units (Lai et al., LapSRN, CVPR 2017, equation 6)."""
    return ((restored - truth) ** 2 + 1e-6).sqrt().mean()


def frequency(restored: Tensor, truth: Tensor) -> Tensor:
    """L1 between orthonormal 2-D spectra: weighs blurred-away detail more than `pixel` does (Cho et al., MIMO-UNet, ICCV 2021)."""
    d = torch.fft.rfft2((restored - truth).float(), norm="ortho")
    return torch.view_as_real(d).abs().mean()


def points(found: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of B×N×2 landmarks from their labels, in their unit."""
    return ((found - truth) ** 2).sum(-1).add(1e-8).sqrt().mean()
