"""One notebook, executed: its parameters checked, in a process of its own, with all that became of it written down.

    known, sha256 = inspect(notebook)                     # name -> default
    parameters = check({"size": 64}, known, "the run")    # or one line that says what is wrong
    execute(task(folder, notebook, sha256, parameters))   # -> folder: run.ipynb, status.json, and what `Run` leaves

`execute` starts this module as a program; its `work` hands the notebook to papermill. A process for each run rather than joblib's pool: loky gives
the whole pool up when one worker is killed, and papermill needs folder, threads and GPU of its process for itself. So whoever calls `execute`, a
thread here, a Dask worker or a Slurm job, only waits, and can tell how the process ended. The process watches its standard input: where that ends,
the caller has ended or wants it to stop, and it takes its kernel along. A kernel whose process is killed ends itself within a second (ipykernel
looks after its parent).
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..guard import safe
from ..io import files
from ..io.text import nearest, one_line, shown
from . import record as run

KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}
PART, STOP_FILE = ".run.ipynb", ".stop"
STOP = threading.Event()  # for the runs of this process; those elsewhere see the file
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
ALONE = "--InteractiveShellApp.ignore_cwd=True"  # IPython would let a notebook import from its run's folder
DETERMINISTIC = "--IPKernelApp.exec_lines=import torch; torch.use_deterministic_algorithms(True, warn_only=True)"
Task = dict[str, Any]  # folder, source, notebook, sha256, parameters, given, threads, stop, gpu


def inspect(notebook: Path) -> tuple[dict[str, Any], str]:
    """(name -> default of the notebook's parameters, its sha256); a default that is no literal is None."""
    import papermill

    if not notebook.is_file():
        raise FileNotFoundError(
            f"no notebook at {os.path.normpath(notebook)}; check its path, which is seen from the sweep's file"
            + nearest(notebook.name, (path.name for path in notebook.parent.glob("*.ipynb")))
        )
    content, known = files.read_bytes(notebook), {}
    try:
        found = papermill.inspect_notebook(parsed(content))
    except Exception as e:  # whatever a file that is none makes of nbformat
        raise ValueError(
            f"{notebook} is not a notebook that can be read: {one_line(e)[:200]}"
        ) from e
    for name, parameter in found.items():
        known[name] = None
        with contextlib.suppress(ValueError, SyntaxError):
            known[name] = ast.literal_eval(parameter["default"])
    if "out" not in known:
        raise ValueError(
            f"{notebook.name} has no parameter out, the folder for its results; give its cell tagged parameters one"
        )
    return known, hashlib.sha256(content).hexdigest()


def parsed(content: bytes) -> Any:
    import nbformat

    node = nbformat.reads(content.decode(), 4)
    node.metadata.setdefault(
        "kernelspec", {"name": "python3", "language": "python", "display_name": "Python 3"}
    )
    return node


def check(given: Mapping[str, Any], known: Mapping[str, Any], who: str) -> dict[str, Any]:
    """The parameters as the notebook will get them; raises ValueError for a name it does not know and a value of another type."""
    checked = {}
    for name, value in given.items():
        if name == "out" or name not in known:
            raise ValueError(
                f"{who} has no parameter {name!r} to set; it has {', '.join(k for k in known if k != 'out')}"
            )
        default, kind = known[name], list if isinstance(known[name], tuple) else type(known[name])
        if type(value) is int and abs(value) >= 2**63:
            raise ValueError(f"{who}: {name} must be a number that 64 bits hold, got a larger one")
        if kind is float and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not kind:
            hint = (
                "; YAML wants a point in it: 1.0e-3"
                if kind is float
                and isinstance(value, str)
                and re.fullmatch(r"[\d.]+e[+-]?\d+", value)
                else ""
            )
            raise ValueError(
                f"{who}: {name} must be {KINDS.get(kind, kind.__name__)} like {default!r}, got {value!r}{hint}"
            )
        try:
            checked[str(name)] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as e:
            raise ValueError(f"{who}: {name} must be a plain, finite value, got {value!r}") from e
    return checked


def task(
    folder: Path, notebook: Path, sha256: str, parameters: Mapping[str, Any], threads: int
) -> Task:
    """All that `execute` needs, in plain values: it may stand on another machine."""
    given = {
        k: os.path.normpath(run.ROOT / v)
        if isinstance(v, str) and v.startswith(("./", "../"))
        else v
        for k, v in parameters.items()
    }
    folder = Path(os.path.abspath(folder))
    return {"folder": str(folder), "source": os.path.abspath(notebook), "notebook": run.portable(notebook), "sha256": sha256,
            "parameters": dict(parameters), "given": {**given, "out": str(folder)}, "threads": threads, "stop": str(folder.parent / STOP_FILE)}  # fmt: skip


def execute(task: Task) -> dict[str, Any]:
    """Run one task in a process of its own; what its status.json says. Whatever becomes of the run is in there, and nothing is raised."""
    folder, begin = Path(task["folder"]), time.perf_counter()
    status = {"status": "started", "seconds": 0.0, "error": None, **about(task)}
    env = {**os.environ, **safe.environment(), **dict.fromkeys(THREADS, str(task["threads"])), run.NOTEBOOK: f"{task['sha256']} {task['notebook']}",
           "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # fmt: skip
    env.pop("MPLBACKEND", None)  # the kernel has its own, which leaves pictures in the notebook
    if task.get("gpu") is not None:
        env["CUDA_VISIBLE_DEVICES"] = task["gpu"]
    if stopped(task):
        return status
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("status.json", "metrics.json", "run.json", "rows.json", "curves.json", PART):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "pairs", ignore_errors=True)
        run.write_json(folder / "status.json", status)
        code, last = process(task, env)
        keep(folder)
        if (said := run.read_json(folder / "status.json")).get("status") in ("done", "failed"):
            return said
        if not stopped(task):
            how = (
                f"{signal.Signals(-code).name}{'; out of memory?' * (code == -9)}"
                if code < 0
                else f"exit code {code}: {last}"
            )
            status |= {"status": "failed", "error": shown(f"the run's process ended early ({how})")}
    except (OSError, ValueError) as e:
        status |= {"status": "failed", "error": shown(one_line(e))}
    status["seconds"] = round(time.perf_counter() - begin, 2)
    with contextlib.suppress(ValueError):  # a disk that is full
        run.write_json(folder / "status.json", status)
    return status


def about(task: Task) -> dict[str, Any]:
    return {k: task[k] for k in ("notebook", "sha256", "parameters", "threads")}


def stopped(task: Task) -> bool:
    return STOP.is_set() or os.path.exists(task["stop"])


def process(task: Task, env: Mapping[str, str]) -> tuple[int, str]:
    """(exit code, last line it printed) of the process that does the work."""
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "mtrestore.lab.execute"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=task["folder"],
            env=env,
            start_new_session=True,
        ) as process:
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin
                process.stdin.write(json.dumps(task).encode() + b"\n")
                process.stdin.flush()
            while process.poll() is None:
                if process.stdin and stopped(task):
                    process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        log.seek(0)
        return process.returncode, (
            log.read().decode(errors="replace").strip().splitlines() or [""]
        )[-1]


def keep(folder: Path) -> None:
    """Give papermill's notebook, which is written in place, its name; one that was torn is dropped and the old one stays."""
    try:
        content = files.read_bytes(folder / PART)
        json.loads(content)
        files.write_bytes(folder / "run.ipynb", content)
    except files.ImageError as e:
        if e.code != "E_MISSING":
            raise
    except ValueError:
        pass
    finally:
        (folder / PART).unlink(missing_ok=True)


def work() -> None:
    """The process of one run: the task comes on standard input, and the run is stopped where that ends."""
    task, begin, folder, error = (
        json.loads(sys.stdin.readline()),
        time.perf_counter(),
        Path.cwd(),
        None,
    )
    threading.Thread(target=end_with_parent, daemon=True).start()
    modules: dict[str, Any] = sys.modules
    modules["rfc3987_syntax"] = None  # jsonschema does without; importing it takes three seconds
    import papermill
    from nbclient.exceptions import DeadKernelError

    options = [ALONE, *([DETERMINISTIC] if shutil.which("nvidia-smi") else [])]
    try:
        content = files.read_bytes(task["source"])
        if hashlib.sha256(content).hexdigest() != task["sha256"]:
            raise ValueError(
                f"{task['notebook']} was changed after the sweep began; start it again"
            )
        papermill.execute_notebook(
            parsed(content),
            PART,
            task["given"],
            kernel_name="python3",
            progress_bar=False,
            start_timeout=300,
            extra_arguments=options,
        )
        if not run.read_json(folder / "metrics.json"):
            error = "it left no metrics.json; its last cell must write Run(out).save(numbers)"
    except papermill.PapermillExecutionError as e:
        error = f"{e.ename}: {e.evalue} (cell {e.exec_count})"
    except DeadKernelError:
        error = "its kernel was killed, or crashed; out of memory?"
    except Exception as e:  # a full disk, say
        error = f"{type(e).__name__}: {one_line(e)}"
    try:
        keep(folder)
    except (OSError, ValueError) as e:
        error = error or one_line(e)
    status = {
        "status": "failed" if error else "done",
        "seconds": round(time.perf_counter() - begin, 2),
        **about(task),
    }
    run.write_json(
        folder / "status.json", status | {"error": error and shown(" ".join(error.split())[:500])}
    )


def end_with_parent() -> None:
    import psutil  # comes with ipykernel

    sys.stdin.buffer.read()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)


if __name__ == "__main__":
    work()
