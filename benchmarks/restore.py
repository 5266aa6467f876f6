"""Seconds and peak memory of a restoration beside other ways to the same picture.

`make bench` prints the tables and saves a plot.

    python benchmarks/restore.py                     # 1, 4, 12, 24 and 48 MP
    python benchmarks/restore.py --megapixels 12     # the promises about 12 MP alone

JPEG in, JPEG out. Each measurement runs in a process of its own, after a warm-up on 0.8 MP (which
also loads the compiled code), methods in turn, medians of `--repeats`. Peak memory is the process's
resident maximum above what it held after the warm-up, its free heap given back.
Allocator: the system's malloc with its defaults, and torch's and numpy's use of it.

    photo branch    without faces and sharpener
    whole system    with one face and the sharpener
    naive           the photo branch's nets in plain torch on the whole picture
    in tiles        the same restorer at full size in tiles, without shrinking and guided filter
    floor           decode, the restorer at working size, encode: what the full-size stages are
                    added to
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

METHODS = ("photo branch", "whole system", "naive", "in tiles", "non-local means", "floor")
SLOW = (
    "naive",
    "in tiles",
    "non-local means",
)  # measured once where the picture is larger than 12 MP


def make_photo(path: Path, megapixels: float) -> None:
    """A 3:2 JPEG of that size, mildly noisy, with one face whose crop is about 256 px: the
    astronaut among her mirror images, softly enlarged.
    """
    import cv2
    import numpy as np
    import skimage.data

    from mtrestore import image

    h = round((megapixels * 1e6 / 1.5) ** 0.5 / 2) * 2  # even, as cameras make them
    w = round(h * 0.75) * 2
    face = image.read(skimage.data.astronaut())
    rest = image.enlarge(np.ascontiguousarray(face[300:]), max(h / 212, w / 512) + 0.01)[
        :h, :w
    ]  # suit and background, no face
    rest = cv2.GaussianBlur(rest, (0, 0), 2)
    rest[: min(h, 512), : min(w, 512)] = face[:h, :w]
    photo = rest + np.random.default_rng(0).normal(0, 6 / 255, rest.shape).astype(np.float32)
    image.write(path, np.clip(photo, 0, 1).astype(np.float32))


def method(name: str, out: Path) -> Callable[[Path], dict[str, float]]:
    """The method as a function of a file, its nets loaded; it gives seconds by stage where it has
    stages.
    """
    import torch

    from mtrestore import image
    from mtrestore.lab import evaluate
    from mtrestore.nets.blocks import padded
    from mtrestore.pipeline import Restorer, identity
    from mtrestore.tile import tiled

    whole = name == "whole system"
    restorer = Restorer(
        device="cpu", keep_steps=False, faces=whole, sharpener=None if whole else identity
    )
    net = restorer.restorer

    def ours(path: Path) -> dict[str, float]:
        result = restorer(path)
        began = time.perf_counter()
        result.save(out)
        return result.timings | {
            "write": time.perf_counter() - began,
            "faces found": len(result.faces),
        }

    def naive(path: Path) -> dict[str, float]:
        photo = image.read(path)
        small, large = (
            image.to_tensor(image.shrink(photo, restorer.working_size)),
            image.to_tensor(photo),
        )
        image.write(out, image.to_photo(restorer.upsampler(small, padded(net, small), large)))
        return {}

    def in_tiles(path: Path) -> dict[str, float]:
        photo = image.read(path)
        run = lambda t: image.to_photo(
            padded(net, image.to_tensor(t).contiguous(memory_format=torch.channels_last))
        )
        image.write(out, tiled(run, photo, tile=640, overlap=net.reach, multiple=net.multiple))
        return {}

    def non_local_means(path: Path) -> dict[str, float]:
        image.write(out, evaluate.non_local_means(image.read(path)))
        return {}

    def floor(path: Path) -> dict[str, float]:
        picture = image.load(path)
        small = image.as_photo(image.shrink(picture.samples, restorer.working_size))
        restorer._run(net, image.to_tensor(small))
        image.write(out, picture)
        return {}

    return {
        "naive": naive,
        "in tiles": in_tiles,
        "non-local means": non_local_means,
        "floor": floor,
    }.get(name, ours)


def one(name: str, path: Path, threads: int) -> dict[str, Any]:
    """One measurement, in this process."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        small = Path(folder) / "small.jpg"
        make_photo(small, 0.8)
        run = method(name, Path(folder) / "out.jpg")
        run(small)
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(
                0
            )  # glibc: what the warm-up freed would else count as held
        held = resident("VmRSS")
        began = time.perf_counter()
        stages = run(path)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "mib": resident("VmHWM") - held, "stages": stages}


def resident(which: str) -> float:
    """MiB that this process holds (VmRSS) or held at most (VmHWM); getrusage would count what its
    parent held before it began.
    """
    return (
        next(
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith(which)
        )
        / 1024
    )


def kernels(path: Path, threads: int) -> dict[str, Any]:
    """Seconds of the fused filter, with and without the refiner, and of a uint8 copy of the picture
    into fresh memory: medians of seven in turn.
    """
    import torch

    from mtrestore import image, nets, weights
    from mtrestore.fast import upsampler as fast

    torch.set_num_threads(threads)
    photo, full = image.load(path).samples, weights.load("upsampler")
    alone = nets.GuidedUpsampler(**{**full.config, "refine": False})
    alone.filter.load_state_dict(full.filter.state_dict())
    told: dict[str, list[float]] = {}
    with torch.inference_mode():
        small = image.to_tensor(image.shrink(photo, 640))
        state = full.solve(small, small, torch.tensor([0.02]), 6.0)
        ways = {
            "copy": photo.copy,
            "filter": lambda: fast.upsample(alone, photo, state),
            "filter and refiner": lambda: fast.upsample(full, photo, state),
        }
        for _ in range(8):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                told.setdefault(name, []).append(time.perf_counter() - began)
    return {name: statistics.median(v[1:]) for name, v in told.items()}


def ask(*arguments: object) -> dict[str, Any]:
    """The answer of this program, run in a process of its own with these arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def measure(
    photos: dict[float, Path], methods: list[str], repeats: int, threads: int
) -> dict[tuple[float, str], dict[str, Any]]:
    """Medians by size and method; the methods take turns."""
    told: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for mp, path in photos.items():
        for i in range(repeats):
            for name in methods:
                if i == 0 or mp <= 12 or name not in SLOW:
                    told.setdefault((mp, name), []).append(
                        ask("--threads", threads, "--one", name, path)
                    )
    median = lambda runs, key: statistics.median(r[key] for r in runs)
    stages = lambda runs: {
        k: statistics.median(r["stages"][k] for r in runs) for k in runs[0]["stages"]
    }
    return {
        k: {"seconds": median(v, "seconds"), "mib": median(v, "mib"), "stages": stages(v)}
        for k, v in told.items()
    }


def table(
    found: dict[tuple[float, str], dict[str, Any]], sizes: list[float], methods: list[str]
) -> None:
    print("| MP | method | seconds | of ours | peak MiB | of ours |\n|---|---|---|---|---|---|")
    for mp in sizes:
        base = found[mp, methods[0]]
        for name in methods:
            r = found[mp, name]
            print(
                f"| {mp:g} | {name} | {r['seconds']:.2f} | {r['seconds'] / base['seconds']:.2f} | "
                f"{r['mib']:.0f} | {r['mib'] / max(base['mib'], 1):.2f} |"
            )


def plot(
    found: dict[tuple[float, str], dict[str, Any]],
    sizes: list[float],
    methods: list[str],
    out: Path,
) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in methods:
        left.loglog(sizes, [found[mp, name]["seconds"] for mp in sizes], "o-", label=name)
        right.loglog(sizes, [max(found[mp, name]["mib"], 1) for mp in sizes], "o-", label=name)
    left.set(xlabel="megapixels", ylabel="seconds")
    right.set(xlabel="megapixels", ylabel="peak MiB above the loaded program")
    left.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    print(f"\nplot: {out}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 12, 24, 48])
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS),
        choices=METHODS,
        help="the first one is what the others are compared with",
    )
    p.add_argument("--plot", type=Path, default=Path("runs/bench.png"))
    p.add_argument("--one", nargs=2, metavar=("METHOD", "PHOTO"), help=argparse.SUPPRESS)
    p.add_argument("--kernels", metavar="PHOTO", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one or args.kernels:
        print(
            json.dumps(
                kernels(Path(args.kernels), args.threads)
                if args.kernels
                else one(args.one[0], Path(args.one[1]), args.threads)
            )
        )
        return
    sizes, methods = sorted(args.megapixels), args.methods
    print(f"{args.threads} threads, medians of {args.repeats}\n")
    with tempfile.TemporaryDirectory() as folder:
        photos = {mp: Path(folder) / f"{mp:g}.jpg" for mp in sizes}
        for mp, path in photos.items():
            make_photo(path, mp)
        found = measure(photos, methods, args.repeats, args.threads)
        table(found, sizes, methods)
        for name in ("photo branch", "whole system"):
            if name in methods:
                print(f"\n{name}, seconds by stage; the branches overlap")
                for mp in sizes:
                    print(
                        f"  {mp:g} MP: "
                        + ", ".join(f"{k} {v:.3f}" for k, v in found[mp, name]["stages"].items())
                    )
        if 12 in sizes and set(METHODS) <= set(methods):
            single = measure({12: photos[12]}, ["photo branch", "in tiles"], args.repeats, 1)
            cores = [
                ask("--threads", args.threads, "--kernels", photos[12]) for _ in range(args.repeats)
            ]  # a copy's speed is each process's own
            copies = lambda name: statistics.median(core[name] / core["copy"] for core in cores)
            seconds = lambda name, mp=12: found[mp, name]["seconds"]
            ours = seconds("photo branch")
            print("\nat 12 MP, photo branch")
            for text, value, limit in (
                ("in tiles takes so many times as long, one thread",
                single[12, "in tiles"]["seconds"] / single[12, "photo branch"]["seconds"],
                "at least 8"),
                ("of decode, restorer and encode", ours / seconds("floor"), "at most 3"),
                ("plain torch takes so many times as long", seconds("naive") / ours, "at least 4"),
                ("MiB above the loaded program", found[12, "photo branch"]["mib"], "at most 300"),
                ("the fused filter, of a uint8 copy", copies("filter"), "at most 10"),
                ("the same with refiner, of a uint8 copy", copies("filter and refiner"), ""),
                ("with one face and the sharpener", seconds("whole system") / ours, "at most 2.5"),
                *([("48 MP takes so many times as long", seconds("photo branch", 48) / ours,
                "at most 4")] if 48 in sizes else []),
            ):  # fmt: skip
                print(f"  {text}: {value:.2f}{'  (' + limit + ')' if limit else ''}")
        if len(sizes) > 1:
            plot(found, sizes, methods, args.plot)


if __name__ == "__main__":
    main()
