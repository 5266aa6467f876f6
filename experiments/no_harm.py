"""Is a picture ever worse for having been restored? Clean pictures, and each under known faults.

    python experiments/no_harm.py FOLDER [--count N] [--seed S] [--no-faces] [--kinds clean,noise]

FOLDER is searched for pictures; N of them, drawn by the seed, are shrunk to the working size at
most and put through each fault. For every kind the table says how many came back more than 0.1 dB
below the input (clean ones: below 45 dB), the mean gain, and the sharpness of input and result over
the truth's; then the ten worst are listed. A pale or dark picture is the truth of its own kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from mtrestore import degrade, image, metrics
from mtrestore.pipeline import Restorer

FAULTS = {
    "clean": [],
    "noise": [{"op": "gaussian_noise", "sigma": 10.0, "seed": 1}],
    "jpeg": [{"op": "jpeg", "quality": 30}],
    "blur": [{"op": "gaussian_blur", "sigma": 1.5}],
    "pale": [{"op": "jpeg", "quality": 90}],
    "dark": [{"op": "gaussian_noise", "sigma": 1.0, "seed": 1}],
    "print": [{"op": "halftone", "pitch": 5.0, "angle": 45.0, "apart": 0.0, "soft": 0.6}],
}
TONES = {"pale": (0.2, 0.7), "dark": (0.15, 0.03)}  # contrast and lift of the truth itself
LOSS = 0.1  # dB below the input that count as harm
CLEAN = 45.0  # dB that a clean picture keeps


def pictures(folder: Path, count: int, seed: int, size: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, photo of at most `size` px), `count` of those in the folder, drawn by the seed."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in image.SUFFIXES)
    order = np.random.default_rng(seed).permutation(len(paths))[:count]
    for path in (paths[i] for i in sorted(order)):
        photo = image.as_photo(image.shrink(image.load(path).samples, size))
        if min(photo.shape[:2]) >= 32:
            yield str(path.relative_to(folder)), photo


def cases(photo: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(degraded, truth) of a picture under a kind of fault, both of 8 bits."""
    contrast, lift = TONES.get(kind, (1.0, 0.0))
    truth = image.as_photo(image.as_samples(lift + contrast * photo, np.uint8))
    poor = degrade.apply(truth, degrade.Recipe(tuple(FAULTS[kind])))
    return image.as_photo(image.as_samples(poor, np.uint8)), truth


def measured(restorer: Restorer, name: str, photo: np.ndarray, kind: str) -> dict:
    """One row: PSNR of input and result, and both sharpnesses."""
    poor, truth = cases(photo, kind)
    result = restorer(image.as_samples(poor, np.uint8))
    before, after = (min(metrics.psnr(p, truth), 60.0) for p in (poor, result.image))
    sharp = [metrics.sharpness(p, truth) for p in (poor, result.image)]
    faces = sum(f.status in ("restored", "soft") for f in result.faces)
    row = {"name": name, "kind": kind, "before": before, "after": after, "faces": faces}
    row |= {"sharp_before": sharp[0], "sharp_after": sharp[1], "fault": result.fault}
    row["harm"] = CLEAN - after if kind == "clean" else before - after
    return row


def table(rows: list[dict], worst: int = 10) -> str:
    """What came of each kind, and the worst pictures of all."""
    lines = ["| fault | pictures | harmed | input dB | result dB | gain dB | sharpness |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(r["kind"] for r in rows):
        own = [r for r in rows if r["kind"] == kind]
        least = 0 if kind == "clean" else LOSS
        harmed = sum(r["harm"] > least for r in own)
        names = ("before", "after", "sharp_before", "sharp_after")
        before, after, sharp, sharper = (np.mean([r[n] for r in own]) for n in names)
        lines.append(
            f"| {kind} | {len(own)} | {harmed} | {before:.2f} | {after:.2f} "
            f"| {after - before:+.2f} | {sharp:.2f} -> {sharper:.2f} |"
        )
    lines.append(f"\nThe {worst} worst (dB below the input; clean: below {CLEAN:g} dB):")
    for r in sorted(rows, key=lambda r: -r["harm"])[:worst]:
        lines.append(
            f"{r['harm']:+6.2f}  {r['kind']:6} {r['before']:.2f} -> {r['after']:.2f}  "
            f"sharpness {r['sharp_before']:.2f} -> {r['sharp_after']:.2f}  "
            f"faces {r['faces']}  {r['name']}"
        )
    return "\n".join(lines)


def faults(rows: list[dict]) -> str:
    """What was estimated, picture by picture, in levels of 255: for setting the constants."""
    lines = []
    for r in rows:
        f = r["fault"]
        levels = " ".join(f"{255 * v:5.2f}" for v in (f.noise, f.grain, f.change))
        lines.append(
            f"{r['kind']:6} noise, grain, change {levels}  jpeg {f.jpeg:.2f}  blur {f.blur:.2f}  "
            f"contrast {f.contrast:.2f}  {r['name']}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200, help="pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (default: %(default)s)")
    parser.add_argument("--size", type=int, default=640, help="long side (default: %(default)s)")
    parser.add_argument("--no-faces", action="store_true", help="the whole-photo branch alone")
    parser.add_argument("--kinds", default=",".join(FAULTS), help="default: %(default)s")
    parser.add_argument("--faults", action="store_true", help="print the estimates as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    restorer = Restorer(faces=not args.no_faces, keep_steps=False)
    rows = [
        measured(restorer, name, photo, kind)
        for name, photo in pictures(args.folder, args.count, args.seed, args.size)
        for kind in args.kinds.split(",")
    ]
    print(table(rows))
    if args.faults:
        print(faults(rows))


if __name__ == "__main__":
    main()
