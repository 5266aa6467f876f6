"""Losses as plain functions of batches; a stage adds them up with weights and reports each by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
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


def same_person(embedded: Tensor, person: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2): B×D unit vectors, B person numbers, each at least twice."""
    itself = torch.eye(len(person), dtype=torch.bool, device=person.device)
    logits = (embedded @ embedded.T / temperature).masked_fill(itself, -1e9)
    mates = (person[:, None] == person[None]) & ~itself
    return -((logits.log_softmax(1) * mates).sum(1) / mates.sum(1).clamp(min=1)).mean()


def real(verdicts: Sequence[Tensor]) -> Tensor:
    """What each verdict (logits) lacks to say "real", summed: the non-saturating loss of a generator (Goodfellow et al., NeurIPS 2014, section 3)."""
    return sum(F.softplus(-v.float()).mean() for v in verdicts)


def fake(verdicts: Sequence[Tensor]) -> Tensor:
    """What each verdict (logits) lacks to say "fake", summed."""
    return sum(F.softplus(v.float()).mean() for v in verdicts)


def hinge_real(verdicts: Sequence[Tensor], soft: float = 0.0) -> Tensor:
    """Hinge loss of a discriminator on real pictures, summed over verdicts (Lim and Ye, Geometric GAN, 2017, equation 3).

    soft: each picture's margin is drawn from 1 - soft to 1, so that nobody is asked to be quite sure (Salimans et al., NeurIPS 2016, section 3.4).
    """
    return sum(F.relu(1 - soft * torch.rand_like(v[:, :1, :1, :1].float()) - v.float()).mean() for v in verdicts)


def hinge_fake(verdicts: Sequence[Tensor], soft: float = 0.0) -> Tensor:
    """The same on generated pictures."""
    return sum(F.relu(1 - soft * torch.rand_like(v[:, :1, :1, :1].float()) + v.float()).mean() for v in verdicts)


def ranked(higher: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """What each verdict on `higher` lacks to stand above that on `lower`, pair by pair, summed: the relativistic paired loss.

    Of a restored face and its own truth only the fault differs, so a small batch tells much (Jolicoeur-Martineau, 2018; Huang et al., R3GAN,
    NeurIPS 2024, equation 2).
    """
    return sum(F.softplus(b.float() - a.float()).mean() for a, b in zip(higher, lower, strict=True))


def features(restored: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Feature matching: L1 between the discriminator's features of both, a mean over levels (Wang et al., pix2pixHD, CVPR 2018, equation 4)."""
    return sum((a.float() - b.detach().float()).abs().mean() for a, b in zip(restored, truth, strict=True)) / len(restored)


def r1(critic: torch.nn.Module, pictures: Tensor) -> Tensor:
    """Squared gradient of the verdict on real pictures, a mean over the batch (Mescheder et al., ICML 2018, equation 9, without gamma/2)."""
    pictures = pictures.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(pictures).sum(), pictures, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean()
