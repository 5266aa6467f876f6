"""Losses as plain functions of batches; a stage adds them up with weights, reports each by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import parts
from .likeness import CHIP, CHIP_POINTS

LIKENESS = [*parts.EYES, *parts.BROWS, *parts.LIPS]


# ---- against the truth


def pixel(restored: Tensor, truth: Tensor) -> Tensor:
    """Charbonnier distance, a smooth L1: mean sqrt((x − y)² + 1e-6), in 0..1 units.

    Lai et al., LapSRN, CVPR 2017, equation 6.
    """
    return ((restored - truth) ** 2 + 1e-6).sqrt().mean()


def frequency(restored: Tensor, truth: Tensor) -> Tensor:
    """L1 between orthonormal 2-D spectra: weighs blurred-away detail more than `pixel` does.

    Cho et al., MIMO-UNet, ICCV 2021.
    """
    d = torch.fft.rfft2((restored - truth).float(), norm="ortho")
    return torch.view_as_real(d).abs().mean()


def scaled_pixel(restored: Tensor, truth: Tensor, k: Tensor, full: float = 0.1) -> Tensor:
    """`pixel` where a fault left something to compare: at 1/2^k of the size, k 0..3.

    k: B whole numbers, about log2 of the blur's sigma over 1.2 px, which the recipe knows. Beyond
    that an L1 would pull every invented lash back to the mean; so the full size counts `full`.
    """
    k, total = k.to(restored.device), restored.new_zeros(())
    for level in k.unique().tolist():
        a, b = (F.avg_pool2d(x[k == level], 2**level) for x in (restored, truth))
        total = total + pixel(a, b) * len(a)
    return total / len(k) + full * pixel(restored, truth)


def artefacts(restored: Tensor, truth: Tensor, averaged: Tensor) -> Tensor:
    """Where a restoration is likely to be an artefact: B×1×H×W weights without gradient.

    averaged: the same faces restored by the averaged net (EMA). With d = Σ|truth − restored| over
    channels, the weight is the variance of d in 7×7 px times the fifth root of its variance in the
    picture, and 0 where the averaged net is further from the truth (Liang et al., LDL, CVPR 2022,
    section 3.3).
    """
    restored, averaged, truth = (x.detach().float() for x in (restored, averaged, truth))
    d, steady = ((truth - x).abs().sum(1, keepdim=True) for x in (restored, averaged))
    around = F.pad(d, (3, 3, 3, 3), mode="reflect")
    mean = F.avg_pool2d(around, 7, 1)
    local = (F.avg_pool2d(around.square(), 7, 1) - mean.square()).clamp(min=0) * 49 / 48
    return local * d.var((1, 2, 3), keepdim=True) ** 0.2 * (d >= steady)


def energy(drawn: Tensor, truth: Tensor) -> Tensor:
    """The energy distance between two samples of vectors, B×N: 2·E|x - y| - E|x - x'| - E|y - y'|.

    Unbiased, 0 on average where both come from one distribution, and never for a few modes out of
    many: each drawn vector is pulled to the real ones and pushed from the other drawn ones. A
    distance is the root of the mean square (Székely & Rizzo, 2013; Bellemare et al., 2017).
    """
    x, y = drawn.float(), truth.detach().float()

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return ((a[:, None] - b[None]).square().mean(-1) + 1e-6).sqrt()

    pairs = 1 - torch.eye(len(x), device=x.device)
    within = ((apart(x, x) + apart(y, y)) * pairs).sum() / pairs.sum()
    return 2 * apart(x, y).mean() - within


def ldl(restored: Tensor, truth: Tensor, averaged: Tensor) -> Tensor:
    """L1 weighted by `artefacts`: punishes texture that the averaged net would not draw there."""
    return (artefacts(restored, truth, averaged) * (restored - truth).abs()).mean()


def points(marks: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of B×N×2 landmarks from their labels, in their unit."""
    return ((marks - truth) ** 2).sum(-1).add(1e-8).sqrt().mean()


def same_person(embedded: Tensor, person: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2).

    Of B×D unit vectors and B person numbers, each at least twice.
    """
    itself = torch.eye(len(person), dtype=torch.bool, device=person.device)
    logits = (embedded @ embedded.T / temperature).masked_fill(itself, -1e9)
    mates = (person[:, None] == person[None]) & ~itself
    return -((logits.log_softmax(1) * mates).sum(1) / mates.sum(1).clamp(min=1)).mean()


# ---- by what discriminators say


def real(verdicts: Sequence[Tensor]) -> Tensor:
    """What each verdict (logits) lacks to say "real", summed.

    The non-saturating loss of a generator (Goodfellow et al., NeurIPS 2014, section 3).
    """
    return sum(F.softplus(-v.float()).mean() for v in verdicts)


def fake(verdicts: Sequence[Tensor]) -> Tensor:
    """What each verdict (logits) lacks to say "fake", summed."""
    return real([-v for v in verdicts])


def ranked(higher: Sequence[Tensor], lower: Sequence[Tensor]) -> Tensor:
    """What each verdict on `higher` lacks to stand above that on `lower`, pair by pair, summed.

    The relativistic paired loss: of a restored face and its own truth only the fault differs, so a
    small batch tells much (Jolicoeur-Martineau, 2018; R3GAN, NeurIPS 2024, equation 2).
    """
    return real([a.float() - b.float() for a, b in zip(higher, lower, strict=True)])


def hinge_real(verdicts: Sequence[Tensor], soft: float = 0.0) -> Tensor:
    """Hinge loss of a discriminator on real pictures, summed (Lim and Ye, 2017, equation 3).

    soft: each picture's margin is drawn from 1 - soft to 1, so that nobody is asked to be quite
    sure (Salimans et al., NeurIPS 2016, section 3.4).
    """

    def lack(v: Tensor) -> Tensor:
        return F.relu(1 - soft * torch.rand_like(v[:, :1, :1, :1]) - v).mean()

    return sum(lack(v.float()) for v in verdicts)


def hinge_fake(verdicts: Sequence[Tensor], soft: float = 0.0) -> Tensor:
    """The same on generated pictures."""
    return hinge_real([-v for v in verdicts], soft)


def features(restored: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Feature matching: L1 between the discriminator's features of both, a mean over levels.

    Wang et al., pix2pixHD, CVPR 2018, equation 4.
    """
    pairs = zip(restored, truth, strict=True)
    return sum((a.float() - b.detach().float()).abs().mean() for a, b in pairs) / len(restored)


def gram(restored: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """L1 between Gram matrices (features' products, over C·H·W), a mean over levels.

    The look of a texture wherever it lies (Gatys et al., CVPR 2016; for eyes and mouth Wang et al.,
    GFPGAN, CVPR 2021, section 3.4).
    """

    def style(x: Tensor) -> Tensor:
        flat = x.float().flatten(2)
        return flat @ flat.transpose(1, 2) / flat[0].numel()

    pairs = zip(restored, truth, strict=True)
    return sum((style(a) - style(b.detach())).abs().mean() for a, b in pairs) / len(restored)


def r1(critic: torch.nn.Module, pictures: Tensor) -> Tensor:
    """Squared gradient of the verdict on real pictures, a mean over the batch, without gamma / 2.

    Mescheder et al., ICML 2018, equation 9.
    """
    pictures = pictures.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(pictures).sum(), pictures, create_graph=True)
    return gradient.float().square().sum((1, 2, 3)).mean()


def spread(pictures: Tensor, truth: Tensor) -> Tensor:
    """How far the deviation within the generated batch lies from that within the real one, at 8×8.

    L1 between the two maps: a generator that draws one face over and over pays for it at once,
    long before a discriminator has learned to compare (the aim of Mao et al., MSGAN, CVPR 2019).
    """
    a, b = (F.adaptive_avg_pool2d(x.float(), 8).std(0, unbiased=False) for x in (pictures, truth))
    return (a - b.detach()).abs().mean()


# ---- by nets that do not learn


def landmark(restored: Tensor, where: Tensor, net: Any) -> Tensor:
    """How far a frozen LandmarkNet sees eyes, brows and lips from where they are on the truth.

    where: B×468×2 in units of the picture's side. The unit of the loss is the eye crop's side.
    """
    squares = parts.eye_square(where.float())
    marks = net(parts.cut(restored.float(), squares, net.size))
    return points(marks[:, LIKENESS], parts.placed(where.float(), squares)[:, LIKENESS])


def likeness(
    restored: Tensor, truth: Tensor, where: Tensor, net: torch.nn.Module
) -> tuple[Tensor, Tensor]:
    """(identity, perception) by a frozen FaceResNet, of faces with points `where` (B×468×2).

    identity: the squared distance of both descriptors, 0.05 for one person smiling or not, 0.7 for
    two people. perception: L1 between the features after 4 blocks (64×17×17) and after 8
    (128×8×8), each over the truth's mean, since they are never below 0.
    """

    def features(pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = net.features(parts.chips(pictures.float(), where.float(), CHIP_POINTS, CHIP))
        return [maps[4], maps[8]], net.project(maps[-1].mean((2, 3)))

    with torch.no_grad():
        goals, person = features(truth)
    maps, who = features(restored)
    pairs = zip(maps, goals, strict=True)
    apart = sum((a - b).abs().mean() / b.mean().clamp(min=1e-6) for a, b in pairs)
    return (who - person).square().sum(1).mean(), apart / len(maps)
