"""What a restoration gives, and the watch that is kept over its steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
from tqdm.auto import tqdm

from . import image
from .crop import Crop
from .degrade.fault import Fault
from .face import Face
from .image import Photo, Picture
from .io.claims import Claims
from .tile import NoMemory, out_of_memory

if TYPE_CHECKING:
    from . import view

T = TypeVar("T")
STEPS = 8  # read, detect, faces, shrink, restore, upsample, paste, sharpen


class Watch:
    """watch("shrink", shrink, photo, 640) runs a step and notes when it began and ended, in s.

    It says in which step memory was not enough, and shows a progress bar when asked. Both branches
    may use it at the same time; a name that comes again prolongs its step.
    """

    def __init__(self, progress: bool) -> None:
        self.began = time.perf_counter()
        self.spans: dict[str, tuple[float, float]] = {}
        self.bar = tqdm(total=STEPS, disable=not progress, desc="restore", unit="step", leave=False)
        self.lock = threading.Lock()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, name: str, step: Callable[..., T], *args: Any) -> T:
        began = time.perf_counter() - self.began
        try:
            result = step(*args)
        except Exception as e:
            if out_of_memory(e) and not isinstance(e, NoMemory):
                raise NoMemory(f"the step {name!r}") from e
            raise
        with self.lock:
            first = name not in self.spans
            began = began if first else self.spans[name][0]
            self.spans[name] = (began, time.perf_counter() - self.began)
            self.bar.set_postfix_str(name, refresh=False)
            self.bar.update(int(first))
        return result

    def total(self) -> dict[str, tuple[float, float]]:
        """The spans of all steps, and of the whole until now."""
        return self.spans | {"total": (0.0, time.perf_counter() - self.began)}


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


def no_mask() -> np.ndarray:
    """Where nothing was pasted."""
    return np.zeros((0, 0), np.float32)


@dataclass
class Restored:
    """What a restoration gives.

    samples: H×W×3 in the source's own type (uint8, uint16 or float32); `image` is the photo of
    them, float32, 0..1, anew each time. faces: largest first, each with box, landmarks, score and
    status. steps: name -> picture, in order. spans: when each step, and the total, began and ended,
    in seconds. timings: seconds by step (the branches overlap, so they add up to more than
    `total`). mask: H×W, above 0 where a face was pasted. fault: what was wrong with the photo, as
    estimated at the working size.
    """

    samples: np.ndarray
    faces: list[Face]
    steps: Steps
    spans: dict[str, tuple[float, float]]
    source: Picture
    crops: list[Crop] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    mask_of: Callable[[], np.ndarray] = field(repr=False, default=no_mask)
    fault: Fault = field(default_factory=Fault)

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

        options = {"labels": ("before", "after"), **options}
        return view.compare(self.source.pixels, self.image, **options)

    def save(self, path: str | Path, overwrite: bool = True, strip_location: bool = False) -> Path:
        """Write the result with the source's alpha, grey, bits, ICC profile and EXIF, if it can.

        strip_location: without the place where the photo was taken. Raises ImageError E_WRITE where
        the path is the photo itself.
        """
        allowed = Claims(overwrite)
        if self.source.path:
            allowed.reads(self.source.path, "an input")
        allowed.check(path)
        picture = self.source.with_pixels(self.samples)
        picture = picture.without_location() if strip_location else picture
        return image.write(path, picture, overwrite=overwrite)


def mask_of(
    crops: Sequence[Crop], shape: tuple[int, int], size: tuple[int, int], reach: int
) -> np.ndarray:
    """Where crops were pasted into a picture of `shape`: float32, 0..1.

    Widened by the sharpener's `reach` and brought to `size`.
    """
    mask = np.max([c.mask(shape) for c in crops], 0) if crops else np.zeros(shape, np.float32)
    if mask.any() and reach:
        mask = cv2.dilate(mask, np.ones((2 * reach + 1, 1), np.uint8))
        mask = cv2.dilate(mask, np.ones((1, 2 * reach + 1), np.uint8))
    return mask if shape == size else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
