"""The whole system: two branches at the same time, joined and sharpened.

faces  = detect(photo)                              # CNN detector, then dense landmarks
crops  = [landmark_crop(f, size) for f in faces]    # upright, minimum-area rectangle, expanded
fixed  = [face_net(c.cut(photo)) for c in crops]    # s x s -> s/32 -> s x s   } the two branches
small  = shrink(photo, working_size)                # long side 640            } at the same time
clean  = tiled(restorer, small)                     # denoised, deblurred, de-JPEGed
large  = enlarge(photo, scale)                      # cubic
whole  = upsampler(small, clean, large)             # guided filter -> OH0, refiner -> OH; in strips
pasted = paste(whole, fixed, crops)                 # feathered mask, colour matched
out    = sharpener(pasted)                          # super-resolution net, x1 or x2; in tiles

Each shipped net acts as far as the picture's own fault says (`fault`): a clean picture is left as
it is. Nets that are given are used as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import face as faces_module
from . import image, weights
from .choice import Choice, no_face, strength_of
from .crop import Crop, eye_crop, fit_size, landmark_crop, paste
from .degrade.fault import (
    Fault,
    Tone,
    agreed,
    change,
    estimate,
    face_mask,
    facing,
    given_back,
    patches,
    restoring,
    sharpening,
    typical,
)
from .face import Face, Faces, dense, detect
from .fast.onnx import onnx_net
from .guard import forks
from .image import Photo, Picture
from .nets.blocks import padded
from .nets.guided import noise_level
from .options import Options, documented
from .result import Restored, Steps, Watch, mask_of
from .tile import sparingly, tiled, tiled_samples

RULES = {"landmark": landmark_crop, "eye": eye_crop}
GREY = 4 / 255  # channels that differ by less than this everywhere make a grey picture
FUSED = 2**19  # pixels from which the upsampler runs fused: that is compiled at first use
HEADROOM = 1.2  # crop pixels for a photo pixel: at 1 an untouched face comes back at 44 dB, not 49
SOFT = 64  # px: a face whose crop holds no more, having been restored, is hopeless
SOFT_LOSS = (
    2.2 / 255
)  # what it loses at that size: unreadable eyes to 2.0, small clear ones from 2.5
MOST_FACE = 512  # the face net's largest size; beyond, the guided filter brings a face back up
Size = tuple[int, int]  # height, width


def identity(x: Tensor, *_: Tensor) -> Tensor:
    """Stands in for any net of one input: the picture comes back as it went in."""
    return x


def sampled(samples: np.ndarray, most: int = 2**20) -> np.ndarray:
    """Pairs of neighbouring rows from all over, about `most` pixels: they tell how noisy it is."""
    pairs = max(1, most // (2 * samples.shape[1]))
    if 2 * pairs >= len(samples):
        return samples
    first = np.linspace(0, len(samples) - 2, pairs).astype(int)
    return samples[np.stack([first, first + 1], 1).ravel()]


def by_rows(
    fn: Callable[..., Photo], *pictures: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """fn of photos, pixel by pixel, run over samples of one size strip by strip.

    `out` may be one of the pictures, which the result then replaces.
    """
    out = np.empty_like(pictures[0]) if out is None else out
    for y in range(0, len(out), 64):
        strip = fn(*(image.as_photo(p[y : y + 64]) for p in pictures))
        out[y : y + 64] = image.as_samples(strip, out.dtype)
    return out


def greyed(samples: np.ndarray) -> np.ndarray:
    """Three equal channels, their mean; strip by strip."""
    out = np.empty_like(samples)
    for y in range(0, len(out), 64):
        grey = image.as_photo(samples[y : y + 64]).mean(-1, keepdims=True)
        out[y : y + 64] = image.as_samples(grey, out.dtype)
    return out


def keep_large(small: Tensor, clean: Tensor, large: Tensor) -> Tensor:
    """Stands in for the upsampler: the large picture comes back as it went in."""
    return large


def detail_size(
    face: Photo,
    sizes: Sequence[int] = (128, 192, 256, 384),
    loss: float = 0.75 / 255,
    mask: np.ndarray | None = None,
) -> int:
    """The smallest of `sizes` that holds all of a square picture's detail.

    Shrunk to it and enlarged again the picture differs by at most `loss` (RMS, inside `mask`).
    """
    for size in sizes:
        if size < len(face):
            error = image.resize(image.resize(face, (size, size)), face.shape[:2]) - face
            if np.sqrt(np.mean((error if mask is None else error[mask]) ** 2)) <= loss:
                return size
    return len(face)


def keep_detail(
    poor: Photo, fixed: Photo, guide: Photo, upsampled: Photo, level: float = 3 / 255
) -> Photo:
    """The large face: `upsampled` where the net changed much, else the guide plus the change.

    The guided filter smooths what is faint, skin first. Where the small face was changed by less
    than `level` (local RMS) there was no noise to remove, and the guide's own detail, with the
    small correction added, loses nothing.
    """
    change = fixed - poor
    size = guide.shape[1::-1]
    local = cv2.GaussianBlur((change**2).mean(-1), (0, 0), 4)
    weight = 1 / (1 + (local / level**2) ** 2)
    weight = cv2.resize(weight, size, interpolation=cv2.INTER_LINEAR)[..., None]
    corrected = guide + cv2.resize(change, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(weight * corrected + (1 - weight) * upsampled, 0, 1)


def mixed(
    a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor], share: float
) -> Callable[[Tensor], Tensor]:
    """A net that gives (1 − share)·a(x) + share·b(x)."""

    def both(x: Tensor) -> Tensor:
        return torch.lerp(padded(a, x), padded(b, x), share) if share < 1 else padded(b, x)

    return both


def as_net(net: Any, name: str, device: torch.device) -> Any:
    """A net: the shipped one (None), a .safetensors or .onnx file, or a callable on tensors."""
    if net is None or isinstance(net, (str, Path)):
        path = Path(net or name)
        return onnx_net(path) if path.suffix == ".onnx" else weights.load(path).to(device)
    if not callable(net):
        raise ValueError(
            f"{name} must be a weights file, an ONNX file or a callable on tensors, "
            f"got {type(net).__name__}"
        )
    return net


def as_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises ValueError."""
    gpu = torch.cuda.is_available()
    if name.startswith("cuda") and not gpu:
        raise ValueError(
            f"device {name!r} was asked for but this torch sees no GPU; use cpu or auto"
        )
    return torch.device(("cuda" if gpu else "cpu") if name == "auto" else name)


@documented
class Restorer:
    """The models, loaded once, for many photos: `Restorer(scale=2)("old.jpg").save("new.png")`.

    In place of each shipped net: a weights file, an ONNX file or any callable on B×3×H×W tensors
    in 0..1. Raises TypeError for an unknown option, ValueError for a value out of its range,
    WeightsError for a file.
    """

    def __init__(self, **options: Any) -> None:
        forks.check()
        o = Options.of(options)
        self.device = as_device(o.device)
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.scale = o.scale
        self.working_size = int(o.working_size)
        self.photo_strength = o.photo_strength
        self.face_strength = o.face_strength
        self.memory_mb = o.memory_mb
        self.rule = RULES[o.crop]
        self.detector = o.detector
        self.keep_steps = o.keep_steps
        self.progress = o.progress
        self.choice = Choice.of(o)
        self.with_faces = (self.choice.looks or len(o.more_faces) > 0) and o.face_strength != 0
        self.pool = ThreadPoolExecutor(1, "faces")  # a thread keeps its detector, and its heap
        self.restorer = as_net(o.restorer, "restorer", self.device)
        self.upsampler = as_net(o.upsampler, "upsampler", self.device)
        self.sharpeners = {1: as_net(o.sharpener, "sharpener_x1", self.device)}
        if o.sharpener is None and o.scale >= 2:
            self.sharpeners[2] = as_net(None, "sharpener_x2", self.device)
        # The nets that are damped by what is wrong with a picture: ours, never those given.
        self.damped = [self.sharpeners[1]] if o.sharpener is None else []
        self.damped += [] if o.restorer or o.upsampler else [self.restorer]
        if self.with_faces:
            self._load_face_nets(o)

    def _load_face_nets(self, o: Options) -> None:
        net = o.face
        if net is None and self.device.type == "cpu" and weights.exported("face").is_file():
            net = weights.exported("face")
        self.face = self.blurred_face = as_net(net, "face", self.device)
        if o.face_fidelity or o.face is None:
            weights.find("face_fidelity")
            near = cache(partial(as_net, None, "face_fidelity", self.device))  # loaded when needed
            self.near_face = lambda x: padded(near(), x)
        if o.face_fidelity:
            self.face = self.blurred_face = mixed(self.face, self.near_face, o.face_fidelity)
        elif o.face_fidelity is None and o.face is None:
            self.blurred_face = self.near_face
        self.damped += [] if o.face else [self.face, self.blurred_face]
        self.agree = o.face_fidelity is None
        dense = o.landmarks is not False
        self.landmarks = as_net(o.landmarks, "landmarks", self.device) if dense else None

    def __call__(self, src: Any, faces: Sequence[Face] | None = None) -> Restored:
        """Restore a path, PIL picture or array; `faces` from `detect` or `faces_from` save that."""
        forks.check()
        forks.used()
        with torch.inference_mode(), Watch(self.progress) as step:
            source = step("read", _picture, src)
            photo = image.without_hidden(source)
            looks = self.with_faces and self.choice.looks and faces is None
            size, factor = self._sharpener_takes(photo.shape)
            k = (size[1] / photo.shape[1], size[0] / photo.shape[0])
            face_branch = self.pool.submit(self._face_branch, photo, faces, sum(k) / 2, step)
            small = step("shrink", _shrunk, photo, self.working_size)
            tone = Tone.of(small) if self.restorer in self.damped else Tone()
            even = tone(small)
            clean, fault, close = step("restore", self._clean, photo, even, tone)
            large = step("upsample", image.resize, photo, size)
            share = self._share(fault, close)
            whole = step("upsample", self._bring_back, even, clean, large, tone, share)
            faces, crops, fixed, shares = face_branch.result()
            placed = [c.scaled(k) for c in crops]
            pasted = step("paste", self._paste, whole, fixed, placed, shares)
            names = ("photo", "small", "clean", "large", "whole", "pasted")
            pictures = {}
            if self.keep_steps:
                clean = tone.back(small, even, clean)
                pictures |= zip(names, (photo, small, clean, large, whole, pasted), strict=True)
            del large, whole  # where they are not kept, the sharpener needs the room
            crisp = sharpening(close, sum(k) / 2) if self.sharpeners[factor] in self.damped else 1
            out = step("sharpen", self._sharpen, pasted, factor, crisp)
        if source.grey or np.ptp(small, axis=-1).max() < GREY:  # also of three equal channels
            out = greyed(out)
        pictures["out"] = out = image.with_hidden(out, source)
        if self.keep_steps:
            for i, (c, f) in enumerate(zip(crops, fixed, strict=True)):
                pictures |= {f"face {i}": c.resized(len(f)).cut(photo), f"face {i} restored": f}
        reach = getattr(self.sharpeners[factor], "reach", 0)
        mask = partial(mask_of, placed, pasted.shape[:2], out.shape[:2], reach)
        crops = [c.scaled(self.scale) for c in crops]
        notes = (*source.notes, *faces.notes)
        if looks and not faces:
            notes = (*notes, no_face(self.detector))
        return Restored(
            out, faces, Steps(pictures), step.total(), source, crops, notes, mask, fault
        )

    def _sharpener_takes(self, shape: Sequence[int]) -> tuple[Size, int]:
        """Size before the sharpener and its factor: 2 where that reaches the output, else 1."""
        height, width = (max(1, round(n * self.scale)) for n in shape[:2])
        rows, columns = (max(1, round(n * self.scale / 2)) for n in shape[:2])
        if 2 in self.sharpeners and (height, width) == (2 * rows, 2 * columns):
            return (rows, columns), 2
        return (height, width), 1

    # ---- the faces' branch

    @torch.inference_mode()
    def _face_branch(
        self, photo: np.ndarray, faces: Sequence[Face] | None, k: float, step: Watch
    ) -> tuple[Faces, list[Crop], list[Photo], list[float]]:
        """Faces with their status, crops, restored faces and how much of each is wanted.

        `k`: output pixels a photo pixel.
        """
        if not self.with_faces:
            return Faces(faces or ()), [], [], []
        faces = step("detect", self._detect, photo, faces)
        return step("faces", self._restore_faces, photo, faces, k)

    def _detect(self, photo: np.ndarray, faces: Sequence[Face] | None) -> Faces:
        net = self._landmark_net if self.landmarks else None
        if faces is None:
            faces = detect(photo, self.detector, landmarks=net) if self.choice.looks else ()
        people = self.choice.with_boxes(faces, photo.shape[:2])
        if net:
            hand = [f for f in people if f not in faces and f.status == "found"]
            people = [dense(photo, f, net) if f in hand else f for f in people]
        return Faces(self.choice.mark(people, self.face_strength), getattr(faces, "notes", ()))

    def _restore_faces(
        self, photo: np.ndarray, faces: Faces, k: float
    ) -> tuple[Faces, list[Crop], list[Photo], list[float]]:
        crops, fixed, shares = [], [], []
        for i, face in enumerate(faces):
            if face.status in ("too_small", "left_out"):
                continue
            try:
                crop, picture, share, status = self._face(photo, face, k)
            except Exception as e:  # the photo and the other faces go on, and it is said
                words = " ".join(str(e).split())[:200] or type(e).__name__
                faces[i] = replace(face, status=f"failed: {words}")
                continue
            crops.append(crop)
            fixed.append(picture)
            shares.append(share * strength_of(self.face_strength, i + 1))
            faces[i] = replace(face, status=status)
        return faces, crops, fixed, shares

    def _landmark_net(self, x: Tensor) -> Tensor:
        assert self.landmarks is not None
        return self.landmarks(x.to(self.device)).cpu()

    def _face(self, photo: Photo, f: Face, k: float) -> tuple[Crop, Photo, float, str]:
        """One face at a size that follows it, how much of it is wanted, and its status.

        A crop too blurred to need its size is shown to the net smaller, where the same blur is
        narrower and the net can undo more of it. A pale or dark one is shown in a normal range.
        Beyond 512 px the full crop is a guide.
        """
        crop = self.rule(f)
        wide, full = crop.side * k, round(crop.side * max(k, HEADROOM))
        crop = crop.resized(fit_size(crop.side, max(k, HEADROOM), most=MOST_FACE))
        poor = crop.cut(photo)
        mask = face_mask(len(poor))
        own = self.face in self.damped
        tone = Tone.of(poor, mask) if own else Tone()
        even = tone(poor)
        size = detail_size(even, mask=mask)
        net = self.blurred_face if 2 * size <= len(poor) else self.face
        x = image.resize(even, (size, size))
        fixed = self._whole(net, x)
        share, status = 1.0, "restored"
        if own:
            near = fixed if net is self.near_face else self._whole(self.near_face, x)
            fault = replace(estimate(even, mask), change=change(x, near, face_mask(size)))
            width = fault.blur * size / len(poor)
            share = facing(fault, min(1, wide / len(poor)))
            fixed = agreed(x, fixed, near, width) if self.agree and net is self.face else fixed
        fixed = image.resize(fixed, poor.shape[:2])
        if own:
            fixed = given_back(even, fixed, fault)
            holds = detail_size(fixed, (SOFT,), SOFT_LOSS, mask)
            status = "soft" if holds < len(fixed) else status
        if full > MOST_FACE:
            poor = crop.resized(full).cut(photo)
            guide = tone(poor)
            fixed = keep_detail(even, fixed, guide, self._upsample(even, fixed, guide))
            even = guide
        return crop, tone.back(poor, even, fixed), share, status

    def _whole(self, net: Callable[[Tensor], Tensor], picture: Photo) -> Photo:
        return image.to_photo(self._run(net, image.to_tensor(picture)))

    # ---- the whole photo's branch

    def _restore(self, small: Photo) -> Photo:
        overlap = getattr(self.restorer, "reach", 32)
        multiple = getattr(self.restorer, "multiple", 1)

        def work(share: float) -> Photo:
            return tiled(self._tile, small, self._tile_side(share, overlap), overlap, multiple)

        return sparingly(work, "the restorer")

    def _tile(self, part: Photo) -> Photo:
        return self._whole(self.restorer, part)

    def _clean(self, photo: np.ndarray, even: Photo, tone: Tone) -> tuple[Photo, Fault, Fault]:
        """The small picture restored, its fault, and the photo's fault at its own size.

        All is in a normal range (`tone`).
        """
        clean = self._restore(even)
        fault = replace(estimate(even), change=change(even, clean))
        if self.restorer in self.damped:
            clean = given_back(even, clean, fault)
        if photo.shape == even.shape:
            return clean, fault, fault
        return clean, fault, typical([estimate(tone(image.as_photo(p))) for p in patches(photo)])

    def _share(self, fault: Fault, close: Fault) -> float:
        """How much of the photo's restoration is wanted."""
        needed = restoring(fault, close) if self.restorer in self.damped else 1.0
        return needed * self.photo_strength

    def _tile_side(self, share: float, overlap: int) -> int:
        """The restorer's tile, at about 1 KiB a pixel: what `memory_mb` or a GPU allow."""
        if self.device.type == "cuda":
            free, most = torch.cuda.mem_get_info(self.device)[0] / 2, 4096
        else:
            free, most = (self.memory_mb or 512) * 2**20, 640
        return int(np.clip((free * share / 1024) ** 0.5, 2 * overlap + 64, most))

    def _bring_back(
        self, even: Photo, clean: Photo, large: np.ndarray, tone: Tone, share: float
    ) -> np.ndarray:
        """The clean picture, of a normal range, at the large one's size and in its range, as strong
        as `share` says.
        """
        if share == 0:
            return large
        before = large if tone.gain == 1 else by_rows(tone, large)
        if clean.shape == large.shape:
            whole = image.as_samples(clean, large.dtype)
        else:
            whole = self._upsample(even, clean, before)
        if tone.gain > 1:
            by_rows(tone.back, large, before, whole, out=whole)
        return whole if share == 1 else cv2.addWeighted(whole, share, large, 1 - share, 0, whole)

    def _upsample(self, small: Photo, clean: Photo, large: np.ndarray) -> np.ndarray:
        """Guided filter and refiner over `large`, fused or in strips; other callables at once."""
        net = self.upsampler
        low = image.to_tensor(small).to(self.device)
        target = image.to_tensor(clean).to(self.device)
        if not hasattr(net, "apply_rows"):
            result = net(low, target, image.to_tensor(large).to(self.device))
            return image.as_samples(image.to_photo(result), large.dtype)
        noise = noise_level(image.to_tensor(sampled(large))).to(self.device)
        height, width = large.shape[:2]
        state = net.solve(low, target, noise, width / small.shape[1])
        if height * width >= FUSED and self.device.type == "cpu":
            from .fast import upsampler as fused

            if fused.fits(net):
                return sparingly(lambda _: fused.upsample(net, large, state), "the guided filter")

        def strip(x: Tensor, y0: int, _: int) -> Tensor:
            return net.apply_rows(state, x, height, y0)

        return self._in_tiles(strip, large, width, net.reach, 1, "the guided filter")

    def _paste(
        self, whole: np.ndarray, fixed: list[Photo], crops: list[Crop], shares: list[float]
    ) -> np.ndarray:
        return paste(whole, fixed, crops, shares) if any(shares) else whole

    def _sharpen(self, pasted: np.ndarray, scale: int, share: float = 1.0) -> np.ndarray:
        """The sharpener in tiles, mirrored at the borders: it would take the dark for an edge.

        `share` of what it changes is kept; below 1 it must keep the size.
        """
        net = self.sharpeners[scale]
        if net is identity or share == 0:
            return pasted
        height, width = pasted.shape[:2]
        reach = getattr(net, "reach", 32)
        margin = reach + reach % 2  # even, so that pixel-unshuffle nets keep their phase
        mode = "reflect" if margin < min(height, width) else "replicate"

        def mirrored(x: Tensor, y0: int, x0: int) -> Tensor:
            ends = (x0 == 0, x0 + x.shape[-1] == width, y0 == 0, y0 + x.shape[-2] == height)
            y = padded(net, F.pad(x, [margin * end for end in ends], mode))
            left, right, above, below = (margin * end * scale for end in ends)
            y = y[..., above : y.shape[-2] - below, left : y.shape[-1] - right]
            return y if share == 1 else torch.lerp(x, y.to(x.dtype), share)

        columns = 512  # what a processor's cache holds
        return self._in_tiles(mirrored, pasted, columns, margin, scale, "the sharpener")

    # ---- nets on tiles

    def _in_tiles(
        self,
        net: Callable[[Tensor, int, int], Tensor],
        samples: np.ndarray,
        columns: int,
        reach: int,
        scale: int,
        what: str,
    ) -> np.ndarray:
        """`tile.tiled_samples` with finite values, in as many rows as the memory allows."""
        width = samples.shape[1]
        budget = (self.memory_mb or 512) * 2**20 / 2

        def finite(x: Tensor, y0: int, x0: int) -> Tensor:
            return self._finite(lambda x: net(x, y0, x0), x)

        def work(share: float) -> np.ndarray:
            rows = share * budget / (min(width, columns) * 4 * 64 * scale)
            rows = int(np.clip(rows, 16, (512 if columns < width else 128) * share)) // 2 * 2
            return tiled_samples(finite, samples, (rows, columns), reach, scale, self.device)

        return sparingly(work, what)

    def _run(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.to(self.device, memory_format=torch.channels_last)
        y = self._finite(partial(padded, net), x).float()
        if y.shape != x.shape:
            raise ValueError(
                f"the net must keep the picture's shape, got {tuple(y.shape)} from {tuple(x.shape)}"
            )
        return y.cpu()

    def _finite(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """net(x), on a GPU in bfloat16 if that is finite, else float32; FloatingPointError."""
        for half in (True, False) if self.half else (False,):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                y = net(x)
            if torch.isfinite(y.sum(dtype=torch.float32)):  # six times faster than asking each
                return y
        raise FloatingPointError("the net gave values that are not finite; check its weights")


def _picture(src: Any) -> Picture:
    return src if isinstance(src, Picture) else image.load(src)


def _shrunk(samples: np.ndarray, long_side: int) -> Photo:
    return image.as_photo(image.shrink(samples, long_side))


@documented
def restore(
    src: Any, *, boxes: Sequence[Sequence[float]] | None = None, **options: Any
) -> Restored:
    """Restore a portrait or any photo: `restore("old.jpg").save("new.png")`.

    `boxes` (x0, y0, x1, y1) name all faces, and none is looked for; `more_faces` are beside those
    that are found.
    """
    faces = None if boxes is None else faces_module.faces_from(boxes)
    return Restorer(**options)(src, faces)
