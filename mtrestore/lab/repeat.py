"""A run repeated: do its numbers agree, to the last bit on the same processor?

    print(rerun("runs/skips/join=add,seed=0"))
    print(rerun("experiments/results/skips.json", "join=add,seed=0"))

A notebook is a program, and a record that came from elsewhere may name any. So it has to be one of
the project's, or to lie beside the record, and to be the one whose sha256 the record has.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.text import shown
from . import record as run
from . import schema as records
from .execute import STOP_FILE, check, execute, inspect, task

FOLDERS = (run.ROOT / "notebooks", run.ROOT / "tests" / "notebooks")  # those of the project
TIMES = re.compile(
    r"(^|_)(seconds?|ms|time|rate|fps)(_|$)"
)  # in the names of numbers that no two runs share


@dataclass(frozen=True)
class Repeat:
    """A run and its repetition: (name, then, now, whether they agree) of each number, the relative tolerance, what else is to be said, and the
    digits that were compared, None for all.
    """

    numbers: list[tuple[str, float | None, float | None, bool]]
    tolerance: float
    notes: list[str]
    digits: int | None = None

    @property
    def agrees(self) -> bool:
        return all(same for *_, same in self.numbers)

    def __str__(self) -> str:
        width = max(len(name) for name, *_ in self.numbers)
        lines = [
            f"{name:{width}}  {then!r:>22}  {now!r:>22}  {'agrees' if same else 'DIFFERS'}"
            for name, then, now, same in self.numbers
        ]
        how = (
            f"to a relative tolerance of {self.tolerance:g}"
            if self.tolerance
            else f"to all {self.digits} digits"
            if self.digits
            else "to the last bit"
        )
        told = (
            f"all {len(self.numbers)} numbers agree"
            if self.agrees
            else f"{sum(not n[3] for n in self.numbers)} of {len(self.numbers)} numbers do not agree"
        )
        head = f"{'number':{width}}  {'then':>22}  {'now':>22}"
        return "\n".join(map(shown, [head, *lines, *self.notes, f"{told}, {how}"]))


def rerun(
    record: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    tolerance: float | None = None,
    *,
    changed: bool = False,
    data: str | Path | None = None,
) -> Repeat:
    """Repeat a run, the folder of one or run `name` of a bundle, and compare its numbers; numbers that are times are left out.

    tolerance: by default 0 where processor, threads and versions are the same, and 1e-2 elsewhere and on a GPU. out: keep the new run there.
    changed: take the notebook although it is not the one of then. data: the folder in the place of the record's parameter data.
    Raises ValueError where the record does not say how to repeat it, and RuntimeError where the repetition fails.
    """
    entry, made, digits = recorded(Path(record), name)
    times = [k for k in entry.get("metrics") or {} if TIMES.search(k)]
    then = {k: v for k, v in (entry.get("metrics") or {}).items() if k not in times}
    given = dict(entry.get("parameters", {}))
    if data is not None:
        given["data"] = os.path.abspath(data)
    pictures = given.get("data")
    if isinstance(pictures, str) and pictures and not (run.ROOT / pictures).is_dir():
        raise ValueError(
            f"{record} was run on the pictures in {pictures}, which is no folder here; "
            "give it with --data FOLDER"
        )
    if out and Path(out).resolve() == Path(record).resolve():
        raise ValueError(f"{out} holds the record itself; choose another folder for the new run")
    if not then or not entry.get("notebook"):
        raise ValueError(
            f"{record} cannot be repeated: it does not say its {'notebook' if then else 'numbers'}; give a finished run of a sweep"
        )
    notebook = located(Path(record), entry["notebook"])
    known, sha256 = inspect(notebook)
    notes = []
    if sha256 != entry.get("sha256"):
        notes = [f"{notebook.name} is not the notebook of then: it has changed"]
        if not changed:
            raise ValueError(f"{notes[0]}; --changed runs it all the same")
    threads = entry.get("threads") or made.get("hardware", {}).get("threads") or 1
    records.check(threads, records.COUNT, f"{record}: threads")
    with tempfile.TemporaryDirectory(prefix="mtrestore-", ignore_cleanup_errors=True) as temporary:
        folder = Path(out or f"{temporary}/run")
        status = execute(
            {
                **task(folder, notebook, sha256, check(given, known, notebook.name), threads),
                "stop": str(folder / STOP_FILE),
            }
        )
        if status["status"] != "done":
            raise RuntimeError(f"the repetition failed: {status['error'] or 'it was stopped'}")
        now = records.read(folder / "metrics.json", records.NUMBERS)
        about = folder / "run.json"
        anew = records.read(about, records.RUN) if about.is_file() else {}
    was, is_now = (
        {
            **{k: m.get("hardware", {}).get(k) for k in ("cpu", "gpu", "threads")},
            **m.get("versions", {}),
        }
        for m in (made, anew)
    )
    differences = (
        [f"{k}: {was.get(k)} then, {v} now" for k, v in is_now.items() if was.get(k) != v]
        if made
        else ["the record does not say what made it"]
    )
    differences += [
        f"other weights: {k}"
        for k, v in anew.get("weights", {}).items()
        if made and made.get("weights", {}).get(k) != v
    ]
    notes += differences
    if times:
        notes.append(f"left out, since they are times: {', '.join(times)}")
    tolerance = (
        tolerance if tolerance is not None else 1e-2 if differences or is_now["gpu"] else 0.0
    )
    if digits:
        notes.append(f"the bundle has {digits} digits of each number, so these are compared")
        now = {k: v if v is None else float(f"{v:.{digits}g}") for k, v in now.items()}
    return Repeat(
        [(k, v, now.get(k), agree(v, now.get(k), tolerance)) for k, v in then.items()],
        tolerance,
        notes,
        digits,
    )


def located(record: Path, name: str) -> Path:
    """The notebook that a record names, links resolved: the project's, or one beside the record.

    Raises ValueError for any other.
    """
    here = record.resolve()
    allowed = {folder.resolve() for folder in FOLDERS} | {here, here.parent}
    places = (run.ROOT / name, here / Path(name).name, here.parent / Path(name).name)
    with contextlib.suppress(OSError, ValueError):  # no name, or one that is too long
        for path in (place.resolve() for place in places):
            if path.parent in allowed and path.is_file():
                return path
    raise ValueError(
        f"{shown(name[:200])} is neither a notebook of the project nor beside the record, "
        f"so it is not run; if you trust it, put it into {shown(str(here if record.is_dir() else here.parent))}"
    )


def recorded(record: Path, name: str | None) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """(what was run and its numbers; what made them; the digits that numbers have, None for all)."""
    if record.is_dir():
        said = run.recorded(record)
        if said["status"] != "done":
            error = f": {said['error']}" if said.get("error") else ""
            raise ValueError(f"{record} cannot be repeated: its status is {said['status']}{error}")
        return said, said["made"], None
    if not record.is_file():
        raise FileNotFoundError(
            f"no run at {record}; give its folder, or a bundle and the name of one of its runs"
        )
    bundle = records.read(record, records.REPEATABLE)
    entries = {
        entry.get("run"): entry
        for entry in bundle.get("runs", [])
        if entry.get("status", "done") == "done"
    }
    if name not in entries:
        raise ValueError(
            f"{record} has no finished run {name!r}; name one with --run: {', '.join(entries) or 'there is none'}"
        )
    makers = {
        str((m.get("hardware"), m.get("versions"))): m for m in bundle.get("made", [])
    }  # of several, which made this run is not kept
    return entries[name], next(iter(makers.values())) if len(makers) == 1 else {}, 6


def agree(then: float | None, now: float | None, tolerance: float) -> bool:
    if then is None or now is None:
        return then is now
    return then == now or abs(then - now) <= tolerance * max(abs(then), abs(now))
