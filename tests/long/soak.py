"""Long trials of what must never fail: `python tests/long/soak.py
kills|folder|doubles|throughput|training-kills`.

Each prints what it did and what it found, and exits 1 when something did not hold. By default the
sizes are small; `--full` takes those that are promised. Pictures are crops of a public-domain
portrait with noise, made from a seed.

    kills           kill -9 of a folder run at random moments, then --resume; every output equals an
                    unbroken run's
    folder          a folder in which every tenth file is bad, on this machine and on a local Dask
                    cluster of two workers
    doubles         two runs begun at once on one output folder
    throughput      pictures a second with two workers, with one, and of the bare models
    training-kills  kill -9 of a training, two of three inside the save (through strace), then
                    resumed; the weights equal an unbroken run's
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

FULL = {
    "kills": {"count": 50, "pictures": 40}, "folder": {"pictures": 500},
    "doubles": {"count": 20, "pictures": 10}, "throughput": {"pictures": 100, "megapixels": 2.0},
    "training-kills": {"count": 25},
}  # fmt: skip
SMALL = {
    "kills": {"count": 3, "pictures": 6}, "folder": {"pictures": 20},
    "doubles": {"count": 2, "pictures": 3}, "throughput": {"pictures": 4, "megapixels": 0.1},
    "training-kills": {"count": 3},
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def make_pictures(folder: Path, count: int, height: int = 72, width: int = 96) -> Path:
    """Noisy crops of the astronaut, some with her face; PNG, and every third a JPEG."""
    import numpy as np
    import skimage.data

    from mtrestore import image

    face = image.read(skimage.data.astronaut())[:320, :427]
    for i in range(count):
        rng = np.random.default_rng(i)
        y, x = rng.integers(0, 80), rng.integers(0, 107)
        photo = image.resize(face[y : y + 240, x : x + 320], (height, width))
        photo = np.clip(photo + rng.normal(0, 0.05, photo.shape).astype(np.float32), 0, 1)
        (folder / f"{i % 4}").mkdir(parents=True, exist_ok=True)
        image.write(folder / f"{i % 4}" / f"{i:04d}.{'jpg' if i % 3 == 0 else 'png'}", photo)
    return folder


def command(source: Path, out: Path, *options: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "mtrestore",
        "restore",
        str(source),
        "-o",
        str(out),
        *map(str, options),
    ]


def run(source: Path, out: Path, *options: object) -> int:
    done = subprocess.run(
        command(source, out, *options),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if "Traceback" in done.stderr or done.returncode not in (0, 3):
        sys.exit(f"unexpected end ({done.returncode}): {done.stderr[-2000:]}")
    return done.returncode


def digests(out: Path) -> dict[str, str]:
    """name -> sha256 of every picture below an output folder, and of anything else that should not
    be there.
    """
    found = {}
    for path in out.rglob("*"):
        if path.is_file() and ".mtrestore" not in path.parts and path != out / "index.html":
            found[path.relative_to(out).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def session(pid: int) -> list[int]:
    """The processes of a session that are alive (Linux)."""
    alive = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if entry.name.isdigit() and int(group) == pid and state != "Z":
            alive.append(int(entry.name))
    return alive


def ended(pid: int, seconds: float = 5) -> bool:
    """Whether every process of a session ends within so many seconds."""
    end = time.monotonic() + seconds
    while session(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not session(pid)


def report(**numbers: int) -> int:
    """Print the numbers; those called bad_... must be 0. The exit code."""
    print(
        ", ".join(
            f"{value} {name.removeprefix('bad_').replace('_', ' ')}"
            for name, value in numbers.items()
        ),
        flush=True,
    )
    return int(any(value for name, value in numbers.items() if name.startswith("bad_")))


def kills(work: Path, count: int, pictures: int, seed: int, jobs: int) -> int:
    rng, source = random.Random(seed), make_pictures(work / "in", pictures)
    began = time.monotonic()
    run(source, work / "unbroken", "--jobs", jobs)
    print(f"an unbroken run took {time.monotonic() - began:.1f} s", flush=True)
    truth, total, folders, killed = digests(work / "unbroken"), Counter(), 0, 0
    while killed < count:
        out, folders = work / f"out{folders}", folders + 1
        while killed < count:
            process = subprocess.Popen(
                command(source, out, "--jobs", jobs, "--resume"),
                cwd=ROOT,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            there = len(digests(out)) if out.exists() else 0
            enough = (
                there + rng.randrange(max(1, min(len(truth) - there, pictures // 4) + 1))
                if killed % 5
                else -1
            )
            end = time.monotonic() + rng.uniform(0, 4)  # every fifth while it starts
            while process.poll() is None and (
                time.monotonic() < end
                if enough < 0
                else len(digests(out) if out.exists() else ()) < enough
            ):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            alive = process.poll() is None
            if alive:
                process.send_signal(signal.SIGKILL)
            errors = process.communicate()[1].decode()
            killed += alive
            total["orphans"] += not ended(process.pid)
            now = digests(out) if out.exists() else {}
            total["torn"] += sum(truth.get(name) != value for name, value in now.items())
            total["tracebacks"] += "Traceback" in errors
            if not alive:  # it had finished before
                break
        run(source, out, "--jobs", jobs, "--resume")
        now = digests(out)
        total["lost"] += len(truth.keys() - now.keys())
        total["different"] += sum(truth.get(name) != value for name, value in now.items())
        rows = json.loads((out / ".mtrestore" / "report.json").read_text())["files"]
        total["unaccounted"] += abs(len(rows) - pictures) + sum(
            row["status"] == "failed" for row in rows
        )
        shutil.rmtree(out)
    return report(kills=killed, folders=folders, outputs_compared=folders * len(truth),
                  **{f"bad_{k}": total[k] for k in ("torn", "lost", "different", "unaccounted",
                  "orphans", "tracebacks")})  # fmt: skip


def spoil(folder: Path) -> int:
    """Make every tenth picture bad, in turn cut, emptied, text, a broken head, noise; how many."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())[::10]
    for i, path in enumerate(files):
        data = path.read_bytes()
        path.write_bytes(
            [
                data[: len(data) // 2],
                b"",
                b"not a picture",
                b"\0" * 64 + data[64:],
                random.Random(i).randbytes(500),
            ][i % 5]
        )
    return len(files)


def folder(work: Path, pictures: int, jobs: int) -> int:
    source = make_pictures(work / "in", pictures)
    bad = spoil(source)
    told = (
        "name",
        "status",
        "code",
        "faces_found",
        "faces_restored",
        "faces_failed",
        "notes",
        "input_sha256",
        "output_sha256",
    )
    kept, code = {}, 0
    for place in ("local", "dask"):
        out, options = work / place, ["--jobs", jobs]
        began = time.monotonic()
        if place == "dask":
            from distributed import LocalCluster

            with LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
            ) as cluster:
                exit_code = run(source, out, "--dask", cluster.scheduler_address)
        else:
            exit_code = run(source, out, *options)
        rows = json.loads((out / ".mtrestore" / "report.json").read_text())["files"]
        with (out / ".mtrestore" / "report.csv").open() as file:
            lines = len(list(csv.DictReader(file)))
        kept[place] = {row["name"]: [row.get(key) for key in told] for row in rows}
        status = Counter(row["status"] for row in rows)
        once = len(rows) == len(kept[place]) == lines == pictures
        right = (
            exit_code == 3
            and once
            and status == {"restored": pictures - bad, "failed": bad}
            and len(digests(out)) == pictures - bad
        )
        print(f"{place}: {status['restored']} restored, {status['failed']} told "
              f"({Counter(r['code'] for r in rows if r['code'])}), exit {exit_code}, "
              f"every input once: {once}, {time.monotonic() - began:.0f} s",
              flush=True)  # fmt: skip
        code |= not right
    print(f"the same report on the cluster: {kept['local'] == kept['dask']}")
    return code | (kept["local"] != kept["dask"])


def doubles(work: Path, count: int, pictures: int, jobs: int) -> int:
    source = make_pictures(work / "in", pictures)
    run(source, work / "unbroken", "--jobs", jobs)
    truth, total = digests(work / "unbroken"), Counter()
    for i in range(count):
        out = work / f"out{i}"
        piped = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        pair = [subprocess.Popen(command(source, out, "--jobs", jobs), **piped) for _ in range(2)]
        errors = [p.communicate()[1] for p in pair]
        codes = sorted(p.returncode for p in pair)
        refused = [e for p, e in zip(pair, errors) if p.returncode == 1]
        now = digests(out)
        total["lost"] += len(truth.keys() - now.keys())
        total["torn"] += sum(truth.get(name) != value for name, value in now.items())
        total["wrong_ends"] += codes != [0, 1]
        total["unclear"] += sum(
            "another run" not in e or len(e.strip().splitlines()) != 1 for e in refused
        )
        total["torn"] += sum(
            not json.loads(line)
            for line in (out / ".mtrestore" / "journal.jsonl").read_text().splitlines()
        )
    return report(
        double_starts=count,
        **{f"bad_{k}": total[k] for k in ("torn", "lost", "wrong_ends", "unclear")},
    )


BARE = """
import sys, time, torch, cv2
torch.set_num_threads(1); cv2.setNumThreads(1)
from mtrestore import image
from mtrestore.pipeline import Restorer
restorer = Restorer(keep_steps=False)
photos = [image.read(p) for p in sys.argv[1:9]]
restorer(photos[0])
print("ready", flush=True); sys.stdin.readline()
began = time.perf_counter()
for i in range(len(sys.argv) - 1):
    restorer(photos[i % len(photos)])
print(time.perf_counter() - began)
"""


def throughput(work: Path, pictures: int, megapixels: float) -> int:
    """Whole runs, start and files included, against two processes that do nothing but call the
    models on decoded pictures.
    """
    height = round((megapixels * 1e6 * 0.75) ** 0.5)
    source = make_pictures(work / "in", pictures, height, round(height / 0.75))
    cores = sorted(os.sched_getaffinity(0))[:2]
    print(
        f"{pictures} pictures of {megapixels:g} MP on processors {cores}, one thread for each "
        "worker",
        flush=True,
    )
    seconds = {}
    for jobs in (1, 2):
        began = time.monotonic()
        os.sched_setaffinity(
            0, cores[:jobs]
        )  # the child inherits it: one processor for each worker
        run(source, work / f"out{jobs}", "--jobs", jobs)
        seconds[jobs] = time.monotonic() - began
    os.sched_setaffinity(0, cores)
    files = [str(p) for p in sorted(source.rglob("*")) if p.is_file()]
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, *files[i::2]],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda i=i: os.sched_setaffinity(0, cores[i : i + 1]),
        )
        for i in range(2)
    ]
    for p in pair:
        p.stdout.readline()
    for p in pair:
        p.stdin.write("go\n")
        p.stdin.flush()
    bare = max(float(p.communicate()[0]) for p in pair)
    print(f"one worker {pictures / seconds[1]:.3f}/s ({seconds[1]:.1f} s), two workers "
          f"{pictures / seconds[2]:.3f}/s ({seconds[2]:.1f} s), "
          f"bare models on both processors {pictures / bare:.3f}/s ({bare:.1f} s)")  # fmt: skip
    gain, share = seconds[1] / seconds[2], bare / seconds[2]
    print(
        f"two workers are {gain:.2f} times one (at least 1.7), and {share:.0%} of the bare models "
        "(at least 85 %)"
    )
    return int(gain < 1.7 or share < 0.85)


def training_kills(work: Path, count: int, seed: int) -> int:
    rng, data = random.Random(seed), work / "data" / "train_photos"
    make_pictures(data, 6)
    data.joinpath("manifest.csv").write_text(
        "file\n"
        + "".join(f"{p.relative_to(data).as_posix()}\n" for p in sorted(data.rglob("*.*g")))
    )
    settings = work / "tiny.yaml"
    settings.write_text("stage: restorer\nnet: {widths: [4, 8], blocks: 1}\nbatches: {size: 32, "
                        "batch: 2, real: 0}\nfaces: false\n"
                        "train: {lr: 1.0e-3, weights: {pixel: 1.0}}\nsteps: 40\nseed: 3\n"
                        "save_every: 2\n")  # fmt: skip
    strace = shutil.which("strace")

    def start(out: Path, *before: str) -> subprocess.Popen:
        arguments = [
            "-m",
            "mtrestore",
            "train",
            "restorer",
            "--settings",
            str(settings),
            "--data",
            str(work / "data"),
            "--out",
            str(out),
            "--threads",
            "1",
        ]
        return subprocess.Popen(
            [*before, sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(out: Path) -> str:
        process = start(out)
        errors = process.communicate()[1].decode()
        if process.returncode:
            sys.exit(f"the training did not end well: {errors[-2000:]}")
        return hashlib.sha256((out / "restorer.safetensors").read_bytes()).hexdigest()

    began = time.monotonic()
    truth = finish(work / "unbroken")
    span, total, folders = time.monotonic() - began, Counter(), 0
    print(
        f"an unbroken training took {span:.1f} s; strace: "
        f"{strace or 'not here, all kills are at random moments'}",
        flush=True,
    )
    while total["kills"] < count:
        out, folders = work / f"run{folders}", folders + 1
        for _ in range(6):  # then let it come to its end
            if total["kills"] == count:
                break
            call = ("fsync", "rename", None)[total["kills"] % 3] if strace else None
            # in the middle of a save: the file is written but not yet safe, or safe but not yet
            # under its name
            if call:
                inject = f"inject={call}:signal=SIGKILL:when={rng.randrange(2, 9)}"
                process = start(
                    out, strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject
                )
                process.communicate()
                dead = (
                    process.returncode == -signal.SIGKILL
                    or process.returncode == 128 + signal.SIGKILL
                )
                total["inside the save"] += dead
            else:
                process = start(out)
                time.sleep(rng.uniform(0.3, 1) * span)
                dead = process.poll() is None
                if dead:
                    process.kill()
                else:  # it had ended before: the unbroken one was measured on a busier machine
                    span *= 0.8
                process.communicate()
            total["kills"] += dead
            if not dead:
                break
        total["different"] += finish(out) != truth
        total["left over"] += len(list(out.rglob("*.tmp")))
        shutil.rmtree(out)
    print(f"{total['left over']} temporary files were left beside the checkpoints")
    return report(
        kills=total["kills"],
        inside_the_save=total["inside the save"],
        trainings=folders,
        bad_different_weights=total["different"],
    )


def main() -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("trial", choices=FULL)
    p.add_argument("--full", action="store_true", help="the promised sizes instead of small ones")
    p.add_argument("--count", type=int, help="kills or double starts")
    p.add_argument("--pictures", type=int, help="pictures in the folder")
    p.add_argument("--megapixels", type=float, help="size of a picture, for throughput")
    p.add_argument("--jobs", type=int, default=2, help="worker processes (default: %(default)s)")
    p.add_argument(
        "--seed", type=int, default=0, help="of the moments of the kills (default: %(default)s)"
    )
    args = p.parse_args()
    options = (FULL if args.full else SMALL)[args.trial]
    options |= {
        name: getattr(args, name)
        for name in ("count", "pictures", "megapixels")
        if getattr(args, name) is not None
    }
    with tempfile.TemporaryDirectory(prefix="mtrestore soak ") as work:
        if args.trial in ("kills", "training-kills"):
            options["seed"] = args.seed
        if args.trial in ("kills", "folder", "doubles"):
            options["jobs"] = args.jobs
        return globals()[args.trial.replace("-", "_")](Path(work), **options)


if __name__ == "__main__":
    sys.exit(main())
