"""Which file each input becomes: one output for each input, the same in every run, and never two
alike.

An output keeps its input's name and its place below the folder; a format that cannot be written
becomes PNG (`a.gif` -> `a.gif.png`). Two outputs are alike when they differ at most in case or in
Unicode form, which some file systems do not tell apart. Then the one whose name is plain already
(small letters, NFC) keeps it, and each other gets `~` and eight digits of its own name's sha256:
`Case~5f1c09aa.jpg`.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..image import SUFFIXES
from ..io.files import STATE as STATE
from ..io.files import ImageError, alike, below, inode

LONGEST = 255  # bytes in a file name


@dataclass(frozen=True)
class Job:
    """One input and its output, root / rel.

    problem: why the input cannot even be opened, where that is known already.

    alone: no folder run, which has a gallery and where pages must not share a name.
    """

    source: Path
    root: Path
    rel: Path
    problem: ImageError | None = None
    alone: bool = False

    @property
    def target(self) -> Path:
        return self.root / self.rel

    @property
    def page(self) -> Path:
        """The before/after page beside the output: a.html of a picture alone.

        Else the suffix stays, as a.jpg and a.png must not share one.
        """
        name = f"{self.rel.stem if self.alone else self.rel.name}.html"
        return self.target.with_name(
            name if len(os.fsencode(name)) <= LONGEST else f"{key(name)}.html"
        )


def plan(inputs: Sequence[str], output: str) -> list[Job]:
    """A job for each input: a file, or every file below a folder.

    Links to folders are not followed; what lies in the output folder is no input.

    Raises ImageError where a folder would be restored onto itself (E_WRITE), and where the only
    input is a folder that gives nothing.
    """
    out = Path(output)
    places: dict[str, Place] = {}  # by absolute path: what is named twice is one input
    for name in inputs:
        source = Path(name)
        if not os.path.isdir(name):
            place = Place(source, Path(source.name or "unnamed"), None)
            places.setdefault(os.path.abspath(source), place)
            continue
        if inode(source) == inode(out):
            why = "would be overwritten by its own restoration; give another output"
            raise ImageError("E_WRITE", f"{source} {why}")
        count = len(places)
        for path, problem in below(source, inode(out)):
            rel = Path(source.name or "folder") if path == source else path.relative_to(source)
            places.setdefault(os.path.abspath(path), Place(path, rel, problem))
        if len(places) == count:
            problem = ImageError("E_MISSING", f"the folder {source} holds no file")
            place = Place(source, Path(source.name or "folder"), problem)
            places[os.path.abspath(source)] = place
    first = next(iter(places.values()), None)
    if first and len(places) == 1 and first.problem:
        raise first.problem
    if (
        first
        and len(inputs) == 1
        and not os.path.isdir(inputs[0])
        and out.suffix
        and not out.is_dir()
    ):
        name = out.name if out.suffix.lower() in SUFFIXES else f"{out.name}.png"
        return [Job(first.source, out.parent, Path(name), first.problem)]
    rels = keep_apart([place.rel for place in places.values()])
    return [Job(p.source, out, rel, p.problem) for p, rel in zip(places.values(), rels)]


class Place(NamedTuple):
    """An input and its place below the output folder."""

    source: Path
    rel: Path
    problem: ImageError | None


def key(name: str) -> str:
    """A short file name for what belongs to an output of any name."""
    return sha256(os.fsencode(name)).hexdigest()[:24]


def keep_apart(places: Sequence[Path]) -> list[Path]:
    """An output path for each place, with a suffix that can be written, no two alike and none alike
    to a folder that another one needs.
    """
    wanted = [p if p.suffix.lower() in SUFFIXES else p.with_name(f"{p.name}.png") for p in places]
    folders: set[Path] = set()
    for p in wanted:
        for parent in p.parents:
            if parent in folders:  # and so are all above it; a hostile nest has thousands
                break
            folders.add(parent)
    taken = set(map(alike, folders))
    rank = [
        (p != place, alike(p) != str(p), os.fsencode(p), i)
        for i, (p, place) in enumerate(zip(wanted, places))
    ]
    out: list[Path | None] = [None] * len(places)
    for *_, i in sorted(
        rank
    ):  # first all who keep their name, so that no made-up name can take a real one
        if alike(wanted[i]) not in taken and len(os.fsencode(wanted[i].name)) <= LONGEST:
            out[i] = wanted[i]
            taken.add(alike(wanted[i]))
    seen: Counter[Path] = Counter()
    for i, place in enumerate(places):
        seen[place] += 1
        if out[i] is None:
            digest = sha256(os.fsencode(place) + b"\0" * seen[place]).hexdigest()
            tags = itertools.chain(
                (digest[:n] for n in (8, 16, 64)), (f"{digest}-{n}" for n in itertools.count())
            )
            names = (
                tagged(wanted[i], tag) for tag in tags
            )  # without end: others may bear just these names
            free = next(p for p in names if alike(p) not in taken)
            out[i] = free
            taken.add(alike(free))
    return [path for path in out if path is not None]


def tagged(path: Path, tag: str) -> Path:
    """`folder/name.jpg` -> `folder/name~tag.jpg`, the name cut where it would become too long."""
    ending = f"~{tag}{path.suffix}"
    stem = os.fsencode(path.stem)[: LONGEST - len(ending)]
    return path.with_name(stem.decode("utf-8", "ignore") + ending)
