"""What one run leaves behind: its numbers, its pictures, what made them; and a table of many runs.

    metrics.json  name -> number                 rows.json  one dict for each picture (and severity)
    curves.json   name -> [[step, value], ...]   pairs/     NAME.before.png and NAME.after.png
    run.json      what made them                 NAME.png   figures

A run of a sweep has the executed notebook, run.ipynb, and status.json beside these.
"""

from __future__ import annotations

import hashlib
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
from . import schema

if TYPE_CHECKING:
    import pandas

ROOT = Path(__file__).parents[2]
PACKAGES = ("mtrestore", "torch", "numpy", "opencv-python", "scikit-image", "papermill")
NOTEBOOK = "MTRESTORE_NOTEBOOK"  # environment variable: "sha256 path" of the executed notebook


class Run:
    """A folder of results: `Run("outputs/a", photo=photo).save({"psnr": 31.2}, steps=figure)`."""

    def __init__(self, out: str | Path, **parameters: Any) -> None:
        self.folder, self.parameters = Path(out), parameters
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(
        self,
        numbers: Mapping[str, float],
        *,
        rows: Iterable[Mapping[str, Any]] | None = None,
        curves: Mapping[str, Any] | None = None,
        pairs: Mapping[str, tuple[Any, Any]] | None = None,
        **figures: Any,
    ) -> Path:
        """Write numbers and what else there is; returns the folder.

        rows: one dict for each picture. curves: name -> [(step, value), ...]. pairs: name ->
        (before, after), float H×W×3, 0..1. figures: file name -> matplotlib figure. Every file is
        whole or not there; in a folder that is no run's, nothing is replaced. A number that is not
        finite is null in the files, which stay strict JSON.
        """
        from .. import image
        from ..io.claims import check_folder
        from ..plot import drawn

        if curves is not None and not isinstance(curves, Mapping):
            kind = f"got {type(curves).__name__}; give a figure another name"
            raise ValueError(f"curves must be {{name: [(step, value), ...]}}, {kind}")
        contents = {"run": provenance(self.parameters), "curves": curves}
        contents["rows"] = None if rows is None else list(rows)
        names = [f"{name}.json" for name in (*contents, "metrics")]
        names += ["pairs", *(f"{name}.png" for name in figures)]
        if any(os.path.lexists(self.folder / name) for name in names):
            check_folder(self.folder, ("run.json", "status.json"))
        for name, content in contents.items():
            if content is not None:
                write_json(self.folder / f"{name}.json", content)
        for name, pair in (pairs or {}).items():
            (self.folder / "pairs").mkdir(exist_ok=True)
            for when, picture in zip(("before", "after"), pair, strict=True):
                image.write(self.folder / "pairs" / f"{name}.{when}.png", picture)
        for name, figure in figures.items():
            files.write_bytes(self.folder / f"{name}.png", drawn(figure))
        metrics = {name: float(value) for name, value in numbers.items()}
        write_json(self.folder / "metrics.json", metrics)  # last: where it is, the rest is too
        return self.folder


def provenance(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What made a run: the content of run.json."""
    from .. import weights

    sha256, _, notebook = os.environ.get(NOTEBOOK, "").partition(" ")
    opened = Path(os.environ.get("JPY_SESSION_NAME", ""))  # Jupyter's name for a kernel's notebook
    if not notebook and opened.is_file():
        notebook, sha256 = portable(opened), hashlib.sha256(files.read_bytes(opened)).hexdigest()
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {
        "parameters": parameters,
        "seed": parameters.get("seed"),
        "notebook": notebook or None,
        "sha256": sha256 or None,
        "git": git(),
        "versions": {"python": platform.python_version(), **versions},
        "weights": {name: weights.check(name)[0]["sha256"] for name in weights.shipped()},
        "hardware": hardware(),
    }


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its name, and on x86 its number: cloud machines hide the name, never the number."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if not info.exists():
        return name
    lines = info.read_text().split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    numbers = [f"{k} {facts[k]}" for k in ("cpu family", "model", "stepping") if k in facts]
    return " ".join([facts.get("model name", name), *numbers])


def hardware() -> dict[str, Any]:
    """What the last bits hang on; of a run that uses torch also threads, GPU, instructions."""
    import psutil

    torch, cpu = sys.modules.get("torch"), processor()
    return {
        "cpu": f"{cpu}, {torch.backends.cpu.get_cpu_capability()}" if torch else cpu,
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else None,
        "threads": torch.get_num_threads() if torch else None,
    }


def git() -> dict[str, Any] | None:
    """Commit of the code, and whether it was changed; None in no repository of its own."""

    def ask(*words: str) -> str:
        command, env = ["git", "-C", ROOT, *words], {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=20, env=env
        )
        return answer.stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None
        changes = ask("status", "--porcelain", "--", "mtrestore", "notebooks")
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.SubprocessError):
        return None


def portable(path: str | Path) -> str:
    """A path below the project's root as seen from there, any other as it is, absolute."""
    path, root = Path(path).resolve(), ROOT.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def plain(value: Any) -> Any:
    """A value as strict JSON knows it: numbers Python's, what is not finite null, paths text."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Any) -> Path:
    """Write strict JSON in one step; raises ImageError E_WRITE."""
    return files.write_bytes(path, json.dumps(plain(content), indent=1, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty where there is none, or only something that is none."""
    try:
        content = json.loads(files.read_bytes(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def run_folders(folder: str | Path) -> list[Path]:
    """The folders of the runs in a folder. Raises FileNotFoundError where there is none."""
    records = [*Path(folder).glob("*/status.json"), *Path(folder).glob("*/run.json")]
    if not records:
        hint = "none of its folders has a status.json or run.json; give the folder of a sweep"
        raise FileNotFoundError(f"no run in {str(folder)!r}: {hint}")
    return sorted({path.parent for path in records})


def read_run(folder: Path) -> dict[str, Any]:
    """What a run's folder says: run.json, then status.json over it, `run` (its name), `metrics`.

    `parameters` are without `out`; `made` is what made it. Damaged files make a failed run, whose
    error says what is wrong with them.
    """
    shapes = {"status": schema.STATUS, "run": schema.RUN, "metrics": schema.NUMBERS}
    try:
        contents = [schema.read_any(folder / f"{name}.json", shapes[name]) for name in shapes]
    except (OSError, ValueError) as e:
        return unreadable(folder, e)
    status, run, metrics = (content or {} for content in contents)
    parameters = {**run.get("parameters", {}), **status.get("parameters", {})}
    parameters.pop("out", None)
    origin = {k: v for k, v in run.items() if k in ("git", "versions", "weights", "hardware")}
    state = status.get("status") or ("done" if metrics else "failed")
    run |= {k: v for k, v in status.items() if v is not None}
    run |= {"run": shown(folder.name), "parameters": parameters, "metrics": metrics}
    return {**run, "status": state, "made": origin}


def unreadable(folder: Path, e: Exception) -> dict[str, Any]:
    """`read_run` of a run whose files cannot be read."""
    error = shown(one_line(e).replace(f"{folder}{os.sep}", ""))
    run = {"status": "failed", "error": error, "seconds": None, "run": shown(folder.name)}
    return {**run, "parameters": {}, "metrics": {}, "made": {}}


def runs(folder: str | Path) -> pandas.DataFrame:
    """One row for each run: run (its folder), status, error, seconds, then parameters and metrics.

    status is done, failed, or started (it was cut short, or is at work); numbers are those of done
    runs. A name that is taken becomes "NAME (parameter)" or "NAME (metric)"; `.attrs` has the names
    of both as lists. Raises FileNotFoundError where there is no run.
    """
    import pandas

    base = ("run", "status", "error", "seconds")
    records = [read_run(place) for place in run_folders(folder)]
    for r in records:
        numbers = r["metrics"].items() if r["status"] == "done" else ()
        r["metrics"] = {k: math.nan if v is None else v for k, v in numbers}
    names = dict.fromkeys(name for r in records for name in r["parameters"])
    parameters = {n: f"{n} (parameter)" if n in base else n for n in names}
    names = dict.fromkeys(name for r in records for name in r["metrics"])
    metrics = {n: f"{n} (metric)" if n in (*base, *parameters) else n for n in names}
    rows = [
        {name: r.get(name) for name in base}
        | {parameters[k]: v for k, v in r["parameters"].items()}
        | {metrics[k]: v for k, v in r["metrics"].items()}
        for r in records
    ]
    frame = pandas.DataFrame(rows, columns=[*base, *parameters.values(), *metrics.values()]).astype(
        {"seconds": float}
    )
    frame.attrs = {"parameters": [*parameters.values()], "metrics": [*metrics.values()]}
    return frame
