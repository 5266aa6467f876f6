"""Seconds and peak memory of a restoration, beside the same nets run naively on the whole picture. `make bench` prints the table.

Each measurement runs in a process of its own (peak memory is the process's resident maximum less what it had after loading the nets
and one warm-up on a small picture), methods interleaved, medians of `--repeats`. JPEG in, JPEG out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make_photo(path: Path, megapixels: float) -> None:
    """A 4:3 JPEG of that size with one face: the astronaut, enlarged, mildly noisy."""
    import numpy as np
    import skimage.data

    from mtrestore import image

    h = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    w = round(h * 4 / 3)
    face = image.enlarge(image.read(skimage.data.astronaut()), h / 512)
    photo = np.concatenate([face, face[:, ::-1][:, : w - face.shape[1]]], 1) if w > face.shape[1] else face[:, :w]
    photo = photo + np.random.default_rng(0).normal(0, 6 / 255, photo.shape).astype(np.float32)
    image.write(path, np.clip(photo, 0, 1).astype(np.float32))


def naive(restorer, path: Path, out: Path, faces: bool) -> None:
    """The same nets in plain torch: full-size stages on the whole picture, default memory layout, every tensor kept."""
    import torch

    from mtrestore import image
    from mtrestore.crop import paste
    from mtrestore.nets.blocks import padded

    with torch.inference_mode():
        photo = image.read(path)
        found, crops, fixed = restorer._faces(photo, None, (1, 1), lambda name: open(os.devnull)) if faces else ([], [], [])
        large = image.to_tensor(photo)
        small = image.to_tensor(image.shrink(photo, restorer.working_size))
        clean = padded(restorer.restorer, small)
        whole = image.to_photo(restorer.upsampler(small, clean, large))
        pasted = image.to_tensor(paste(whole, fixed, crops))
        image.write(out, image.to_photo(padded(restorer.sharpeners[1], pasted)))


def full_size(restorer, path: Path, out: Path) -> None:
    """The restorer run directly on the whole picture: no shrinking, no guided filter."""
    import torch

    from mtrestore import image
    from mtrestore.nets.blocks import padded

    with torch.inference_mode():
        image.write(out, image.to_photo(padded(restorer.restorer, image.to_tensor(image.read(path)))))


def one(method: str, path: Path, threads: int) -> None:
    import torch

    from mtrestore.pipeline import Restorer

    torch.set_num_threads(threads)
    restorer = Restorer(device="cpu", keep_steps=False, faces=method != "no faces")
    with tempfile.TemporaryDirectory() as folder:
        small, out = Path(folder) / "small.jpg", Path(folder) / "out.jpg"
        make_photo(small, 0.2)
        run = {"ours": lambda p: restorer(p).save(out), "no faces": lambda p: restorer(p).save(out),
               "naive": lambda p: naive(restorer, p, out, True), "restorer at full size": lambda p: full_size(restorer, p, out)}[method]  # fmt: skip
        run(small)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        run(path)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "mib": peak / 1024}))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--megapixels", type=float, nargs="+", default=[2, 12])
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--methods", nargs="+", default=["ours", "no faces", "naive", "restorer at full size"])
    p.add_argument("--one", nargs=2, metavar=("METHOD", "PHOTO"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one:
        return one(args.one[0], Path(args.one[1]), args.threads)
    print(f"{args.threads} threads, median of {args.repeats}, each in its own process after a warm-up; peak is above the loaded program\n")
    print("| MP | method | seconds | of ours | peak MiB | of ours |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mp in args.megapixels:
            photo = Path(folder) / f"{mp}.jpg"
            make_photo(photo, mp)
            runs: dict[str, list[dict]] = {m: [] for m in args.methods}
            for _ in range(args.repeats):
                for method in args.methods:
                    command = [sys.executable, __file__, "--threads", str(args.threads), "--one", method, str(photo)]
                    runs[method].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
            base = None
            for method in args.methods:
                seconds, mib = (statistics.median(r[k] for r in runs[method]) for k in ("seconds", "mib"))
                base = base or (seconds, mib)
                print(f"| {mp:g} | {method} | {seconds:.2f} | {seconds / base[0]:.2f} | {mib:.0f} | {mib / base[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
