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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..io.text import shown
from . import schema
from .execute import STOP_FILE, check, execute, inspect, task_of
from .record import ROOT, read_run

FOLDERS = (ROOT / "notebooks", ROOT / "tests" / "notebooks")  # those of the project
TIMES = re.compile(r"(^|_)(seconds?|ms|time|rate|fps)(_|$)")  # numbers that no two runs share
DIGITS = 6  # of the numbers in a bundle


@dataclass(frozen=True)
class Repeat:
    """A run and its repetition.

    numbers: (name, then, now, whether they agree). tolerance: relative. digits: how many were
    compared, None for all.
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
        lines = [f"{'number':{width}}  {'then':>22}  {'now':>22}"]
        for name, then, now, same in self.numbers:
            word = "agrees" if same else "DIFFERS"
            lines.append(f"{name:{width}}  {then!r:>22}  {now!r:>22}  {word}")
        how = f"to all {self.digits} digits" if self.digits else "to the last bit"
        if self.tolerance:
            how = f"to a relative tolerance of {self.tolerance:g}"
        differ = sum(not same for *_, same in self.numbers)
        count = f"{differ} of {len(self.numbers)} numbers do not agree"
        if not differ:
            count = f"all {len(self.numbers)} numbers agree"
        return "\n".join(map(shown, [*lines, *self.notes, f"{count}, {how}"]))


def rerun(
    source: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    tolerance: float | None = None,
    *,
    changed: bool = False,
    data: str | Path | None = None,
) -> Repeat:
    """Repeat a run and compare its numbers, without those that are times.

    source: the folder of a run, or a bundle with run `name` in it. tolerance: by default 0 where
    processor, threads and versions are the same, and 1e-2 elsewhere and on a GPU. out: keep the new
    run there. changed: take the notebook although it is not the one of then. data: the folder in
    the place of the record's parameter data.
    Raises ValueError where the record does not say how to repeat it, and RuntimeError where the
    repetition fails.
    """
    source = Path(source)
    entry, origin, digits = entry_of(source, name)
    if out and Path(out).resolve() == source.resolve():
        raise ValueError(f"{out} holds the record itself; choose another folder for the new run")
    given = parameters_of(source, entry, data)
    metrics = entry.get("metrics") or {}
    times = [k for k in metrics if TIMES.search(k)]
    then = {k: v for k, v in metrics.items() if k not in times}
    if not then or not entry.get("notebook"):
        lack = "notebook" if then else "numbers"
        hint = f"it does not say its {lack}; give a finished run of a sweep"
        raise ValueError(f"{source} cannot be repeated: {hint}")
    notebook, notes = find_notebook(source, entry["notebook"]), []
    defaults, sha256 = inspect(notebook)
    if sha256 != entry.get("sha256"):
        notes = [f"{notebook.name} is not the notebook of then: it has changed"]
        if not changed:
            raise ValueError(f"{notes[0]}; --changed runs it all the same")
    threads = entry.get("threads") or origin.get("hardware", {}).get("threads") or 1
    schema.check(threads, schema.COUNT, f"{source}: threads")
    parameters = check(given, defaults, notebook.name)
    with tempfile.TemporaryDirectory(prefix="mtrestore-", ignore_cleanup_errors=True) as temporary:
        folder = Path(out or f"{temporary}/run")
        task = task_of(folder, notebook, sha256, parameters, threads)
        status = execute({**task, "stop": str(folder / STOP_FILE)})
        if status["status"] != "done":
            raise RuntimeError(f"the repetition failed: {status['error'] or 'it was stopped'}")
        now = schema.read(folder / "metrics.json", schema.NUMBERS)
        new_origin = schema.read_any(folder / "run.json", schema.RUN) or {}
    unlike = differences(origin, new_origin)
    if tolerance is None:
        tolerance = 1e-2 if unlike or new_origin.get("hardware", {}).get("gpu") else 0.0
    notes += unlike
    if times:
        notes.append(f"left out, since they are times: {', '.join(times)}")
    if digits:
        notes.append(f"the bundle has {digits} digits of each number, so these are compared")
        now = {k: v if v is None else float(f"{v:.{digits}g}") for k, v in now.items()}
    numbers = [(k, v, now.get(k), agree(v, now.get(k), tolerance)) for k, v in then.items()]
    return Repeat(numbers, tolerance, notes, digits)


def parameters_of(
    source: Path, entry: Mapping[str, Any], data: str | Path | None
) -> dict[str, Any]:
    """The record's parameters; raises ValueError where the folder of their data is not here."""
    parameters = dict(entry.get("parameters", {}))
    if data is not None:
        parameters["data"] = os.path.abspath(data)
    pictures = parameters.get("data")
    if isinstance(pictures, str) and pictures and not (ROOT / pictures).is_dir():
        what = f"the pictures in {pictures}, which is no folder here"
        raise ValueError(f"{source} was run on {what}; give it with --data FOLDER")
    return parameters


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what of processor, GPU, threads, versions and weights is other than then."""
    if not then:
        return ["the record does not say what made it"]

    def facts(origin: Mapping[str, Any]) -> dict[str, Any]:
        hardware = origin.get("hardware", {})
        return {k: hardware.get(k) for k in ("cpu", "gpu", "threads")} | origin.get("versions", {})

    old, weights = facts(then), then.get("weights", {})
    other = [f"{k}: {old.get(k)} then, {v} now" for k, v in facts(now).items() if old.get(k) != v]
    new_weights = now.get("weights", {}).items()
    return other + [f"other weights: {k}" for k, v in new_weights if weights.get(k) != v]


def find_notebook(source: Path, name: str) -> Path:
    """A record's notebook, links resolved: the project's or beside it; else ValueError."""
    here = source.resolve()
    allowed = {folder.resolve() for folder in FOLDERS} | {here, here.parent}
    places = (ROOT / name, here / Path(name).name, here.parent / Path(name).name)
    with contextlib.suppress(OSError, ValueError):  # no name, or one that is too long
        for path in (place.resolve() for place in places):
            if path.parent in allowed and path.is_file():
                return path
    folder = here if source.is_dir() else here.parent
    raise ValueError(
        f"{shown(name[:200])} is neither a notebook of the project nor beside the record, "
        f"so it is not run; if you trust it, put it into {shown(str(folder))}"
    )


def entry_of(source: Path, name: str | None) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """(what ran and its numbers; what made them; the digits that numbers have, None for all)."""
    if source.is_dir():
        run = read_run(source)
        if run["status"] != "done":
            error = f": {run['error']}" if run.get("error") else ""
            raise ValueError(f"{source} cannot be repeated: its status is {run['status']}{error}")
        return run, run["made"], None
    if not source.is_file():
        hint = "give its folder, or a bundle and the name of one of its runs"
        raise FileNotFoundError(f"no run at {source}; {hint}")
    bundle = schema.read(source, schema.REPEATABLE)
    entries = {r["run"]: r for r in bundle["runs"] if r.get("status", "done") == "done"}
    if name not in entries:
        hint = f"name one with --run: {', '.join(entries) or 'there is none'}"
        raise ValueError(f"{source} has no finished run {name!r}; {hint}")
    origins = {str((m.get("hardware"), m.get("versions"))): m for m in bundle.get("made", [])}
    # of several, which made this run is not kept
    return entries[name], next(iter(origins.values())) if len(origins) == 1 else {}, DIGITS


def agree(then: float | None, now: float | None, tolerance: float) -> bool:
    if then is None or now is None:
        return then == now
    return abs(then - now) <= tolerance * max(abs(then), abs(now))
