"""Ctrl-C and SIGTERM at a moment that must not be cut in two, and the end of a parent process."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait


@contextlib.contextmanager
def undivided(late: bool = True) -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done, and are raised then.

    late=False drops them: the block takes a moment, and the run ends with it. Only the main thread
    may set handlers, and it runs them; elsewhere nothing changes.
    """
    numbers: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)) or not late:
                handlers[number] = signal.signal(number, lambda n, _: numbers.append(n))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if numbers and late:
            signal.raise_signal(numbers[0])


def die_with_parent() -> None:
    """End this worker when its parent ends, kill -9 included: a thread watches, and on Linux the
    kernel.
    """
    process = multiprocessing.parent_process()
    assert process, "a worker has a parent"
    parent = process.sentinel

    def watch() -> None:
        wait([parent])
        os._exit(1)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=watch, daemon=True).start()
