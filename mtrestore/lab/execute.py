"""One notebook, executed: parameters checked, a process of its own, and all that became of it.

    defaults, sha256 = inspect(notebook)                       # name -> default
    parameters = check({"size": 64}, defaults, "the run")      # or one line: what is wrong
    execute(task_of(folder, notebook, sha256, parameters, 1))  # run.ipynb, status.json, `Run`'s

`execute` starts this module as a program; its `work` hands the notebook to papermill. A process for
each run rather than joblib's pool: loky gives the whole pool up when one worker is killed, and
papermill needs folder, threads and GPU of its process for itself. So whoever calls `execute`, a
thread here, a Dask worker or a Slurm job, only waits, and can tell how the process ended. The
process watches its standard input: where that ends, the caller has ended or wants it to stop, and
it takes its kernel along. A kernel whose process is killed ends itself within a second.
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
from . import record

KINDS = {
    **{int: "a whole number", float: "a number", str: "text", bool: "true or false"},
    **{list: "a list", dict: "a mapping"},
}
PART, STOP_FILE = ".run.ipynb", ".stop"
STOP = threading.Event()  # for the runs of this process; those elsewhere see the file
THREADS = [f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA")]
ALONE = "--InteractiveShellApp.ignore_cwd=True"  # no imports from the run's folder
DETERMINISTIC = (
    "--IPKernelApp.exec_lines="
    "import torch; torch.use_deterministic_algorithms(True, warn_only=True)"
)
Task = dict[str, Any]  # folder source notebook sha256 parameters arguments threads stop gpu


def inspect(notebook: Path) -> tuple[dict[str, Any], str]:
    """(name -> default, None for no literal; the notebook's sha256). Raises ValueError, OSError."""
    import papermill

    if not os.path.isfile(notebook):  # unlike Path's, it takes names that no file can have
        hint = "check its path, which is seen from the sweep's file"
        there = os.listdir(notebook.parent) if os.path.isdir(notebook.parent) else []
        like = nearest(notebook.name, [name for name in there if name.endswith(".ipynb")])
        raise FileNotFoundError(shown(f"no notebook at {str(notebook)[:300]}; {hint}{like}"))
    content = files.read_bytes(notebook)
    try:
        parameters = papermill.inspect_notebook(parse(content))
    except Exception as e:  # whatever a file that is none makes of nbformat
        why = f"{notebook} is not a notebook that can be read: {one_line(e)[:200]}"
        raise ValueError(shown(why)) from e
    if "out" not in parameters:
        hint = "the folder for its results; give its cell tagged parameters one"
        raise ValueError(shown(f"{notebook.name} has no parameter out, {hint}"))
    defaults = {name: literal(p["default"]) for name, p in parameters.items()}
    return defaults, hashlib.sha256(content).hexdigest()


def literal(text: str) -> Any:
    """The value that a Python literal says, or None."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return None


def parse(content: bytes) -> Any:
    """The notebook in a file's bytes; raises ValueError also for text that UTF-8 cannot say."""
    import nbformat

    text = content.decode()
    if re.search("[\ud800-\udfff]", json.dumps(json.loads(text), ensure_ascii=False)):
        raise ValueError("it has half a character (a lone surrogate), which no file can hold")
    node = nbformat.reads(text, 4)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    node.metadata.setdefault("kernelspec", kernel)
    return node


def check(parameters: Mapping[str, Any], defaults: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Parameters as the notebook gets them; ValueError for an unknown name or a wrong kind."""
    values = {}
    for name, value in parameters.items():
        if name == "out" or name not in defaults:
            names = ", ".join(k for k in defaults if k != "out")
            raise ValueError(f"{who} has no parameter {name!r} to set; it has {names}")
        if type(value) is int and abs(value) >= 2**63:
            raise ValueError(f"{who}: {name} must be a number that 64 bits hold, got a larger one")
        default = defaults[name]
        kind = list if isinstance(default, tuple) else type(default)
        if kind is float and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not kind:
            what, hint = KINDS.get(kind, kind.__name__), ""
            if kind is float and re.fullmatch(r"[\d.]+e[+-]?\d+", str(value)):
                hint = "; YAML wants a point in it: 1.0e-3"
            raise ValueError(f"{who}: {name} must be {what} like {default!r}, got {value!r}{hint}")
        try:
            values[str(name)] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as e:
            raise ValueError(f"{who}: {name} must be a plain, finite value, got {value!r}") from e
    return values


def task_of(
    folder: Path, notebook: Path, sha256: str, parameters: Mapping[str, Any], threads: int
) -> Task:
    """All that `execute` needs, in plain values: it may stand on another machine."""
    folder = Path(os.path.abspath(folder))
    arguments = {**parameters, "out": str(folder)}
    for name, value in parameters.items():
        if isinstance(value, str) and value.startswith(("./", "../")):
            arguments[name] = os.path.normpath(record.ROOT / value)
    return {
        "folder": str(folder),
        "source": os.path.abspath(notebook),
        "notebook": record.portable(notebook),
        "sha256": sha256,
        "parameters": dict(parameters),
        "arguments": arguments,
        "threads": threads,
        "stop": str(folder.parent / STOP_FILE),
    }


def execute(task: Task) -> dict[str, Any]:
    """Run a task in its own process; what its status.json says. Nothing is raised."""
    folder, begin = Path(task["folder"]), time.perf_counter()
    status = {"status": "started", "seconds": 0.0, "error": None, **about(task)}
    if must_stop(task):
        return status
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("status.json", "metrics.json", "run.json", "rows.json", "curves.json", PART):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "pairs", ignore_errors=True)
        record.write_json(folder / "status.json", status)
        code, last_line = run_process(task, environment(task))
        keep_notebook(folder)
        final = record.read_json(folder / "status.json")
        if final.get("status") in ("done", "failed"):
            return final
        if not must_stop(task):
            how = f"exit code {code}: {last_line}"
            if code < 0:
                how = signal.Signals(-code).name + ("; out of memory?" if code == -9 else "")
            status |= {"status": "failed", "error": shown(f"the run's process ended early ({how})")}
    except (OSError, ValueError) as e:
        status |= {"status": "failed", "error": shown(one_line(e))}
    status["seconds"] = round(time.perf_counter() - begin, 2)
    with contextlib.suppress(ValueError):  # a disk that is full
        record.write_json(folder / "status.json", status)
    return status


def about(task: Task) -> dict[str, Any]:
    return {k: task[k] for k in ("notebook", "sha256", "parameters", "threads")}


def must_stop(task: Task) -> bool:
    return STOP.is_set() or os.path.exists(task["stop"])


def environment(task: Task) -> dict[str, str]:
    """The variables of a run's process."""
    env = {**os.environ, **safe.environment(), **dict.fromkeys(THREADS, str(task["threads"]))}
    env |= {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    env[record.NOTEBOOK] = f"{task['sha256']} {task['notebook']}"
    env.pop("MPLBACKEND", None)  # the kernel has its own, which leaves pictures in the notebook
    if task.get("gpu") is not None:
        env["CUDA_VISIBLE_DEVICES"] = task["gpu"]
    return env


def run_process(task: Task, env: Mapping[str, str]) -> tuple[int, str]:
    """(exit code, last line it printed) of the process that does the work."""
    command = [sys.executable, "-m", "mtrestore.lab.execute"]
    options = {"cwd": task["folder"], "env": env, "start_new_session": True}
    with tempfile.TemporaryFile() as log:
        options |= {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        with subprocess.Popen(command, **options) as process:
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin
                process.stdin.write(json.dumps(task).encode() + b"\n")
                process.stdin.flush()
            while process.poll() is None:
                if must_stop(task):
                    process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        log.seek(0)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return process.returncode, lines[-1] if lines else ""


def keep_notebook(folder: Path) -> None:
    """Give papermill's notebook its name; one that was torn is dropped, and the old one stays."""
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
    """The process of one run: the task comes on standard input, whose end stops the run."""
    task, folder = json.loads(sys.stdin.readline()), Path.cwd()
    begin = time.perf_counter()
    threading.Thread(target=end_with_parent, daemon=True).start()
    error = run_notebook(task, folder)
    try:
        keep_notebook(folder)
    except (OSError, ValueError) as e:
        error = error or one_line(e)
    seconds = round(time.perf_counter() - begin, 2)
    status = {"status": "failed" if error else "done", "seconds": seconds, **about(task)}
    error = error and shown(" ".join(error.split())[:500])
    record.write_json(folder / "status.json", status | {"error": error})


def run_notebook(task: Task, folder: Path) -> str | None:
    """Have papermill execute the notebook in this folder; what went wrong, or None."""
    sys.modules["rfc3987_syntax"] = None  # jsonschema does without; it takes 3 s to import
    import papermill
    from nbclient.exceptions import DeadKernelError

    options = {"kernel_name": "python3", "progress_bar": False, "start_timeout": 300}
    options["extra_arguments"] = [ALONE, *([DETERMINISTIC] if shutil.which("nvidia-smi") else [])]
    try:
        content = files.read_bytes(task["source"])
        if hashlib.sha256(content).hexdigest() != task["sha256"]:
            return (
                f"ValueError: {task['notebook']} was changed after the sweep began; start it again"
            )
        papermill.execute_notebook(parse(content), PART, task["arguments"], **options)
    except papermill.PapermillExecutionError as e:
        return f"{e.ename}: {e.evalue} (cell {e.exec_count})"
    except DeadKernelError:
        return "its kernel was killed, or crashed; out of memory?"
    except Exception as e:  # a full disk, say
        return f"{type(e).__name__}: {one_line(e)}"
    if record.read_json(folder / "metrics.json"):
        return None
    return "it left no metrics.json; its last cell must write Run(out).save(numbers)"


def end_with_parent() -> None:
    import psutil

    sys.stdin.buffer.read()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(1)


if __name__ == "__main__":
    work()
