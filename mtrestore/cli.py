"""The `mtrestore` command. Exit codes: 0 all done, 1 nothing done or a set-up error, 2 usage, 3 some failed, 130/143 signals."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .guard import safe, terminal
from .io.text import one_line, shown


def restore(args: argparse.Namespace) -> int:
    """Restore files, or all pictures of folders, into a file or a folder; one bad file never stops the rest."""
    from .folder import names as outputs
    from .folder import one_file as task
    from .folder import run as batch
    from .lab import record as run

    options = {"device": args.device, "scale": args.scale, "working_size": args.working_size, "photo_strength": args.photo_strength,
               "face_strength": args.face_strength, "face_fidelity": args.face_fidelity, "faces": not args.no_faces,
               "memory_mb": args.memory_mb, "crop": args.crop, "detector": args.detector}  # fmt: skip
    given = {name: getattr(args, name) for name in task.NETS if getattr(args, name)}
    options |= {
        name: os.path.abspath(net) if Path(net).suffix else net for name, net in given.items()
    }  # a file, or a shipped name
    made_by = task.made_by(options | ({"strip_location": True} if args.strip_location else {}))
    settings = task.Settings(tuple(options.items()), made_by, overwrite=args.overwrite, html=args.html, debug=args.debug,
                              strip_location=args.strip_location)  # fmt: skip
    jobs = outputs.plan(args.inputs, args.output)
    report = Path(args.report) if args.report else None
    if (
        len(args.inputs) == 1
        and not os.path.isdir(args.inputs[0])
        and not (args.resume or args.dask)
    ):
        rows = batch.single(
            jobs[0],
            replace(settings, progress=sys.stderr.isatty()),
            report,
            args.timeout or batch.TIMEOUT,
        )
    else:
        workers = min(
            len(jobs),
            args.jobs
            or (1 if args.device.startswith("cuda") else max(1, min(8, run.cores() // 2))),
        )
        settings = replace(settings, threads=1 if args.dask else max(1, run.cores() // workers))
        rows = batch.folder(
            jobs,
            settings,
            workers=workers,
            timeout=args.timeout or batch.TIMEOUT,
            resume=args.resume,
            dask=args.dask,
            report=report,
        )
    failed = sum(row["status"] == "failed" for row in rows)
    if failed == len(rows):
        return 1
    return 3 if failed or rows.lost else 0


def demo(args: argparse.Namespace) -> int:
    """Age a public-domain portrait by a recorded recipe, restore it, and write degraded, restored, recipe and a before/after page."""
    import skimage.data

    from . import degrade, image
    from .io.files import head
    from .pipeline import Restorer

    out = Path(args.output)
    recipe = (Path(__file__).parent / "sample_recipe.json").read_text()
    again = (
        head(out / "recipe.json", 1 << 20) == recipe.encode()
    )  # the sample was restored into this folder before
    for name in ("degraded.png", "restored.png", "recipe.json", "compare.html"):
        may_write(out / name, "the sample's", args.overwrite or again)
    poor = degrade.apply(image.read(skimage.data.astronaut()), degrade.Recipe.from_json(recipe))
    result = Restorer(device=args.device, keep_steps=False)(poor)
    image.write(out / "degraded.png", poor)
    image.write(out / "restored.png", result.image)
    image.write_bytes(out / "recipe.json", recipe.encode())
    result.compare(labels=("degraded", "restored"), title="Eileen Collins, NASA (public domain), aged by a recorded recipe").save(
        out / "compare.html", overwrite=args.overwrite or again)  # fmt: skip
    print(
        f"{len(result.faces)} face, {result.timings['total']:.1f} s; see {out}/degraded.png, {out}/restored.png and {out}/compare.html"
    )
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Print the table of PSNR, SSIM and sharpness on degraded pictures with a known truth."""
    from dataclasses import asdict

    from . import image
    from .lab import evaluate as e

    if args.json:
        may_write(
            args.json,
            "the rows",
            args.overwrite,
            folders=[args.folder],
            files=[n.partition("=")[2] or n for n in args.net],
        )
    more = dict(n.split("=", 1) if "=" in n else (Path(n).stem, n) for n in args.net)
    rows = e.evaluate(
        args.folder,
        seeds=range(args.seeds),
        size=args.size,
        nlm=not args.no_nlm,
        what=args.what.split(","),
        more=more,
    )
    print(e.table(rows))
    if args.json:
        image.write_bytes(args.json, json.dumps([asdict(r) for r in rows], indent=1).encode())
    return 0


def models(args: argparse.Namespace) -> int:
    """List the shipped weights, fetch an optional model (its sha256 is checked), or export a net as ONNX."""
    from . import weights

    if args.action[:1] == ["fetch"]:
        print(weights.fetch(args.action[1]))
        return 0
    if args.action:
        from .fast.onnx import export

        if args.output:
            may_write(args.output, "the net", args.overwrite, files=[args.action[1]])
        net = weights.load(args.action[1])
        print(export(net, args.output or weights.exported(args.action[1])))
        return 0
    for name in weights.shipped():
        net = weights.load(name)
        count = sum(p.numel() for p in net.parameters())
        print(
            f"{name:13} {type(net).__name__:16} {count:>9,} parameters, {net.notes['steps']} steps, sha256 {net.notes['sha256'][:12]}"
        )
    return 0


def lab(args: argparse.Namespace) -> int:
    """Open the notebooks in JupyterLab."""
    folder = next(
        (p for p in (Path("notebooks"), Path(__file__).parents[1] / "notebooks") if p.is_dir()),
        None,
    )
    if folder is None:
        raise ValueError("no notebooks folder here; run `mtrestore lab` in a clone of the project")
    offline = [
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    os.execv(
        sys.executable,
        [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *offline, *args.rest],
    )


def train(args: argparse.Namespace) -> int:
    """Train one net from a settings file, showing loss and time left; interrupted runs resume."""
    import cv2
    import torch
    from tqdm import tqdm

    from .training import settings as plan

    settings = plan.read_settings(args.settings, args.stage)
    if args.steps is not None:
        if args.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {args.steps}")
        settings["steps"] = args.steps
    if args.devices < 1:
        raise ValueError(f"--devices must be at least 1, got {args.devices}")
    fabric = None
    if args.device != "cpu" or args.precision != "32-true" or args.devices > 1:
        from lightning_fabric import Fabric
        from lightning_fabric.utilities.exceptions import MisconfigurationException

        try:
            strategy = "ddp" if args.devices > 1 else "auto"
            fabric = Fabric(
                accelerator=args.device,
                devices=args.devices,
                strategy=strategy,
                precision=args.precision,
            )
        except (MisconfigurationException, ImportError, RuntimeError, ValueError) as e:
            raise ValueError(
                f"--device {args.device} --devices {args.devices} cannot be had here: {one_line(e)}"
            ) from e
        fabric.launch()  # with several devices this command is started once more for each of the others
    first = fabric is None or fabric.global_rank == 0
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    out = Path(args.out or f"runs/{Path(args.settings).stem}")
    options = {
        "resume": not args.restart,
        "workers": args.workers,
        "fabric": fabric,
        "tensorboard": args.tensorboard,
    }
    bar, means = None, {}
    for record in plan.run(
        settings, args.data, out, **options
    ):  # the first one tells where a resumed run begins
        if bar is None:
            bar = tqdm(
                total=settings["steps"],
                initial=record.step - 1,
                unit="step",
                dynamic_ncols=True,
                mininterval=args.every,
                disable=not first,
            )
        for name in ("loss", "pixel", "adversarial", "critic", "balance"):
            if name in record.losses:
                means[name] = (
                    0.99 * means.get(name, record.losses[name]) + 0.01 * record.losses[name]
                )
        bar.set_postfix({name: f"{mean:.4f}" for name, mean in means.items()}, refresh=False)
        bar.update()
    if bar is not None:
        bar.close()
    if first:
        print(f"{settings['stage']}: {settings['steps']} steps done, run in {out}")
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Run a notebook with many parameters, each run once; what is done already stays."""
    from .lab import sweep

    plan, out = sweep.read(args.file), args.out or f"runs/sweeps/{Path(args.file).stem}"
    forecast = sweep.forecast(plan, out, args.jobs, args.overwrite)
    print(forecast if args.dry_run else forecast.splitlines()[0], flush=True)
    if args.dry_run:
        return 0
    table = sweep.sweep(
        plan, out, jobs=args.jobs, dask=args.dask, slurm=args.slurm, overwrite=args.overwrite
    )
    done = int((table["status"] == "done").sum())
    print(
        table[["run", "status", "seconds", *table.attrs["metrics"][:5]]].to_string(
            index=False, float_format="{:.4g}".format, na_rep=""
        )
    )
    print(f"{done} done, {len(table) - done} failed; see {out}/table.csv")
    return 0 if done == len(table) else 3 if done else 1


def rerun(args: argparse.Namespace) -> int:
    """Repeat a run and say of each number whether it agrees."""
    from .io.claims import check_folder
    from .lab.repeat import rerun

    if args.out:
        check_folder(args.out, ("run.json", "status.json"), args.overwrite)
    repeat = rerun(args.record, args.run_name, args.out, args.tolerance, changed=args.changed)
    print(repeat)
    return 0 if repeat.agrees else 1


def report(args: argparse.Namespace) -> int:
    """Write one HTML page of a folder of runs, or of a bundle that was made of one."""
    from .io import claims
    from .lab import record as run
    from .lab import report

    allowed = claims.Claims(args.overwrite)
    if os.path.isdir(args.runs):
        for place in run.places(args.runs):
            allowed.reads_below(place, "what the page is made of")
    else:
        allowed.reads(args.runs, "what the page is made of")
    if args.json:
        allowed.claim(args.json, "the bundle")
    allowed.claim(args.output, "the page", mark=claims.PAGE)
    source = args.runs
    if args.json:
        source = report.bundle(args.runs, args.json, args.title, args.overwrite)
    print(report.write(source, args.output, args.title, args.overwrite))
    if args.json:
        print(source)
    return 0


def may_write(
    path: str | os.PathLike,
    what: str,
    overwrite: bool,
    *,
    files: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> None:
    """Raises ImageError where a command must not write this file: it is there, one of those read, or a net that comes with the package."""
    from . import weights
    from .io import claims

    allowed = claims.Claims(overwrite)
    for file in files:
        allowed.reads(file, "what is read")
    for folder in folders:
        allowed.reads_below(folder, "what is read")
    for net in weights.shipped().values():
        allowed.reads(net, "a net in use")
    allowed.claim(path, what)


def positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type: a number above zero."""

    def number(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    number.__name__ = f"positive {kind.__name__}"
    return number


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="mtrestore", description="Restore blurred, noisy, over-compressed and old portraits."
    )
    p.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")

    r = commands.add_parser("restore", help="restore photos or folders of photos")
    r.add_argument("inputs", nargs="+", metavar="IN", help="a picture or a folder of pictures")
    r.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="a file for one picture, else a folder"
    )
    r.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="output size over input size, 0.1..8 (default: %(default)s)",
    )
    r.add_argument(
        "--face-strength",
        type=float,
        default=1.0,
        help="0 leaves faces to the whole-photo branch, 1 takes the face net's (default: %(default)s)",
    )
    r.add_argument(
        "--photo-strength",
        type=float,
        default=1.0,
        help="0..1, how much of the whole photo's restoration is kept (default: %(default)s)",
    )
    r.add_argument(
        "--face-fidelity",
        type=float,
        help="0 gives living texture, 1 the smoother face nearest to the truth (default: 0, much blurred faces 1)",
    )
    r.add_argument("--no-faces", action="store_true", help="do not look for faces")
    r.add_argument(
        "--working-size",
        type=int,
        default=640,
        help="long side, px, at which the whole photo is restored (default: %(default)s)",
    )
    r.add_argument(
        "--crop",
        choices=["landmark", "eye"],
        default="landmark",
        help="how a face is cut out (default: %(default)s)",
    )
    r.add_argument(
        "--detector",
        choices=["auto", "mtcnn", "yunet"],
        default="auto",
        help="face detector (default: %(default)s)",
    )
    r.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    r.add_argument(
        "--memory-mb", type=float, help="what full-size work may use for its own buffers"
    )
    for name in ("face", "restorer", "upsampler"):
        r.add_argument(
            f"--{name}",
            metavar="FILE",
            help=f"a .safetensors or .onnx file in place of the shipped {name} net",
        )
    r.add_argument(
        "--jobs",
        type=positive(int),
        metavar="N",
        help="worker processes for a folder (default: half the processors, 8 at most; 1 on cuda)",
    )
    r.add_argument(
        "--timeout",
        type=positive(float),
        metavar="SECONDS",
        help="time for one file (default: 900)",
    )
    r.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="restore a folder on this Dask cluster, whose workers see the same folders",
    )
    r.add_argument("--overwrite", action="store_true", help="replace files that exist")
    r.add_argument(
        "--resume",
        action="store_true",
        help="skip what an earlier run made from the same file with the same options and weights",
    )
    r.add_argument(
        "--html", action="store_true", help="write a before/after page beside each result"
    )
    r.add_argument(
        "--report",
        metavar="FILE",
        help="write what became of each input as JSON, and as CSV beside it",
    )
    r.add_argument(
        "--strip-location",
        action="store_true",
        help="leave out where a photo was taken (GPS), which is kept otherwise",
    )
    r.set_defaults(run=restore)

    d = commands.add_parser("demo", help="restore a sample portrait")
    d.add_argument("-o", "--output", default="outputs", help="folder (default: %(default)s)")
    d.add_argument("--device", default="auto")
    d.add_argument("--overwrite", action="store_true", help="replace files that exist")
    d.set_defaults(run=demo)

    e = commands.add_parser("evaluate", help="measure on degraded pictures with a known truth")
    e.add_argument(
        "folder",
        help="a folder like dev_eval: faces_clean/ with mesh468.npz, photos_clean/, polyu_pairs/",
    )
    e.add_argument(
        "--seeds", type=int, default=3, help="degradations for each face (default: %(default)s)"
    )
    e.add_argument("--size", type=int, default=256, help="face size, px (default: %(default)s)")
    e.add_argument(
        "--what", default="faces,photos", help="faces, photos or both (default: %(default)s)"
    )
    e.add_argument(
        "--net",
        action="append",
        default=[],
        metavar="TITLE=FILE",
        help="measure a further face net; may be given again",
    )
    e.add_argument("--no-nlm", action="store_true", help="leave out non-local means, which is slow")
    e.add_argument("--json", metavar="FILE", help="write the rows as JSON as well")
    e.add_argument("--overwrite", action="store_true", help="replace files that exist")
    e.set_defaults(run=evaluate)

    m = commands.add_parser(
        "models", help="list the weights, fetch an optional detector, or export a net as ONNX"
    )
    m.add_argument("action", nargs="*", default=[], metavar="fetch yunet | export NET",
                   help="`fetch yunet` downloads the YuNet face detector; `export face` keeps an ONNX file, faster from then on")  # fmt: skip
    m.add_argument("-o", "--output", metavar="FILE", help="where to export to, instead")
    m.add_argument("--overwrite", action="store_true", help="replace files that exist")
    m.set_defaults(run=models)

    s = commands.add_parser(
        "sweep", help="run a notebook with many parameters, and only what is not done yet"
    )
    s.add_argument(
        "file", metavar="FILE", help="YAML: notebook, parameters, grid, seeds; see experiments/"
    )
    s.add_argument(
        "-o", "--out", help="folder of the runs and their table (default: runs/sweeps/NAME-OF-FILE)"
    )
    s.add_argument(
        "--dry-run", action="store_true", help="print the plan and an estimate, and run nothing"
    )
    s.add_argument(
        "--jobs",
        type=positive(int),
        metavar="N",
        help="runs at a time (default: one for each GPU, or core)",
    )
    where = s.add_mutually_exclusive_group()
    where.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run on this Dask cluster, whose workers see the same folders",
    )
    where.add_argument("--slurm", action="store_true", help="run as Slurm jobs, through submitit")
    again = s.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="run only what is not done, which is the default"
    )
    again.add_argument("--overwrite", action="store_true", help="run all again")
    s.set_defaults(run=sweep)

    a = commands.add_parser("rerun", help="repeat a run and say whether its numbers agree")
    a.add_argument(
        "record",
        metavar="RUN",
        help="folder of a run, or a bundle in experiments/results/ with --run",
    )
    a.add_argument("--run", dest="run_name", metavar="NAME", help="the run of the bundle")
    a.add_argument("-o", "--out", help="keep the new run in this folder")
    a.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="relative difference that is allowed (default: 0 on the same processor, else 0.01)",
    )
    a.add_argument("--overwrite", action="store_true", help="replace files that exist")
    a.add_argument(
        "--changed",
        action="store_true",
        help="run the notebook although it is no longer the one of then",
    )
    a.set_defaults(run=rerun)

    h = commands.add_parser("report", help="write one HTML page about finished runs")
    h.add_argument("runs", metavar="RUNS", help="folder of a sweep, or a bundle (.json)")
    h.add_argument(
        "-o", "--output", default="report.html", metavar="FILE", help="(default: %(default)s)"
    )
    h.add_argument(
        "--json", metavar="FILE", help="write all that the page shows as a bundle as well"
    )
    h.add_argument("--title")
    h.add_argument("--overwrite", action="store_true", help="replace files that exist")
    h.set_defaults(run=report)

    j = commands.add_parser(
        "lab", help="open the notebooks in JupyterLab; other options are passed on to it"
    )
    j.set_defaults(run=lab)

    t = commands.add_parser("train", help="train a net from a settings file")
    t.add_argument(
        "stage",
        choices=[
            "prior",
            "restoration",
            "face",
            "landmarks",
            "embedding",
            "restorer",
            "refiner",
            "sharpener",
        ],
    )
    t.add_argument("--settings", required=True, help="YAML file, see experiments/train/")
    t.add_argument(
        "--data",
        default="../shared/data",
        help="folder that holds train_faces/ and train_photos/ (default: %(default)s)",
    )
    t.add_argument(
        "--out", help="folder of the run: checkpoints and log (default: runs/NAME-OF-SETTINGS)"
    )
    t.add_argument("--steps", type=int, help="steps, instead of the settings' number")
    t.add_argument("--device", default="cpu", help="cpu, gpu or auto (default: %(default)s)")
    t.add_argument(
        "--devices",
        type=int,
        default=1,
        help="processes, each with a device and batches of its own (default: %(default)s)",
    )
    t.add_argument(
        "--precision",
        default="32-true",
        help="a lightning-fabric precision, bf16-mixed on a GPU (default: %(default)s)",
    )
    t.add_argument("--threads", type=int, help="CPU threads for the net")
    t.add_argument(
        "--workers", type=int, default=1, help="threads that prepare batches (default: %(default)s)"
    )
    t.add_argument(
        "--every", type=float, default=1.0, help="seconds between two updates of the progress line"
    )
    t.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the losses for TensorBoard too (pip install tensorboard)",
    )
    t.add_argument(
        "--restart",
        action="store_true",
        help="begin again instead of resuming the newest checkpoint",
    )
    t.set_defaults(run=train)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    terminal.steady()
    with safe.imports():
        return command(argv)


def command(argv: Sequence[str] | None) -> int:
    top = parser()
    args, rest = top.parse_known_args(argv)
    args.rest = rest
    if rest and args.command != "lab":
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if (
        args.command == "models"
        and args.action not in ([], ["fetch", "yunet"])
        and (args.action[:1] != ["export"] or len(args.action) != 2)
    ):
        top.error(
            f"models takes nothing, `fetch yunet` or `export NET`, got {' '.join(args.action)!r}"
        )
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
