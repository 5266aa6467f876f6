"""Threads do not survive a fork: a child that goes on where its parent's threads were at work waits
for them for ever. It is told so.

    check()     # first thing in what needs threads: raises RuntimeError in such a child
    used()      # from now on a fork of this process is one
    hold(net)   # what has threads of its own: never destroyed in a child, where that would wait

torch (OpenMP), OpenCV and onnxruntime start their threads when they first compute, also for the
caller's own work; on Linux these are seen. A fork before that is harmless.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from typing import Any

WORDS = (
    "mtrestore cannot work in a process that was forked after torch or OpenCV were used, "
    "since their threads do not survive a fork; "
    'start it with multiprocessing.get_context("spawn"), or fork before'
)
held: weakref.WeakSet[Any] = weakref.WeakSet()
state: dict[str, Any] = {"strong": [], "used": False, "at the fork": False, "lost": False}


def hold(net: Any) -> Any:
    held.add(net)
    return net


def used() -> None:
    state["used"] = True


def check() -> None:
    """Raises RuntimeError where threads were lost."""
    if state["lost"]:
        raise RuntimeError(WORDS)


def more_threads() -> bool:
    """Are there threads that neither Python nor OpenBLAS, which minds its own at a fork, started?
    Asked on Linux only.
    """
    if not {"torch", "cv2"} & sys.modules.keys():
        return False
    try:
        with open("/proc/self/maps") as maps:
            libraries = {line.split()[-1] for line in maps if "openblas" in line}
        count = len(os.listdir("/proc/self/task")) - threading.active_count()
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):
        return False
    given = next(
        (
            v
            for n in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
            if (v := os.environ.get(n, "")).isdecimal()
        ),
        cores,
    )
    return count > len(libraries) * (min(int(given) or cores, cores) - 1)


def before() -> None:
    state["strong"] = list(held)
    state["at the fork"] = state["used"] or more_threads()


def in_parent() -> None:
    state["strong"] = []


def in_child() -> None:
    for net in state["strong"]:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(net))  # also when Python ends
    state["lost"] |= state["at the fork"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
