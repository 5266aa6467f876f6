"""For folder runs: nets that fail as real ones may (the colour of a picture says what happens to
it), and a pool without processes.
"""

import os
import signal
import time
from concurrent.futures import Future

import torch

from mtrestore.folder import one_file as task
from mtrestore.folder.names import Job
from mtrestore.pipeline import identity, keep_large

IDENTITY = {
    "device": "cpu",
    "faces": False,
    "restorer": identity,
    "upsampler": keep_large,
    "sharpener": identity,
}
COLOURS = {
    "crash": 0.2,
    "hang": 0.4,
    "memory": 0.6,
    "nan": 0.8,
    "exit": 0.9,
}  # the red of a picture


def by_colour(x: torch.Tensor) -> torch.Tensor:
    """A restorer that ends its process, hangs, runs out of memory, ... for pictures of one colour,
    and is the identity for others.
    """
    red = float(x[:, 0].mean())
    fault = next((name for name, value in COLOURS.items() if abs(red - value) < 0.01), None)
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "exit":
        os._exit(7)
    if fault == "hang":
        time.sleep(600)
    if fault == "memory":
        torch.empty(1 << 50)
    return x * float("nan") if fault == "nan" else x


def slow(x: torch.Tensor) -> torch.Tensor:
    time.sleep(0.5)
    return x


class Here:
    """Instead of a pool: the same work in this process, at once."""

    width, made = 1, 0

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, *args: object) -> Future:
        future = Future()
        future.set_result(task.work(*args))
        Here.made += future.result()["status"] == "restored"
        return future

    def row(self, future: Future, job: Job) -> dict:
        return future.result()

    def close(self) -> None:
        pass
