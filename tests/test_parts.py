"""Parts of faces cut as tensors, and the losses that look at them: held against numpy, and against
the crops that do the same for photos.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mtrestore import crop, image, weights
from mtrestore.face import detect
from mtrestore.lab import evaluate
from mtrestore.training import losses, parts
from mtrestore.training.likeness import CHIP, CHIP_POINTS, FaceResNet, chip, fitted

SIDE = 128


@pytest.fixture(scope="module")
def mesh() -> np.ndarray:
    """468 points, px of a face of 128 px cut by the landmark rule: the mean, a little turned."""
    mean = weights.load("landmarks").mean.numpy().astype(np.float64)
    turned = (mean - 0.5) @ np.array([[0.97, 0.24], [-0.24, 0.97]])
    return crop.landmark_crop(turned * 500, size=SIDE).points(turned * 500)


def units(points: np.ndarray, side: int = SIDE) -> torch.Tensor:
    """Pixels -> 1×N×2 in units of the side, as parts.py has them."""
    return torch.from_numpy((points + 0.5) / side).float()[None]


def face(side: int = SIDE, seed: int = 0) -> torch.Tensor:
    small = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(small, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


def test_the_five_points_are_those_of_the_crops(mesh):
    assert np.allclose(
        parts.five(units(mesh))[0].numpy() * SIDE - 0.5, crop.five_from_mesh(mesh), atol=1e-4
    )


def test_the_eye_square_is_the_eye_crop(mesh):
    square = parts.eye_square(units(mesh))[0].numpy().astype(np.float64)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) @ square[:, :2].T + square[:, 2]
    assert np.allclose(corners * SIDE - 0.5, crop.eye_crop(mesh, size=128).corners(), atol=1e-3)


def test_a_fitted_square_is_the_fitted_crop(mesh):
    four = crop.five_from_mesh(mesh)[[0, 1, 3, 4]]
    square = parts.fitted(units(four), torch.tensor((CHIP_POINTS + 0.5) / CHIP).float())[0].numpy()
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) @ square[:, :2].T + square[:, 2]
    assert np.allclose(corners * SIDE - 0.5, fitted(four, CHIP_POINTS, CHIP).corners(), atol=1e-3)


def test_a_cut_is_the_crops_cut(mesh):
    """Bilinear beside OpenCV's Lanczos, on a smooth picture; a chip of 150 px enlarges, the eye
    crop shrinks by a little.
    """
    photo, where = face(), units(mesh)
    ours = parts.chips(photo, where, CHIP_POINTS, CHIP)
    assert (ours - image.to_tensor(chip(image.to_photo(photo), mesh))).abs().mean() < 3e-3
    ours = parts.cut(photo, parts.eye_square(where), 128)
    assert (
        ours - image.to_tensor(crop.eye_crop(mesh, size=128).cut(image.to_photo(photo)))
    ).abs().mean() < 3e-3


def test_a_cut_that_shrinks_sees_no_more_than_means():
    """A checkerboard of single pixels is grey from far away, not the black or white of chance."""
    board = torch.from_numpy((np.indices((256, 256)).sum(0) % 2).astype(np.float32))[None, None]
    whole = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert torch.allclose(parts.cut(board, whole, 64), torch.full((1, 1, 64, 64), 0.5))


def test_the_whole_square_at_its_own_size_is_the_picture():
    photo = face(33)
    assert torch.allclose(
        parts.cut(photo, torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]), 33), photo, atol=1e-5
    )


@pytest.mark.parametrize(("side", "eye", "mouth"), [(256, 40, 60), (128, 20, 30), (64, 10, 15)])
def test_parts_have_the_sizes_of_their_faces(mesh, side, eye, mouth):
    pictures, where = face(side).repeat(3, 1, 1, 1), units(mesh).repeat(3, 1, 1)
    eyes, mouths = parts.crop_parts(pictures, where)
    assert eyes.shape == (6, 3, eye, eye) and mouths.shape == (3, 3, mouth, mouth)


def test_a_part_shows_what_it_is_named_after(mesh):
    """Left eye red, right eye green and blue at its outer corner, mouth white: each in the middle
    of its square; the right eye is mirrored.
    """
    y, x = np.mgrid[:256, :256]
    photo = np.zeros((256, 256, 3), np.float32)
    big = (mesh + 0.5) * 2 - 0.5

    def spot(p: np.ndarray) -> np.ndarray:
        return np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / 18)

    five = crop.five_from_mesh(big)
    photo[..., 0] += spot(five[0]) + spot(five[3:].mean(0))
    photo[..., 1] += spot(five[1]) + spot(five[3:].mean(0))
    photo[..., 2] += spot(big[263]) + spot(big[33]) + spot(five[3:].mean(0))
    eyes, mouths = parts.crop_parts(image.to_tensor(photo), units(big, 256))

    def middle(channel: torch.Tensor) -> np.ndarray:
        v, u = np.mgrid[: len(channel), : len(channel)]
        c = channel.numpy()
        return np.array([(c * u).sum(), (c * v).sum()]) / c.sum()

    assert np.allclose(middle(eyes[0, 0]), 19.5, atol=0.3) and np.allclose(
        middle(eyes[1, 1]), 19.5, atol=0.3
    )
    assert np.allclose([middle(mouths[0, c]) for c in range(3)], 29.5, atol=0.3)
    assert middle(eyes[0, 2])[0] < 10 and middle(eyes[1, 2])[0] < 10, (
        "the outer corner lies left in both"
    )
    assert eyes[0, 1].max() < 0.01 and eyes[1, 0].max() < 0.01


def test_placed_points_are_the_crops_points(mesh):
    where = units(mesh)
    placed = parts.placed(where, parts.eye_square(where))[0].numpy()
    assert np.allclose(placed * 128 - 0.5, crop.eye_crop(mesh, size=128).points(mesh), atol=1e-2)


# Losses


def test_scaled_pixel_by_hand():
    a, b = (torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    k = torch.tensor([0, 2, 3, 2])
    total = 0.0
    for d, level in zip((a - b).numpy(), (0, 2, 3, 2)):
        n = 2**level
        means = d.reshape(3, 16 // n, n, 16 // n, n).mean((2, 4))
        total += np.sqrt(means**2 + 1e-6).mean() / 4
    wanted = total + 0.1 * np.sqrt((a - b).numpy() ** 2 + 1e-6).mean()
    assert losses.scaled_pixel(a, b, k).item() == pytest.approx(wanted, rel=1e-5)


def test_scaled_pixel_forgives_fine_texture_where_the_fault_was_heavy():
    truth = torch.full((1, 3, 32, 32), 0.5)
    lashes = truth + 0.2 * (torch.arange(32) % 2 * 2 - 1)
    light, heavy = (losses.scaled_pixel(lashes, truth, torch.tensor([k])).item() for k in (0, 3))
    assert light == pytest.approx(0.22, abs=1e-3) and heavy == pytest.approx(0.021, abs=1e-3)


def test_the_artefact_map_by_hand():
    truth, out, steady = (
        torch.rand(2, 3, 9, 10, generator=torch.Generator().manual_seed(s)) for s in (0, 1, 2)
    )
    d = np.abs((truth - out).numpy()).sum(1)
    e = np.abs((truth - steady).numpy()).sum(1)
    wanted = np.zeros_like(d)
    for n in range(2):
        around = np.pad(d[n], 3, mode="reflect")
        for i in range(9):
            for j in range(10):
                if d[n, i, j] >= e[n, i, j]:
                    wanted[n, i, j] = (
                        around[i : i + 7, j : j + 7].var(ddof=1) * d[n].var(ddof=1) ** 0.2
                    )
    found = losses.artefacts(out, truth, steady)
    assert found.shape == (2, 1, 9, 10) and np.allclose(found[:, 0].numpy(), wanted, atol=1e-6)
    assert losses.ldl(out, truth, steady).item() == pytest.approx(
        (wanted[:, None] * np.abs((truth - out).numpy())).mean(), rel=1e-4
    )


def test_ldl_spares_what_the_averaged_net_does_worse():
    truth, out = face(32), face(32, 1)
    assert (
        losses.ldl(out, truth, 2 * out - truth).item() == 0 < losses.ldl(out, truth, truth).item()
    )


def test_gram_by_hand():
    a, b = (
        [
            torch.rand(2, c, n, n, generator=torch.Generator().manual_seed(s + c))
            for c, n in ((3, 4), (5, 2))
        ]
        for s in (0, 9)
    )
    wanted = 0.0
    for x, y in zip(a, b):
        styles = [np.einsum("bchw,bdhw->bcd", f.numpy(), f.numpy()) / f[0].numel() for f in (x, y)]
        wanted += np.abs(styles[0] - styles[1]).mean() / 2
    assert losses.gram(a, b).item() == pytest.approx(wanted, rel=1e-5)


def test_gram_does_not_ask_where():
    x = torch.rand(1, 4, 8, 8)
    assert losses.gram([x], [x.roll(3, 2).flip(3)]).item() < 1e-6 < losses.gram([x], [x * 2]).item()


def test_the_landmark_loss_is_the_distance_that_evaluate_measures(astronaut):
    """On one face, in the eye crop's units, over the points of eyes, brows and lips alone."""
    net = evaluate.landmark_net()
    mesh = detect(astronaut, "mtcnn", landmarks=net)[0].landmarks
    cut = crop.landmark_crop(mesh, size=128)
    photo, points = cut.cut(astronaut), cut.points(mesh)
    square = crop.eye_crop(points, size=128)
    with torch.inference_mode():
        seen = net(image.to_tensor(square.cut(photo)))[0].numpy()
    away = np.linalg.norm(seen - (square.points(points) + 0.5) / 128, axis=1)
    chosen = [*parts.EYES, *parts.BROWS, *parts.LIPS]
    assert len(set(chosen)) == len(chosen) == 92
    loss = losses.landmark(image.to_tensor(photo), units(points), net).item()
    assert loss == pytest.approx(away[chosen].mean(), abs=2e-3)
    blurred = F.avg_pool2d(image.to_tensor(photo), 15, 1, 7)
    assert losses.landmark(blurred, units(points), net).item() > 1.5 * loss


@pytest.fixture(scope="module")
def judge() -> FaceResNet:
    torch.manual_seed(0)
    return FaceResNet().eval().requires_grad_(False)


def test_the_likeness_loss_by_hand(mesh, judge):
    a, b, where = face(), face(seed=1), units(mesh)
    identity, perception = losses.likeness(a, b, where, judge)
    x, y = (judge.features(parts.chips(p, where, CHIP_POINTS, CHIP)) for p in (a, b))
    u, v = (judge.project.weight @ f[-1].mean((2, 3))[0] for f in (x, y))
    assert identity.item() == pytest.approx(((u - v) ** 2).sum().item(), rel=1e-4)
    assert perception.item() == pytest.approx(
        sum(((x[i] - y[i]).abs().mean() / y[i].mean()).item() for i in (4, 8)) / 2, rel=1e-4
    )
    assert losses.likeness(a, a, where, judge)[0].item() == 0


LOSSES = {
    "scaled_pixel": lambda r, t, p, j: losses.scaled_pixel(r, t, torch.tensor([3, 1])),
    "ldl": lambda r, t, p, j: losses.ldl(r, t, t),
    "gram": lambda r, t, p, j: losses.gram([r], [t]),
    "parts": lambda r, t, p, j: sum(x.square().sum() for x in parts.crop_parts(r, p)),
    "landmark": lambda r, t, p, j: losses.landmark(r, p, copy.deepcopy(evaluate.landmark_net())),
    "identity": lambda r, t, p, j: losses.likeness(r, t, p, j)[0],
    "perception": lambda r, t, p, j: losses.likeness(r, t, p, j)[1],
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_reaches_the_restored_picture_and_the_truth_gets_none(name, mesh, judge):
    restored = face().repeat(2, 1, 1, 1).requires_grad_()
    truth = face(seed=1).repeat(2, 1, 1, 1).requires_grad_(name not in ("scaled_pixel", "ldl"))
    loss = LOSSES[name](restored, truth, units(mesh).repeat(2, 1, 1), judge)
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(restored.grad).all()
    assert (restored.grad.abs().amax((1, 2, 3)) > 0).all(), "of each picture"
    assert truth.grad is None
    assert all(p.grad is None for p in judge.parameters())
