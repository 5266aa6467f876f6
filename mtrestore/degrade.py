"""Degradation recipes: how a clean portrait becomes an old, blurred, noisy or over-compressed one.

A recipe is a list of steps, each an operation's name with literal parameters and, where something is random, a seed. So a
recipe is plain JSON and replays bit for bit:

    recipe = draw("medium", np.random.default_rng(0))     # chance is used here, and only here
    bad = apply(photo, recipe)                             # the same photo and recipe give the same bits
    assert Recipe.from_json(recipe.to_json()) == recipe

The same bits means on one machine with one set of library versions: OpenCV picks its inner loops by processor.

Units: lengths (`sigma` of a blur, `radius`, `length`, `grain`, `factor`) are pixels of the picture given; the `sigma` of a noise is in
levels, that is 1/255; angles are degrees, counter-clockwise on the screen; everything else is 0..1. Operations work on the sRGB
values, as blind restoration usually does (Zhang et al., BSRGAN, 2021; Wang et al., Real-ESRGAN, 2021), and each is clipped to 0..1.
"""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

Photo = np.ndarray                                      # float32 RGB, H×W×3, 0..1
OPS: dict[str, Callable[..., Photo]] = {}               # name -> operation(photo, **parameters)
PARAMETERS: dict[str, dict[str, tuple]] = {}            # name -> parameter -> (low, high), or the tuple of words allowed
LENGTHS = {"gaussian_blur": ("sigma",), "anisotropic_blur": ("sigma_x", "sigma_y"), "defocus": ("radius",), "motion": ("length",),
           "colour_noise": ("grain",), "grain": ("grain",), "resize": ("factor",)}     # what draw(scale=...) multiplies
INTEGERS = ("seed", "quality")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)      # Rec. 601, as in JPEG
INTERPOLATION = {"nearest": cv2.INTER_NEAREST_EXACT, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}
BAYER = ("RGGB", "BGGR", "GRBG", "GBRG")
SEED = (0, 2**63 - 1)


def _op(**parameters: tuple) -> Callable:
    """Enter an operation in the table with the range of each parameter; its result is clipped to 0..1."""
    def enter(fn: Callable[..., Photo]) -> Callable[..., Photo]:
        @functools.wraps(fn)
        def op(photo: Photo, **values) -> Photo:
            return np.clip(fn(photo, **values), 0, 1)
        OPS[fn.__name__], PARAMETERS[fn.__name__] = op, parameters
        return op
    return enter


# ---- optics -------------------------------------------------------------------------------------------------------------------

@_op(sigma=(0, 100))
def gaussian_blur(photo: Photo, sigma: float) -> Photo:
    """Blur equally in all directions; sigma in pixels."""
    return cv2.GaussianBlur(photo, (0, 0), sigma) if sigma > 0 else photo


@_op(sigma_x=(0, 100), sigma_y=(0, 100), angle=(-360, 360))
def anisotropic_blur(photo: Photo, sigma_x: float, sigma_y: float, angle: float) -> Photo:
    """Blur by a Gaussian whose axes, sigma_x and sigma_y in pixels, are turned by `angle` degrees."""
    return _filter(photo, anisotropic_kernel(sigma_x, sigma_y, angle))


@_op(radius=(0, 100))
def defocus(photo: Photo, radius: float) -> Photo:
    """Out of focus: every point becomes an even disc of that radius in pixels."""
    return _filter(photo, disc_kernel(radius))


@_op(length=(0, 200), angle=(-360, 360), wobble=(0, 1), seed=SEED)
def motion(photo: Photo, length: float, angle: float, wobble: float, seed: int) -> Photo:
    """Camera shake along a path `length` pixels long that sets out at `angle`; wobble 0 is a straight line, 1 a lively random walk."""
    return _filter(photo, motion_kernel(length, angle, wobble, seed))


def anisotropic_kernel(sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """Odd square float32 kernel of sum 1, cut at 3 sigma."""
    sx, sy = max(sigma_x, 0.05), max(sigma_y, 0.05)     # thinner than a pixel is a line
    u, v = _grid(math.ceil(3 * max(sx, sy)), angle)
    return _normal(np.exp(-0.5 * ((u / sx) ** 2 + (v / sy) ** 2)))


def disc_kernel(radius: float) -> np.ndarray:
    """Odd square float32 kernel of sum 1; a pixel that the rim crosses counts by about the part inside."""
    u, v = _grid(math.ceil(radius), 0)
    return _normal(np.clip(radius + 0.5 - np.hypot(u, v), 0, 1))


def motion_kernel(length: float, angle: float, wobble: float, seed: int) -> np.ndarray:
    """Odd square float32 kernel of sum 1: a path of short steps whose heading wanders, centred on its mean so that nothing is shifted."""
    steps = max(1, math.ceil(4 * length))
    turns = np.random.Generator(np.random.PCG64(seed)).standard_normal(steps) * wobble * math.pi / math.sqrt(steps)
    heading = math.radians(angle) + np.cumsum(turns)
    path = np.cumsum(np.stack([np.cos(heading), -np.sin(heading)], 1), 0) * (length / steps)
    path -= path.mean(0)
    r = math.ceil(np.abs(path).max()) + 1
    kernel = np.zeros((2 * r + 1, 2 * r + 1))
    x0, y0 = np.floor(path).astype(int).T
    fx, fy = path.T - (x0, y0)
    for dx, dy, weight in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        np.add.at(kernel, (y0 + r + dy, x0 + r + dx), weight)           # bilinear splat
    return _normal(kernel)


def _grid(r: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[-r:r + 1, -r:r + 1].astype(np.float64)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return c * x - s * y, s * x + c * y                 # y points down, hence the signs


def _normal(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum()).astype(np.float32)


def _filter(photo: Photo, kernel: np.ndarray) -> Photo:
    return cv2.filter2D(photo, -1, kernel) if kernel.size > 1 else photo


# ---- sensor -------------------------------------------------------------------------------------------------------------------

def _normals(seed: int, *shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)


def _grainy(noise: np.ndarray, grain: float) -> np.ndarray:
    """White noise blurred by `grain` pixels and brought back to unit variance: dividing by the kernel's L2 norm."""
    if grain < 0.1:
        return noise
    k = cv2.getGaussianKernel(2 * math.ceil(3 * grain) + 1, grain, cv2.CV_32F)
    return cv2.sepFilter2D(noise, -1, k, k).reshape(noise.shape) / np.float32((k * k).sum())


@_op(sigma=(0, 255), seed=SEED)
def gaussian_noise(photo: Photo, sigma: float, seed: int) -> Photo:
    """White noise, independent in R, G and B; sigma in levels (1/255)."""
    noise = _normals(seed, *photo.shape)
    noise *= np.float32(sigma / 255)
    noise += photo
    return noise


@_op(sigma=(0, 255), seed=SEED)
def poisson_noise(photo: Photo, sigma: float, seed: int) -> Photo:
    """Shot noise; sigma, in levels (1/255), is its deviation at middle grey (0.5), so white is 0.5 / (sigma/255)² photons.

    Counts come from normals by the Cornish-Fisher expansion of the Poisson law, λ + z√λ + (z² - 1)/6, ten times as fast as a Poisson
    generator and with its mean, variance and skew.
    """
    if sigma < 1e-3:  # nobody sees it, and the photons would be beyond float32
        return photo
    white = np.float32(0.5 / (sigma / 255) ** 2)
    z, mean = _normals(seed, *photo.shape), photo * white
    count = mean + z * np.sqrt(mean) + (z * z - 1) * (np.minimum(mean, 1) / 6)
    return np.maximum(np.rint(count), 0) / white


@_op(sigma=(0, 255), grain=(0, 50), seed=SEED)
def grain(photo: Photo, sigma: float, grain: float, seed: int) -> Photo:
    """Film grain: noise equal in R, G and B, blurred by `grain` pixels; sigma in levels (1/255) after the blur."""
    noise = _grainy(_normals(seed, *photo.shape[:2]), grain)
    return photo + noise[..., None] * np.float32(sigma / 255)


@_op(sigma=(0, 255), grain=(0, 50), seed=SEED)
def colour_noise(photo: Photo, sigma: float, grain: float, seed: int) -> Photo:
    """Blotches of wrong colour at right luma: Cb and Cr noise blurred by `grain` pixels; sigma in levels, root mean square over R, G, B."""
    to_rgb = np.array([[0, -0.344136, 1.772], [1.402, -0.714136, 0]], np.float32)         # JPEG's YCbCr, Y untouched
    to_rgb *= np.float32(sigma / 255) * math.sqrt(3 / float((to_rgb ** 2).sum()))
    noise = _grainy(_normals(seed, *photo.shape[:2], 2), grain)
    return photo + cv2.transform(noise, np.ascontiguousarray(to_rgb.T))


@_op(pattern=BAYER)
def mosaic(photo: Photo, pattern: str) -> Photo:
    """One colour kept at each pixel as a Bayer sensor does, the others filled in bilinearly: zippers and false colours at fine edges."""
    h, w = photo.shape[:2]
    photo = cv2.copyMakeBorder(photo, 0, max(0, 2 - h), 0, max(0, 2 - w), cv2.BORDER_REPLICATE)     # a mosaic needs 2x2
    raw = np.zeros_like(photo)
    for i, colour in enumerate(pattern):
        cell = (slice(i // 2, None, 2), slice(i % 2, None, 2), "RGB".index(colour))
        raw[cell] = photo[cell]
    side = np.array([0.5, 1, 0.5], np.float32)          # the default border (reflect 101) keeps the Bayer phase
    full = cv2.sepFilter2D(raw, -1, side, side)
    full[..., 1] = cv2.filter2D(raw[..., 1], -1, np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4)
    return full[:h, :w]


# ---- storage and age ------------------------------------------------------------------------------------------------------------

@_op(factor=(1, 64), down=tuple(INTERPOLATION), up=tuple(INTERPOLATION))
def resize(photo: Photo, factor: float, down: str, up: str) -> Photo:
    """Shrunk by `factor` and enlarged back to the same size."""
    h, w = photo.shape[:2]
    size = max(1, round(w / factor)), max(1, round(h / factor))
    if size == (w, h):
        return photo
    return cv2.resize(cv2.resize(photo, size, interpolation=INTERPOLATION[down]), (w, h), interpolation=INTERPOLATION[up])


@_op(quality=(5, 95))
def jpeg(photo: Photo, quality: int) -> Photo:
    """Through a JPEG file in memory (4:2:0, libjpeg's quality); sides up to 65,500 pixels, the format's limit."""
    if max(photo.shape) > 65500:
        raise ValueError(f"jpeg takes sides up to 65500 pixels, got {photo.shape[1]}x{photo.shape[0]}; cut the picture into tiles")
    levels = cv2.cvtColor(np.rint(photo * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(np.float32) / 255


@_op()
def grey(photo: Photo) -> Photo:
    """Black and white: the luma (Rec. 601) in all three channels."""
    return np.repeat((photo @ LUMA)[..., None], 3, 2)


@_op(contrast=(0, 1), lift=(0, 1), cast=(0, 1))
def fade(photo: Photo, contrast: float, lift: float, cast: float) -> Photo:
    """Age: black becomes `lift`, white `lift + (1 - lift)·contrast`, and a cast above 0 yellows it (1 is sepia on a grey picture)."""
    tint = np.array([1, 1 - 0.16 * cast, 1 - 0.42 * cast], np.float32)
    return (photo * np.float32((1 - lift) * contrast) + np.float32(lift)) * tint


# ---- recipes --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Recipe:
    """Steps in order, each {"op": name, parameter: literal, ...}; `preset` tells where it came from. Checked when made (ValueError)."""
    steps: tuple[dict, ...] = ()
    preset: str = "custom"
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(dict(step) if isinstance(step, dict) else step for step in self.steps))
        _check(self)

    @property
    def ops(self) -> tuple[str, ...]:
        """The names of the operations, in order."""
        return tuple(step["op"] for step in self.steps)

    def to_json(self) -> str:
        return json.dumps({"version": self.version, "preset": self.preset, "steps": self.steps})

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that to_json wrote; ValueError in one sentence for anything else."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as e:
            raise ValueError(f"a recipe must be JSON text, and this is not: {e}") from None
        if not isinstance(data, dict) or not isinstance(data.get("steps"), list) or set(data) - {"version", "preset", "steps"}:
            raise ValueError('a recipe must be {"version": 1, "preset": name, "steps": [...]}, got ' + text[:80])
        return cls(**data)


def _check(recipe: Recipe) -> None:
    if recipe.version != 1:
        raise ValueError(f"recipe version must be 1, got {recipe.version!r}; a newer mtrestore may read it")
    for number, step in enumerate(recipe.steps, 1):
        name = step.get("op") if isinstance(step, dict) else None
        if not isinstance(name, str) or name not in OPS:
            raise ValueError(f"step {number}: unknown op {name!r}; choose from {', '.join(OPS)}")
        allowed = PARAMETERS[name]
        if step.keys() - {"op"} != allowed.keys():
            raise ValueError(f"step {number}: {name} takes exactly ({', '.join(allowed)}), got ({', '.join(k for k in step if k != 'op')})")
        for key, limits in allowed.items():
            value = step[key]
            if isinstance(limits[0], str):
                if value not in limits:
                    raise ValueError(f"step {number}: {name}'s {key} must be one of {', '.join(limits)}, got {value!r}")
                continue
            types, kind = (int, "an integer") if key in INTEGERS else ((int, float), "a number")
            if isinstance(value, bool) or not isinstance(value, types) or not limits[0] <= value <= limits[1]:
                raise ValueError(f"step {number}: {name}'s {key} must be {kind} from {limits[0]} to {limits[1]}, got {value!r}")


def apply(photo: Photo, recipe: Recipe) -> Photo:
    """The photo after every step: a new float32 H×W×3 array in 0..1 of the same size; the photo is left as it is.

    The same photo and recipe give the same bits. ValueError for another kind of array or a bad recipe.
    """
    if not isinstance(photo, np.ndarray) or photo.dtype != np.float32 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        came = f"{photo.dtype} of shape {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise ValueError(f"photo must be a float32 array of shape height x width x 3 in 0..1, got {came}; mtrestore.read makes one")
    if not np.isfinite(photo.sum(dtype=np.float64)):
        raise ValueError("photo must be finite, got NaN or infinity in it; mtrestore.read refuses such files")
    _check(recipe)                                      # again: the dicts inside could have been changed
    photo = np.clip(np.ascontiguousarray(photo), 0, 1)  # also the copy that keeps the caller's array safe
    for step in recipe.steps:
        photo = OPS[step["op"]](photo, **{k: v for k, v in step.items() if k != "op"})
    return photo


# ---- presets --------------------------------------------------------------------------------------------------------------------
# One row for each stage in the fixed order: its probability, then the operations to choose one from, each with a weight and what its
# parameters are drawn from: evenly from (low, high), or one of a list. Lengths suit a face of about 256 pixels.

ANGLE = (-90.0, 90.0)
DOWN, UP = ["area", "area", "linear", "cubic"], ["linear", "cubic", "cubic"]
ANY_BAYER = list(BAYER)

PRESETS = {
    "mild": [
        (0.85, {"gaussian_blur": (2, dict(sigma=(0.3, 1.0))), "defocus": (1, dict(radius=(0.5, 1.2)))}),
        (0.85, {"gaussian_noise": (2, dict(sigma=(1, 6))), "poisson_noise": (1, dict(sigma=(1, 6)))}),
        (0.10, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.40, {"resize": (1, dict(factor=(1.0, 1.5), down=DOWN, up=UP))}),
        (0.75, {"jpeg": (1, dict(quality=(60, 95)))}),
    ],
    "medium": [
        (1.00, {"gaussian_blur": (4, dict(sigma=(0.8, 2.2))),
                "anisotropic_blur": (2, dict(sigma_x=(0.8, 2.2), sigma_y=(0.8, 2.2), angle=ANGLE)),
                "defocus": (2, dict(radius=(1.0, 2.5))), "motion": (2, dict(length=(3, 7), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.95, {"gaussian_noise": (2, dict(sigma=(5, 18))), "poisson_noise": (1, dict(sigma=(5, 18)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.30, {"colour_noise": (1, dict(sigma=(3, 12), grain=(0.5, 3.0)))}),
        (0.50, {"resize": (1, dict(factor=(1.5, 2.5), down=DOWN, up=UP))}),
        (0.85, {"jpeg": (1, dict(quality=(25, 70)))}),
    ],
    "severe": [
        (1.00, {"gaussian_blur": (4, dict(sigma=(1.5, 4.0))),
                "anisotropic_blur": (2, dict(sigma_x=(1.5, 4.0), sigma_y=(1.5, 4.0), angle=ANGLE)),
                "defocus": (2, dict(radius=(2.0, 4.5))), "motion": (2, dict(length=(5, 14), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.95, {"gaussian_noise": (2, dict(sigma=(12, 40))), "poisson_noise": (1, dict(sigma=(12, 40)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.40, {"colour_noise": (1, dict(sigma=(8, 25), grain=(0.5, 4.0)))}),
        (0.70, {"resize": (1, dict(factor=(2.0, 5.0), down=DOWN, up=UP))}),
        (0.90, {"jpeg": (1, dict(quality=(8, 40)))}),
    ],
    "old-photo": [                                      # grey, sepia, or a colour print gone pale or yellow
        (0.95, {"gaussian_blur": (1, dict(sigma=(0.8, 2.0)))}),
        (0.95, {"grain": (1, dict(sigma=(5, 20), grain=(0.4, 1.2)))}),
        (0.20, {"resize": (1, dict(factor=(1.2, 2.5), down=DOWN, up=UP))}),
        (0.80, {"grey": (1, {})}),
        (0.90, {"fade": (1, dict(contrast=(0.55, 0.95), lift=(0.0, 0.2), cast=(-1.0, 1.0)))}),      # below 0 is 0: half without a cast
        (0.85, {"jpeg": (1, dict(quality=(30, 80)))}),
    ],
    "photo": [                                          # a whole photo, colours kept, for the restorer at working size
        (0.50, {"gaussian_blur": (3, dict(sigma=(0.0, 3.0))), "defocus": (1, dict(radius=(0.5, 3.0))),
                "anisotropic_blur": (1, dict(sigma_x=(0.3, 3.0), sigma_y=(0.3, 3.0), angle=ANGLE))}),
        (0.15, {"motion": (1, dict(length=(2, 7), angle=ANGLE, wobble=(0.0, 0.8)))}),
        (0.75, {"gaussian_noise": (5, dict(sigma=(0, 50))), "poisson_noise": (3, dict(sigma=(0, 50))),
                "grain": (1, dict(sigma=(0, 30), grain=(0.3, 1.2)))}),
        (0.20, {"mosaic": (1, dict(pattern=ANY_BAYER))}),
        (0.25, {"colour_noise": (1, dict(sigma=(2, 25), grain=(0.5, 4.0)))}),
        (0.20, {"resize": (1, dict(factor=(1.0, 3.0), down=DOWN, up=UP))}),
        (0.65, {"jpeg": (1, dict(quality=(5, 95)))}),
    ],
}
ALONE = {"gaussian_noise": (6, dict(sigma=(5, 50))), "poisson_noise": (2, dict(sigma=(5, 50))), "jpeg": (6, dict(quality=(5, 95))),
         "gaussian_blur": (2, dict(sigma=(0.5, 3.0))), "anisotropic_blur": (1, dict(sigma_x=(0.5, 3.0), sigma_y=(0.5, 3.0), angle=ANGLE)),
         "defocus": (1, dict(radius=(0.7, 3.0))), "motion": (1, dict(length=(2, 8), angle=ANGLE, wobble=(0.0, 0.8))),
         "mosaic": (1, dict(pattern=ANY_BAYER)), "colour_noise": (2, dict(sigma=(4, 25), grain=(0.5, 4.0))),
         "resize": (1, dict(factor=(1.2, 3.0), down=DOWN, up=UP))}          # what "photo" draws from for a single fault
MIXED = {"clean": 0.10, "mild": 0.25, "medium": 0.35, "severe": 0.20, "old-photo": 0.10}


def draw(preset: str, rng: np.random.Generator, size: int | None = None, *, scale: float = 1.0, order: str = "fixed") -> Recipe:
    """A random recipe of a preset: "mild", "medium", "severe", "old-photo", "mixed" (one of those, or clean), "photo", or "clean".

    Lengths suit a face of 256 pixels; `scale` multiplies them, and `size` (the face's side in pixels) is short for scale = size / 256.
    order "fixed" goes optics, shake, sensor noise, mosaic, resize, age, JPEG; "shuffled" goes any way, with JPEG last half the time.
    """
    if order not in ("fixed", "shuffled"):
        raise ValueError(f"order must be fixed or shuffled, got {order!r}")
    if preset not in PRESETS and preset not in ("mixed", "clean"):
        raise ValueError(f"preset must be one of {', '.join([*PRESETS, 'mixed', 'clean'])}, got {preset!r}")
    scale = scale if size is None else scale * size / 256
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be above 0, got {scale}")
    if preset == "mixed":
        preset = str(rng.choice(list(MIXED), p=list(MIXED.values())))
    if preset == "clean":
        return Recipe((), preset)
    chance = rng.random() if preset == "photo" else 1
    if chance < 0.08:
        steps = []
    elif chance < 0.43:
        steps = [_step(ALONE, rng, scale)]
    else:
        steps, fewest = [], 2 if preset == "photo" else 1
        while len(steps) < fewest:
            steps = [_step(choices, rng, scale) for p, choices in PRESETS[preset] if rng.random() < p]
    return Recipe(tuple(_shuffled(steps, rng) if order == "shuffled" else steps), preset)


def _step(choices: dict, rng: np.random.Generator, scale: float) -> dict:
    """One operation by weight, its parameters drawn and its lengths scaled (kept within what the operation takes)."""
    weights = np.array([weight for weight, _ in choices.values()], float)
    name = list(choices)[rng.choice(len(choices), p=weights / weights.sum())]
    step = {"op": name}
    for key, (low, high, *_) in PARAMETERS[name].items():
        if key == "seed":
            step[key] = int(rng.integers(2**31))
            continue
        value = choices[name][1][key]
        if isinstance(value, list):
            step[key] = value[rng.integers(len(value))]
        elif key in INTEGERS:
            step[key] = int(rng.integers(value[0], value[1] + 1))
        else:
            value = rng.uniform(*value) * (scale if key in LENGTHS.get(name, ()) else 1)
            step[key] = round(min(max(float(value), low), high), 4)
    return step


def _shuffled(steps: list[dict], rng: np.random.Generator) -> list[dict]:
    last = [s for s in steps if s["op"] == "jpeg"]
    rest = [s for s in steps if s["op"] != "jpeg"]
    rng.shuffle(rest)
    where = len(rest) if not rest or rng.random() < 0.5 else int(rng.integers(len(rest)))
    return rest[:where] + last + rest[where:]
