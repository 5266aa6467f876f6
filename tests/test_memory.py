"""Full-size work in bounded memory: types that stay, limits that are obeyed, one retry, and a clear
end.
"""

import inspect
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from mtrestore import image, tile, weights
from mtrestore.degrade.fault import Tone
from mtrestore.pipeline import Restorer, identity


def worn(height, width):
    """uint8 samples on which all act: pale, and soft at their size but noise at the working one."""
    size = height // 6 + 1, width // 6 + 1
    small = np.random.default_rng(0).integers(80, 176, (*size, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


PROGRAM = """
import json, resource
import cv2, numpy as np, torch
from mtrestore.pipeline import Restorer, identity
torch.set_num_threads(1)
options = dict(faces=False, keep_steps=False, memory_mb={memory}, sharpener={sharpener}, **{more})
restorer = Restorer(device="cpu", **options)
restorer(worn(900, 900))
def mib(which):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024

try:
    # the peak begins anew: loading and compiling may have had a higher one
    open("/proc/self/clear_refs", "w").write("5")
except OSError:
    pass
held = mib("VmRSS")
if {limit}:
    resource.setrlimit(resource.RLIMIT_AS, (int((mib("VmSize") + {limit}) * 2**20),) * 2)
photo = worn({height}, {width})
try:
    out = restorer(photo).samples
    told = [str(out.dtype), *out.shape]
except MemoryError as e:
    told = str(e)
print(json.dumps([told, mib("VmHWM") - held]))
"""


def run(height, width, memory=None, limit=0, sharpener="None", **more):
    """[dtype and shape of the result or the error, peak MiB above the loaded program] of a
    restoration in a process of its own.

    There, malloc gives back at once whatever is larger than 1 MiB; else it depends on the warm-up
    how much is asked for anew.
    """
    program = inspect.getsource(worn) + PROGRAM.format(
        height=height, width=width, memory=memory, limit=limit, sharpener=sharpener, more=more
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1048576"},
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("less", [{"photo_strength": 0}, {"sharpener": identity}])
def test_every_net_acts_on_the_worn_photo(less):
    """Else its memory, its retry and its precision would not be tried here."""
    photo, options = worn(300, 330), {"device": "cpu", "faces": False, "working_size": 280}
    assert Tone.of(image.as_photo(image.shrink(photo, 280))).gain > 1.2
    all_act, not_all = (Restorer(**options, **own)(photo).image for own in ({}, less))
    assert np.abs(all_act - not_all).mean() > 0.5 / 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(300, 420), (800, 1000)])
def test_samples_keep_their_type(dtype, size):
    photo = image.as_samples(np.random.default_rng(0).random((*size, 3), np.float32), dtype)
    result = Restorer(device="cpu", faces=False)(photo)
    assert result.samples.dtype == dtype and result.samples.shape == photo.shape
    assert result.image.dtype == np.float32 and all(
        step.dtype == np.float32 for step in result.steps.values()
    )
    assert np.abs(image.as_samples(result.image, dtype) - result.samples.astype(float)).max() == 0


def test_memory_is_as_promised():
    """8 MP in 8 bits: in and out and what lies between are 24 MB each.

    The rest is strips, tiles and the little net.
    """
    told, peak = run(2400, 3334, memory=64)
    assert told == ["uint8", 2400, 3334, 3]
    assert peak < 64 + 4 * 24 + 40
    assert peak > 2 * 24, "or nothing was measured"


def test_no_more_than_four_large_pictures_are_held():
    """As given, as read, in a normal range and brought back, where that is mixed with the second.

    The working size is so small that nothing else counts.
    """
    told, peak = run(2400, 3334, memory=64, working_size=160, photo_strength=0.5)
    assert told == ["uint8", 2400, 3334, 3]
    assert peak < 4 * 24 + 20
    assert peak > 2 * 24, "or nothing was measured"


def test_works_within_a_limit_and_ends_clearly_below_it():
    told, _ = run(2400, 3334, memory=64, limit=64 + 4 * 24 + 120)
    assert told == ["uint8", 2400, 3334, 3]
    for limit in (1, 20, 45):
        told, _ = run(2400, 3334, memory=64, limit=24 + limit)  # the photo itself, and hardly more
        assert "out of memory in" in told and "close other programs" in told


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("numpy"),
        RuntimeError("can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
@pytest.mark.parametrize("part", ["restorer", "upsampler", "sharpener"])
def test_one_retry_on_smaller_tiles_gives_the_same(part, error, monkeypatch):
    photo = image.as_photo(worn(300, 330))
    options = {"device": "cpu", "faces": False, "working_size": 280}
    wanted, calls = Restorer(**options)(photo).image, []
    kind = type(weights.load({"sharpener": "sharpener_x1"}.get(part, part)))
    method = "apply_rows" if part == "upsampler" else "forward"
    real = getattr(kind, method)

    def fails_at_first(self, *args):
        calls.append(max(a.shape[-2] for a in args if torch.is_tensor(a)))
        if len(calls) == 1:
            raise error
        return real(self, *args)

    monkeypatch.setattr(kind, method, fails_at_first)
    assert np.abs(Restorer(**options)(photo).image - wanted).max() < 1e-5
    assert len(calls) >= 2 and max(calls[1:]) <= calls[0]


def test_out_of_memory_twice_is_a_clear_error_and_other_errors_are_not_retried():
    asked = []
    with pytest.raises(
        MemoryError, match="out of memory in the sharpener, also on smaller tiles; close"
    ):
        tile.sparingly(lambda share: asked.append(share) or torch.empty(2**60), "the sharpener")
    assert asked == [1.0, 0.25]
    with pytest.raises(ZeroDivisionError):
        tile.sparingly(lambda share: asked.append(share) or 1 / 0, "it")
    assert asked == [1.0, 0.25, 1.0]


def test_half_precision_falls_back_to_float32_where_it_is_not_finite():
    restorer, seen = Restorer(device="cpu", faces=False, sharpener=identity, upsampler=None), []

    def overflows(x):
        half = torch.is_autocast_enabled("cpu")
        seen.append(half)
        return x * (float("inf") if half and len(seen) > 1 else 1)

    restorer.half = True
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(restorer._run(overflows, x), x) and seen == [True]
    assert torch.equal(restorer._run(overflows, x), x) and seen == [True, True, False]
    with pytest.raises(FloatingPointError, match="not finite"):
        restorer._run(lambda x: x * float("nan"), x)


def test_bfloat16_is_near_float32():
    photo, options = worn(300, 330), {"device": "cpu", "faces": False, "working_size": 280}
    plain, half = Restorer(**options), Restorer(**options)
    half.half = True
    assert 0 < np.abs(plain(photo).image - half(photo).image).mean() < 2 / 255


def test_the_tile_follows_the_memory():
    sides = [
        Restorer(device="cpu", faces=False, memory_mb=m)._tile_side(1.0, 64)
        for m in (64, 128, 512, 4096)
    ]
    assert sides == sorted(sides) and sides[0] < sides[1] < sides[2] == sides[3] == 640
    assert Restorer(device="cpu", faces=False, memory_mb=64)._tile_side(0.25, 64) == 192
