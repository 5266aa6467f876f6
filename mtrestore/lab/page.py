"""What a notebook asks of its own page: its parameters, a bar for what takes long, its exercise."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm as plain
from tqdm.auto import tqdm

from .record import NOTEBOOK


def tagged(shell: Any = None) -> dict[str, Any]:
    """The parameters of the notebook that is running, by name, with the values they have now.

    The cell tagged `parameters` is the first one run that holds assignments of literals alone; a
    kernel sees no tags. shell: IPython's, by default the one that runs.
    Raises RuntimeError outside a notebook and where no such cell has been run.
    """
    if shell is None and "IPython" in sys.modules:  # a kernel has it; nobody else needs it
        shell = sys.modules["IPython"].get_ipython()
    space = shell.user_ns if shell else {}
    for source in space.get("In", []):
        if names := assigned(source):
            return {name: space[name] for name in names}
    raise RuntimeError(
        "tagged() reads the parameters of a notebook, and no cell of literals has been run; "
        "run the cell tagged parameters first"
    )


def assigned(source: str) -> list[str]:
    """The names that a cell of `name = literal` lines binds; none where it holds anything else."""
    try:
        body = ast.parse(source).body
        for node in body:
            ast.literal_eval(node.value)
        return [node.targets[0].id for node in body]
    except (SyntaxError, ValueError, AttributeError):
        return []


def progress(steps: Iterable, total: int | None = None, what: str = "") -> Iterable:
    """tqdm's bar for the screen that is there: plain text in a run whose page is kept.

    A widget would be blank in that page.
    """
    bar = plain if os.environ.get(NOTEBOOK) else tqdm
    return bar(steps, total=total, desc=what or None, mininterval=0.5)


def check(given: Any, right: Any, hint: str = "", tolerance: float = 0.02) -> str:
    """Says whether the answer to an exercise is right; None is no answer yet.

    Numbers, arrays and mappings of numbers may be off by `tolerance` of the right one; words and
    truth values have to be the same.
    """
    if given is None:
        return "not answered yet: give a value and run this cell again"
    if _agree(given, right, tolerance):
        return "right"
    return f"not yet: {hint}" if hint else "not yet"


def _agree(given: Any, right: Any, tolerance: float) -> bool:
    if isinstance(right, (str, bool)):
        return type(given) is type(right) and given == right
    if isinstance(right, Mapping):
        same = isinstance(given, Mapping) and given.keys() == right.keys()
        return same and all(_agree(given[key], right[key], tolerance) for key in right)
    if isinstance(given, str):
        return False
    try:
        a, b = np.asarray(given, float), np.asarray(right, float)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= tolerance * np.abs(b)))
