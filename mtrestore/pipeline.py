"""The whole system: two branches at the same time, faces and the whole photo, joined and sharpened.

faces  = detect(photo)                              # CNN detector, then dense landmarks on each face
crops  = [landmark_crop(f, size) for f in faces]    # upright, from the minimum-area rectangle of the landmarks, expanded
fixed  = [face_net(c.cut(photo)) for c in crops]    # s x s -> s/32 -> s x s            } the two branches
small  = shrink(photo, working_size)                # long side 640 by default          } run at the same time
clean  = tiled(restorer, small)                     # denoised, deblurred, de-JPEGed
large  = enlarge(photo, scale)                      # cubic
whole  = upsampler(small, clean, large)             # deep guided filter -> OH0, refiner(OH0, large) -> OH; in strips
pasted = paste(whole, fixed, crops)                 # feathered mask, colour matched
out    = sharpener(pasted)                          # super-resolution net, x1 or x2; in tiles
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from . import face as faces_module
from . import image, weights
from .crop import Crop, eye_crop, fit_size, landmark_crop, paste
from .face import Face, detect
from .fast import onnxfile
from .guard import forks
from .image import Picture
from .io.claims import Claims
from .nets.blocks import padded
from .nets.guided import noise_level
from .tile import NoMemory, out_of_memory, sparingly, strips, tiled

if TYPE_CHECKING:
    from . import view

RULES = {"landmark": landmark_crop, "eye": eye_crop}
Photo = np.ndarray
GREY = 4 / 255  # channels that differ by less than this everywhere make a grey picture
FUSED = (
    2**19
)  # pixels from which the full-size stages run in one fused pass: it is compiled at first use
HEADROOM = 1.2  # crop pixels for a photo pixel: a turned grid no finer than the photo gives an untouched face back at 44 dB, this one at 49 and more
MOST_FACE = 512  # the face net's largest size; a face that is larger on the photo is brought back up by the guided filter


class Steps(Mapping):
    """The pictures on the way, by name and in order, kept as samples and given out as photos."""

    def __init__(self, samples: dict[str, np.ndarray]) -> None:
        self.samples = samples

    def __getitem__(self, name: str) -> Photo:
        return image.as_photo(self.samples[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)


@dataclass
class Restored:
    """What a restoration gives.

    samples: H×W×3 in the source's own type (uint8, uint16 or float32); `image` is the photo of them, float32, 0..1, anew each time. faces: largest
    first, each with box, landmarks, score and status. steps: name -> picture, in order. spans: when each step, and the total, began and ended, in
    seconds. timings: seconds by step (the branches overlap, so they add up to more than `total`). mask: H×W, above 0 where a face was pasted.
    """

    samples: np.ndarray
    faces: list[Face]
    steps: Steps
    spans: dict[str, tuple[float, float]]
    source: Picture
    crops: list[Crop] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    mask_of: Callable[[], np.ndarray] = field(
        repr=False, default=lambda: np.zeros((0, 0), np.float32)
    )

    @property
    def image(self) -> Photo:
        return image.as_photo(self.samples)

    @property
    def timings(self) -> dict[str, float]:
        return {name: end - began for name, (began, end) in self.spans.items()}

    @cached_property
    def mask(self) -> np.ndarray:
        return self.mask_of()

    def compare(self, **options: Any) -> view.Comparison:
        """A draggable before/after of the photo that came in and the result."""
        from . import view

        return view.compare(
            self.source.pixels, self.image, **{"labels": ("before", "after"), **options}
        )

    def save(self, path: str | Path, overwrite: bool = True, strip_location: bool = False) -> Path:
        """Write the result; alpha, grey, 16 bits, ICC profile and EXIF of the source are kept where the format can.

        strip_location: without the place where the photo was taken. Raises ImageError E_WRITE where the path is the photo itself.
        """
        allowed = Claims(overwrite)
        if self.source.path:
            allowed.reads(self.source.path, "an input")
        allowed.check(path)
        picture = self.source.with_pixels(self.samples)
        return image.write(
            path, picture.without_location() if strip_location else picture, overwrite=overwrite
        )


def identity(x: Tensor, *_: Tensor) -> Tensor:
    """Stands in for any net of one input: the picture comes back as it went in."""
    return x


def mask_of(
    crops: Sequence[Crop], shape: tuple[int, int], size: tuple[int, int], reach: int
) -> np.ndarray:
    """Where the crops were pasted into a picture of `shape`, widened by the sharpener's reach and brought to `size`: float32, 0..1."""
    mask = np.max([c.mask(shape) for c in crops], 0) if crops else np.zeros(shape, np.float32)
    if mask.any() and reach:
        mask = cv2.dilate(mask, np.ones((2 * reach + 1, 1), np.uint8))
        mask = cv2.dilate(mask, np.ones((1, 2 * reach + 1), np.uint8))
    return mask if shape == size else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)


def sampled(samples: np.ndarray, most: int = 2**20) -> np.ndarray:
    """Pairs of neighbouring rows from all over a large picture, about `most` pixels together: enough to tell how noisy it is."""
    pairs = max(1, most // (2 * samples.shape[1]))
    if 2 * pairs >= len(samples):
        return samples
    first = np.linspace(0, len(samples) - 2, pairs).astype(int)
    return samples[np.stack([first, first + 1], 1).ravel()]


def greyed(samples: np.ndarray) -> np.ndarray:
    """Three equal channels, their mean; strip by strip."""
    out = np.empty_like(samples)
    for y in range(0, len(out), 64):
        out[y : y + 64] = image.as_samples(
            image.as_photo(samples[y : y + 64]).mean(-1, keepdims=True), out.dtype
        )
    return out


def keep_large(small: Tensor, clean: Tensor, large: Tensor) -> Tensor:
    """Stands in for the upsampler: the large picture comes back as it went in."""
    return large


def detail_size(
    face: Photo, sizes: Sequence[int] = (128, 192, 256, 384), loss: float = 0.75 / 255
) -> int:
    """The smallest of `sizes` that holds all of a square picture's detail: shrunk to it and enlarged again it differs by at most `loss` (RMS)."""
    for size in sizes:
        if size < len(face):
            back = image.resize(image.resize(face, (size, size)), face.shape[:2])
            if np.sqrt(np.mean((back - face) ** 2)) <= loss:
                return size
    return len(face)


def keep_detail(
    poor: Photo, fixed: Photo, guide: Photo, upsampled: Photo, level: float = 3 / 255
) -> Photo:
    """The large face: `upsampled` where the net changed much, the guide plus the enlarged change where it changed little.

    The guided filter smooths what is faint, skin first. Where the small face was changed by less than `level` (local RMS) there was no noise to
    remove, and the guide's own detail, with the small correction added, loses nothing.
    """
    change = fixed - poor
    local = cv2.GaussianBlur((change**2).mean(-1), (0, 0), 4)
    weight = cv2.resize(
        1 / (1 + (local / level**2) ** 2), guide.shape[1::-1], interpolation=cv2.INTER_LINEAR
    )[..., None]
    kept = guide + cv2.resize(change, guide.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(weight * kept + (1 - weight) * upsampled, 0, 1)


def mixed(
    a: Callable[[Tensor], Tensor], b: Callable[[Tensor], Tensor], share: float
) -> Callable[[Tensor], Tensor]:
    """A net that gives (1 − share)·a(x) + share·b(x)."""

    def both(x: Tensor) -> Tensor:
        return torch.lerp(padded(a, x), padded(b, x), share) if share < 1 else padded(b, x)

    return both


def as_net(given: Any, name: str, device: torch.device) -> Callable[..., Tensor]:
    """A net from what the user gave: None (the shipped weights), a .safetensors or .onnx file, or any callable on B×3×H×W tensors in 0..1."""
    if given is None or isinstance(given, (str, Path)):
        path = Path(given or name)
        if path.suffix == ".onnx":
            return onnx_net(path)
        return weights.load(path).to(device)
    if not callable(given):
        raise ValueError(
            f"{name} must be a weights file, an ONNX file or a callable on tensors, got {type(given).__name__}"
        )
    return given


def onnx_net(path: Path) -> Callable[..., Tensor]:
    """An ONNX model as a callable on tensors; runs on the CPU."""
    import onnxruntime

    data = onnxfile.read(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.intra_op_num_threads = (
        torch.get_num_threads()
    )  # what this process was given, and none of them waits by spinning
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises its own exception classes, without a public base
        raise weights.WeightsError(
            f"{path.name} is not an ONNX model that can be run: {' '.join(str(e).split())[:200]}"
        ) from e
    names = [i.name for i in session.get_inputs()]

    def run(*x: Tensor) -> Tensor:
        return torch.from_numpy(
            session.run(None, dict(zip(names, (t.cpu().numpy() for t in x), strict=True)))[0]
        )

    return forks.hold(run)


class Restorer:
    """The models, loaded once, for many photos: `Restorer(scale=2)("old.jpg").save("new.png")`.

    device: "cpu", "cuda" or "auto". scale: output size over input size. working_size: long side, px, at which the whole photo is restored.
    photo_strength: how much of what the photo branch changed is kept; at 0 the photo is only enlarged, sharpened and given its faces.
    face_strength: 0 leaves faces as the whole-photo branch made them, 1 takes the face net's. face_fidelity: 0 takes the face net's living
    texture, 1 the smoother face of the net that was trained for nearness to the truth alone; between them both are mixed. None is 0, but 1 for a
    face that is too blurred to fill half of its pixels, where texture would be invention. faces: False switches that branch off.
    memory_mb: what full-size work may use for its own buffers. crop: "landmark" or "eye". detector: see `face.detect`.
    face, restorer, upsampler, sharpener, landmarks: in place of the shipped net, a weights file, an ONNX file or any callable on tensors;
    `sharpener=identity` and `landmarks=False` switch those off. keep_steps: keep every intermediate picture on the result.
    """

    def __init__(self, *, device: str = "auto", scale: float = 1.0, working_size: int = 640, photo_strength: float = 1.0, face_strength: float = 1.0,
                 face_fidelity: float | None = None, faces: bool = True, memory_mb: float | None = None, crop: str = "landmark",
                 detector: Any = "auto", keep_steps: bool = True, face: Any = None, restorer: Any = None, upsampler: Any = None,
                 sharpener: Any = None, landmarks: Any = None, progress: bool = False) -> None:  # fmt: skip
        forks.check()
        for name, value, low, high in (("scale", scale, 0.1, 8), ("photo_strength", photo_strength, 0, 1),
                                       ("face_strength", face_strength, 0, 1), ("face_fidelity", face_fidelity or 0, 0, 1),
                                       ("working_size", working_size, 32, 16384)):  # fmt: skip
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
        if memory_mb is not None and memory_mb < 64:
            raise ValueError(f"memory_mb must be at least 64, got {memory_mb}")
        if crop not in RULES:
            raise ValueError(f"crop must be one of {', '.join(RULES)}, got {crop!r}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(
                f"device {device!r} was asked for but this torch sees no GPU; use cpu or auto"
            )
        self.device = torch.device(device)
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.scale, self.working_size, self.face_strength, self.memory_mb = (
            scale,
            int(working_size),
            face_strength,
            memory_mb,
        )
        self.photo_strength = photo_strength
        self.rule, self.detector, self.keep_steps, self.progress = (
            RULES[crop],
            detector,
            keep_steps,
            progress,
        )
        self.with_faces = faces and face_strength > 0
        self.pool = ThreadPoolExecutor(
            1, "faces"
        )  # kept: a thread keeps its detector, and its heap
        self.restorer, self.upsampler = (
            as_net(restorer, "restorer", self.device),
            as_net(upsampler, "upsampler", self.device),
        )
        self.sharpeners = {1: as_net(sharpener, "sharpener_x1", self.device)}
        if sharpener is None and scale >= 2:
            self.sharpeners[2] = as_net(None, "sharpener_x2", self.device)
        if self.with_faces:
            fast = (
                weights.exported("face") if face is None and self.device.type == "cpu" else None
            )  # a file is there once it was exported
            self.face = as_net(fast if fast and fast.is_file() else face, "face", self.device)
            self.blurred_face = self.face
            if face_fidelity or (face_fidelity is None and face is None):
                weights.find("face_fidelity")
                loaded = cache(
                    lambda: as_net(None, "face_fidelity", self.device)
                )  # most photos have no face that needs it
                self.blurred_face = mixed(
                    self.face,
                    lambda x: padded(loaded(), x),
                    1 if face_fidelity is None else face_fidelity,
                )
            if face_fidelity:
                self.face = self.blurred_face
            self.landmarks = (
                None if landmarks is False else as_net(landmarks, "landmarks", self.device)
            )

    def __call__(self, src: Any, faces: Sequence[Face] | None = None) -> Restored:
        """Restore a path, PIL picture or array; `faces` (from `detect` or `faces_from`) replaces detection."""
        forks.check()
        forks.used()
        began = time.perf_counter()
        spans: dict[str, tuple[float, float]] = {}
        with torch.inference_mode(), self._steps(spans) as step:
            with step("read"):
                source = src if isinstance(src, Picture) else image.load(src)
                photo = source.samples
            size, sharp = self._plan(photo.shape)
            k = (size[1] / photo.shape[1], size[0] / photo.shape[0])
            face_branch = self.pool.submit(
                torch.inference_mode()(self._faces), photo, faces, k, step
            )
            small, clean, large, whole = self._whole(
                photo, size, step
            )  # here, whose heap holds free what the last photo needed
            found, crops, fixed = face_branch.result()
            placed = [c.scaled(k) for c in crops]
            with step("paste"):
                pasted = paste(whole, fixed, placed, self.face_strength) if fixed else whole
            kept = (
                {
                    "photo": photo,
                    "small": small,
                    "clean": clean,
                    "large": large,
                    "whole": whole,
                    "pasted": pasted,
                }
                if self.keep_steps
                else {}
            )
            del large, whole
            with step("sharpen"):
                out = self._sharpen(pasted, sharp)
        if (
            source.grey or np.ptp(small, axis=-1).max() < GREY
        ):  # grey stays grey, also in a file that stores three channels
            out = greyed(out)
        spans["total"] = (began, time.perf_counter())
        spans = {name: (a - began, b - began) for name, (a, b) in spans.items()}
        kept["out"] = out
        if self.keep_steps:
            for i, (c, f) in enumerate(zip(crops, fixed, strict=True)):
                kept |= {f"face {i}": c.resized(len(f)).cut(photo), f"face {i} restored": f}
        mask = partial(
            mask_of,
            placed,
            pasted.shape[:2],
            out.shape[:2],
            getattr(self.sharpeners[sharp], "reach", 0),
        )
        return Restored(
            out,
            found,
            Steps(kept),
            spans,
            source,
            [c.scaled(self.scale) for c in crops],
            source.notes,
            mask,
        )

    def _plan(self, shape: Sequence[int]) -> tuple[tuple[int, int], int]:
        """The size before the sharpener and its factor: 2 where that reaches the output size exactly, else 1."""
        size = tuple(max(1, round(n * self.scale)) for n in shape[:2])
        half = tuple(max(1, round(n * self.scale / 2)) for n in shape[:2])
        if 2 in self.sharpeners and size == (2 * half[0], 2 * half[1]):
            return half, 2
        return size, 1

    # ---- the faces' branch

    def _faces(
        self, photo: Photo, given: Sequence[Face] | None, k: tuple[float, float], step: Any
    ) -> tuple[list[Face], list[Crop], list[Photo]]:
        if not self.with_faces:
            return list(given or []), [], []
        with step("detect"):
            dense = self._landmark_net if self.landmarks else None
            found = (
                list(given) if given is not None else detect(photo, self.detector, landmarks=dense)
            )
        crops, fixed = [], []
        with step("faces"):
            for i, f in enumerate(found):
                if f.status == "too_small":
                    continue
                try:
                    crop, picture = self._face(photo, f, sum(k) / 2)
                    crops.append(crop)
                    fixed.append(picture)
                    found[i] = replace(f, status="restored")
                except Exception as e:  # whatever a net does to one face, the photo and the other faces go on, and it is said
                    found[i] = replace(
                        f, status=f"failed: {' '.join(str(e).split())[:200] or type(e).__name__}"
                    )
        return found, crops, fixed

    def _landmark_net(self, x: Tensor) -> Tensor:
        return self.landmarks(x.to(self.device)).cpu()

    def _face(self, photo: Photo, f: Face, k: float) -> tuple[Crop, Photo]:
        """One face restored at a size that follows it: up to 512 px by the net alone, beyond with the full crop as the filter's guide.

        A crop too blurred to need its size is shown to the net smaller, where the same blur is narrower and the net can undo more of it.
        """
        crop, k = self.rule(f), max(k, HEADROOM)
        crop = crop.resized(fit_size(crop.side, k, most=MOST_FACE))
        poor = crop.cut(photo)
        size = detail_size(poor)
        net = self.blurred_face if 2 * size <= len(poor) else self.face
        fixed = image.to_photo(self._run(net, image.to_tensor(image.resize(poor, (size, size)))))
        fixed = image.resize(fixed, poor.shape[:2])
        full = round(crop.side * k)
        if full > MOST_FACE:
            guide = crop.resized(full).cut(photo)
            fixed = keep_detail(poor, fixed, guide, self._upsample(poor, fixed, guide))
        return crop, fixed

    # ---- the whole photo's branch

    def _whole(
        self, photo: np.ndarray, size: tuple[int, int], step: Any
    ) -> tuple[Photo, Photo, np.ndarray, np.ndarray]:
        with step("shrink"):
            small = image.as_photo(image.shrink(photo, self.working_size))
        with step("restore"):
            net = self.restorer
            shape = {"overlap": getattr(net, "reach", 32), "multiple": getattr(net, "multiple", 1)}
            clean = sparingly(
                lambda share: tiled(
                    self._tile, small, tile=self._tile_side(share, shape["overlap"]), **shape
                ),
                "the restorer",
            )
        with step("upsample"):
            large = photo if photo.shape[:2] == size else image.resize(photo, size)
            if clean.shape == large.shape:  # at full size there is nothing to bring back
                whole = image.as_samples(clean, photo.dtype)
            else:
                whole = self._upsample(small, clean, large)
            if self.photo_strength < 1:
                whole = cv2.addWeighted(
                    whole, self.photo_strength, large, 1 - self.photo_strength, 0
                )
        return small, clean, large, whole

    def _tile(self, part: Photo) -> Photo:
        return image.to_photo(self._run(self.restorer, image.to_tensor(part)))

    def _tile_side(self, share: float, overlap: int) -> int:
        """The restorer's tile: what `memory_mb` or a GPU's free memory allow, at about 1 KiB a pixel, and at most 640 px on a CPU."""
        if self.device.type == "cuda":
            free, most = torch.cuda.mem_get_info(self.device)[0] / 2, 4096
        else:
            free, most = (self.memory_mb or 512) * 2**20, 640
        return int(np.clip((free * share / 1024) ** 0.5, 2 * overlap + 64, most))

    def _upsample(self, small: Photo, clean: Photo, large: np.ndarray) -> np.ndarray:
        """Guided filter and refiner over `large`, fused or in strips; any callable (small, clean, large) is run on the whole."""
        net = self.upsampler
        low, target = image.to_tensor(small).to(self.device), image.to_tensor(clean).to(self.device)
        if not hasattr(net, "apply_rows"):
            return image.as_samples(
                image.to_photo(net(low, target, image.to_tensor(large).to(self.device))),
                large.dtype,
            )
        state = net.solve(
            low,
            target,
            noise_level(image.to_tensor(sampled(large))).to(self.device),
            large.shape[1] / small.shape[1],
        )
        if large.shape[0] * large.shape[1] >= FUSED and self.device.type == "cpu":
            from .fast import upsampler as fast

            if fast.fits(net):
                return sparingly(lambda _: fast.upsample(net, large, state), "the guided filter")
        return self._in_tiles(
            large,
            net.reach,
            1,
            lambda x, y0, _: net.apply_rows(state, x, large.shape[0], y0),
            "the guided filter",
            large.shape[1],
        )

    def _sharpen(self, pasted: np.ndarray, scale: int) -> np.ndarray:
        """The sharpener over the picture in tiles, mirrored at the picture's borders: a net would take the dark beyond them for an edge."""
        net = self.sharpeners[scale]
        if net is identity:
            return pasted
        reach, (height, width) = getattr(net, "reach", 32), pasted.shape[:2]
        margin = reach + reach % 2  # even, so that pixel-unshuffle nets keep their phase
        mode = "reflect" if margin < min(height, width) else "replicate"

        def mirrored(x: Tensor, y0: int, x0: int) -> Tensor:
            ends = (x0 == 0, x0 + x.shape[-1] == width, y0 == 0, y0 + x.shape[-2] == height)
            y = padded(net, F.pad(x, [margin * end for end in ends], mode))
            left, right, above, below = (margin * end * scale for end in ends)
            return y[..., above : y.shape[-2] - below, left : y.shape[-1] - right]

        return self._in_tiles(
            pasted, margin, scale, mirrored, "the sharpener", 512
        )  # what a processor's cache holds

    def _in_tiles(
        self,
        large: np.ndarray,
        reach: int,
        scale: int,
        fn: Callable[[Tensor, int, int], Tensor],
        what: str,
        columns: int,
    ) -> np.ndarray:
        """fn(tile, its first row, its first column) over tiles with `reach` pixels of context, joined, as samples; bounded memory, one pass."""
        h, w = large.shape[:2]
        out = np.empty((h * scale, w * scale, 3), large.dtype)

        def work(share: float) -> None:
            budget = (self.memory_mb or 512) * 2**20 / 2
            rows = (
                int(
                    np.clip(
                        share * budget / (min(w, columns) * 4 * 64 * scale),
                        16,
                        (512 if columns < w else 128) * share,
                    )
                )
                // 2
                * 2
            )
            for (y0, y1, top, bottom), (x0, x1, left, right) in itertools.product(
                strips(h, rows, reach), strips(w, columns, reach)
            ):
                x = (
                    torch.from_numpy(image.as_photo(large[top:bottom, left:right]))
                    .to(self.device)
                    .permute(2, 0, 1)[None]
                )
                x = x.contiguous()  # channels_last is three times slower with so few channels
                y = self._finite(lambda x: fn(x, top, left), x)[
                    0,
                    :,
                    (y0 - top) * scale : (y1 - top) * scale,
                    (x0 - left) * scale : (x1 - left) * scale,
                ]  # noqa: B023
                out[y0 * scale : y1 * scale, x0 * scale : x1 * scale] = image.as_samples(
                    y.permute(1, 2, 0).float().cpu().numpy(), out.dtype
                )

        sparingly(work, what)
        return out

    def _run(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = self._finite(
            lambda x: padded(net, x), x.to(self.device, memory_format=torch.channels_last)
        ).float()
        if y.shape != x.shape:
            raise ValueError(
                f"the net must keep the picture's shape, got {tuple(y.shape)} from {tuple(x.shape)}"
            )
        return y.cpu()

    def _finite(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """net(x): in bfloat16 where `half` is on (on a GPU), again in float32 where that is not finite. Raises FloatingPointError."""
        for half in (True, False) if self.half else (False,):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                y = net(x)
            if torch.isfinite(
                y.sum(dtype=torch.float32)
            ):  # one number that is spoilt by any: six times faster than asking each
                return y
        raise FloatingPointError("the net gave values that are not finite; check its weights")

    @contextmanager
    def _steps(self, spans: dict[str, tuple[float, float]]) -> Iterator[Callable[[str], Any]]:
        """Times each named step, says in which one memory was not enough, and shows a progress bar over them when asked."""
        with tqdm(
            total=8, disable=not self.progress, desc="restore", unit="step", leave=False
        ) as bar:

            @contextmanager
            def step(name: str) -> Iterator[None]:
                began = time.perf_counter()
                try:
                    yield
                except Exception as e:
                    if out_of_memory(e) and not isinstance(e, NoMemory):
                        raise NoMemory(f"the step {name!r}") from e
                    raise
                spans[name] = (began, time.perf_counter())
                bar.set_postfix_str(name, refresh=False)
                bar.update()

            yield step


def restore(
    src: Any, *, boxes: Sequence[Sequence[float]] | None = None, **options: Any
) -> Restored:
    """Restore a portrait or any photo: `restore("old.jpg").save("new.png")`. Options are `Restorer`'s; `boxes` (x0, y0, x1, y1) name the faces."""
    faces = None if boxes is None else faces_module.faces_from(boxes)
    return Restorer(**options)(src, faces)
