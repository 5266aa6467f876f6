"""The `mtrestore` command: each command's arguments stand above its function.

Exit codes: 0 all done, 1 nothing done or a set-up error, 2 usage, 3 some failed, 130/143 signals.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import options
from .guard import safe, terminal
from .io.text import nearest, one_line, shown

Argument = tuple[tuple[str, ...], dict[str, Any]]
Command = Callable[[argparse.Namespace], int]
COMMANDS: dict[str, tuple[str, tuple[Argument | list[Argument], ...]]] = {}


def arg(words: str, help: str, **facts: Any) -> Argument:
    """What `add_argument` takes: `arg("-o --output FILE", "the page")`, a metavar in capitals.

    A default gives the type, and is named in the help.
    """
    names = [word for word in words.split() if not word.isupper()]
    metavar = [word for word in words.split() if word.isupper()]
    if metavar:
        facts["metavar"] = " ".join(metavar)
    if default := facts.get("default"):
        help += f" (default: {default})"
        facts["type"] = type(default)
    return tuple(names), facts | {"help": help}


def flag(name: str, help: str) -> Argument:
    """An argument that is there or not."""
    return arg(name, help, action="store_true")


FLAGS = {  # of options.py
    "restore": options.NAMES,
    "faces": ("more_faces", "detector"),
    "app": ("device", "timeout"),
}
OVERWRITE = flag("--overwrite", "replace files that exist")


def command(help: str, *arguments: Argument | list[Argument]) -> Callable[[Command], Command]:
    """Makes a function the command of its name; arguments in a list exclude one another."""

    def add(run: Command) -> Command:
        COMMANDS[run.__name__] = (help, arguments)
        return run

    return add


@command(
    "restore photos or folders of photos",
    arg("inputs IN", "a picture or a folder of pictures", nargs="+"),
    arg(
        "-o --output OUT", "a file for one picture, else a folder (default: IN_restored beside it)"
    ),
)  # and every option of options.py
def restore(args: argparse.Namespace) -> int:
    """Restore files, or all pictures of folders; one bad file never stops the rest."""
    from .folder import names, one_file, run

    restorer = options.options_from(args)
    folders = options.folders_from(args)
    one = len(args.inputs) == 1 and not os.path.isdir(args.inputs[0])
    if not one and options.of_one_photo(restorer):
        what = "--faces-only, --skip-faces, --box and a strength of each face"
        raise usage(f"{what} are about the faces of one photo; give one picture, no folder")
    if not args.output and len(args.inputs) > 1:
        raise usage(f"{len(args.inputs)} inputs need -o FOLDER, where their results go")
    if not args.output and one and (folders.resume or folders.dask):
        raise usage("--resume and --dask keep their books in the output folder; name it with -o")
    output = args.output or run.beside(args.inputs[0], "restored", folders.overwrite)
    strip = {"strip_location": True} if folders.strip_location else {}
    settings = one_file.Settings(
        tuple(restorer.items()),
        one_file.made_by(restorer | strip),
        overwrite=folders.overwrite,
        html=folders.html,
        debug=args.debug,
        strip_location=folders.strip_location,
    )
    jobs = names.plan(args.inputs, os.fspath(output), folders.pages == "all")
    report = Path(folders.report) if folders.report else None
    if one and not (folders.resume or folders.dask):
        settings = replace(settings, progress=sys.stderr.isatty())
        rows = run.single(jobs, settings, report, folders.timeout)
    else:
        rows = many(jobs, settings, folders, report, gpu=restorer["device"].startswith("cuda"))
    failed = sum(row["status"] == "failed" for row in rows)
    if failed == sum(row["status"] != "ignored" for row in rows):
        return 1
    return 3 if failed or rows.lost else 0


def many(
    jobs: list[Any], settings: Any, folders: options.Folders, report: Path | None, gpu: bool
) -> Any:
    """The rows of a folder run, with as many workers as there are jobs and processors for."""
    from .folder import run
    from .lab import record

    most = 1 if gpu else max(1, min(8, record.cores() // 2))
    workers = min(len(jobs), folders.jobs or most)
    threads = 1 if folders.dask else max(1, record.cores() // workers)
    return run.folder(
        jobs,
        replace(settings, threads=threads),
        workers=workers,
        timeout=folders.timeout,
        resume=folders.resume,
        dask=folders.dask,
        report=report,
    )


@command(
    "show the faces of a photo with their numbers, for --faces-only, --skip-faces and --box",
    arg("photo IN", "a picture"),
    arg(
        "-o --output FILE",
        "a picture, or a page (.html), of the numbered faces (default: IN_faces beside it)",
    ),
    OVERWRITE,
)
def faces(args: argparse.Namespace) -> int:
    """Print a table of the faces that are found and write the photo with their numbers."""
    from . import image
    from .folder import run

    chosen = options.options_in(args)
    out = Path(args.output or run.beside(args.photo, "faces", args.overwrite))
    may_write(out, "the overview", args.overwrite, files=[args.photo])
    samples = image.load(args.photo).samples
    from . import choice, face  # torch, which a bad file does not wait for
    from .lab import overview

    detected = face.detect(samples, chosen.detector)
    people = choice.Choice.of(chosen).with_boxes(detected, samples.shape[:2])
    if out.suffix.lower() in (".html", ".htm"):
        text = overview.overview(samples, people, shown(os.path.basename(args.photo)))
        image.write_bytes(out, text.encode())
    else:
        image.write(out, overview.picture(samples, people))
    print(overview.table(people) if people else choice.no_face(chosen.detector))
    for note in detected.notes:
        print(note)
    print(shown(f"see {out}"))
    return 0


@command(
    "restore photos on a page in the browser; they stay on this machine",
    arg("-o --out FOLDER", "let the page save here too, never over anything"),
    arg("--port N", "of the page (default: any that is free)", type=int, default=0),
    flag("--no-browser", "print the page's address and open nothing"),
)
def app(args: argparse.Namespace) -> int:
    """Serve the page to this machine until Ctrl-C."""
    from .app import server

    device = options.options_in(args).device
    timeout = options.folders_from(args).timeout
    out = Path(args.out) if args.out else None
    server.start(out, args.port, device, timeout, browse=not args.no_browser)
    return 0


@command(
    "restore a sample portrait",
    arg("-o --output", "folder", default="outputs"),
    arg("--device", "auto, cpu or cuda", default="auto"),
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
    "make training data of a folder of portraits",
    arg("album ALBUM", "photos of any kind, with any number of faces on each"),
    arg("-o --output OUT", "the folder that is filled, see docs/own_faces.md", required=True),
    arg("--size", "px at which a face must be sharp", default=128),
    arg("--dev", "share of the people who are kept apart for `evaluate`", default=0.15),
    arg("--person REGEX", "its first group in a photo's path is the person's name"),
    arg("--seed", "which people are kept apart", type=int, default=0),
)
def prepare(args: argparse.Namespace) -> int:
    """Cut, label and measure every face of an album; what is no truth for a restorer is listed."""
    from .lab.prepare import advice, prepare

    options = {"size": args.size, "dev": args.dev, "person": args.person, "seed": args.seed}
    counts = prepare(args.album, args.output, **options)
    for outcome, count in counts.items():
        print(f"{count:6}  {shown(outcome)}")
    print(f"see {args.output}/faces.jpg, and {args.output}/left_out.csv for the reasons")
    if hint := advice(counts, args.size):
        print(shown(f"mtrestore: {hint}"), file=sys.stderr)
    return 0 if counts["train_faces"] else 1


@command(
    "measure on degraded pictures with a known truth",
    arg(
        "folder",
        "clean pictures, or a folder with faces_clean/ (mesh468.npz), photos_clean/, polyu_pairs/",
    ),
    arg("--seeds", "degradations for each face", default=3),
    arg("--size", "face size, px", default=256),
    arg("--what", "faces, photos or both", default="faces,photos"),
    arg("--net TITLE=FILE", "measure a further face net; may be given again", action="append"),
    flag("--no-nlm", "leave out non-local means, which is slow"),
    arg("--json FILE", "write the rows as JSON as well"),
    OVERWRITE,
)
def evaluate(args: argparse.Namespace) -> int:
    """Print the table of PSNR, SSIM and sharpness on degraded pictures with a known truth."""
    from dataclasses import asdict

    from . import image
    from .lab.evaluate import evaluate, table

    parts = args.what.split(",")
    if wrong := [part for part in parts if part not in ("faces", "photos")]:
        hint = nearest(wrong[0], ("faces", "photos"))
        raise usage(f"--what takes faces, photos or both, got {wrong[0]!r}{hint}")
    if args.json:
        files = [n.partition("=")[2] or n for n in args.net or []]
        may_write(args.json, "the rows", args.overwrite, folders=[args.folder], files=files)
    rows = evaluate(
        args.folder,
        seeds=range(args.seeds),
        size=args.size,
        nlm=not args.no_nlm,
        what=parts,
        more=dict(n.split("=", 1) if "=" in n else (Path(n).stem, n) for n in args.net or []),
    )
    print(table(rows))
    if args.json:
        image.write_bytes(args.json, json.dumps([asdict(r) for r in rows], indent=1).encode())
    return 0


@command(
    "say what each net is for, fetch an optional detector, or export a net as ONNX",
    arg(
        "action",
        "`fetch yunet` downloads the YuNet face detector; "
        "`export face` keeps an ONNX file, faster from then on",
        nargs="*",
        metavar="fetch yunet | export NET",
    ),
    arg("-o --output FILE", "where to export to, instead"),
    OVERWRITE,
)
def models(args: argparse.Namespace) -> int:
    """List what restores, fetch an optional model (checked), or export a net as ONNX."""
    from . import weights

    match args.action:
        case ["fetch", name]:
            print(weights.fetch(name))
        case ["export", name]:
            from .fast.onnx import export

            if args.output:
                may_write(args.output, "the net", args.overwrite, files=[name])
            print(export(weights.load(name), args.output or weights.exported(name)))
        case []:
            print("\n".join(weights.about()))
        case words:
            hint = "" if words[0] == "export" else nearest(words[0], ("fetch", "export"))
            got = f"got {' '.join(words)!r}{hint}"
            raise usage(f"models takes nothing, `fetch yunet` or `export NET`, {got}")
    return 0


@command(
    "run a notebook with many parameters, and only what is not done yet",
    arg("file FILE", "YAML: notebook, parameters, grid, seeds; see experiments/"),
    arg("-o --out", "folder of the runs and their table (default: runs/sweeps/NAME-OF-FILE)"),
    arg("--data FOLDER", "the notebook's parameter data, if FILE asks for it"),
    flag("--dry-run", "print the plan and an estimate, and run nothing"),
    arg(
        "--jobs N", "runs at a time (default: one for each GPU, or core)", type=options.positive_int
    ),
    [
        arg("--dask ADDRESS", "run on this Dask cluster, whose workers see the same folders"),
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

    points = sweep.read(args.file, args.data)
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
        words += [f"--data={args.data}"] if args.data else []
        again = shown(f"to go on: mtrestore sweep {shlex.join(words)}")
        print(f"mtrestore: what is done stays; {again}", file=sys.stderr)
        raise
    done = list(table["status"]).count("done")
    print(sweep.summary(table))
    print(f"{done} done, {len(table) - done} failed; see {out}/table.csv")
    return 0 if done == len(table) else 3 if done else 1


@command(
    "repeat a run and say whether its numbers agree",
    arg("record RUN", "folder of a run, or a bundle in experiments/results/ with --run"),
    arg("--run NAME", "the run of the bundle", dest="run_name"),
    arg("--data FOLDER", "where the pictures of the record's data are now"),
    arg("-o --out", "keep the new run in this folder"),
    arg(
        "--tolerance X",
        "relative difference that is allowed (default: 0 on the same processor, else 0.01)",
        type=float,
    ),
    arg(
        "--changed",
        "run the notebook although it is no longer the one of then",
        action="store_true",
    ),
    OVERWRITE,
)
def rerun(args: argparse.Namespace) -> int:
    """Repeat a run and say of each number whether it agrees."""
    from .io.claims import check_folder
    from .lab.repeat import rerun

    if args.out:
        check_folder(args.out, ("run.json", "status.json"), args.overwrite)
    repeat = rerun(
        args.record,
        args.run_name,
        args.out,
        args.tolerance,
        changed=args.changed,
        data=args.data,
    )
    print(repeat)
    return 0 if repeat.agrees else 1


@command(
    "write one HTML page about finished runs",
    arg("runs RUNS", "folder of a sweep, or a bundle (.json)"),
    arg("-o --output FILE", "the page", default="report.html"),
    arg("--json FILE", "write all that the page shows as a bundle as well"),
    arg("--title", "of the page"),
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
    places = (Path("."), Path(__file__).parents[1])
    folder = next((p for p in places if (p / "notebooks").is_dir()), None)
    if folder is None:
        raise ValueError("no notebooks folder here; run `mtrestore lab` in a clone of the project")
    offline = [
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    ]
    root = f"--notebook-dir={folder.resolve()}"  # photos and outputs lie there too
    start = "--LabApp.default_url=/lab/tree/notebooks"
    words = ["-m", "jupyterlab", root, start, *offline, *args.rest]
    os.execv(sys.executable, [sys.executable, *words])


@command(
    "train a net from a settings file",
    arg(
        "stage",
        "",
        choices=(
            *("prior", "restoration", "face", "landmarks", "embedding"),
            *("restorer", "refiner", "sharpener"),
        ),
    ),
    arg("--settings", "YAML file, see experiments/train/", required=True),
    arg("--data FOLDER", "needed: it holds train_faces/ or train_photos/"),
    arg("--out", "folder of the run: checkpoints and log (default: runs/NAME-OF-SETTINGS)"),
    arg("--steps", "steps, instead of the settings' number", type=int),
    arg("--device", "cpu, gpu or auto", default="cpu"),
    arg("--devices", "processes, each with a device and batches of its own", default=1),
    arg("--precision", "a lightning-fabric precision, bf16-mixed on a GPU", default="32-true"),
    arg("--threads", "CPU threads for the net", type=int),
    arg("--workers", "threads that prepare batches", default=1),
    arg("--every", "seconds between two updates of the progress line", default=1.0),
    flag("--tensorboard", "write the losses for TensorBoard too (pip install tensorboard)"),
    flag("--restart", "begin again, instead of from the newest checkpoint"),
    flag("--overwrite", "at the end, replace weights that other settings made"),
)
def train(args: argparse.Namespace) -> int:
    """Train one net from a settings file, showing loss and time left; interrupted runs resume."""
    import cv2
    import torch

    from .training.settings import check_target, read_settings, run

    settings = read_settings(args.settings, args.stage)
    if args.data is None:
        raise ValueError(
            "train needs --data FOLDER, the folder that holds train_faces/ or train_photos/"
        )
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
    if first:
        check_target(settings, args.settings, out, args.overwrite)
    records = run(
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
            loss = record.losses.get(name)
            if loss is not None:
                means[name] = 0.99 * means.setdefault(name, loss) + 0.01 * loss
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


def usage(words: str) -> argparse.ArgumentError:
    """The error of arguments that are none together: exit code 2."""
    return argparse.ArgumentError(None, words)


class Parser(argparse.ArgumentParser):
    """Says which word may have been meant, and takes `-3,10,60,80` for a value."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._negative_number_matcher = re.compile(r"-[.\d][-.,\d]*$")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as e:
            e.message += nearest(value, action.choices or ())
            if action.dest == "command" and os.path.exists(value):
                e.message += shown(f"; did you mean `mtrestore restore {value}`?")
            raise

    def unknown(self, command: str, words: Sequence[str]) -> str:
        """What to say of arguments that a command does not know."""
        commands: Any = self._subparsers
        flags = commands._group_actions[0].choices[command]._option_string_actions
        hint = nearest(words[0].partition("=")[0], flags)
        return f"unrecognized arguments: {' '.join(words)}{hint}"


def parser() -> Parser:
    """All commands, in the order of this file."""
    top = Parser(
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
        options.add_arguments(one, FLAGS.get(name, ()))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    terminal.steady()
    with safe.imports():
        return dispatch(argv)


def dispatch(argv: Sequence[str] | None) -> int:
    top = parser()
    args, rest = top.parse_known_args(argv)
    args.rest = rest
    if rest and args.command != "lab":
        top.error(top.unknown(args.command, rest))
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
