"""One fault at a time: every operation at four strengths, and sliders to turn it by hand."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from .. import degrade, view

LINE = {"kind": "scratches", "width": 1.0, "level": 1.0, "alpha": 0.8}
COLOURS = {"place": 0.5, "red": 1.0, "green": 0.9, "blue": 0.8}
STRENGTHS: dict[str, tuple] = {  # operation: what is turned, its values, the other parameters
    "gaussian_blur": ("sigma", (0.5, 1.0, 2.0, 4.0), {}),
    "anisotropic_blur": ("sigma_x", (1.0, 2.0, 4.0, 8.0), {"sigma_y": 0.5, "angle": 30.0}),
    "defocus": ("radius", (0.8, 1.5, 3.0, 6.0), {}),
    "motion": ("length", (3.0, 6.0, 12.0, 24.0), {"angle": 30.0, "wobble": 0.2}),
    "gaussian_noise": ("sigma", (5.0, 15.0, 30.0, 60.0), {}),
    "poisson_noise": ("sigma", (5.0, 15.0, 30.0, 60.0), {}),
    "grain": ("sigma", (5.0, 10.0, 20.0, 40.0), {"grain": 1.0}),
    "colour_noise": ("sigma", (5.0, 10.0, 20.0, 40.0), {"grain": 2.0}),
    "mosaic": ("pattern", degrade.BAYER, {}),
    "resize": ("factor", (1.5, 2.0, 4.0, 8.0), {"down": "area", "up": "cubic"}),
    "jpeg": ("quality", (80, 40, 20, 8), {}),
    "fade": ("contrast", (0.9, 0.7, 0.5, 0.3), {"lift": 0.1, "cast": 0.5}),
    "grey": (None, (), {}),
    "unsharp": ("amount", (0.5, 1.0, 2.0, 4.0), {"radius": 1.5}),
    "sinc": ("wavelength", (2.5, 3.0, 4.0, 6.0), {"reach": 10}),
    "chroma_blur": ("sigma", (1.0, 2.0, 4.0, 8.0), {}),
    "bilateral": ("sigma_colour", (50.0, 100.0, 200.0, 400.0), {"sigma_space": 2.0}),
    "median": ("reach", (1, 2, 3, 4), {}),
    "film_grain": ("sigma", (5.0, 10.0, 20.0, 40.0), {"kind": "medium", "size": 1.0}),
    "halftone": ("pitch", (2.0, 3.0, 4.5, 7.0), {"angle": 30.0, "apart": 0.0, "soft": 0.6}),
    "levels": ("contrast", (0.5, 0.3, 0.15, 0.05), COLOURS),
    "border": ("share", (0.02, 0.05, 0.1, 0.2), {"kind": "turned", "level": 0.0}),
    "damage": ("count", (2, 5, 10, 30), LINE),
}
SLIDERS: dict[str, tuple] = {  # the others, where a slider should end before the operation does
    "sigma_y": (0.3, 8.0), "angle": (-90.0, 90.0), "grain": (0.0, 4.0), "radius": (0.3, 4.0),
    "reach": (1, 20), "sigma_space": (0.5, 4.0), "size": (0.5, 3.0), "apart": (0.0, 45.0),
    "soft": (0.0, 2.0), "width": (0.3, 4.0),
}  # fmt: skip
SLIDERS |= dict.fromkeys(("wobble", "lift", "cast", "level", "alpha", *COLOURS), (0.0, 1.0))


def step(op: str, seed: int, **values: Any) -> dict[str, Any]:
    """A step of a recipe; the seed goes to those operations that have chance in them."""
    chance = {"seed": seed} if "seed" in degrade.PARAMETERS[op] else {}
    return {"op": op, **values, **chance}


def climb(photo: np.ndarray, op: str, seed: int) -> dict[str, np.ndarray]:
    """ "op value" -> the photo with this fault alone, from its weakest to its strongest."""
    name, values, others = STRENGTHS[op]
    steps = {f"{op} {value}": step(op, seed, **{name: value}, **others) for value in values}
    return {title: degrade.apply(photo, degrade.Recipe((s,))) for title, s in steps.items()}


def bench(photo: np.ndarray, op: str, seed: int) -> ipywidgets.VBox:
    """A slider or a menu for each parameter, and the picture below; a button where it has none."""
    name, values, others = STRENGTHS[op]
    controls = {key: SLIDERS.get(key) or list(degrade.PARAMETERS[op][key]) for key in others}
    if name:
        words = isinstance(values[0], str)
        controls = {name: list(values) if words else (min(values), max(values))} | controls

    def turn(**now: Any) -> view.Comparison:
        poor = degrade.apply(photo, degrade.Recipe((step(op, seed, **now),)))
        return view.show({"truth": photo, op: poor}, size=3.5)

    return ipywidgets.VBox(
        ipywidgets.interactive(turn, {"manual": not controls}, **controls).children
    )
