"""Every option once: its name, default, range, help and group, for Python, the command and widgets.

`Options` holds what a Restorer takes; `Folders` what the command adds about files and folders.
"""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .io.text import nearest

NET = "a .safetensors or .onnx file in place of the shipped net"
TITLES = {
    "everyday": "everyday",
    "faces": "faces",
    "speed": "speed and nets",
    "folders": "files and folders",
}
SHARE = {"low": 0, "high": 1, "slider": (0, 1, 0.05)}
PER_PHOTO = ("skip_faces", "more_faces")
LIKE = {  # what --like sets, where nothing else is said
    "light": {"photo_strength": 0.5, "face_strength": 0.5, "face_fidelity": 1.0},
    "normal": {},
    "strong": {"photo_strength": 1.0, "face_strength": 1.0, "face_fidelity": 0.0},
}


def option(default: Any, group: str, help: str, **facts: Any) -> Any:
    """A field with what there is to know about it.

    kind: the type of a command-line value. low, high: the range; slider: the part of it that a
    widget shows, and its step. check: called with name and value instead of range and choices.
    choices: the names that are known. metavar: of the flag. flags: flag -> what `add_argument`
    takes, instead of one --its-name; none where only Python has the option.
    """
    return field(default=default, metadata={"group": group, "help": help, **facts})


def positive_int(text: str) -> int:
    """An argparse type: above zero."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def positive_float(text: str) -> float:
    """An argparse type: above zero, and finite."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def numbers(text: str) -> tuple[int, ...]:
    """An argparse type: numbers of faces, `1,3`."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"expected numbers of faces, like 1,3, got {text!r}")
    return tuple(sorted({int(word) for word in words}))


def box(text: str) -> tuple[float, ...]:
    """An argparse type: `x0,y0,x1,y1`."""
    words = text.replace(",", " ").split()
    try:
        x0, y0, x1, y1 = map(float, words)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x0,y0,x1,y1 in px, got {text!r}") from None
    return (x0, y0, x1, y1)


def strength(text: str) -> float | tuple[tuple[int, float], ...]:
    """An argparse type: one number for all faces, or `1=0.5,3=0`, a number of each."""
    if "=" not in text:
        return float(text)
    pairs = (word.split("=") for word in text.replace(",", " ").split())
    return tuple((int(number), float(value)) for number, value in pairs)


positive_int.__name__ = "positive int"
positive_float.__name__ = "positive float"


def check_strength(name: str, value: Any) -> None:
    """Raises ValueError unless it lies in 0..1, or each does of a mapping number -> strength."""
    if isinstance(value, (Mapping, tuple)):
        try:
            value = dict(value)
        except (TypeError, ValueError):
            form = "a number, or a mapping like {1: 0.5, 3: 0}"
            raise ValueError(f"{name} must be {form}, got {value!r}") from None
        check_numbers(f"the faces of {name}", list(value))
        for number, each in value.items():
            in_range(f"{name} of face {number}", each, 0, 1)
    else:
        in_range(name, value, 0, 1)


def check_faces(name: str, value: Any) -> None:
    """Raises ValueError unless it is True, False, or numbers of faces."""
    if not isinstance(value, bool):
        check_numbers(name, value, "True, False or ")


def check_numbers(name: str, value: Any, more: str = "") -> None:
    """Raises ValueError unless these are numbers of faces, which begin with 1."""
    several = isinstance(value, Collection) and not isinstance(value, (str, bytes))
    if not several or not all(
        isinstance(n, Integral) and not isinstance(n, bool) and int(n) > 0 for n in value
    ):
        words = f"{more}numbers of faces from 1 up, like [1, 3]"
        raise ValueError(f"{name} must be {words}, got {value!r}")


def check_boxes(name: str, value: Any) -> None:
    """Raises ValueError unless each is a box x0, y0, x1, y1 of some size."""
    for one in value if isinstance(value, Collection) else (value,):
        try:
            x0, y0, x1, y1 = map(float, one)
        except (TypeError, ValueError):
            x0 = y0 = x1 = y1 = 0.0
        if not (all(map(isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1):
            words = "a box of a face must be x0,y0,x1,y1 in px with x0 < x1 and y0 < y1"
            raise ValueError(f"{words}, got {one!r}")


@dataclass(frozen=True)
class Options:
    """What a Restorer takes. Where a net is asked for, None is the shipped one."""

    scale: float = option(
        1.0, "everyday", "output size over input size", low=0.1, high=8, slider=(0.5, 4, 0.25)
    )
    photo_strength: float = option(
        1.0, "everyday", "how much of the whole photo's restoration is kept", **SHARE
    )
    face_strength: Any = option(
        1.0,
        "everyday",
        "0 leaves faces to the photo branch, 1 takes the face net's; each face its own: 1=0.5,3=0",
        kind=strength,
        check=check_strength,
        **SHARE,
    )
    face_fidelity: float | None = option(
        None,
        "everyday",
        "0 gives living texture, 1 the smoother face nearest to the truth; "
        "by default between them, as much as detail is missing, and 1 for much blurred faces",
        kind=float,
        **SHARE,
    )
    like: str = option(
        "normal",
        "everyday",
        "light keeps half of what was there and the smoother faces, strong does all that the nets "
        "can; what else is said wins",
        choices=tuple(LIKE),
    )
    faces: Any = option(
        True,
        "faces",
        "look for faces and restore them; or numbers: only these",
        check=check_faces,
        flags={
            "--no-faces": {"action": "store_false", "help": "do not look for faces"},
            "--faces-only": {
                "type": numbers,
                "metavar": "1,3",
                "help": "restore these faces only; `mtrestore faces IN` shows their numbers",
            },
        },
    )
    skip_faces: Any = option(
        (),
        "faces",
        "leave these faces alone, by their numbers",
        check=check_numbers,
        flags={"--skip-faces": {"type": numbers, "metavar": "2"}},
    )
    more_faces: Any = option(
        (),
        "faces",
        "a face by hand, in px, beside those that are found; may be given again",
        check=check_boxes,
        flags={"--box": {"type": box, "metavar": "x0,y0,x1,y1", "action": "append"}},
    )
    crop: str = option("landmark", "faces", "how a face is cut out", choices=("landmark", "eye"))
    detector: Any = option(
        "auto", "faces", "what looks for faces, see face.detect", choices=("auto", "mtcnn", "yunet")
    )
    landmarks: Any = option(None, "faces", "landmark net; False switches it off", flags={})
    device: str = option("auto", "speed", "auto, cpu or cuda")
    working_size: int = option(
        640,
        "speed",
        "long side, px, at which the whole photo is restored",
        low=32,
        high=16384,
        slider=(64, 1280, 32),
    )
    memory_mb: float | None = option(
        None, "speed", "what full-size work may use for its own buffers", low=64, kind=float
    )
    face: Any = option(None, "speed", NET, metavar="FILE")
    restorer: Any = option(None, "speed", NET, metavar="FILE")
    upsampler: Any = option(None, "speed", NET, metavar="FILE")
    sharpener: Any = option(None, "speed", "sharpener; `identity` switches it off", flags={})
    keep_steps: bool = option(True, "speed", "keep every intermediate picture", flags={})
    progress: bool = option(False, "speed", "show a progress bar over the steps", flags={})

    def check(self) -> Options:
        """These options; raises ValueError: what was expected, and what came."""
        for f in fields(self):
            value, facts = getattr(self, f.name), f.metadata
            choices = facts.get("choices")
            if "check" in facts:
                facts["check"](f.name, value)
            elif "low" in facts and not (value is None and f.default is None):
                in_range(f.name, value, facts["low"], facts.get("high"))
            elif choices and not callable(value) and value not in choices:
                words = f"{f.name} must be one of {', '.join(choices)}, got {value!r}"
                raise ValueError(words + nearest(value, choices))
        if not isinstance(self.device, str):
            raise ValueError(f"device must be auto, cpu or cuda, got {self.device!r}")
        return self

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Checked options from names and values; what `like` sets holds where they say nothing.

        Raises TypeError for a name that is none.
        """
        names = [f.name for f in fields(cls)]
        for name in options:
            if name not in names:
                near = nearest(name, names) or "."
                raise TypeError(f"no option is called {name!r}{near} There are: {', '.join(names)}")
        like = cls(like=options.get("like", "normal")).check().like
        return cls(**LIKE[like] | dict(options)).check()


def facts(name: str) -> Mapping[str, Any]:
    """What there is to know about an option: help, range, slider, ..."""
    return Options.__dataclass_fields__[name].metadata


@dataclass(frozen=True)
class Folders:
    """What the command takes about files and folders."""

    jobs: int | None = option(
        None,
        "folders",
        "worker processes for a folder (default: half the processors, 8 at most; 1 on cuda)",
        kind=positive_int,
        metavar="N",
    )
    timeout: float = option(
        900, "folders", "time for one file", kind=positive_float, metavar="SECONDS"
    )
    dask: str | None = option(
        None,
        "folders",
        "restore a folder on this Dask cluster, whose workers see the same folders",
        metavar="ADDRESS",
    )
    overwrite: bool = option(False, "folders", "replace files that exist")
    resume: bool = option(
        False,
        "folders",
        "skip what an earlier run made from the same file with the same options and weights",
    )
    html: bool = option(False, "folders", "write a before/after page beside each result")
    report: str | None = option(
        None,
        "folders",
        "write what became of each input as JSON, and as CSV beside it",
        metavar="FILE",
    )
    pages: str = option(
        "first",
        "folders",
        "of a TIFF; all gives name_p1, name_p2, ...",
        choices=("first", "all"),
    )
    strip_location: bool = option(
        False, "folders", "leave out where a photo was taken (GPS), which is kept otherwise"
    )


def in_range(name: str, value: Any, low: Any, high: Any) -> None:
    """Raises ValueError where a value is no number, or lies outside."""
    words = f"be at least {low}" if high is None else f"lie in {low}..{high}"
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and low <= value <= (float("inf") if high is None else high)):
        raise ValueError(f"{name} must {words}, got {value if number else repr(value)}")


def described(f: Field) -> str:
    """An option's help with its range and default."""
    words = f.metadata["help"]
    if "low" in f.metadata:
        high = f.metadata.get("high")
        low = f.metadata["low"]
        words += f", at least {low}" if high is None else f", {low}..{high}"
    return words if f.default in (None, ()) else f"{words} (default: {f.default})"


def documented(target: Any) -> Any:
    """A function or class with `**options`: its signature and docstring list them all."""
    own = [p for p in inspect.signature(target).parameters.values() if p.kind is not p.VAR_KEYWORD]
    ours = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
        )
        for f in fields(Options)
    ]
    target.__signature__ = inspect.Signature([*own, *ours])
    lines = "\n".join(f"    {f.name}: {described(f)}" for f in fields(Options))
    target.__doc__ = f"{inspect.cleandoc(target.__doc__)}\n\nOptions, by name:\n{lines}"
    return target


NAMES = tuple(f.name for f in (*fields(Options), *fields(Folders)))


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str] = NAMES) -> None:
    """The flags of these options, in their groups; what is not said leaves no trace.

    Of several flags of one option only one can be given.
    """
    groups: dict[str, Any] = {}
    for f in (f for f in (*fields(Options), *fields(Folders)) if f.name in names):
        title = TITLES[f.metadata["group"]]
        group = groups.setdefault(title, groups.get(title) or parser.add_argument_group(title))
        flags = flags_of(f)
        group = group.add_mutually_exclusive_group() if len(flags) > 1 else group
        for flag, more in flags.items():
            group.add_argument(flag, dest=f.name, **more)


def flags_of(f: Field) -> dict[str, dict[str, Any]]:
    """Flag -> what `add_argument` takes of an option."""
    known, default = f.metadata, {"default": argparse.SUPPRESS, "help": described(f)}
    if "flags" in known:
        return {flag: default | own for flag, own in known["flags"].items()}
    if isinstance(f.default, bool):
        own = {"action": "store_true", "help": known["help"]}
    else:
        own = {
            "type": known.get("kind") or (str if f.default is None else type(f.default)),
            "choices": known.get("choices"),
            "metavar": known.get("metavar") or (None if "choices" in known else f.name.upper()),
        }
    return {"--" + f.name.replace("_", "-"): default | own}


def options_in(args: argparse.Namespace) -> Options:
    """The checked options of a command line."""
    return Options.of({f.name: getattr(args, f.name) for f in fields(Options) if f.name in args})


def options_from(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a Restorer, checked, with what `--like` sets.

    A net's file by its absolute path. Every value can be hashed.
    """
    values = options_in(args)
    options = {f.name: getattr(values, f.name) for f in fields(Options) if flags_of(f)}
    del options["like"]
    for name in PER_PHOTO:
        options[name] = tuple(options[name])
        if not options[name]:
            del options[name]
    for name in (f.name for f in fields(Options) if f.metadata["help"] == NET):
        net = options.pop(name)
        if net:  # a file, or a shipped name
            options[name] = os.path.abspath(net) if Path(net).suffix else net
    return options


def of_one_photo(options: Mapping[str, Any]) -> bool:
    """Whether numbers or boxes speak of the faces of one photo."""
    numbered = options["faces"], options["face_strength"]
    return any(isinstance(v, tuple) for v in (*numbered, *map(options.get, PER_PHOTO)))


def folders_from(args: argparse.Namespace) -> Folders:
    """What the command line says of files and folders."""
    return Folders(**{f.name: getattr(args, f.name) for f in fields(Folders) if f.name in args})
