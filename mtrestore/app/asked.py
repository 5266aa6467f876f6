"""What the page asks for one photo: the package's options, and a strength for each face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from numbers import Real
from typing import Any

from ..options import LIKE, Folders, Options, check_boxes, facts, in_range

SLIDERS = ("photo_strength", "scale")  # of the whole photo
MOST_FACES = 200
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Wish:
    """A face as the page shows it: where, how strongly (0: left alone), and whether by hand."""

    box: Box
    strength: float = 1.0
    hand: bool = False

    @classmethod
    def of(cls, words: Any) -> Wish:
        """From JSON; raises ValueError."""
        strange = not isinstance(words, Mapping) or not {"box", "strength"} <= set(words)
        if strange or set(words) - {"box", "strength", "hand"}:
            raise ValueError(f"a face has box, strength and hand, got {words!r:.80}")
        check_boxes("faces", [words["box"]])
        in_range("face_strength", words["strength"], 0, 1)
        x0, y0, x1, y1 = map(float, words["box"])
        return cls((x0, y0, x1, y1), float(words["strength"]), words.get("hand") is True)


@dataclass(frozen=True)
class Asked:
    """Settings of one photo. faces: None until a person has seen them; then the preset holds."""

    like: str = "normal"
    photo_strength: float = 1.0
    scale: float = Options.scale
    strip_location: bool = Folders.strip_location
    faces: tuple[Wish, ...] | None = None

    @classmethod
    def of(cls, words: Any) -> Asked:
        """From JSON, every value checked; raises ValueError in one line."""
        names = [f.name for f in fields(cls)]
        if not isinstance(words, Mapping) or set(words) - set(names):
            raise ValueError(f"settings are {', '.join(names)}, got {words!r:.80}")
        faces = words.get("faces")
        if faces is not None:
            if not isinstance(faces, list) or len(faces) > MOST_FACES:
                raise ValueError(f"faces must be a list of at most {MOST_FACES}")
            faces = tuple(map(Wish.of, faces))
        like = Options.of({"like": words.get("like", "normal")}).like
        asked = cls.preset(like)
        for name in SLIDERS:
            value = words.get(name, getattr(asked, name))
            if not isinstance(value, Real) or not isfinite(value):
                raise ValueError(f"{name} must be a number, got {value!r:.40}")
            asked = replace(asked, **{name: value})
        asked = replace(asked, strip_location=words.get("strip_location") is True, faces=faces)
        Options.of(asked.options())
        return asked

    @classmethod
    def preset(cls, like: str) -> Asked:
        """What a preset sets."""
        return cls(like, **{name: getattr(Options.of({"like": like}), name) for name in SLIDERS})

    def options(self) -> dict[str, Any]:
        """Those of a Restorer that hold whatever faces there are."""
        hand = [wish.box for wish in self.faces or () if wish.hand]
        return {"like": self.like, "more_faces": hand} | {n: getattr(self, n) for n in SLIDERS}

    @property
    def face_strength(self) -> float:
        """Of a face that nobody has spoken of."""
        return Options.of({"like": self.like}).face_strength

    def within(self, size: Mapping[str, Any]) -> Asked:
        """The same with boxes by hand cut to the photo; raises ValueError for one beside it."""
        if self.faces is None or "width" not in size:
            return self
        wishes = []
        for wish in self.faces:
            x0, y0, x1, y1 = wish.box
            cut = (max(x0, 0), max(y0, 0), min(x1, size["width"]), min(y1, size["height"]))
            if wish.hand:
                check_boxes("faces", [cut])
                wish = replace(wish, box=cut)
            wishes.append(wish)
        return replace(self, faces=tuple(wishes))

    def json(self) -> dict[str, Any]:
        return asdict(self)


def labels() -> dict[str, Any]:
    """What the page says of each option and preset, from where every option is known."""
    sliders = {}
    for name in (*SLIDERS, "face_strength"):
        low, high, step = facts(name)["slider"]
        sliders[name] = {"label": worded(name), "help": short(facts(name)["help"])}
        sliders[name] |= {"low": low, "high": high, "step": step}
    presets = {}
    for like in LIKE:
        options = Options.of({"like": like})
        presets[like] = {name: getattr(options, name) for name in (*SLIDERS, "face_strength")}
    strip = Folders.__dataclass_fields__["strip_location"].metadata["help"]
    return {
        "sliders": sliders,
        "presets": presets,
        "like": short(facts("like")["help"]),
        "strip_location": short(strip, ","),
    }


def worded(name: str) -> str:
    """`photo_strength` -> `Photo strength`."""
    return name.replace("_", " ").capitalize()


def short(help: str, end: str = ";") -> str:
    """The first clause of an option's help, as a sentence begins."""
    return help.partition(end)[0].strip()
