"""Any file of at most 1 MiB costs at most 2 s of the processor and 300 MiB: a few hundred that try to cost more, in one child for each format.

The child reads each file in a fork of its own, so that each starts with the same memory; nothing may be written to its stderr.
"""

import json
import os
import subprocess
import sys

import pytest
from bombs import BOMBS, MIB
from PIL import features

from mtrestore import image

METER = """
import json, os, resource, sys
from mtrestore import image

def read(path):
    if path == "nothing":
        return
    if path == "300 MB":
        bytearray(b"1") * 300_000_000
    try:
        image.load(path).samples.sum()
    except image.ImageError as e:
        assert str(e).isprintable() and len(str(e)) < 500
        os.write(out, e.code.encode())

for path in sys.argv[1:]:
    ends, out = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        read(path)
        os._exit(0)
    os.close(out)
    code = os.read(ends, 99).decode()
    _, status, used = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps([path, status, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, code]), flush=True)
    os.close(ends)
"""


def measured(root, *paths) -> tuple[list[dict], str]:
    """[{name, status, seconds, mib, code}] of reading each file, mib above a fork that reads nothing, and what came on stderr."""
    env = {**os.environ, "PYTHONPATH": str(root)}
    # Through a shell that stays: on Linux a program begins with the peak of the process that started it.
    command = [
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
        sys.executable,
        "-c",
        METER,
        "nothing",
        *map(str, paths),
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(paths) + 1, done.stderr
    plain = rows[0][3]
    return [
        {
            "name": os.path.basename(path),
            "status": status,
            "seconds": seconds,
            "mib": (peak - plain) / MIB,
            "code": code,
        }
        for path, status, seconds, peak, code in rows[1:]
    ], done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="time and memory are measured the POSIX way")
@pytest.mark.parametrize("kind", BOMBS)
def test_any_file_of_a_megabyte_costs_two_seconds_and_300_mib_at_most(tmp_path, root, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    paths = []
    for name, make in BOMBS[kind].items():
        data = make()
        assert len(data) <= MIB, f"{name}: {len(data)} bytes"
        paths.append(tmp_path / name.replace("/", " "))
        paths[-1].write_bytes(data)
    rows, said = measured(root, *paths)
    wrong = [row for row in rows if row["status"] or row["seconds"] > 2 or row["mib"] > 300]
    assert not wrong and len(rows) >= 10 and said == ""
    assert sum(row["mib"] > 30 for row in rows) >= (2 if kind != "PPM" else 1), (
        "some are just within the line, and are read"
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="time and memory are measured the POSIX way")
def test_the_meter_sees_memory_and_codes(tmp_path, root):
    (tmp_path / "x.png").write_bytes(b"no picture")
    rows, _ = measured(root, tmp_path / "x.png", "300 MB")
    assert (
        rows[0]["code"] == "E_FORMAT"
        and rows[0]["mib"] < 30
        and 280 < rows[1]["mib"] < 330
        and rows[1]["code"] == "E_MISSING"
    )


def code(path) -> str:
    try:
        image.load(path)
    except image.ImageError as e:
        return e.code
    return ""
