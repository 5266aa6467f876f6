"""The `mtrestore` command: each command's arguments stand above its function.

Exit codes: 0 all done, 1 nothing done or a set-up error, 2 usage, 3 some failed, 130/143 signals.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import options
from .guard import safe, terminal
from .io.text import one_line, shown

Argument = tuple[tuple[str, ...], dict[str, Any]]
Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, tuple[str, tuple[Argument | list[Argument], ...]]] = {}


def arg(*names: str, **facts: Any) -> Argument:
    """What `add_argument` takes; a default gives the type, and is named in the help."""
    if default := facts.get("default"):
        facts["help"] += f" (default: {default})"
        facts["type"] = type(default)
    return names, facts


def flag(name: str, help: str) -> Argument:
    """An argument that is there or not."""
    return arg(name, action="store_true", help=help)


OVERWRITE = flag("--overwrite", "replace files that exist")


def command(help: str, *arguments: Argument | list[Argument]) -> Callable[[Command], Command]:
    """Makes a function the command of its name; arguments in a list exclude one another."""

    def add(run: Command) -> Command:
        COMMANDS[run.__name__] = (help, arguments)
        return run

    return add


@command(
    "restore photos or folders of photos",
    arg("inputs", nargs="+", metavar="IN", help="a picture or a folder of pictures"),
    arg(
        "-o", "--output", required=True, metavar="OUT", help="a file for one picture, else a folder"
    ),
)  # and every option of options.py
def restore(args: argparse.Namespace) -> int:
    """Restore files, or all pictures of folders; one bad file never stops the rest."""
    from .folder import names, one_file, run
    from .lab import record

    restorer = options.options_from(args)
    folders = options.folders_from(args)
    made_by = one_file.made_by(restorer | ({"strip_location": True} if args.strip_location else {}))
    settings = one_file.Settings(
        tuple(restorer.items()),
        made_by,
        overwrite=folders.overwrite,
        html=folders.html,
        debug=args.debug,
        strip_location=folders.strip_location,
    )
    jobs = names.plan(args.inputs, args.output)
    report = Path(folders.report) if folders.report else None
    one = len(args.inputs) == 1 and not os.path.isdir(args.inputs[0])
    if one and not (folders.resume or folders.dask):
        settings = replace(settings, progress=sys.stderr.isatty())
        rows = run.single(jobs[0], settings, report, folders.timeout)
    else:
        most = 1 if args.device.startswith("cuda") else max(1, min(8, record.cores() // 2))
        workers = min(len(jobs), folders.jobs or most)
        threads = 1 if folders.dask else max(1, record.cores() // workers)
        rows = run.folder(
            jobs,
            replace(settings, threads=threads),
            workers=workers,
            timeout=folders.timeout,
            resume=folders.resume,
            dask=folders.dask,
            report=report,
        )
    failed = sum(row["status"] == "failed" for row in rows)
    if failed == len(rows):
        return 1
    return 3 if failed or rows.lost else 0


@command(
    "restore a sample portrait",
    arg("-o", "--output", default="outputs", help="folder"),
    arg("--device", default="auto", help="auto, cpu or cuda"),
    OVERWRITE,
)
def demo(args: argparse.Namespace) -> int:
    """Age a public-domain portrait by a recorded recipe, restore it, and make a page of both."""
    import skimage.data

    from . import degrade, image
    from .io.files import head
    from .pipeline import Restorer

    out = Path(args.output)
    recipe = (Path(__file__).parent / "sample_recipe.json").read_text()
    overwrite = args.overwrite or head(out / "recipe.json", 1 << 20) == recipe.encode()  # ours
    for name in ("degraded.png", "restored.png", "recipe.json", "compare.html"):
        may_write(out / name, "the sample's", overwrite)
    poor = degrade.apply(image.read(skimage.data.astronaut()), degrade.Recipe.from_json(recipe))
    result = Restorer(device=args.device, keep_steps=False)(poor)
    image.write(out / "degraded.png", poor)
    image.write(out / "restored.png", result.image)
    image.write_bytes(out / "recipe.json", recipe.encode())
    title = "Eileen Collins, NASA (public domain), aged by a recorded recipe"
    page = result.compare(labels=("degraded", "restored"), title=title)
    page.save(out / "compare.html", overwrite=overwrite)
    print(
        f"{len(result.faces)} face, {result.timings['total']:.1f} s; "
        f"see {out}/degraded.png, {out}/restored.png and {out}/compare.html"
    )
    return 0


@command(
    "measure on degraded pictures with a known truth",
    arg(
        "folder",
        help="a folder like dev_eval: faces_clean/ with mesh468.npz, photos_clean/, polyu_pairs/",
    ),
    arg("--seeds", default=3, help="degradations for each face"),
    arg("--size", default=256, help="face size, px"),
    arg("--what", default="faces,photos", help="faces, photos or both"),
    arg(
        "--net",
        action="append",
        metavar="TITLE=FILE",
        help="measure a further face net; may be given again",
    ),
    flag("--no-nlm", "leave out non-local means, which is slow"),
    arg("--json", metavar="FILE", help="write the rows as JSON as well"),
    OVERWRITE,
)
def evaluate(args: argparse.Namespace) -> int:
    """Print the table of PSNR, SSIM and sharpness on degraded pictures with a known truth."""
    from dataclasses import asdict

    from . import image
    from .lab import evaluate as e

    if args.json:
        files = [n.partition("=")[2] or n for n in args.net or []]
        may_write(args.json, "the rows", args.overwrite, folders=[args.folder], files=files)
    rows = e.evaluate(
        args.folder,
        seeds=range(args.seeds),
        size=args.size,
        nlm=not args.no_nlm,
        what=args.what.split(","),
        more=dict(n.split("=", 1) if "=" in n else (Path(n).stem, n) for n in args.net or []),
    )
    print(e.table(rows))
    if args.json:
        image.write_bytes(args.json, json.dumps([asdict(r) for r in rows], indent=1).encode())
    return 0


@command(
    "list the weights, fetch an optional detector, or export a net as ONNX",
    arg(
        "action",
        nargs="*",
        metavar="fetch yunet | export NET",
        help="`fetch yunet` downloads the YuNet face detector; "
        "`export face` keeps an ONNX file, faster from then on",
    ),
    arg("-o", "--output", metavar="FILE", help="where to export to, instead"),
    OVERWRITE,
)
def models(args: argparse.Namespace) -> int:
    """List the shipped weights, fetch an optional model (checked), or export a net as ONNX."""
    from . import weights

    match args.action:
        case ["fetch", "yunet"]:
            print(weights.fetch("yunet"))
        case ["export", name]:
            from .fast.onnx import export

            if args.output:
                may_write(args.output, "the net", args.overwrite, files=[name])
            print(export(weights.load(name), args.output or weights.exported(name)))
        case []:
            for name in weights.shipped():
                net = weights.load(name)
                count = sum(p.numel() for p in net.parameters())
                print(
                    f"{name:13} {type(net).__name__:16} {count:>9,} parameters, "
                    f"{net.notes['steps']} steps, sha256 {net.notes['sha256'][:12]}"
                )
        case words:
            raise argparse.ArgumentError(
                None,
                f"models takes nothing, `fetch yunet` or `export NET`, got {' '.join(words)!r}",
            )
    return 0


@command(
    "run a notebook with many parameters, and only what is not done yet",
    arg("file", metavar="FILE", help="YAML: notebook, parameters, grid, seeds; see experiments/"),
    arg(
        "-o", "--out", help="folder of the runs and their table (default: runs/sweeps/NAME-OF-FILE)"
    ),
    flag("--dry-run", "print the plan and an estimate, and run nothing"),
    arg(
        "--jobs",
        type=options.positive_int,
        metavar="N",
        help="runs at a time (default: one for each GPU, or core)",
    ),
    [
        arg(
            "--dask",
            metavar="ADDRESS",
            help="run on this Dask cluster, whose workers see the same folders",
        ),
        flag("--slurm", "run as Slurm jobs, through submitit"),
    ],
    [
        flag("--resume", "run only what is not done, the default"),
        flag("--overwrite", "run all again"),
    ],
)
def sweep(args: argparse.Namespace) -> int:
    """Run a notebook with many parameters, each run once; what is done already stays."""
    from .lab import sweep

    points = sweep.read(args.file)
    out = args.out or f"runs/sweeps/{Path(args.file).stem}"
    forecast = sweep.forecast(points, out, args.jobs, args.overwrite)
    print(forecast if args.dry_run else forecast.splitlines()[0], flush=True)
    if args.dry_run:
        return 0
    where = {"jobs": args.jobs, "dask": args.dask, "slurm": args.slurm}
    try:
        table = sweep.run(points, out, **where, overwrite=args.overwrite)
    except (KeyboardInterrupt, SystemExit):
        words = [args.file, "-o", out, *(["--slurm"] if args.slurm else [])]
        words += [f"--{name}={where[name]}" for name in ("jobs", "dask") if where[name]]
        again = shown(f"to go on: mtrestore sweep {shlex.join(words)}")
        print(f"mtrestore: what is done stays; {again}", file=sys.stderr)
        raise
    done = int((table["status"] == "done").sum())
    print(sweep.summary(table))
    print(f"{done} done, {len(table) - done} failed; see {out}/table.csv")
    return 0 if done == len(table) else 3 if done else 1


@command(
    "repeat a run and say whether its numbers agree",
    arg(
        "record",
        metavar="RUN",
        help="folder of a run, or a bundle in experiments/results/ with --run",
    ),
    arg("--run", dest="run_name", metavar="NAME", help="the run of the bundle"),
    arg("-o", "--out", help="keep the new run in this folder"),
    arg(
        "--tolerance",
        type=float,
        metavar="X",
        help="relative difference that is allowed (default: 0 on the same processor, else 0.01)",
    ),
    arg(
        "--changed",
        action="store_true",
        help="run the notebook although it is no longer the one of then",
    ),
    OVERWRITE,
)
def rerun(args: argparse.Namespace) -> int:
    """Repeat a run and say of each number whether it agrees."""
    from .io.claims import check_folder
    from .lab.repeat import rerun

    if args.out:
        check_folder(args.out, ("run.json", "status.json"), args.overwrite)
    repeat = rerun(args.record, args.run_name, args.out, args.tolerance, changed=args.changed)
    print(repeat)
    return 0 if repeat.agrees else 1


@command(
    "write one HTML page about finished runs",
    arg("runs", metavar="RUNS", help="folder of a sweep, or a bundle (.json)"),
    arg("-o", "--output", default="report.html", metavar="FILE", help="the page"),
    arg("--json", metavar="FILE", help="write all that the page shows as a bundle as well"),
    arg("--title", help="of the page"),
    OVERWRITE,
)
def report(args: argparse.Namespace) -> int:
    """Write one HTML page of a folder of runs, or of a bundle that was made of one."""
    from .io import claims
    from .lab import record, report

    allowed = claims.Claims(args.overwrite)
    if os.path.isdir(args.runs):
        for place in record.run_folders(args.runs):
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


@command("open the notebooks in JupyterLab; other options are passed on to it")
def lab(args: argparse.Namespace) -> int:
    """Open the notebooks in JupyterLab."""
    places = (Path("notebooks"), Path(__file__).parents[1] / "notebooks")
    folder = next((p for p in places if p.is_dir()), None)
    if folder is None:
        raise ValueError("no notebooks folder here; run `mtrestore lab` in a clone of the project")
    offline = [
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    words = ["-m", "jupyterlab", f"--notebook-dir={folder}", *offline, *args.rest]
    os.execv(sys.executable, [sys.executable, *words])


@command(
    "train a net from a settings file",
    arg(
        "stage",
        choices=(
            *("prior", "restoration", "face", "landmarks", "embedding"),
            *("restorer", "refiner", "sharpener"),
        ),
    ),
    arg("--settings", required=True, help="YAML file, see experiments/train/"),
    arg(
        "--data", default="../shared/data", help="folder that holds train_faces/ and train_photos/"
    ),
    arg("--out", help="folder of the run: checkpoints and log (default: runs/NAME-OF-SETTINGS)"),
    arg("--steps", type=int, help="steps, instead of the settings' number"),
    arg("--device", default="cpu", help="cpu, gpu or auto"),
    arg("--devices", default=1, help="processes, each with a device and batches of its own"),
    arg("--precision", default="32-true", help="a lightning-fabric precision, bf16-mixed on a GPU"),
    arg("--threads", type=int, help="CPU threads for the net"),
    arg("--workers", default=1, help="threads that prepare batches"),
    arg("--every", default=1.0, help="seconds between two updates of the progress line"),
    flag("--tensorboard", "write the losses for TensorBoard too (pip install tensorboard)"),
    flag("--restart", "begin again, instead of from the newest checkpoint"),
)
def train(args: argparse.Namespace) -> int:
    """Train one net from a settings file, showing loss and time left; interrupted runs resume."""
    import cv2
    import torch

    from .training import settings as plan

    settings = plan.read_settings(args.settings, args.stage)
    if args.steps is not None:
        if args.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {args.steps}")
        settings["steps"] = args.steps
    if args.devices < 1:
        raise ValueError(f"--devices must be at least 1, got {args.devices}")
    fabric = launched(args)
    first = fabric is None or fabric.global_rank == 0
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    out = Path(args.out or f"runs/{Path(args.settings).stem}")
    records = plan.run(
        settings,
        args.data,
        out,
        resume=not args.restart,
        workers=args.workers,
        fabric=fabric,
        tensorboard=args.tensorboard,
    )
    watch(records, settings["steps"], args.every, first)
    if first:
        print(f"{settings['stage']}: {settings['steps']} steps done, run in {out}")
    return 0


def launched(args: argparse.Namespace) -> Any:
    """The fabric that --device, --devices and --precision ask for; None for one plain CPU."""
    if args.device == "cpu" and args.precision == "32-true" and args.devices == 1:
        return None
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        fabric = Fabric(
            accelerator=args.device,
            devices=args.devices,
            strategy="ddp" if args.devices > 1 else "auto",
            precision=args.precision,
        )
    except (MisconfigurationException, ImportError, RuntimeError, ValueError) as e:
        wish = f"--device {args.device} --devices {args.devices}"
        raise ValueError(f"{wish} cannot be had here: {one_line(e)}") from e
    fabric.launch()  # with several devices this command is started once more for each of the others
    return fabric


def watch(records: Any, steps: int, every: float, first: bool) -> None:
    """Runs through the records of a training, showing running means of its losses."""
    from tqdm import tqdm

    bar = None
    means: dict[str, float] = {}
    for record in records:  # the first one tells where a resumed run begins
        if bar is None:
            bar = tqdm(
                total=steps,
                initial=record.step - 1,
                unit="step",
                dynamic_ncols=True,
                mininterval=every,
                disable=not first,
            )
        for name in ("loss", "pixel", "adversarial", "critic", "balance"):
            if name in record.losses:
                loss = record.losses[name]
                means[name] = 0.99 * means.get(name, loss) + 0.01 * loss
        bar.set_postfix({name: f"{mean:.4f}" for name, mean in means.items()}, refresh=False)
        bar.update()
    if bar is not None:
        bar.close()


def may_write(
    path: str | os.PathLike,
    what: str,
    overwrite: bool,
    *,
    files: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> None:
    """Raises ImageError where a command must not write this file.

    It is there, or one of those that are read, or a net that comes with the package.
    """
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


def parser() -> argparse.ArgumentParser:
    """All commands, in the order of this file."""
    top = argparse.ArgumentParser(
        prog="mtrestore", description="Restore blurred, noisy, over-compressed and old portraits."
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (help, arguments) in COMMANDS.items():
        one = commands.add_parser(name, help=help)
        for argument in arguments:
            alone = isinstance(argument, tuple)
            group = one if alone else one.add_mutually_exclusive_group()
            for names, facts in [argument] if alone else argument:
                group.add_argument(*names, **facts)
        if name == "restore":
            options.add_arguments(one)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    terminal.steady()
    with safe.imports():
        return dispatch(argv)


def dispatch(argv: Sequence[str] | None) -> int:
    top = parser()
    args, rest = top.parse_known_args(argv)
    args.rest = rest
    if args.rest and args.command != "lab":
        top.error(f"unrecognized arguments: {' '.join(args.rest)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return globals()[args.command](args)
    except argparse.ArgumentError as e:
        top.error(str(e))
    except KeyboardInterrupt:
        print("mtrestore: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError, ImportError) as e:
        if args.debug:
            raise
        print(shown(f"mtrestore: {one_line(e)}"), file=sys.stderr)
        return 1
