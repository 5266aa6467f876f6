"""How well the whole-photo branch restores, by fault and by the ratio of the photo to its working
size.

    python experiments/photo_report.py DATA/dev_eval

The folder holds photos_clean/, and photos_hires/ or not.

Methods: the input; OpenCV's non-local means; the restorer run at full size; the guided filter alone
on the restorer's small output, with the published eps and with the eps that is best for each row on
these very pictures, which favours it; the shipped filter and refiner; and the whole flow with the
sharpener. BM3D is left out: its reference implementation may not be used commercially. Then the
figures that others publish: CBSD68 at sigma 25 and JPEG 10, Set5 at x2.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from mtrestore import degrade, image, metrics, nets
from mtrestore.lab.evaluate import PHOTO_FAULTS, non_local_means
from mtrestore.nets.blocks import padded
from mtrestore.pipeline import Restorer, identity

FAULTS = PHOTO_FAULTS | {"mixed": "photo"}
EPS = (1e-8, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)


def pictures(folder: Path) -> list[np.ndarray]:
    """Colour photographs of 0.15 to 0.4 MP; large ones are shrunk to half and cut into pieces of
    768×512.
    """
    found = [
        image.read(p)
        for pattern in ("cbsd68*", "kodim*")
        for p in sorted((folder / "photos_clean").glob(pattern))
    ]
    for path in sorted((folder / "photos_hires").glob("*.jpg")):
        half = image.shrink(image.read(path), 3000)
        h, w = half.shape[:2]
        found += [
            half[y : y + 512, x : x + 768].copy()
            for y, x in (
                (h // 2 - 256, w // 2 - 384),
                (h // 4 - 256, w // 4),
                (3 * h // 4 - 256, w // 2),
            )
        ]
    return found


def random(fault: dict | str | None) -> bool:
    return isinstance(fault, str) or bool(fault) and fault["op"].endswith("noise")


def worn(photo: np.ndarray, fault: dict | str | None, rng: np.random.Generator) -> np.ndarray:
    if isinstance(fault, str):
        return degrade.apply(photo, degrade.draw(fault, rng))
    seed = {"seed": int(rng.integers(2**31))} if random(fault) else {}
    return degrade.apply(photo, degrade.Recipe((fault | seed,) if fault else ()))


def at_full_size(restorer: Restorer, photo: np.ndarray) -> np.ndarray:
    return image.to_photo(padded(restorer.restorer, image.to_tensor(photo)))


def at_ratio(
    restorer: Restorer, sharp: Restorer, photo: np.ndarray, ratio: float
) -> Iterator[tuple[str, np.ndarray]]:
    """(method, result) of what works at the long side / ratio: the filter alone with each eps, the
    shipped flow without and with sharpener.
    """
    size = round(max(photo.shape[:2]) / ratio)
    low, large = image.to_tensor(image.shrink(photo, size)), image.to_tensor(photo)
    clean = padded(restorer.restorer, low).clamp(0, 1)
    for eps in EPS:
        yield f"filter, eps {eps:g}", image.to_photo(nets.GuidedFilter(1, eps)(low, clean, large))
    for name, flow in (("filter + refiner", restorer), ("and sharpener", sharp)):
        flow.working_size = size
        yield name, flow(photo).image


def rows(folder: Path, seeds: int, every: int = 1) -> Iterator[str]:
    restorer, sharp = (
        Restorer(device="cpu", faces=False, sharpener=identity),
        Restorer(device="cpu", faces=False),
    )
    truths = pictures(folder)[::every]
    yield f"{len(truths)} pictures, {seeds} seeds; PSNR in dB, at most 60\n"
    titles = ["fault", "ratio", "input", "non-local means", "restorer at full size"]
    titles += [
        "filter, eps 1e-8",
        "filter, best eps",
        "filter + refiner",
        "gain over best eps",
        "and sharpener",
    ]
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    gains: dict[int, list[float]] = {2: [], 4: []}
    for name, fault in FAULTS.items():
        told: dict[tuple[int, str], list[float]] = {}
        for seed in range(seeds if random(fault) else 1):
            rng = np.random.default_rng([seed, 77])
            for truth in truths:
                poor = worn(truth, fault, rng)
                whole = [
                    ("input", poor),
                    ("non-local means", non_local_means(poor)),
                    ("restorer at full size", at_full_size(restorer, poor)),
                ]
                for ratio in gains:
                    for method, out in [*whole, *at_ratio(restorer, sharp, poor, ratio)]:
                        told.setdefault((ratio, method), []).append(
                            min(metrics.psnr(out, truth), 60.0)
                        )
        for ratio in gains:
            mean = {m: float(np.mean(v)) for (r, m), v in told.items() if r == ratio}
            best = max(EPS, key=lambda e: mean[f"filter, eps {e:g}"])  # noqa: B023
            ours, alone = mean["filter + refiner"], mean[f"filter, eps {best:g}"]
            gains[ratio].append(ours - alone)
            cells = [
                f"{mean[m]:.2f}"
                for m in ("input", "non-local means", "restorer at full size", "filter, eps 1e-08")
            ]
            cells += [
                f"{alone:.2f} ({best:g})",
                f"**{ours:.2f}**",
                f"{ours - alone:+.2f}",
                f"{mean['and sharpener']:.2f}",
            ]
            yield f"| {name} | {ratio} | " + " | ".join(cells) + " |"
    yield "\nGain over the best eps, mean of the faults: " + ", ".join(
        f"ratio {r} {np.mean(g):+.2f} dB" for r, g in gains.items()
    )


def published(folder: Path) -> Iterator[str]:
    """Our nets beside figures of others, on the pictures of those sets that are here."""
    restorer, sharp = (
        Restorer(device="cpu", faces=False, sharpener=identity),
        Restorer(device="cpu", faces=False, scale=2),
    )
    cbsd = [image.read(p) for p in sorted((folder / "photos_clean").glob("cbsd68*"))]
    for name, fault in (("σ 25", FAULTS["noise 25"]), ("JPEG 10", FAULTS["jpeg 10"])):
        values = []
        for i, truth in enumerate(cbsd):
            poor = worn(truth, fault, np.random.default_rng(i))
            values.append(
                (metrics.psnr(poor, truth), metrics.psnr(at_full_size(restorer, poor), truth))
            )
        yield (
            f"CBSD68, {len(cbsd)} of 68 pictures, {name}: input {np.mean(values, 0)[0]:.2f}, "
            f"restorer {np.mean(values, 0)[1]:.2f} dB"
        )
    values = []
    for path in sorted((folder / "photos_clean").glob("set5*")):
        truth = image.read(path)
        truth = truth[: truth.shape[0] // 2 * 2, : truth.shape[1] // 2 * 2]
        small = image.as_photo(
            image.as_samples(
                image.resize(truth, (truth.shape[0] // 2, truth.shape[1] // 2)), np.uint8
            )
        )
        out = [
            image.resize(small, truth.shape[:2]),
            image.to_photo(padded(sharp.sharpeners[2], image.to_tensor(small))),
        ]
        y = [cv2.cvtColor(x, cv2.COLOR_RGB2YCrCb)[2:-2, 2:-2, 0] for x in (truth, *out)]
        values.append(
            [metrics.psnr(o, truth) for o in out] + [metrics.psnr(o, y[0]) for o in y[1:]]
        )
    a, b, c, d = np.mean(values, 0)
    yield (
        f"Set5, x2: OpenCV cubic {a:.2f}, sharpener {b:.2f} dB in RGB; {c:.2f} and {d:.2f} dB "
        "on luma without a border of 2 px"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument(
        "--every", type=int, default=1, help="take every so-manieth picture, for a quick look"
    )
    p.add_argument("--only", choices=["rows", "published"], help="one of the two parts")
    args = p.parse_args()
    with torch.inference_mode():
        parts = {
            "rows": lambda: rows(args.folder, args.seeds, args.every),
            "published": lambda: published(args.folder),
        }
        for name in [args.only] if args.only else parts:
            for line in parts[name]():
                print(line, flush=True)


if __name__ == "__main__":
    main()
