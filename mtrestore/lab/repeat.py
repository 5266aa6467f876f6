"""A run repeated: do its numbers agree, to the last bit on the same processor?

print(rerun("runs/skips/join=add,seed=0"))
print(rerun("experiments/results/skips.json", "join=add,seed=0"))
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import record as run
from .execute import STOP_FILE, check, execute, inspect, task

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
        return "\n".join(
            [
                f"{'number':{width}}  {'then':>22}  {'now':>22}",
                *lines,
                *self.notes,
                f"{told}, {how}",
            ]
        )


def rerun(
    record: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    tolerance: float | None = None,
) -> Repeat:
    """Repeat a run, the folder of one or run `name` of a bundle, and compare its numbers; numbers that are times are left out.

    tolerance: by default 0 where processor, threads and versions are the same, and 1e-2 elsewhere and on a GPU. out: keep the new run there.
    Raises ValueError where the record does not say how to repeat it, and RuntimeError where the repetition fails.
    """
    entry, made, digits = recorded(Path(record), name)
    times = [k for k in entry.get("metrics") or {} if TIMES.search(k)]
    then = {k: v for k, v in (entry.get("metrics") or {}).items() if k not in times}
    given = entry.get("parameters", {})
    if out and Path(out).resolve() == Path(record).resolve():
        raise ValueError(f"{out} holds the record itself; choose another folder for the new run")
    if not then or not entry.get("notebook"):
        raise ValueError(
            f"{record} cannot be repeated: it does not say its {'notebook' if then else 'numbers'}; give a finished run of a sweep"
        )
    notebook = run.ROOT / entry["notebook"]
    known, sha256 = inspect(notebook)
    notes = (
        []
        if sha256 == entry.get("sha256")
        else [f"{notebook.name} is not the notebook of then: it has changed"]
    )
    threads = entry.get("threads") or made.get("hardware", {}).get("threads") or 1
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
        now, anew = run.read_json(folder / "metrics.json"), run.read_json(folder / "run.json")
    was, is_now = (
        {
            **{k: m.get("hardware", {}).get(k) for k in ("cpu", "gpu", "threads")},
            **m.get("versions", {}),
        }
        for m in (made, anew)
    )
    changed = (
        [f"{k}: {was.get(k)} then, {v} now" for k, v in is_now.items() if was.get(k) != v]
        if made
        else ["the record does not say what made it"]
    )
    changed += [
        f"other weights: {k}"
        for k, v in anew["weights"].items()
        if made and made.get("weights", {}).get(k) != v
    ]
    notes += changed
    if times:
        notes.append(f"left out, since they are times: {', '.join(times)}")
    tolerance = tolerance if tolerance is not None else 1e-2 if changed or is_now["gpu"] else 0.0
    if digits:
        notes.append(f"the bundle has {digits} digits of each number, so these are compared")
        now = {k: v if v is None else float(f"{v:.{digits}g}") for k, v in now.items()}
    return Repeat(
        [(k, v, now.get(k), agree(v, now.get(k), tolerance)) for k, v in then.items()],
        tolerance,
        notes,
        digits,
    )


def recorded(record: Path, name: str | None) -> tuple[dict[str, Any], dict[str, Any], int | None]:
    """(what was run and its numbers; what made them; the digits that numbers have, None for all)."""
    if record.is_dir():
        said = run.recorded(record)
        return said, said["made"], None
    if not record.is_file():
        raise FileNotFoundError(
            f"no run at {record}; give its folder, or a bundle and the name of one of its runs"
        )
    bundle = run.read_json(record)
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
    return (
        then == now
        or None not in (then, now)
        and abs(then - now) <= tolerance * max(abs(then), abs(now))
    )
