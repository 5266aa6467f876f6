"""A sweep: one notebook, many parameters, a run for each, a table at the end.

notebook: 11_face_network.ipynb     # the project's; or a path as seen from this file, ../a.ipynb
parameters: {size: 64, steps: 300}  # the same in each run; ./ and ../ are seen from this file
grid: {join: [concat, add, none]}   # each with each
seeds: [0, 1, 2]                    # optional: all of that for each, as parameter `seed`
data: train_faces/                             # optional: what the folder of --data has to hold
estimate: 40                        # optional: seconds of a run
slurm: {timeout_min: 60}            # optional: for submitit's executor
report: {question: "Do skips help?"}  # optional: for `mtrestore report`

sweep = read(file)       # checked before anything runs
table = run(sweep, out)  # each point that is not done, in a thread here, on Dask or in a Slurm job
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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
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
from . import record, schema
from .execute import KINDS, STOP, STOP_FILE, Task, check, execute, inspect, task_of

if TYPE_CHECKING:
    import pandas

KEYS = {
    **{"notebook": str, "parameters": dict, "grid": dict, "seeds": list, "data": str},
    **{"estimate": (int, float), "slurm": dict, "report": dict},
}
MOST_POINTS = 10_000
Ended = Generator[tuple[Task, dict[str, Any]], None, None]  # each task with its status, as they end


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, checked; points: name -> parameters, devices: those the points name."""

    notebook: Path
    sha256: str
    devices: set[str]
    points: dict[str, dict[str, Any]]
    settings: dict[str, Any] = field(repr=False)


def read(file: str | Path, data: str | Path | None = None) -> Sweep:
    """The sweep in a YAML file, checked against its notebook. Raises ValueError, OSError.

    data: the folder of the notebook's parameter of that name, which a setting `data` asks for.
    """
    settings = check_settings(files.read_yaml(file), file)
    grid = grid_of(settings, file)
    home = Path(os.path.abspath(file)).parent
    fixed = dict(settings.get("parameters", {})) | pictures_of(settings, file, data, home)
    notebook = notebook_of(settings["notebook"], home)
    defaults, sha256 = inspect(notebook)
    who = f"{file}: {notebook.name}"
    fixed = check(fixed, defaults, who)
    fixed = {name: from_root(value, home) for name, value in fixed.items()}
    axes = {}
    for name, values in grid.items():
        axes[name] = [from_root(check({name: v}, defaults, who)[name], home) for v in values]
        for i, value in enumerate(axes[name]):
            if value in axes[name][:i]:
                twice = f"the point {name}={values[axes[name].index(value)]} comes twice"
                raise ValueError(f"{file}: {twice}; list each value once")
    points = [fixed | dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    devices = {point.get("device", defaults.get("device", "cpu")) for point in points}
    return Sweep(notebook, sha256, devices, dict(zip(names_of(grid, points), points)), settings)


def pictures_of(
    settings: Mapping[str, Any], file: str | Path, data: str | Path | None, home: Path
) -> dict[str, str]:
    """The parameter data; raises ValueError where it is needed, or no folder."""
    if data is None and "data" in settings:
        what = f"the folder that holds {settings['data']}; it comes with no pictures"
        raise ValueError(f"{file} needs --data FOLDER, {what}")
    if data is None:
        return {}
    if not Path(data).is_dir():
        raise ValueError(f"--data must be a folder, and {data} is none")
    return {"data": f"./{os.path.relpath(data, home)}"}


def notebook_of(name: str, home: Path) -> Path:
    """A path as seen from home; a name without folder that is not there is the project's.

    The project's may go without its ending: 11_face_network.
    """
    path = Path(os.path.normpath(home / name))
    if os.path.lexists(path) or os.path.basename(name) != name:
        return path
    ours = [record.ROOT / "notebooks" / f"{name}{ending}" for ending in ("", ".ipynb")]
    return next((each for each in ours if os.path.isfile(each)), path)


def check_settings(settings: Any, file: str | Path) -> dict[str, Any]:
    """What a sweep's file says, if each setting is known and of its kind; else ValueError."""
    if not isinstance(settings, dict) or "notebook" not in settings:
        raise ValueError(f"{file} must be a mapping with notebook, and grid or seeds")
    for key, value in settings.items():
        if key not in KEYS:
            known = f"{', '.join(KEYS)}{nearest(key, KEYS)}"
            raise ValueError(f"{file}: unknown setting {key!r}; known are {known}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            kind = KINDS.get(KEYS[key], "a number")
            raise ValueError(f"{file}: {key} must be {kind}, got {value!r}")
    schema.check(settings.get("report", {}), schema.REPORT, f"{file}: report")
    if not 0 < settings.get("estimate", 1) <= 1e8:
        wish = f"seconds above 0, at most 1e8, got {settings['estimate']:.6g}"
        raise ValueError(f"{file}: estimate must be {wish}")
    return settings


def grid_of(settings: Mapping[str, Any], file: str | Path) -> dict[str, list[Any]]:
    """name -> values of what varies, seeds too; raises ValueError where it is no grid, or huge."""
    grid = dict(settings.get("grid", {}))
    if "seeds" in settings:
        seeds = settings["seeds"]
        if "seed" in grid or not all(type(s) is int for s in seeds):
            wish = "whole numbers and the grid without a seed of its own"
            raise ValueError(f"{file}: seeds must be {wish}, got {seeds!r}")
        grid["seed"] = seeds
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        example = "as in grid: {join: [concat, add]}, or seeds: [0, 1, 2]"
        hint = f"grid needs a list of values for each name, {example}"
        raise ValueError(f"{file}: nothing to run; {hint}")
    if both := grid.keys() & settings.get("parameters", {}).keys():
        why = "stands in parameters and varies as well; keep one of them"
        raise ValueError(f"{file}: {min(both, key=str)} {why}")
    if (count := math.prod(map(len, grid.values()))) > MOST_POINTS:
        many = f"{count:,}" if count < 10**12 else "over a million million"
        hint = "list fewer values, or split it into several sweeps"
        what = f"grid and seeds make {many} points, more than {MOST_POINTS:,}"
        raise ValueError(f"{file}: {what}; {hint}")
    return grid


def names_of(grid: Mapping[str, list[Any]], points: Sequence[dict[str, Any]]) -> list[str]:
    """A short, safe name for each point that stays the same from run to run."""
    names = []
    for values, point in zip(itertools.product(*grid.values()), points):
        words = ["-".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
        text = ",".join(f"{name}={word}" for name, word in zip(grid, words))
        name = re.sub(r"[^A-Za-z0-9=,._+-]+", "-", text)[:80]
        names.append(name if name == text else f"{name}~{digest(point)}")
    # 1 and "1" are alike, and so are s and S, which some file systems take for one
    count = Counter(map(str.casefold, names))
    alike = [count[name.casefold()] > 1 for name in names]
    return [f"{n}~{digest(p)}" if a else n for n, p, a in zip(names, points, alike)]


def digest(point: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(point, sort_keys=True).encode()).hexdigest()[:8]


def from_root(value: Any, home: Path) -> Any:
    """A text like ../data as seen from the project's root, where records have it, not from home."""
    if not isinstance(value, str) or not value.startswith(("./", "../")):
        return value
    path = os.path.relpath(home / value, record.ROOT)
    return path if path.startswith("..") else f"./{path}"


def run(
    sweep: Sweep,
    out: str | Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    slurm: bool = False,
    overwrite: bool = False,
) -> pandas.DataFrame:
    """Run each point that is not done (overwrite: each), print a line for it; the table of all.

    The table is OUT/table.csv too. A point is done when its status.json says so, with these
    parameters and this notebook. jobs: runs at a time, by default one for each GPU, or core.
    dask: a cluster's address. Raises ValueError where another sweep is at work in OUT, or nothing
    can run there.
    """
    out, gpus = Path(os.path.abspath(out)), slots(sweep, jobs)
    options = sweep.settings.get("slurm", {})
    threads = options.get("cpus_per_task", 1) if slurm else 1
    if not slurm and not dask:
        threads = max(1, record.cores() // len(gpus))
    if (out / "table.csv").exists():
        check_folder(out, ("sweep.json",), overwrite)
    out.mkdir(parents=True, exist_ok=True)
    with hold(out):
        record.write_json(out / "sweep.json", sweep.settings)
        tasks = [
            task_of(out / name, sweep.notebook, sweep.sha256, point, threads)
            for name, point in sweep.points.items()
            if overwrite or not is_done(sweep, out, name)
        ]
        if dask and tasks:
            ended = on_cluster(tasks, dask, out)
        else:
            ended = on_slurm(tasks, options, out) if slurm and tasks else here(tasks, gpus)
        return table(sweep, out, watch(ended, len(tasks)))


@contextlib.contextmanager
def hold(out: Path) -> Iterator[None]:
    """Hold the folder for one sweep."""
    busy = f"another sweep is at work in {out}; wait for it, or choose another folder with -o"
    with locked(out / ".lock", ValueError(busy)):
        (out / STOP_FILE).unlink(missing_ok=True)
        yield


def watch(ended: Ended, total: int) -> dict[str, str | None]:
    """Print a line for each task as it ends; name -> error of those that did not succeed."""
    begin, errors = time.perf_counter(), {}
    with contextlib.closing(ended):
        for count, (task, status) in enumerate(ended, 1):
            name, error = Path(task["folder"]).name, status["error"]
            left = (time.perf_counter() - begin) / count * (total - count)
            if status["status"] != "done":
                errors[name] = error
            words = [f"{count}/{total}", status["status"], name, f"{status['seconds']:.1f} s"]
            words += [error, f"{clock(left)} left" if left else ""]
            print(shown("  ".join(filter(None, words))), flush=True)
    return errors


def table(sweep: Sweep, out: Path, errors: Mapping[str, str | None]) -> pandas.DataFrame:
    """A row for each point, in their order; written as table.csv too."""
    rows = record.runs(out).set_index("run").reindex(sweep.points).reset_index(names="run")
    for name, error in errors.items():  # again: the disk may have been full for a status.json
        rows.loc[rows["run"] == name, ["status", "error"]] = "failed", error
    words = rows.rename(columns=cell).map(lambda v: cell(v) if isinstance(v, str) else v)
    files.write_bytes(out / "table.csv", words.to_csv(index=False).encode())
    return rows


def summary(rows: pandas.DataFrame) -> str:
    """The runs with their first numbers, for a terminal."""
    columns = ["run", "status", "seconds", *rows.attrs["metrics"][:5]]
    table: Any = rows[columns]  # in pandas' types no function may be a float_format
    words = table.rename(columns=shown).map(lambda v: shown(v) if type(v) is str else v)
    return words.to_string(index=False, float_format="{:.4g}".format, na_rep="")


def is_done(sweep: Sweep, out: Path, name: str) -> bool:
    status = record.read_json(out / name / "status.json")
    wish = {"status": "done", "parameters": sweep.points[name], "sha256": sweep.sha256}
    return all(status.get(key) == value for key, value in wish.items())


def forecast(
    sweep: Sweep, out: str | Path, jobs: int | None = None, overwrite: bool = False
) -> str:
    """What `run` would do: its points, those that are done, and about how long the others take."""
    done = {n for n in sweep.points if not overwrite and is_done(sweep, Path(out), n)}
    past = [record.read_json(path) for path in Path(out).glob("*/status.json")]
    past = [status.get("seconds") for status in past if status.get("status") == "done"]
    past = [seconds for seconds in past if schema.is_number(seconds)]
    each = sweep.settings.get("estimate") or (median(past) if past else None)
    left, width = len(sweep.points) - len(done), len(slots(sweep, jobs))
    duration = "no estimate yet: give one in the file, as in estimate: 40 (seconds of a run)"
    if each:
        source = "the file's estimate" if "estimate" in sweep.settings else "the runs done"
        rounds = f"({each:.0f} s a run, {width} at a time), by {source}"
        duration = f"about {clock(each * math.ceil(left / width))} {rounds}"
    what = f"{len(sweep.points)} runs of {sweep.notebook.name} in {out}"
    lines = [f"{what}: {len(done)} done, {left} to do, {duration}"]
    lines += [f"{'done' if name in done else 'to do':5}  {name}" for name in sweep.points]
    return "\n".join(map(shown, lines))


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def slots(sweep: Sweep, jobs: int | None) -> list[str | None]:
    """The GPU, or None, of each run that has a place at the same time."""
    gpus: Sequence[str | None] = ()
    if sweep.devices - {"cpu"} and shutil.which("nvidia-smi"):
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    count = min(jobs or len(gpus) or record.cores(), MOST_POINTS)
    return list(itertools.islice(itertools.cycle(gpus or [None]), count))


def here(tasks: Sequence[Task], gpus: Sequence[str | None]) -> Ended:
    """On this machine, a thread for each slot."""
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def one(task: Task) -> dict[str, Any]:
        gpu = free.get()
        try:
            return execute({**task, "gpu": gpu})
        finally:
            free.put(gpu)

    for gpu in gpus:
        free.put(gpu)
    with futures.ThreadPoolExecutor(len(gpus)) as pool:
        waiting = {pool.submit(one, task): task for task in tasks}
        try:
            for future in futures.as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            STOP.set()
            pool.shutdown(cancel_futures=True)
            STOP.clear()


def on_cluster(tasks: Sequence[Task], address: str, out: Path) -> Ended:
    """On a Dask cluster, whose workers see the same folders; a run for each of their threads."""
    from ..folder.pool import Cluster

    with contextlib.closing(Cluster(address, timeout=0)) as cluster:
        waiting = {cluster.executor.submit(execute, task): task for task in tasks}
        yield from elsewhere(waiting, futures.as_completed(waiting), out)


def on_slurm(tasks: Sequence[Task], options: Mapping[str, Any], out: Path) -> Ended:
    """As one array of Slurm jobs; submitit runs them on this machine where there is no Slurm."""
    try:
        import submitit
    except ImportError as e:
        hint = "install it with: pip install 'mtrestore[slurm]'"
        raise ValueError(f"--slurm needs the package submitit; {hint}") from e
    executor = submitit.AutoExecutor(folder=out / ".slurm")
    try:
        executor.update_parameters(**{"cpus_per_task": 1, **options})
    except (NameError, TypeError, ValueError) as e:
        raise ValueError(f"slurm: {dict(options)} is not what submitit takes: {one_line(e)}") from e
    with safe.imports(), executor.batch():
        jobs = [executor.submit(execute, task) for task in tasks]
    done = submitit.helpers.as_completed(jobs, poll_frequency=1)
    yield from elsewhere(dict(zip(jobs, tasks)), done, out)


def elsewhere(waiting: Mapping[Any, Task], done: Iterable[Any], out: Path) -> Ended:
    """The tasks on other machines; a sweep that ends before them has them stopped."""
    try:
        for job in done:
            yield waiting[job], outcome(job, waiting[job])
    finally:
        if not all(job.done() for job in waiting):
            (out / STOP_FILE).touch()
            for job in waiting:
                job.cancel()


def outcome(job: Any, task: Task) -> dict[str, Any]:
    """What `execute` returned elsewhere, or that it never came back."""
    try:
        return job.result()
    except (Exception, futures.CancelledError) as e:
        error = f"the cluster lost it: {one_line(e)}"
        status = {"status": "failed", "seconds": 0.0, "error": error}
        status["parameters"] = task["parameters"]
        with contextlib.suppress(ValueError, OSError):
            Path(task["folder"]).mkdir(exist_ok=True)
            record.write_json(Path(task["folder"]) / "status.json", status)
        return status
