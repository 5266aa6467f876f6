"""Pictures a second of `fit` with its data loader, beside a bare forward, backward and optimiser
loop of the same nets.

    python benchmarks/train.py --data DATA --steps 20

One row each for face (S, 128 px, batch 8), prior and restoration (the committed settings). The bare
loop holds its batches ready on the device and does nothing but the arithmetic: no loader,
augmentation, clipping, averaging, checks or records. Both run in turn, block by block, on the same
batches; the table shows medians, and what the loader alone reaches. Nothing is written but the
table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from mtrestore.training import losses
from mtrestore.training import settings as plan
from mtrestore.training.fit import fit, prefetch, to_device

SETTINGS = Path(__file__).parents[1] / "experiments/train"
FACE = {
    "stage": "face",
    "net": {"widths": "S"},
    "batches": {"sizes": [128], "batch": 8},
    "train": {"weights": {"pixel": 1.0, "frequency": 0.3}},
}


def settings_of(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The stage's settings without the files it would begin from, which change no speed, and with
    the sizes that were asked for.
    """
    files = (
        {p: plan.read_settings(p) for p in sorted(SETTINGS.glob("*.yaml"))}
        if name != "face"
        else {}
    )
    found = FACE if name == "face" else next(s for s in files.values() if s["stage"] == name)
    settings = {k: v for k, v in found.items() if k not in ("init", "prior", "critic", "weights")}
    settings = {
        **settings,
        "steps": 10**6,
        "batches": dict(settings.get("batches", {})),
        "train": dict(settings.get("train", {})),
    }
    if args.size:
        settings["batches"] |= {"sizes": [args.size], "sharpness": 0.1}
    if args.batch:
        settings["batches"]["batch"] = args.batch
    if args.widths:
        settings["net"] = {**settings.get("net", {}), "widths": args.widths}
        settings["train"] |= {"critic": args.widths} if name != "face" else {}
    return settings


def bare(settings: dict[str, Any], fabric: Any) -> Callable[[dict[str, Any], int], None]:
    """One step of the stage's arithmetic on a batch that is on the device: the same nets, loss
    terms and Adam, and nothing else.
    """
    stage = plan.make_stage(settings)
    net = stage.averaged.to(fabric.device, memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), stage.descent.rates[0])
    if settings["stage"] == "face":

        def supervised(batch: dict[str, Any], n: int) -> None:
            adam.zero_grad(set_to_none=True)
            with fabric.autocast():
                out = net(*batch["inputs"])
            sum(
                w * stage.terms[k](out.float(), batch["target"]) for k, w in stage.weights.items()
            ).backward()
            adam.step()

        return supervised
    critic, every, weights = (
        stage.adversary.critic.to(fabric.device, memory_format=torch.channels_last),
        stage.adversary.every,
        getattr(stage, "weights", {}),
    )
    second = torch.optim.Adam(critic.parameters(), 1e-4)

    def adversarial(batch: dict[str, Any], n: int) -> None:
        truth = batch["target"]
        adam.zero_grad(set_to_none=True)
        critic.requires_grad_(False)
        with fabric.autocast():
            made = (
                net(net.draw(len(truth), truth.shape[-1], device=truth.device))
                if not weights
                else net(*batch["inputs"])
            )
            verdicts, found = critic.judge(made)
        if not weights:
            loss = losses.real(verdicts)
        else:
            with torch.no_grad(), fabric.autocast():
                standard, wanted = critic.judge(truth)
            terms = {
                "pixel": losses.pixel(made.float(), truth),
                "frequency": losses.frequency(made, truth),
            }
            terms |= {
                "features": losses.features(found, wanted),
                "adversarial": losses.ranked(verdicts, standard),
            }
            loss = sum(weights[k] * v for k, v in terms.items())
        loss.backward()
        adam.step()
        critic.requires_grad_(True)
        second.zero_grad(set_to_none=True)
        with fabric.autocast():
            on_real, on_fake = critic.judge(truth)[0], critic.judge(made.detach().float())[0]
        loss = (
            losses.ranked(on_real, on_fake)
            if weights
            else losses.real(on_real) + losses.fake(on_fake)
        )
        if n % every == 0:
            loss = loss + every * losses.r1(critic, truth)
        loss.backward()
        second.step()

    return adversarial


def clock(fabric: Any) -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def blocks(
    stage: Any,
    settings: dict[str, Any],
    batches: Callable[[int], Any],
    args: argparse.Namespace,
    fabric: Any,
) -> Iterator[tuple[float, float]]:
    """(pictures a second of fit, of the bare loop) for each block; the first step of each is not
    counted.
    """
    seen: dict[int, Any] = {}
    if hasattr(stage, "adversary"):
        stage.adversary.watch["ready"] = 1  # all losses from the first step on

    def remembered(n: int) -> Any:
        seen[n] = batches(n)
        return seen[n]

    records = fit(stage, remembered, settings["steps"], workers=args.workers, fabric=fabric)
    step, n = bare(settings, fabric), 0
    for _ in range(args.blocks):
        next(records)
        began = clock(fabric)
        for _ in range(args.steps):
            next(records)
        seconds = clock(fabric) - began
        ready = [to_device(seen.pop(n + i), fabric.device) for i in range(args.steps + 1)]
        step(ready[0], n)
        count, began = sum(len(batch["target"]) for batch in ready[1:]), clock(fabric)
        for i, batch in enumerate(ready[1:], n + 1):
            step(batch, i)
        yield count / seconds, count / (clock(fabric) - began)
        n += len(ready)


def loader(batches: Callable[[int], Any], args: argparse.Namespace) -> float:
    """Pictures a second of the batches alone."""
    began = time.perf_counter()
    return sum(
        len(batch["target"]) for _, batch in prefetch(batches, 0, args.steps, args.workers)
    ) / (time.perf_counter() - began)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, metavar="FOLDER", help="needed: it holds train_faces/")
    p.add_argument("--steps", type=int, default=20, help="steps in a block (default: %(default)s)")
    p.add_argument(
        "--blocks", type=int, default=5, help="blocks of each kind, in turn (default: %(default)s)"
    )
    p.add_argument(
        "--workers", type=int, default=1, help="threads that prepare batches (default: %(default)s)"
    )
    p.add_argument("--threads", type=int, help="CPU threads for the net")
    p.add_argument(
        "--device", default="cpu", choices=["cpu", "gpu", "auto"], help="(default: %(default)s)"
    )
    p.add_argument(
        "--precision", default="32-true", help="a lightning-fabric precision (default: %(default)s)"
    )
    p.add_argument(
        "--rows", default="face,prior,restoration", help="which rows (default: %(default)s)"
    )
    p.add_argument("--size", type=int, help="px, in place of the settings' sizes")
    p.add_argument("--batch", type=int, help="faces in a batch, in place of the settings' number")
    p.add_argument("--widths", help="a width plan in place of the settings'")
    p.add_argument("--json", help="write the rows to this file too")
    args = p.parse_args()
    if args.data is None:
        raise SystemExit("give --data FOLDER, the folder that holds train_faces/")
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator=args.device, devices=1, precision=args.precision)
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    print(
        f"{fabric.device}, {args.precision}, {torch.get_num_threads()} threads, {args.workers} "
        "workers"
    )
    print(f"medians of {args.blocks} blocks of {args.steps} steps")
    print(f"{'pictures/s':12} {'fit':>8} {'bare':>8} {'ratio':>7} {'loader':>8}")
    rows = []
    for name in args.rows.split(","):
        torch.manual_seed(0)
        settings = settings_of(name, args)
        stage = plan.make_stage(settings)
        batches = plan.make_batches(settings, args.data, stage.averaged)
        speed = loader(batches, args)
        pairs = list(blocks(stage, settings, batches, args, fabric))
        ours, theirs, ratio = (
            statistics.median(x) for x in zip(*((a, b, a / b) for a, b in pairs), strict=True)
        )
        rows.append(
            {
                "row": name,
                "fit": ours,
                "bare": theirs,
                "ratio": ratio,
                "loader": speed,
                "blocks": pairs,
            }
        )
        print(
            f"{name:12} {ours:8.1f} {theirs:8.1f} {ratio:6.0%} {rows[-1]['loader']:8.1f}",
            flush=True,
        )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
