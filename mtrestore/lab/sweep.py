"""A sweep: one notebook, many parameters, a run for each, a table at the end.

notebook: ../notebooks/11_face_network.ipynb   # as seen from this file, like every text that begins with ./ or ../
parameters: {size: 64, steps: 300}             # the same in each run
grid: {join: [concat, add, none]}              # each with each
seeds: [0, 1, 2]                               # optional: all of that for each of them, as parameter `seed`
data: train_faces/                             # optional: what the folder holds that `--data FOLDER` has to name
estimate: 40                                   # optional: seconds of a run
slurm: {timeout_min: 60}                       # optional: for submitit's executor
report: {question: "Do skips help?"}           # optional: for `mtrestore report`

plan = read(file)          # checked before anything runs
table = sweep(plan, out)   # each point that is not done: notebook.execute in a thread here, on a Dask cluster or in a Slurm job
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import queue
import re
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..guard import safe
from ..guard.lock import locked
from ..io import files
from ..io.claims import check_folder
from ..io.text import cell, nearest, one_line, shown
from . import record as run
from . import schema as records
from .execute import KINDS, STOP, STOP_FILE, Task, check, execute, inspect, task

if TYPE_CHECKING:
    import pandas

KEYS = {
    "notebook": str,
    "parameters": dict,
    "grid": dict,
    "seeds": list,
    "data": str,
    "estimate": (int, float),
    "slurm": dict,
    "report": dict,
}
MOST_POINTS = 10_000
Ended = Generator[tuple[Task, dict[str, Any]], None, None]  # each task with its status, as they end


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, checked: the notebook, the values of its parameter `device`, and name -> parameters of each point."""

    notebook: Path
    sha256: str
    devices: set[str]
    points: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(repr=False)


def read(file: str | Path, data: str | Path | None = None) -> Sweep:
    """The sweep in a YAML file, with every parameter checked against the notebook.

    `data` is the folder of the notebook's parameter of that name; a file with a setting `data`
    needs it. Raises ValueError or FileNotFoundError.
    """
    settings = files.read_yaml(file)
    if not isinstance(settings, dict) or "notebook" not in settings:
        raise ValueError(f"{file} must be a mapping with notebook, and grid or seeds")
    for key, value in settings.items():
        if key not in KEYS:
            known = f"{', '.join(KEYS)}{nearest(key, KEYS)}"
            raise ValueError(f"{file}: unknown setting {key!r}; known are {known}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise ValueError(
                f"{file}: {key} must be {KINDS.get(KEYS[key], 'a number')}, got {value!r}"
            )
    records.check(settings.get("report", {}), records.REPORT, f"{file}: report")
    if not 0 < settings.get("estimate", 1) <= 1e8:
        raise ValueError(
            f"{file}: estimate must be seconds above 0, at most 1e8, got {settings['estimate']:.6g}"
        )
    fixed, grid = dict(settings.get("parameters", {})), dict(settings.get("grid", {}))
    home = Path(os.path.abspath(file)).parent
    if data is not None:
        if not Path(data).is_dir():
            raise ValueError(f"--data must be a folder, and {data} is none")
        fixed["data"] = f"./{os.path.relpath(data, home)}"
    elif "data" in settings:
        raise ValueError(
            f"{file} needs --data FOLDER, the folder that holds {settings['data']}; "
            "it comes with no pictures"
        )
    if "seeds" in settings:
        if "seed" in grid or not all(type(s) is int for s in settings["seeds"]):
            raise ValueError(
                f"{file}: seeds must be whole numbers and the grid without a seed of its own, got {settings['seeds']!r}"
            )
        grid["seed"] = settings["seeds"]
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        raise ValueError(
            f"{file}: nothing to run; grid needs a list of values for each name, as in grid: {{join: [concat, add]}}, or seeds: [0, 1, 2]"
        )
    if both := grid.keys() & fixed.keys():
        raise ValueError(
            f"{file}: {min(both, key=str)} stands in parameters and varies as well; keep one of them"
        )
    if (count := math.prod(map(len, grid.values()))) > MOST_POINTS:
        many = f"{count:,}" if count < 10**12 else "over a million million"
        raise ValueError(
            f"{file}: grid and seeds make {many} points, more than {MOST_POINTS:,}; "
            "list fewer values, or split it into several sweeps"
        )
    notebook = Path(os.path.normpath(home / settings["notebook"]))
    known, sha256 = inspect(notebook)
    who, points, names = f"{file}: {notebook.name}", [], []
    same = {k: located(v, home) for k, v in check(fixed, known, who).items()}
    axes = {k: [located(check({k: v}, known, who)[k], home) for v in grid[k]] for k in grid}
    for values, places in zip(itertools.product(*grid.values()), itertools.product(*axes.values())):
        varied = dict(zip(grid, values))
        points.append(same | dict(zip(axes, places)))
        text = ",".join(
            f"{k}={'-'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in varied.items()
        )
        names.append(re.sub(r"[^A-Za-z0-9=,._+-]+", "-", text)[:80])
        if names[-1] != text:
            names[-1] += "~" + digest(points[-1])
    for name, values in axes.items():
        if twice := [v for i, v in enumerate(values) if v in values[:i]]:
            given = grid[name][values.index(twice[0])]
            raise ValueError(f"{file}: the point {name}={given} comes twice; list each value once")
    count = Counter(
        name.casefold() for name in names
    )  # 1 and "1"; or s and S, which some file systems take for one
    names = [
        name if count[name.casefold()] == 1 else f"{name}~{digest(point)}"
        for name, point in zip(names, points)
    ]
    return Sweep(
        notebook,
        sha256,
        {point.get("device", known.get("device", "cpu")) for point in points},
        dict(zip(names, points)),
        settings,
    )


def digest(point: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]


def located(value: Any, home: Path) -> Any:
    """A text like ../data as seen from the project's root, where records have it, instead of from `home`."""
    if not isinstance(value, str) or not value.startswith(("./", "../")):
        return value
    path = os.path.relpath(home / value, run.ROOT)
    return path if path.startswith("..") else f"./{path}"


def sweep(
    plan: Sweep,
    out: str | Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    slurm: bool = False,
    overwrite: bool = False,
) -> pandas.DataFrame:
    """Run each point that is not done (overwrite: each), print a line for it, and return the table of all, which is OUT/table.csv too.

    A point is done when its status.json says so, with these parameters and this notebook. jobs: runs at a time, by default one for each GPU, or core.
    dask: a cluster's address. Raises ValueError where another sweep is at work in OUT, or nothing can run there.
    """
    out, places, options = (
        Path(os.path.abspath(out)),
        slots(plan, jobs),
        plan.settings.get("slurm", {}),
    )
    threads = (
        options.get("cpus_per_task", 1)
        if slurm
        else 1
        if dask
        else max(1, run.cores() // len(places))
    )
    if (out / "table.csv").exists():
        check_folder(out, ("sweep.json",), overwrite)
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out):
        run.write_json(out / "sweep.json", plan.settings)
        todo = [
            task(out / name, plan.notebook, plan.sha256, point, threads)
            for name, point in plan.points.items()
            if overwrite or not done(plan, out, name)
        ]
        ended = (
            on_cluster(todo, dask, out)
            if dask and todo
            else on_slurm(todo, options, out)
            if slurm and todo
            else here(todo, places)
        )
        begin, failed = time.perf_counter(), {}
        with contextlib.closing(ended):
            for count, (job, status) in enumerate(ended, 1):
                name, left, error = (
                    Path(job["folder"]).name,
                    (time.perf_counter() - begin) / count * (len(todo) - count),
                    status["error"],
                )
                if status["status"] != "done":
                    failed[name] = error
                words = [
                    f"{count}/{len(todo)}",
                    status["status"],
                    name,
                    f"{status['seconds']:.1f} s",
                    error,
                    f"{clock(left)} left" if left else "",
                ]
                print(shown("  ".join(filter(None, words))), flush=True)
        table = run.runs(out).set_index("run").reindex(plan.points).reset_index(names="run")
        for (
            name,
            error,
        ) in failed.items():  # once more, since the disk may have been too full for a status.json
            table.loc[table["run"] == name, ["status", "error"]] = "failed", error
        words = table.rename(columns=cell).map(
            lambda value: cell(value) if isinstance(value, str) else value
        )
        files.write_bytes(out / "table.csv", words.to_csv(index=False).encode())
    return table


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the folder for one sweep."""
    busy = f"another sweep is at work in {out}; wait for it, or choose another folder with -o"
    with locked(out / ".lock", ValueError(busy)):
        (out / STOP_FILE).unlink(missing_ok=True)
        yield


def done(plan: Sweep, out: Path, name: str) -> bool:
    status = run.read_json(out / name / "status.json")
    return (status.get("status"), status.get("parameters"), status.get("sha256")) == (
        "done",
        plan.points[name],
        plan.sha256,
    )


def forecast(plan: Sweep, out: str | Path, jobs: int | None = None, overwrite: bool = False) -> str:
    """What `sweep` would do: its points, those that are done, and about how long the others take."""
    ready = {name: not overwrite and done(plan, Path(out), name) for name in plan.points}
    old = [run.read_json(path) for path in Path(out).glob("*/status.json")]
    times = [s.get("seconds") for s in old if s.get("status") == "done"]
    past: list[Any] = [seconds for seconds in times if records.is_number(seconds)]
    each, left, width = (
        plan.settings.get("estimate") or (median(past) if past else None),
        list(ready.values()).count(False),
        len(slots(plan, jobs)),
    )
    time = (
        f"about {clock(each * -(-left // width))} ({each:.0f} s a run, {width} at a time)"
        if each
        else "no estimate yet; the file may give one"
    )
    first = f"{len(ready)} runs of {plan.notebook.name} in {out}: {len(ready) - left} done, {left} to do, {time}"
    return "\n".join(
        map(
            shown,
            [first, *(f"{'done' if ready[name] else 'to do':5}  {name}" for name in plan.points)],
        )
    )


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {seconds} s"
        if minutes
        else f"{seconds} s"
    )


def slots(plan: Sweep, jobs: int | None) -> list[str | None]:
    """The GPU, or None, of each run that has a place at the same time."""
    gpus: Sequence[str | None] = ()
    if plan.devices - {"cpu"} and shutil.which("nvidia-smi"):
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return list(
        itertools.islice(
            itertools.cycle(gpus or [None]), min(jobs or len(gpus) or run.cores(), MOST_POINTS)
        )
    )


def here(todo: Sequence[Task], places: Sequence[str | None]) -> Ended:
    """On this machine, a thread for each place."""
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def one(job: Task) -> dict[str, Any]:
        gpu = free.get()
        try:
            return execute({**job, "gpu": gpu})
        finally:
            free.put(gpu)

    for gpu in places:
        free.put(gpu)
    with futures.ThreadPoolExecutor(len(places)) as pool:
        waiting = {pool.submit(one, job): job for job in todo}
        try:
            for future in futures.as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            STOP.set()
            pool.shutdown(cancel_futures=True)
            STOP.clear()


def on_cluster(todo: Sequence[Task], address: str, out: Path) -> Ended:
    """On a Dask cluster, whose workers must see the same folders; one run for each of their threads."""
    from ..folder.pool import Cluster

    cluster = Cluster(address, timeout=0)
    waiting = {cluster.executor.submit(execute, job): job for job in todo}
    try:
        for future in futures.as_completed(waiting):
            yield waiting[future], outcome(future, waiting[future])
    finally:
        if not all(future.done() for future in waiting):
            (out / STOP_FILE).touch()
        cluster.close()


def on_slurm(todo: Sequence[Task], options: Mapping[str, Any], out: Path) -> Ended:
    """As one array of Slurm jobs; submitit runs them on this machine where there is no Slurm."""
    try:
        import submitit
    except ImportError as e:
        raise ValueError(
            "--slurm needs the package submitit; install it with: pip install 'mtrestore[slurm]'"
        ) from e
    executor = submitit.AutoExecutor(folder=out / ".slurm")
    try:
        executor.update_parameters(**{"cpus_per_task": 1, **options})
    except (NameError, TypeError, ValueError) as e:
        raise ValueError(f"slurm: {dict(options)} is not what submitit takes: {one_line(e)}") from e
    with safe.imports(), executor.batch():
        jobs = [executor.submit(execute, job) for job in todo]
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=1):
            yield todo[jobs.index(job)], outcome(job, todo[jobs.index(job)])
    finally:
        if not all(job.done() for job in jobs):
            (out / STOP_FILE).touch()
            for job in jobs:
                job.cancel()


def outcome(future: Any, job: Task) -> dict[str, Any]:
    """What `execute` returned elsewhere, or that it never came back."""
    try:
        return future.result()
    except (Exception, futures.CancelledError) as e:
        status = {
            "status": "failed",
            "seconds": 0.0,
            "error": f"the cluster lost it: {one_line(e)}",
            "parameters": job["parameters"],
        }
        with contextlib.suppress(ValueError, OSError):
            Path(job["folder"]).mkdir(exist_ok=True)
            run.write_json(Path(job["folder"]) / "status.json", status)
        return status
