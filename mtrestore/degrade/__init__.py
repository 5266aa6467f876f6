"""Degradation recipes: how a clean portrait becomes an old, blurred, noisy or over-compressed one.

A recipe is a list of steps, each an operation's name with literal parameters and, where something
is random, a seed. So a recipe is plain JSON and replays bit for bit:

    recipe = draw("medium", np.random.default_rng(0))  # chance is used here, and only here
    bad = apply(photo, recipe)  # the same photo and recipe give the same bits
    assert Recipe.from_json(recipe.to_json()) == recipe

The same bits means on one machine with one set of library versions: OpenCV picks its inner loops by
processor. The operations stand in `operations` and `prints`, what is drawn in `presets`.

Units: lengths (LENGTHS below) are pixels of the picture given; the `sigma` of a noise is in levels,
that is 1/255; angles are degrees, counter-clockwise on the screen; everything else is 0..1.
Operations work on the sRGB values, as blind restoration usually does (Zhang et al., BSRGAN, 2021;
Wang et al., Real-ESRGAN, 2021), and each is clipped to 0..1. `steps` of a resize happen to the
small picture, in its pixels.

May be touched: what is drawn, and new operations; never what an operation makes of a recipe.
"""

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..guard import forks
from .operations import (
    BAYER,
    INTEGERS,
    INTERPOLATION,
    LUMA,
    OPS,
    OPTIONAL,
    PARAMETERS,
    Photo,
    anisotropic_kernel,
    disc_kernel,
    motion_kernel,
    run,
)
from .presets import ALONE, CHAINS, EXTRAS, MIXED, PORTRAIT, PRESETS  # and prints, in OPS

__all__ = [
    "ALONE", "BAYER", "CHAINS", "INTEGERS", "INTERPOLATION", "LENGTHS", "LUMA", "MIXED", "OPS",
    "PARAMETERS", "PORTRAIT", "PRESETS", "Photo", "Recipe", "anisotropic_kernel", "apply",
    "blur_scale", "disc_kernel", "draw", "motion_kernel",
]  # fmt: skip

LENGTHS = {  # what draw(scale=...) multiplies
    "gaussian_blur": ("sigma",),
    "anisotropic_blur": ("sigma_x", "sigma_y"),
    "defocus": ("radius",),
    "motion": ("length",),
    "colour_noise": ("grain",),
    "grain": ("grain",),
    "unsharp": ("radius",),
    "sinc": ("wavelength", "reach"),
    "chroma_blur": ("sigma",),
    "bilateral": ("sigma_space",),
    "median": ("reach",),
    "resize": ("factor",),
    "film_grain": ("size",),
    "halftone": ("pitch", "soft"),
    "damage": ("width",),
}


# ---- recipes


@dataclass(frozen=True)
class Recipe:
    """Steps in order, each {"op": name, parameter: literal, ...}, checked when made (ValueError).

    `preset` tells where it came from.
    """

    steps: tuple[dict, ...] = ()
    preset: str = "custom"
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(_copy(step) for step in self.steps))
        _check(self)

    @property
    def ops(self) -> tuple[str, ...]:
        """The names of the operations, in order, without those inside a resize."""
        return tuple(step["op"] for step in self.steps)

    def to_json(self) -> str:
        return json.dumps({"version": self.version, "preset": self.preset, "steps": self.steps})

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe that to_json wrote; ValueError in one sentence for anything else."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as e:
            raise ValueError(f"a recipe must be JSON text, and this is not: {e}") from None
        steps = data.get("steps") if isinstance(data, dict) else None
        if not isinstance(steps, list) or set(data) - {"version", "preset", "steps"}:
            form = '{"version": 1, "preset": name, "steps": [...]}'
            raise ValueError(f"a recipe must be {form}, got {text[:80]!r}")
        return cls(**data)


def _copy(step: object) -> object:
    """The step with a dict, and a list of inner steps, of its own."""
    if not isinstance(step, dict):
        return step
    step = dict(step)
    if isinstance(step.get("steps"), (list, tuple)):
        step["steps"] = [dict(s) if isinstance(s, dict) else s for s in step["steps"]]
    return step


def _check(recipe: Recipe) -> None:
    if recipe.version != 1:
        came = f"{recipe.version!r}; a newer mtrestore may read it"
        raise ValueError(f"recipe version must be 1, got {came}")
    _check_steps(recipe.steps, "step")


def _check_steps(steps: Sequence, place: str, inside: bool = False) -> None:
    for number, step in enumerate(steps, 1):
        here = f"{place} {number}"
        name = step.get("op") if isinstance(step, dict) else None
        if not isinstance(name, str) or name not in OPS:
            raise ValueError(f"{here}: unknown op {name!r}; choose from {', '.join(OPS)}")
        ranges, optional = PARAMETERS[name], OPTIONAL[name]
        required = [key for key in ranges if key not in optional]
        keys = step.keys() - {"op"}
        if not set(required) <= keys <= {*required, *optional}:
            more = f" and, if wanted, ({', '.join(optional)})" if optional else ""
            came = ", ".join(repr(key) for key in step if key != "op")
            form = f"takes exactly ({', '.join(required)}){more}"
            raise ValueError(f"{here}: {name} {form}, got ({came})")
        for key in keys & ranges.keys():
            _check_value(step[key], ranges[key], key, f"{here}: {name}'s {key}")
        if "steps" in step:
            if inside or not isinstance(step["steps"], list):
                rule = "must be a list of steps, none of them with steps inside"
                raise ValueError(f"{here}: {name}'s steps {rule}")
            _check_steps(step["steps"], f"{here}: inner step", inside=True)


def _check_value(value: object, limits: tuple, key: str, what: str) -> None:
    if isinstance(limits[0], str):
        if value not in limits:
            raise ValueError(f"{what} must be one of {', '.join(limits)}, got {value!r}")
        return
    types, kind = (int, "an integer") if key in INTEGERS else ((int, float), "a number")
    number = isinstance(value, types) and not isinstance(value, bool)
    if not number or not limits[0] <= value <= limits[1]:
        raise ValueError(f"{what} must be {kind} from {limits[0]} to {limits[1]}, got {value!r}")


def apply(photo: Photo, recipe: Recipe) -> Photo:
    """The photo after every step: a new float32 H×W×3 array in 0..1 of the same size.

    The photo is left as it is; the same photo and recipe give the same bits. ValueError for another
    kind of array or a bad recipe.
    """
    forks.check()
    if (
        not isinstance(photo, np.ndarray)
        or photo.dtype != np.float32
        or photo.ndim != 3
        or photo.shape[2] != 3
        or not photo.size
    ):
        came = type(photo).__name__
        if isinstance(photo, np.ndarray):
            came = f"{photo.dtype} of shape {photo.shape}"
        form = "a float32 array of shape height x width x 3 in 0..1"
        raise ValueError(f"photo must be {form}, got {came}; mtrestore.read makes one")
    if not np.isfinite(photo.sum(dtype=np.float64)):
        came = "NaN or infinity in it; mtrestore.read refuses such files"
        raise ValueError(f"photo must be finite, got {came}")
    _check(recipe)  # again: the dicts inside could have been changed
    photo = np.clip(np.ascontiguousarray(photo), 0, 1)  # the copy keeps the caller's array safe
    return run(photo, recipe.steps)


# ---- how wide a recipe blurs

VARIANCE = {  # px², of a step's blur along one axis, the mean of both
    "gaussian_blur": lambda s: s["sigma"] ** 2,
    "anisotropic_blur": lambda s: (s["sigma_x"] ** 2 + s["sigma_y"] ** 2) / 2,
    "defocus": lambda s: s["radius"] ** 2 / 4,
    "motion": lambda s: s["length"] ** 2 / 24,
    "median": lambda s: s["reach"] * (s["reach"] + 1) / 3,
    "bilateral": lambda s: s["sigma_space"] ** 2 / 2,  # half of it: edges stay
    "sinc": lambda s: ((s["wavelength"] / 2) ** 2 - 1) / 4,  # as the shrinking that keeps no more
    "halftone": lambda s: s["pitch"] ** 2 / 4 + s["soft"] ** 2,
    "resize": lambda s: s["factor"] ** 2 * (_variance(s.get("steps", ())) + 1 / 4) - 1 / 4,
}


def blur_scale(recipe: Recipe) -> float:
    """How wide the recipe blurs: the sigma in px of the Gaussian of the same variance, 0 or more.

    Variances of the steps add up. A picture shrunk by f and enlarged counts (f² - 1) / 4 px², exact
    for area and linear, and what blurs in between counts f² times; a dot of a screen counts as a
    pixel of its size. Noise, JPEG, sharpening and blurred colours do not count. A loss that knows
    what cannot be known compares at 1 / 2^k of the size, k = clamp(round(log2(scale / 1.2)), 0, 3).
    """
    return math.sqrt(_variance(recipe.steps))


def _variance(steps: Sequence[dict]) -> float:
    return float(sum(VARIANCE[step["op"]](step) for step in steps if step["op"] in VARIANCE))


# ---- drawing


def draw(
    preset: str,
    rng: np.random.Generator,
    size: int | None = None,
    *,
    scale: float = 1.0,
    order: str = "fixed",
) -> Recipe:
    """A random recipe of a preset.

    "mild", "medium", "severe", "old-photo"; "mixed" (one of those, or clean); "photo"; "clean"; the
    chains "messenger", "double-jpeg", "phone", "film", "halftone", "damage", "heavy"; "portrait"
    (chains and presets by the shares PORTRAIT, some with halos, a faded range or a border besides).
    The recipe's preset is the one that was drawn, such as "messenger".

    Lengths suit a face of 256 pixels; `scale` multiplies them, and `size` (the face's side in
    pixels) is short for scale = size / 256. order "fixed" goes optics, shake, sensor noise, mosaic,
    resize, age, JPEG; "shuffled" goes any way, with JPEG last half the time. Chains keep theirs.
    """
    if order not in ("fixed", "shuffled"):
        raise ValueError(f"order must be fixed or shuffled, got {order!r}")
    names = [*PRESETS, "mixed", "portrait", "clean"]
    if preset not in names:
        near = difflib.get_close_matches(str(preset).lower(), names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"preset must be one of {', '.join(names)}, got {preset!r}{hint}")
    scale = scale if size is None else scale * size / 256
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be above 0, got {scale}")
    if preset == "portrait":
        preset = str(rng.choice(list(PORTRAIT), p=list(PORTRAIT.values())))
        recipe = draw(preset, rng, scale=scale, order=order)
        return _with_extras(recipe, _rows(EXTRAS, rng, scale))
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
            steps = _rows(PRESETS[preset], rng, scale)
    if order == "shuffled" and preset not in CHAINS:
        steps = _shuffled(steps, rng)
    return Recipe(tuple(steps), preset)


def _rows(rows: Sequence[tuple], rng: np.random.Generator, scale: float) -> list[dict]:
    """A step for each row that chance picks."""
    return [_step(choices, rng, scale) for p, choices in rows if rng.random() < p]


def _step(choices: dict, rng: np.random.Generator, scale: float) -> dict:
    """One operation by weight, its parameters drawn and its lengths scaled (kept within limits)."""
    weights = np.array([weight for weight, _ in choices.values()], float)
    name = list(choices)[rng.choice(len(choices), p=weights / weights.sum())]
    ranges, step = choices[name][1], {"op": name}
    for key, (low, high, *_) in PARAMETERS[name].items():
        if key == "seed":
            step[key] = int(rng.integers(2**31))
        elif key not in ranges:
            continue  # optional, and not in this preset
        elif isinstance(ranges[key], list):
            step[key] = ranges[key][rng.integers(len(ranges[key]))]
        else:
            step[key] = _value(key, ranges[key], rng, scale if key in LENGTHS.get(name, ()) else 1)
            step[key] = min(max(step[key], low), high)
    if "steps" in ranges:
        step["steps"] = _rows(ranges["steps"], rng, 1)
    return step


def _value(key: str, limits: tuple, rng: np.random.Generator, scale: float) -> float | int:
    if key in INTEGERS:
        return round(int(rng.integers(limits[0], limits[1] + 1)) * scale)
    return round(float(rng.uniform(*limits)) * scale, 4)


def _with_extras(recipe: Recipe, extras: Sequence[dict]) -> Recipe:
    """The recipe with the extras before its last step where that is a JPEG, else behind it."""
    end = len(recipe.steps) - (recipe.ops[-1:] == ("jpeg",))
    return Recipe((*recipe.steps[:end], *extras, *recipe.steps[end:]), recipe.preset)


def _shuffled(steps: list[dict], rng: np.random.Generator) -> list[dict]:
    last = [s for s in steps if s["op"] == "jpeg"]
    rest = [s for s in steps if s["op"] != "jpeg"]
    rng.shuffle(rest)
    where = len(rest) if not rest or rng.random() < 0.5 else int(rng.integers(len(rest)))
    return rest[:where] + last + rest[where:]
