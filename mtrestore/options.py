"""Every option once: its name, default, range, help and group, for Python, the command and widgets.

`Options` holds what a Restorer takes; `Folders` what the command adds about files and folders.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any

NET = "a .safetensors or .onnx file in place of the shipped net"
TITLES = {
    "everyday": "everyday",
    "faces": "faces",
    "speed": "speed and nets",
    "folders": "files and folders",
}


def option(default: Any, group: str, help: str, **facts: Any) -> Any:
    """A field with what there is to know about it.

    kind: the type of a command-line value. low, high: the range. choices: the names that are known.
    metavar: of the flag. flag: another flag than --its-name, or None where only Python has it.
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


positive_int.__name__ = "positive int"
positive_float.__name__ = "positive float"


@dataclass(frozen=True)
class Options:
    """What a Restorer takes. Where a net is asked for, None is the shipped one."""

    scale: float = option(1.0, "everyday", "output size over input size", low=0.1, high=8)
    photo_strength: float = option(
        1.0, "everyday", "how much of the whole photo's restoration is kept", low=0, high=1
    )
    face_strength: float = option(
        1.0, "everyday", "0 leaves faces to the photo branch, 1 takes the face net's", low=0, high=1
    )
    face_fidelity: float | None = option(
        None,
        "everyday",
        "0 gives living texture, 1 the smoother face nearest to the truth; "
        "by default 0, and 1 for much blurred faces",
        low=0,
        high=1,
        kind=float,
    )
    faces: bool = option(True, "faces", "look for faces and restore them", flag="--no-faces")
    crop: str = option("landmark", "faces", "how a face is cut out", choices=("landmark", "eye"))
    detector: Any = option(
        "auto", "faces", "what looks for faces, see face.detect", choices=("auto", "mtcnn", "yunet")
    )
    landmarks: Any = option(None, "faces", "landmark net; False switches it off", flag=None)
    device: str = option("auto", "speed", "auto, cpu or cuda")
    working_size: int = option(
        640, "speed", "long side, px, at which the whole photo is restored", low=32, high=16384
    )
    memory_mb: float | None = option(
        None, "speed", "what full-size work may use for its own buffers", low=64, kind=float
    )
    face: Any = option(None, "speed", NET, metavar="FILE")
    restorer: Any = option(None, "speed", NET, metavar="FILE")
    upsampler: Any = option(None, "speed", NET, metavar="FILE")
    sharpener: Any = option(None, "speed", "sharpener; `identity` switches it off", flag=None)
    keep_steps: bool = option(True, "speed", "keep every intermediate picture", flag=None)
    progress: bool = option(False, "speed", "show a progress bar over the steps", flag=None)

    def check(self) -> Options:
        """These options; raises ValueError: what was expected, and what came."""
        for f in fields(self):
            value = getattr(self, f.name)
            if "low" in f.metadata and not (value is None and f.default is None):
                in_range(f.name, value, **{k: f.metadata.get(k) for k in ("low", "high")})
            choices = f.metadata.get("choices")
            if choices and not callable(value) and value not in choices:
                raise ValueError(f"{f.name} must be one of {', '.join(choices)}, got {value!r}")
        if not isinstance(self.device, str):
            raise ValueError(f"device must be auto, cpu or cuda, got {self.device!r}")
        return self

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Options:
        """Checked options from names and values. Raises TypeError for a name that is none."""
        names = [f.name for f in fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise TypeError(f"no option is called {name!r}{hint} There are: {', '.join(names)}")
        return cls(**options).check()


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
    strip_location: bool = option(
        False, "folders", "leave out where a photo was taken (GPS), which is kept otherwise"
    )


def in_range(name: str, value: Any, low: Any, high: Any) -> None:
    """Raises ValueError where a value is no number, or lies outside."""
    words = f"be at least {low}" if high is None else f"lie in {low}..{high}"
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and low <= value <= (float("inf") if high is None else high)):
        raise ValueError(f"{name} must {words}, got {value if number else repr(value)}")


def described(f: Field, default: bool = True) -> str:
    """An option's help with its range and default."""
    words = f.metadata["help"]
    if "low" in f.metadata:
        high = f.metadata.get("high")
        low = f.metadata["low"]
        words += f", at least {low}" if high is None else f", {low}..{high}"
    return f"{words} (default: {f.default})" if default and f.default is not None else words


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of all options, in their groups."""
    groups = {name: parser.add_argument_group(title) for name, title in TITLES.items()}
    for f in (*fields(Options), *fields(Folders)):
        facts = f.metadata
        flag = facts.get("flag", "--" + f.name.replace("_", "-"))
        if flag is None:
            continue
        add = groups[facts["group"]].add_argument
        if isinstance(f.default, bool):
            action = "store_false" if f.default else "store_true"
            words = "do not look for faces" if f.default else facts["help"]
            add(flag, dest=f.name, action=action, help=words)
        else:
            kind = facts.get("kind") or (str if f.default is None else type(f.default))
            metavar = facts.get("metavar") or (None if "choices" in facts else f.name.upper())
            more = {"choices": facts.get("choices"), "metavar": metavar, "help": described(f)}
            add(flag, dest=f.name, type=kind, default=f.default, **more)


def options_from(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a Restorer, checked; a net's file by its absolute path."""
    options = {f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)}
    Options.of(options)
    for name in (f.name for f in fields(Options) if f.metadata["help"] == NET):
        net = options.pop(name)
        if net:  # a file, or a shipped name
            options[name] = os.path.abspath(net) if Path(net).suffix else net
    return options


def folders_from(args: argparse.Namespace) -> Folders:
    """What the command line says of files and folders."""
    return Folders(**{f.name: getattr(args, f.name) for f in fields(Folders)})
