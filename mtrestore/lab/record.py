"""What one run leaves behind: its numbers, its pictures, and what made them (parameters, versions, weights, hardware); and a table of many.

    metrics.json   name -> number               rows.json    one dict for each picture (and severity, ratio, ...)
    curves.json    name -> [[step, value], ...]  pairs/       NAME.before.png and NAME.after.png
    run.json       what made them               NAME.png     figures

A run of a sweep has the executed notebook, run.ipynb, and status.json beside these.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io import files
from ..io.text import one_line, shown
from . import schema as records

if TYPE_CHECKING:
    import pandas

ROOT = Path(__file__).parents[2]
PACKAGES = ("mtrestore", "torch", "numpy", "opencv-python", "scikit-image", "papermill")
NOTEBOOK = "MTRESTORE_NOTEBOOK"  # in the environment of a run: "sha256 path" of the notebook that is executed


class Run:
    """A folder of results: `Run("outputs/tour", photo=photo).save({"psnr": 31.2}, steps=figure)`."""

    def __init__(self, out: str | Path, **parameters: Any) -> None:
        self.folder, self.parameters = Path(out), parameters
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, numbers: Mapping[str, float], *, rows: Iterable[Mapping[str, Any]] | None = None, curves: Mapping[str, Any] | None = None,
             pairs: Mapping[str, tuple[Any, Any]] | None = None, **figures: Any) -> Path:  # fmt: skip
        """Write numbers (name -> float), matplotlib figures (file name -> figure) and what else is given; returns the folder.

        rows: one dict for each picture. curves: name -> [(step, value), ...]. pairs: name -> (before, after), float H×W×3, 0..1.
        Every file is written whole or not at all; in a folder that is no run's, nothing is replaced.
        A number that is not finite is null in the files, which stay strict JSON.
        """
        from .. import image
        from ..io.claims import check_folder

        names = [
            "run.json",
            "metrics.json",
            "rows.json",
            "curves.json",
            "pairs",
            *(f"{name}.png" for name in figures),
        ]
        if any(os.path.lexists(self.folder / name) for name in names):
            check_folder(self.folder, ("run.json", "status.json"))
        if curves is not None and not isinstance(curves, Mapping):
            raise ValueError(
                f"curves must be {{name: [(step, value), ...]}}, got {type(curves).__name__}; give a figure another name"
            )
        for name, content in (
            ("run", made_by(self.parameters)),
            ("rows", None if rows is None else list(rows)),
            ("curves", curves),
        ):
            if content is not None:
                write_json(self.folder / f"{name}.json", content)
        for name, both in (pairs or {}).items():
            (self.folder / "pairs").mkdir(exist_ok=True)
            for when, picture in zip(("before", "after"), both, strict=True):
                image.write(self.folder / "pairs" / f"{name}.{when}.png", picture)
        for name, figure in figures.items():
            png = io.BytesIO()
            figure.savefig(png, format="png")
            files.write_bytes(self.folder / f"{name}.png", png.getvalue())
        write_json(
            self.folder / "metrics.json", {k: float(v) for k, v in numbers.items()}
        )  # last: where it is, the rest is too
        return self.folder


def made_by(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says."""
    from .. import weights

    sha256, _, notebook = os.environ.get(NOTEBOOK, "").partition(" ")
    opened = Path(
        os.environ.get("JPY_SESSION_NAME", "")
    )  # what Jupyter calls the notebook of a kernel
    if not notebook and opened.is_file():
        notebook, sha256 = portable(opened), hashlib.sha256(files.read_bytes(opened)).hexdigest()
    return {
        "parameters": parameters, "seed": parameters.get("seed"), "notebook": notebook or None, "sha256": sha256 or None, "git": git(),
        "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
        "weights": {name: weights.check(name)[0]["sha256"] for name in weights.shipped()}, "hardware": hardware(),
    }  # fmt: skip


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Processor, cores, GiB of memory; of a run that uses torch, the GPU it used, its threads and instruction set. The last bits hang on these."""
    torch = sys.modules.get("torch")
    cpu = platform.processor() or platform.machine()
    if (
        info := Path("/proc/cpuinfo")
    ).exists():  # x86: cloud machines hide the model's name, never its number
        said = dict(
            line.split(":", 1)
            for line in info.read_text().split("\n\n")[0].splitlines()
            if ":" in line
        )
        said = {k.strip(): v.strip() for k, v in said.items()}
        cpu = " ".join(
            [
                said.get("model name", cpu),
                *(f"{k} {said[k]}" for k in ("cpu family", "model", "stepping") if k in said),
            ]
        )
    memory = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    )
    return {
        "cpu": f"{cpu}, {torch.backends.cpu.get_cpu_capability()}" if torch else cpu, "cores": cores(), "memory_gib": round(memory / 2**30, 1) or None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else None, "threads": torch.get_num_threads() if torch else None,
    }  # fmt: skip


def git() -> dict[str, Any] | None:
    """The commit of the code, and whether the package or the notebooks differ from it; None where they are in no repository of their own."""

    def ask(*words: str) -> str:
        env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        return subprocess.run(
            ["git", "-C", ROOT, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env=env,
        ).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None
        return {
            "commit": ask("rev-parse", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--", "mtrestore", "notebooks")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def portable(path: str | Path) -> str:
    """A path below the project's root as seen from there, any other as it is, absolute."""
    path = Path(path).resolve()
    return str(path.relative_to(ROOT.resolve()) if path.is_relative_to(ROOT.resolve()) else path)


def plain(value: Any) -> Any:
    """A value as strict JSON knows it: numbers of NumPy and torch become Python's, what is not finite null, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return (
        str(value)
        if isinstance(value, Path)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
    )


def write_json(path: Path, content: Any) -> Path:
    """Write strict JSON in one step; raises ImageError E_WRITE."""
    return files.write_bytes(path, json.dumps(plain(content), indent=1, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is none, or only something that is none."""
    try:
        content = json.loads(files.read_bytes(path))
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {}


def places(folder: str | Path) -> list[Path]:
    """The folders of the runs in a folder. Raises FileNotFoundError where there is none."""
    found = sorted(
        {path.parent for name in ("status", "run") for path in Path(folder).glob(f"*/{name}.json")}
    )
    if not found:
        raise FileNotFoundError(
            f"no run in {str(folder)!r}: none of its folders has a status.json or run.json; give the folder of a sweep"
        )
    return found


def recorded(place: Path) -> dict[str, Any]:
    """What a run's folder says: run.json, then status.json over it; its parameters without `out`, its status, its metrics, and what made it.

    A run whose files are damaged has failed, and its error says what is wrong with them.
    """
    shapes = {"status": records.STATUS, "run": records.RUN, "metrics": records.NUMBERS}
    try:
        status, made, metrics = (
            records.read(place / f"{name}.json", shape) if (place / f"{name}.json").exists() else {}
            for name, shape in shapes.items()
        )
    except (OSError, ValueError) as e:
        return damaged(place, e)
    parameters = {
        k: v
        for k, v in {**made.get("parameters", {}), **status.get("parameters", {})}.items()
        if k != "out"
    }
    return {**made, **{k: v for k, v in status.items() if v is not None}, "run": shown(place.name), "parameters": parameters, "metrics": metrics,
            "status": status.get("status") or ("done" if metrics else "failed"),
            "made": {k: v for k, v in made.items() if k in ("git", "versions", "weights", "hardware")}}  # fmt: skip


def damaged(place: Path, e: Exception) -> dict[str, Any]:
    """What `recorded` says of a run whose files cannot be read."""
    words = one_line(e).replace(f"{place}{os.sep}", "")
    error = {"status": "failed", "error": shown(words), "seconds": None}
    return {**error, "run": shown(place.name), "parameters": {}, "metrics": {}, "made": {}}


def runs(folder: str | Path) -> pandas.DataFrame:
    """One row for each run in a folder: run (its folder), status, error, seconds, then parameters, then metrics as columns.

    status is done, failed, or started (it was cut short, or is at work); numbers are those of done runs. A name that is taken becomes
    "NAME (parameter)" or "NAME (metric)"; `.attrs` has the names of both as lists. Raises FileNotFoundError where there is no run.
    """
    import pandas

    base = ("run", "status", "error", "seconds")
    found, table = [], []
    for said in map(recorded, places(folder)):
        numbers = (
            {k: math.nan if v is None else v for k, v in said["metrics"].items()}
            if said["status"] == "done"
            else {}
        )
        found.append(({name: said.get(name) for name in base}, said["parameters"], numbers))
    given = dict.fromkeys(name for _, parameters, _ in found for name in parameters)
    measured = dict.fromkeys(name for *_, numbers in found for name in numbers)
    given = {name: name if name not in base else f"{name} (parameter)" for name in given}
    measured = {
        name: name if name not in (*base, *given) else f"{name} (metric)" for name in measured
    }
    for row, parameters, numbers in found:
        table.append(
            row
            | {given[k]: v for k, v in parameters.items()}
            | {measured[k]: v for k, v in numbers.items()}
        )
    frame = pandas.DataFrame(table, columns=[*base, *given.values(), *measured.values()])
    frame.attrs = {"parameters": list(given.values()), "metrics": list(measured.values())}
    return frame
