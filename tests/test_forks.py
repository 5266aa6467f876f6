"""A child that was forked after threads were at work is told so at once.

One that was forked before works.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PROGRAM = """
import os, sys
import cv2, numpy as np, torch
import mtrestore as mt
import mtrestore.pipeline, mtrestore.degrade
photo, samples = np.full((96, 96, 3), 0.25, np.float32), np.full((96, 96, 3), 64, np.uint8)
recipe = mt.draw("photo", np.random.default_rng(0))
restorer = None
{parent}
doors = {{
    "restore": lambda: mt.restore(samples, working_size=64),
    "Restorer": lambda: mt.Restorer(working_size=64),
    "called": lambda: restorer(samples),
    "detect": lambda: mt.detect(photo),
    "load": lambda: mt.load(samples),
    "resize": lambda: mt.resize(photo, (64, 64)),
    "enlarge": lambda: mt.enlarge(photo, 2),
    "shrink": lambda: mt.shrink(photo, 32),
    "apply": lambda: mt.apply(photo, recipe),
}}
sys.stdout.flush()
child = os.fork()
for name in sys.argv[1].split(","):
    try:
        if not child:
            doors[name]()
            print(name, "works", flush=True)
    except RuntimeError as e:
        print(name, e, flush=True)
del restorer
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
sys.exit(0)
"""
USES = {
    "restored": "restorer = mt.Restorer(working_size=64); restorer(samples)",
    "detected": "mt.detect(photo)",
    "resized": "mt.resize(np.zeros((900, 900, 3), np.float32), (300, 300))",
    "torch of the caller": "torch.randn(1000, 1000).exp().sum()",
    "OpenCV of the caller": "cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 4)",
}


def forked(parent: str, doors: str, threads: str = "2") -> list[str]:
    env = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(parent=parent), doors],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(
    not os.path.exists("/proc/self/task"), reason="threads of others are seen on Linux only"
)
@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: [0])(0)) < 2, reason="one processor, no threads"
)
@pytest.mark.parametrize("use", USES)
def test_after_use_every_door_says_what_to_do(use):
    doors = "restore,Restorer,detect,load,resize,enlarge,shrink,apply" + (
        ",called" if use == "restored" else ""
    )
    *lines, code = forked(USES[use], doors)
    assert code == "0" and len(lines) == len(doors.split(","))
    assert all('get_context("spawn")' in line and "forked after" in line for line in lines), lines


def test_with_one_thread_a_restorer_is_refused_too():
    """Its pool has lost its thread."""
    *lines, code = forked(USES["restored"], "called,restore", threads="1")
    assert code == "0" and all('get_context("spawn")' in line for line in lines)


def test_a_fork_before_use_works():
    doors = "restore,detect,load,resize,enlarge,apply"
    assert forked("", doors) == [*(f"{door} works" for door in doors.split(",")), "0"]
