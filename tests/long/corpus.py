"""The whole corpus of bad files, and the 52 file-system cases, through the real program.

Prints counts; exit 1 on any disagreement.

    python tests/long/corpus.py                       # all 888 files, bombs, weights, file-system
                                                      cases as root and without rights
    python tests/long/corpus.py --every 10 --parts pictures

pictures: one `mtrestore restore FOLDER` over every file; each row of the report is compared with
generated.csv. bombs: each read in a process of its own, with time and memory. weights: each file
given to both loaders. fs: names, links, pipes, devices and rights. The corpus is made from its seed
by ../shared/badinput/make_corpus.py (or MTRESTORE_SHARED); without that the program says so and
ends.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MTRESTORE_SHARED", ROOT.parent / "shared")) / "badinput"
SEED, SECONDS, BOMB_SECONDS, BOMB_MIB, WEIGHTS_SECONDS = 2020, 30, 2.0, 300, 1.0
REFUSALS = {
    "E_TRUNCATED",
    "E_FORMAT",
    "E_TOO_LARGE",
    "E_EMPTY",
    "E_PERMISSION",
    "E_NOT_A_FILE",
    "E_NONFINITE",
    "E_NAME",
    "E_MISSING",
}
CODES = {
    "truncated": {"E_TRUNCATED", "E_EMPTY"},
    "notimage": {"E_FORMAT", "E_EMPTY", "E_TRUNCATED"},
}  # what a refusal of a class must be called
NOTES = {
    "anim": "first of 8 frames",
    "gen_20000_frames.gif": "first of 20000 frames",
}  # what must be said of a picture that is restored
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
NO_RIGHTS = [
    "setpriv",
    "--inh-caps=-all",
    "--bounding-set=-all",
]  # where the interpreter lies in root's home: root, but bound by permissions


def make(folder: Path, *options: str, prefix: list[str] = ()) -> None:
    """Run make_corpus.py, in `folder`, as whoever `prefix` says."""
    command = [
        *prefix,
        sys.executable,
        "-B",
        str(SHARED / "make_corpus.py"),
        *options,
        "--faces",
        str(SHARED / "face"),
    ]
    env = {
        **os.environ,
        "TMPDIR": str(folder),
    }  # hostile files leave their canary in the temporary folder
    subprocess.run(command, check=True, cwd=folder, env=env, capture_output=True, timeout=300)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The corpus, made below `folder`: rows of file (inside `folder`), class, expected, why."""
    make(folder, "--seed", str(SEED), "--out", "corpus", "--csv", "rows.csv")
    rows = list(csv.DictReader(open(folder / "rows.csv")))
    wanted = list(csv.DictReader(open(SHARED / "generated.csv")))
    assert [(r["class"], r["expected"]) for r in rows] == [
        (r["class"], r["expected"]) for r in wanted
    ], "the seed gave another corpus"
    return rows


def restore(
    source: Path, out: Path, *, jobs: int = 2, faces: bool = False, prefix: list[str] = ()
) -> tuple[dict[str, dict], str]:
    """Input path -> row of the report, and what was printed, of one folder run.

    Raises when it leaves no report.
    """
    report = out.parent / f"{out.name}.json"
    command = [
        *prefix,
        sys.executable,
        "-m",
        "mtrestore",
        "restore",
        str(source),
        "-o",
        str(out),
        "--jobs",
        str(jobs),
        "--report",
        str(report),
        "--timeout",
        str(SECONDS),
        "--device",
        "cpu",
        *([] if faces else ["--no-faces", "--working-size", "64"]),
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MPLCONFIGDIR": str(out.parent),
        "HOME": str(out.parent),
    }
    done = subprocess.run(command, cwd=out.parent, env=env, capture_output=True)
    text = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    if done.returncode not in (0, 1, 3) or not report.is_file():
        raise RuntimeError(f"no report, exit code {done.returncode}: {text[-2000:]}")
    rows = json.loads(report.read_bytes())["files"]
    assert len(rows) == len({row["input"] for row in rows}), "an input has two rows"
    return {row["input"]: row for row in rows}, text


def disagreement(row: dict | None, kind: str, name: str, expected: str) -> str:
    """What is wrong with what became of a file; "" when nothing is.

    row: status, code, message, notes.
    """
    if row is None:
        return "it has no row"
    if row["status"] == "restored":
        note = NOTES.get(name) or NOTES.get(kind)
        if note and note not in row.get("notes", ()):
            return f"nothing says {note!r}: {row.get('notes')}"
        return "it was restored" if expected in ("clear error", "ignored") else ""
    if row["status"] == "ignored":  # a text, a sidecar: no photo
        right = expected in ("clear error", "ignored")
        return "" if right else f"it was ignored: {row['message'][:200]}"
    if (
        row["code"] not in REFUSALS
        or "Traceback" in row["message"]
        or not row["message"].isprintable()
    ):
        return f"no clear error: {row['code']} {row['message'][:200]}"
    if row["code"] not in CODES.get(kind, REFUSALS):
        return f"wrong code: {row['code']} {row['message'][:200]}"
    refused = f"it was refused: {row['code']} {row['message'][:200]}"
    return refused if expected in ("restored", "ignored") else ""


def pictures(
    folder: Path, rows: list[dict[str, str]], every: int, jobs: int, faces: bool
) -> tuple[Counter, list[str]]:
    """One folder run over the corpus, or every n-th file of each class."""
    chosen, seen = [], Counter()
    for row in rows:
        if seen[row["class"]] % every == 0:
            chosen.append(row)
        seen[row["class"]] += 1
    if every > 1:
        for row in chosen:
            target = folder / "some" / Path(row["file"]).relative_to("corpus")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / row["file"], target)
    base = folder / ("some" if every > 1 else "corpus")
    found, text = restore(base, folder / "out", jobs=jobs, faces=faces)
    counts, wrong = Counter(files=len(chosen)), ["a traceback was printed"] * ("Traceback" in text)
    for row in chosen:
        path = base / Path(row["file"]).relative_to("corpus")
        got = found.pop(str(path), None)
        weights = (
            row["class"] == "ckpt"
        )  # judged by the weights loaders; among pictures they are refused as no pictures
        bad = disagreement(
            got, row["class"], path.name, "clear error" if weights else row["expected"]
        )
        if not bad and got["status"] == "restored":
            bad = size_changed(path, Path(folder / "out" / got["name"]))
        counts[got["status"] if got else "missing"] += 1
        counts["as they must"] += not bad
        wrong += [f"{row['file']}: {bad} ({row['why']})"] * bool(bad)
    return counts, wrong + [f"{name}: a row for no input" for name in found]


def size_changed(source: Path, output: Path) -> str:
    """What is wrong with an output file: it must be a whole picture of its input's size, in the
    format of its name.
    """
    from mtrestore import image

    try:
        before, after = image.load(source), image.load(output)
    except image.ImageError as e:
        return f"its output: {e}"
    if before.pixels.shape != after.pixels.shape:
        return f"{before.pixels.shape} became {after.pixels.shape}"
    return (
        ""
        if image.SUFFIXES[output.suffix.lower()] == after.format
        else f"{output.name} holds {after.format}"
    )


BOMB = """
import resource, sys, time
from mtrestore import image
unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
before, began = peak(), time.process_time()
try:
    image.load(sys.argv[1]); code = ""
except image.ImageError as e:
    code = e.code
print(time.process_time() - began, peak() - before, code)
"""


def bomb(path: Path) -> tuple[float, float, str]:
    """(seconds of the processor, MiB, code) of reading a file in a process of its own, above what
    the loaded program has.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    # Through a shell that stays: on Linux a program begins with the peak of the process that
    # started it.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", BOMB, str(path)]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=10 * SECONDS, check=True
        )
    except subprocess.SubprocessError as e:
        return float("inf"), 0.0, type(e).__name__
    seconds, mib, *code = done.stdout.split()
    return float(seconds), float(mib), "".join(code)


def bombs(folder: Path, rows: list[dict[str, str]]) -> tuple[Counter, list[str]]:
    counts, wrong = Counter(), []
    for row in rows:
        if row["class"] == "bomb":
            seconds, mib, code = bomb(folder / row["file"])
            bad = seconds > BOMB_SECONDS or mib > BOMB_MIB
            counts += Counter({"files": 1, "within 2 s and 300 MiB": not bad})
            counts["most MiB"], counts["most ms"] = (
                max(counts["most MiB"], round(mib)),
                max(counts["most ms"], round(1000 * min(seconds, 1e6))),
            )
            wrong += [f"{row['file']}: {seconds:.1f} s, {mib:.0f} MiB ({code or 'read'})"] * bad
    return counts, wrong


def weights(folder: Path, rows: list[dict[str, str]]) -> tuple[Counter, list[str]]:
    """Each weights file to `weights.adopt`, into the small net that the corpus was made for, and to
    `weights.load`; YAML to its reader.
    """
    from torch import nn

    from mtrestore import weights
    from mtrestore.io import files

    toy = lambda: nn.ModuleDict(
        {"enc": nn.Sequential(nn.Conv2d(3, 8, 3)), "dec": nn.Sequential(nn.Conv2d(8, 3, 3))}
    )
    # A file from elsewhere has no checksum of ours: a flipped bit among its values shows only
    # against the sha256 of the good one.
    good = hashlib.sha256((folder / "corpus/ckpt/good_toy.safetensors").read_bytes()).hexdigest()
    counts, wrong, canary = Counter(), [], Path(folder, "mtrestore_canary_PWNED")
    for row in rows:
        if row["class"] != "ckpt":
            continue
        path, bad = folder / row["file"], ""
        kinds = [files.read_yaml] if path.suffix == ".yaml" else [
            lambda p: weights.adopt(toy(), p, good if p.name.startswith("flip") else None),
            weights.load]  # fmt: skip
        for i, read in enumerate(kinds):
            began, message = time.process_time(), ""
            try:
                read(path)
            except ValueError as e:
                message = (
                    str(e)
                    if path.suffix == ".yaml" or isinstance(e, weights.WeightsError)
                    else f"no WeightsError\n{e!r}"
                )
            seconds, expected = (
                time.process_time() - began,
                row["expected"] if i == 0 else "clear error",
            )
            if ("restored" if not message else "clear error") != expected:
                bad = f"{expected} was expected: {message or 'it was loaded'}"
            elif not (message.isprintable() and len(message) < 400) or seconds > WEIGHTS_SECONDS:
                bad = f"{seconds:.1f} s, {message[:400]!r}"
        if canary.exists():
            canary.unlink()
            bad, counts["canaries"] = "its code ran", counts["canaries"] + 1
        counts += Counter({"files": 1, "as they must": not bad})
        wrong += [f"{row['file']}: {bad} ({row['why']})"] * bool(bad)
    return counts, wrong


def fs_cases(folder: Path, prefix: list[str] = ()) -> list[dict[str, str]]:
    """The file-system cases, made in folder/fs: rows of file, expected, why."""
    make(folder, "--fs", str(folder / "fs"), prefix=prefix)
    cases = json.loads((folder / "fs" / "fs_manifest.json").read_bytes())
    assert len(cases) == 52, f"{len(cases)} of 52 could be made here"
    return cases


def fs_expected(case: dict[str, str], powerful: bool) -> str:
    """What must become of a case: root may read what the others may not."""
    if powerful and case["file"] in ("unreadable.jpg", "noexec_dir/a.jpg"):
        return "restored"
    return case["expected"]


def fs(folder: Path, prefix: list[str] = ()) -> tuple[Counter, list[str]]:
    """One folder run over the file-system cases."""
    cases = fs_cases(folder, prefix)
    base, powerful = folder / "fs", not prefix and hasattr(os, "geteuid") and os.geteuid() == 0
    before = {p: (os.lstat(p).st_ino, os.lstat(p).st_mtime_ns) for p in base.iterdir()}
    found, text = restore(base, folder / "out", jobs=1, prefix=prefix)
    counts, wrong = Counter(cases=len(cases)), ["a traceback was printed"] * ("Traceback" in text)
    by_name = {os.path.relpath(name, base): row for name, row in found.items()}
    for case in cases:
        name, expected = case["file"], fs_expected(case, powerful)
        if os.path.basename(name).startswith("."):  # hidden: left alone, unless it is named
            expected = "ignored"
        if name == "deep.jpg":
            row = next((r for n, r in by_name.items() if n.startswith("ddd")), None)
        elif name.endswith(
            "/"
        ):  # an empty folder called .png: nothing in it to restore, and nothing made of it
            row = (
                None
                if name[:-1] in by_name
                else {"status": "failed", "code": "E_NOT_A_FILE", "message": "walked"}
            )
        else:
            row = by_name.get(name) or by_name.get(
                os.path.dirname(name)
            )  # a folder that cannot be listed stands for its files
        bad = disagreement(row, "fs", name, expected)
        if (
            not bad
            and row["status"] == "restored"
            and not os.path.isfile(folder / "out" / row["name"])
        ):
            bad = "its output is not there"
        counts["as they must"] += not bad
        wrong += [f"{name!r}: {bad} ({case['why']})"] * bool(bad)
    made = [row["name"] for row in found.values() if row["status"] == "restored"]
    wrong += ["two inputs share an output"] * (len(made) != len(set(made)))
    wrong += ["a file name was run as a command"] * any(
        "PWNED" in n for d in (base, folder) for n in os.listdir(d) if "touch" not in n
    )
    wrong += ["an input was changed"] * (
        before != {p: (os.lstat(p).st_ino, os.lstat(p).st_mtime_ns) for p in base.iterdir()}
    )
    wrong += ["terminal control characters were printed"] * any(
        not (c.isprintable() or c in "\n\r") for c in text
    )
    return counts, wrong


def without_rights() -> list[str] | None:
    """How to start this interpreter as nobody, or as root without its privileges.

    None where neither works.
    """
    if os.geteuid():
        return []
    probe = (
        "import cv2, torch, subprocess, sys; subprocess.run([sys.executable, '-c', ''], "
        "check=True)"
    )  # workers are started by it
    for prefix in (NOBODY, NO_RIGHTS):
        if (
            shutil.which(prefix[0])
            and not subprocess.run(
                [*prefix, sys.executable, "-c", probe], capture_output=True
            ).returncode
        ):
            return prefix
    return None


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--every",
        type=int,
        default=1,
        help="of each class of pictures every n-th file (default: all)",
    )
    p.add_argument("--jobs", type=int, default=2, help="worker processes (default: %(default)s)")
    p.add_argument(
        "--faces",
        action="store_true",
        help="with the faces' branch, at the full working size: as users run it, and slow",
    )
    p.add_argument(
        "--parts",
        nargs="+",
        default=["pictures", "bombs", "weights", "fs"],
        choices=["pictures", "bombs", "weights", "fs"],
    )
    args = p.parse_args()
    if not (SHARED / "make_corpus.py").is_file():
        print(f"needs {SHARED / 'make_corpus.py'}, and it is not there (set MTRESTORE_SHARED)")
        return 1
    sys.path.insert(0, str(ROOT))
    failed = False

    def tell(part: str, result: tuple[Counter, list[str]]) -> None:
        nonlocal failed
        print(
            f"{part:42}",
            ", ".join(f"{n} {what}" for what, n in result[0].items()),
            f"({time.perf_counter() - began:.0f} s)",
            flush=True,
        )
        for text in result[1]:
            print("   WRONG", text.encode("utf-8", "backslashreplace").decode())
        failed |= bool(result[1])

    with tempfile.TemporaryDirectory(prefix="mtrestore-corpus-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if {"pictures", "bombs", "weights"} & set(args.parts):
            rows = rows_of(folder)
        for part in args.parts:
            began = time.perf_counter()
            if part == "pictures":
                tell(part, pictures(folder, rows, args.every, args.jobs, args.faces))
            elif part == "bombs":
                tell(part, bombs(folder, rows))
            elif part == "weights":
                tell(part, weights(folder, rows))
            else:
                for who, prefix in (("fs", []), ("fs without rights", without_rights())):
                    if prefix is None:
                        print(
                            f"{who:42} skipped: nobody cannot run this interpreter, and setpriv "
                            "cannot take root's privileges away"
                        )
                        continue
                    who += f" ({' '.join(prefix[1:3])})" * bool(prefix)
                    began, place = time.perf_counter(), folder / f"fs{len(prefix)}"
                    place.mkdir()
                    place.chmod(0o777)
                    tell(who, fs(place, prefix))
                    for path in place.rglob("noexec_dir"):
                        path.chmod(0o700)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
