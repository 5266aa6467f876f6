"""The `mtrestore` command. Exit codes: 0 all done, 1 nothing done or a set-up error, 2 usage, 3 some failed, 130/143 signals."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def restore(args: argparse.Namespace) -> int:
    """Restore files, or all pictures of folders, into a file or a folder; one bad file never stops the rest."""
    from tqdm import tqdm

    from . import image, weights

    jobs = plan_outputs(args.inputs, args.output)
    options = {"device": args.device, "scale": args.scale, "working_size": args.working_size, "face_strength": args.face_strength,
               "faces": not args.no_faces, "memory_mb": args.memory_mb, "crop": args.crop, "detector": args.detector}  # fmt: skip
    options |= {name: getattr(args, name) for name in ("face", "restorer", "upsampler") if getattr(args, name)}
    for name in ("face", "restorer", "upsampler"):
        if Path(options.get(name, name)).suffix != ".onnx":
            weights.check(options.get(name, name))
    restorer = None  # made for the first picture that can be read: bad files are refused before torch is imported
    rows, quiet = [], len(jobs) == 1 or not sys.stderr.isatty()
    for source, target in tqdm(jobs, unit="photo", disable=quiet):
        row: dict[str, Any] = {"input": os.fsdecode(source), "output": os.fsdecode(target), "status": "failed", "code": None, "message": ""}
        rows.append(row)
        try:
            if target.exists() and not args.overwrite:
                raise image.ImageError("E_WRITE", f"{target} exists already; give another output or --overwrite")
            picture = image.load(source)
        except image.ImageError as e:
            row |= {"code": e.code, "message": str(e)}
        else:
            if restorer is None:
                from .pipeline import Restorer

                restorer = Restorer(**options, keep_steps=False, progress=len(jobs) == 1 and sys.stderr.isatty())
            row |= restore_one(restorer, picture, target, args)
        done = row["status"] == "restored"
        text = f"{row['status']} {row['input']}{' -> ' + row['output'] if done else ''}: {row['message']}"
        tqdm.write(shown(text), file=sys.stdout if done else sys.stderr)
    failed = sum(r["status"] == "failed" for r in rows)
    if args.report:
        image.write_bytes(args.report, json.dumps({"options": options, "files": rows}, indent=1).encode())
    return 0 if not failed else 3 if failed < len(rows) else 1


def restore_one(restorer: Any, picture: Any, target: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Restore one picture that was read and write it; what became of it, as part of its row in the report."""
    from . import image

    try:
        result = restorer(picture)
        target.parent.mkdir(parents=True, exist_ok=True)
        result.save(target, overwrite=args.overwrite)
        if args.html:
            result.compare(title=target.name).save(target.with_suffix(".html"))
    except image.ImageError as e:
        return {"code": e.code, "message": str(e)}
    except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError) as e:
        if args.debug:
            raise
        code = "E_MEMORY" if isinstance(e, MemoryError) else "E_NONFINITE" if isinstance(e, FloatingPointError) else "E_CRASH"
        return {"code": code, "message": one_line(e)}
    states = [f.status for f in result.faces]
    notes = [*result.notes, *image.what_is_lost(picture, target.suffix)]
    say = f"{len(states)} face{'s' * (len(states) != 1)}" + "".join(f" ({s})" for s in states if s != "restored")
    seconds = result.timings["total"]
    return {"status": "restored", "faces": states, "seconds": round(seconds, 3), "notes": notes, "message": "; ".join([f"{say}, {seconds:.1f} s", *notes])}


def plan_outputs(inputs: Sequence[str], output: str) -> list[tuple[Path, Path]]:
    """(input, output) pairs: a folder gives every file below it, at the same place below the output folder; formats we cannot write become PNG."""
    from . import image

    out, jobs = Path(output), []
    for name in inputs:
        source = Path(name)
        if source.is_dir():
            inside = out.resolve()
            found = sorted(p for p in source.rglob("*") if not p.is_dir() and inside not in p.resolve().parents)
            if not found:
                raise image.ImageError("E_MISSING", f"the folder {source} holds no file")
            jobs += [(p, out / p.relative_to(source)) for p in found]
        else:
            jobs.append((source, out if len(inputs) == 1 and out.suffix and not out.is_dir() else out / source.name))
    jobs = [(s, t if t.suffix.lower() in image.SUFFIXES else t.with_name(t.name + ".png")) for s, t in jobs]
    for source, target in jobs:
        if source.exists() and target.exists() and os.path.samefile(source, target):
            raise image.ImageError("E_WRITE", f"{source} would be overwritten by its own restoration; give another output")
    return jobs


def demo(args: argparse.Namespace) -> int:
    """Age a public-domain portrait by a recorded recipe, restore it, and write degraded, restored, recipe and a before/after page."""
    import skimage.data

    from . import degrade, image
    from .pipeline import Restorer

    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    recipe = (Path(__file__).parent / "sample_recipe.json").read_text()
    poor = degrade.apply(image.read(skimage.data.astronaut()), degrade.Recipe.from_json(recipe))
    result = Restorer(device=args.device, keep_steps=False)(poor)
    image.write(out / "degraded.png", poor)
    image.write(out / "restored.png", result.image)
    image.write_bytes(out / "recipe.json", recipe.encode())
    result.compare(labels=("degraded", "restored"), title="Eileen Collins, NASA (public domain), aged by a recorded recipe").save(out / "compare.html")
    print(f"{len(result.faces)} face, {result.timings['total']:.1f} s; see {out}/degraded.png, {out}/restored.png and {out}/compare.html")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Print the table of PSNR, SSIM and sharpness on degraded pictures with a known truth."""
    from dataclasses import asdict

    from . import evaluate as e
    from . import image

    rows = e.evaluate(args.folder, seeds=range(args.seeds), size=args.size, nlm=not args.no_nlm, what=args.what.split(","))
    print(e.table(rows))
    if args.json:
        image.write_bytes(args.json, json.dumps([asdict(r) for r in rows], indent=1).encode())
    return 0


def models(args: argparse.Namespace) -> int:
    """List the shipped weights, or fetch an optional model (its sha256 is checked)."""
    from . import weights

    if args.fetch:
        print(weights.fetch(args.fetch[1]))
        return 0
    for name in weights.shipped():
        net = weights.load(name)
        count = sum(p.numel() for p in net.parameters())
        print(f"{name:13} {type(net).__name__:16} {count:>9,} parameters, {net.notes['steps']} steps, sha256 {net.notes['sha256'][:12]}")
    return 0


def lab(args: argparse.Namespace) -> int:
    """Open the notebooks in JupyterLab."""
    folder = next((p for p in (Path("notebooks"), Path(__file__).parents[1] / "notebooks") if p.is_dir()), None)
    if folder is None:
        raise ValueError("no notebooks folder here; run `mtrestore lab` in a clone of the project")
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *args.rest])


def one_line(e: BaseException) -> str:
    return " ".join(str(e).split())[:500] or type(e).__name__


def shown(text: str) -> str:
    """Text that is safe to print on one line of a terminal, whatever a file was called."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).encode("utf-8", "backslashreplace").decode()


def train(args: argparse.Namespace) -> int:
    """Train one net from a settings file, showing loss and time left; interrupted runs resume."""
    import cv2
    import torch
    from tqdm import tqdm

    from . import plan

    settings = plan.read_settings(args.settings, args.stage)
    if args.steps is not None:
        if args.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {args.steps}")
        settings["steps"] = args.steps
    fabric = None
    if args.device != "cpu" or args.precision != "32-true":
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator=args.device, devices=1, precision=args.precision)
        fabric.launch()
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    out = Path(args.out or f"runs/{Path(args.settings).stem}")
    records = plan.run(settings, args.data, out, resume=not args.restart, workers=args.workers, fabric=fabric)
    mean = None
    bar = None
    for record in records:  # the first one tells where a resumed run begins
        bar = bar or tqdm(total=settings["steps"], initial=record.step - 1, unit="step", dynamic_ncols=True, mininterval=args.every)
        mean = record.losses["loss"] if mean is None else 0.99 * mean + 0.01 * record.losses["loss"]
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        bar.update()
    if bar:
        bar.close()
    print(f"{settings['stage']}: {settings['steps']} steps done, run in {out}")
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="mtrestore", description="Restore blurred, noisy, over-compressed and old portraits.")
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    r = commands.add_parser("restore", help="restore photos or folders of photos")
    r.add_argument("inputs", nargs="+", metavar="IN", help="a picture or a folder of pictures")
    r.add_argument("-o", "--output", required=True, metavar="OUT", help="a file for one picture, else a folder")
    r.add_argument("--scale", type=float, default=1.0, help="output size over input size, 0.1..8 (default: %(default)s)")
    r.add_argument("--face-strength", type=float, default=1.0, help="0 leaves faces to the whole-photo branch, 1 takes the face net's (default: %(default)s)")
    r.add_argument("--no-faces", action="store_true", help="do not look for faces")
    r.add_argument("--working-size", type=int, default=640, help="long side, px, at which the whole photo is restored (default: %(default)s)")
    r.add_argument("--crop", choices=["landmark", "eye"], default="landmark", help="how a face is cut out (default: %(default)s)")
    r.add_argument("--detector", choices=["auto", "mtcnn", "yunet"], default="auto", help="face detector (default: %(default)s)")
    r.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    r.add_argument("--memory-mb", type=float, help="what full-size work may use for its own buffers")
    for name in ("face", "restorer", "upsampler"):
        r.add_argument(f"--{name}", metavar="FILE", help=f"a .safetensors or .onnx file in place of the shipped {name} net")
    r.add_argument("--overwrite", action="store_true", help="replace files that exist")
    r.add_argument("--html", action="store_true", help="write a before/after page beside each result")
    r.add_argument("--report", metavar="FILE", help="write what became of each input as JSON")
    r.set_defaults(run=restore)

    d = commands.add_parser("demo", help="restore a sample portrait")
    d.add_argument("-o", "--output", default="outputs", help="folder (default: %(default)s)")
    d.add_argument("--device", default="auto")
    d.set_defaults(run=demo)

    e = commands.add_parser("evaluate", help="measure on degraded pictures with a known truth")
    e.add_argument("folder", help="a folder like dev_eval: faces_clean/ with mesh468.npz, photos_clean/, polyu_pairs/")
    e.add_argument("--seeds", type=int, default=3, help="degradations for each face (default: %(default)s)")
    e.add_argument("--size", type=int, default=256, help="face size, px (default: %(default)s)")
    e.add_argument("--what", default="faces,photos", help="faces, photos or both (default: %(default)s)")
    e.add_argument("--no-nlm", action="store_true", help="leave out non-local means, which is slow")
    e.add_argument("--json", metavar="FILE", help="write the rows as JSON as well")
    e.set_defaults(run=evaluate)

    m = commands.add_parser("models", help="list the weights, or fetch an optional detector")
    m.add_argument("fetch", nargs="*", default=[], metavar="fetch yunet", help="`fetch yunet` downloads the YuNet face detector")
    m.set_defaults(run=models)

    j = commands.add_parser("lab", help="open the notebooks in JupyterLab; other options are passed on to it")
    j.set_defaults(run=lab)

    t = commands.add_parser("train", help="train a net from a settings file")
    t.add_argument("stage", choices=["face", "restorer", "refiner", "sharpener", "landmarks"])
    t.add_argument("--settings", required=True, help="YAML file, see experiments/train/")
    t.add_argument("--data", default="../shared/data", help="folder that holds train_faces/ and train_photos/ (default: %(default)s)")
    t.add_argument("--out", help="folder of the run: checkpoints and log (default: runs/NAME-OF-SETTINGS)")
    t.add_argument("--steps", type=int, help="steps, instead of the settings' number")
    t.add_argument("--device", default="cpu", help="cpu, gpu or auto (default: %(default)s)")
    t.add_argument("--precision", default="32-true", help="a lightning-fabric precision, bf16-mixed on a GPU (default: %(default)s)")
    t.add_argument("--threads", type=int, help="CPU threads for the net")
    t.add_argument("--workers", type=int, default=1, help="threads that prepare batches (default: %(default)s)")
    t.add_argument("--every", type=float, default=1.0, help="seconds between two updates of the progress line")
    t.add_argument("--restart", action="store_true", help="begin again instead of resuming the newest checkpoint")
    t.set_defaults(run=train)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    top = parser()
    args, rest = top.parse_known_args(argv)
    args.rest = rest
    if rest and args.command != "lab":
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command == "models" and args.fetch not in ([], ["fetch", "yunet"]):
        top.error(f"models takes nothing, or `fetch yunet`, got {' '.join(args.fetch)!r}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("mtrestore: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as e:
        if args.debug:
            raise
        print(shown(f"mtrestore: {one_line(e)}"), file=sys.stderr)
        return 1
