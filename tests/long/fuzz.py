"""Broken files without end: every reader must give a sound value or its own one-line error.

    python tests/long/fuzz.py                                 # every target, 30 minutes each
    python tests/long/fuzz.py --target reader --seconds 60
    python tests/long/fuzz.py --target reader --case 123      # one case again
    python tests/long/fuzz.py --target reader --file X        # a finding again; see runs/fuzz/

Whatever the bytes, it has 2 s of the processor and 300 MiB. With atheris in .venv/fuzz (`make soak`
puts it there) libFuzzer chooses what to change by what the change reached in our Python code and in
that of Pillow and PyYAML; what it learns stays in runs/fuzz/corpus. Without atheris a
seeded mutator does: case n of a seed is always the same bytes. The decoders in C are fuzzed along,
without being watched. Good files (fuzz_seeds/) are cut, spliced, repeated and overwritten, most at
the places where formats keep their sizes; checksums are then often mended, so that what lies behind
them is reached as well.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SEEDS, FOUND = ROOT / "tests" / "long" / "fuzz_seeds", ROOT / "runs" / "fuzz"
SECONDS, MIB = 2.0, 300  # of the processor and of memory, for one file
LATE = 8.0  # seconds after which a reader is interrupted
HARD_SECONDS = 20.0  # after which the process is ended: it stands in C and hears nothing
HARD_MIB = 2048  # that a process may claim in all, above what it has
LONGEST = 200_000  # bytes of a case
WORDS = (
    0, 1, 2, 3, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 2**62, 2**63, 2**64 - 1,
)  # fmt: skip
TOKENS = (
    b"0", b"1", b"-1", b"1.5", b"1e999", b"NaN", b"4294967296", b"1e9", b"9" * 30, b"9" * 5000,
    b"null", b"true", b"[]", b"{}", b"[[1]]", b'""', b'"a"', b'"\\ud800"', b'"\\u0000\\u001b[2J"',
    b'"<script>"', b"[" * 40, b"x" * 300, b"~", b"!!python/name:os.system ''", b"&a [*a]",
    b"../x",
)  # fmt: skip
# Whose Python code libFuzzer sees.
WATCHED = ("mtrestore", "PIL", "tifffile", "yaml", "nbformat", "papermill",
           "torch._weights_only_unpickler")  # fmt: skip
# It raises the target's own error, or gives what is wrong, or nothing.
Reader = Callable[[Path], str | None]


# ---- the targets: what reads a file, and which errors it may raise ------------------------------


def reader() -> tuple[list[Reader], set[type]]:
    from mtrestore import image

    def load(path: Path) -> str | None:
        picture = image.load(path, max_pixels=None)
        a = picture.samples
        if a.dtype not in (np.uint8, np.uint16, np.float32) or a.ndim != 3 or a.shape[2] != 3:
            return f"no picture: {a.dtype} {a.shape}"
        if a.dtype == np.float32 and not (a.min() >= 0 and a.max() <= 1):
            return f"no photo: {a.min()} to {a.max()}"
        return (
            None
            if all(note.isprintable() for note in picture.notes)
            else f"a note is not printable: {picture.notes}"
        )

    return [load], {image.ImageError}


def weights() -> tuple[list[Reader], set[type]]:
    from mtrestore import nets, weights

    def sound(net: nets.Refiner) -> str | None:
        finite = all(np.isfinite(value.numpy()).all() for value in net.state_dict().values())
        return None if finite else "weights that are not finite were loaded"

    return [
        lambda path: sound(weights.load(path)),
        lambda path: sound(weights.adopt(nets.Refiner(width=4, blocks=1), path)),
    ], {weights.WeightsError}


def onnx() -> tuple[list[Reader], set[type]]:
    """Up to the session, which is not run: a model may ask for any work that its author likes."""
    from mtrestore import pipeline, weights

    return [lambda path: None if callable(pipeline.onnx_net(path)) else "no net"], {
        weights.WeightsError
    }


def yaml() -> tuple[list[Reader], set[type]]:
    from mtrestore.io import files
    from mtrestore.lab import sweep
    from mtrestore.training import settings as plan

    def points(path: Path) -> str | None:
        notebook = path.with_name("n.ipynb")
        if not notebook.is_file():
            notebook.write_bytes((SEEDS / "notebook" / "n.ipynb").read_bytes())
        return None if sweep.read(path).points else "a sweep without points"

    def settings(path: Path) -> str | None:
        return None if plan.read_settings(path)["steps"] >= 1 else "no steps"

    def plain(path: Path) -> None:
        files.read_yaml(path)

    return [plain, points, settings], {ValueError, FileNotFoundError, files.ImageError}


def notebook() -> tuple[list[Reader], set[type]]:
    from mtrestore.io import files
    from mtrestore.lab import execute

    return [lambda path: None if "out" in execute.inspect(path)[0] else "no out"], {
        ValueError,
        files.ImageError,
    }


def unfold(data: bytes, folder: Path) -> None:
    """The folder of runs that a text describes: five lines for each run, then the sweep's."""
    lines = data.split(b"\n")
    for n, line in enumerate(lines[:10]):
        place = folder / f"run{n // 5}"
        place.mkdir(exist_ok=True)
        (place / f"{('status', 'run', 'metrics', 'rows', 'curves')[n % 5]}.json").write_bytes(line)
    (folder / "sweep.json").write_bytes(b"\n".join(lines[10:]))


def runs() -> tuple[list[Reader], set[type]]:
    """The files of two runs and their sweep, without the figures: they take a second."""
    from mtrestore.io import files
    from mtrestore.lab import record, statistics

    def gather(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfold(path.read_bytes(), Path(folder))
            record.runs(folder)
            statistics.gather(Path(folder))

    return [gather], {ValueError, FileNotFoundError, files.ImageError}


def bundle() -> tuple[list[Reader], set[type]]:
    from mtrestore.io import files
    from mtrestore.lab import report

    def page(path: Path) -> str | None:
        text = report.page(report.load(path))
        return (
            "a script of others stands in the page"
            if re.search(r"<script>(?!\(\(\) => )", text)
            else None
        )

    return [page], {ValueError, FileNotFoundError, files.ImageError}


def journal() -> tuple[list[Reader], set[type]]:
    """A journal is read as far as it goes, without any error, and can then be added to."""
    from mtrestore.folder import journal

    def read(path: Path) -> str | None:
        book = journal.Journal(path)
        book.add({"name": "z", "status": "restored", "output_sha256": "0"})
        book.close()
        return (
            None
            if path.read_bytes().endswith(b'"output_sha256": "0"}\n')
            else "the row that was added is not there"
        )

    return [read], set()


TARGETS = {
    make.__name__: make for make in (reader, weights, onnx, yaml, notebook, runs, bundle, journal)
}


# ---- the cases ----------------------------------------------------------------------------------


@functools.cache
def seeds(target: str) -> tuple[bytes, ...]:
    """The small good files of a target."""
    return tuple(path.read_bytes() for path in sorted((SEEDS / target).iterdir()))


def mutated(rng: np.random.Generator, data: bytes, others: tuple[bytes, ...]) -> bytes:
    """A file with one to eight faults."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        n = len(data)
        at = int(
            rng.integers(0, max(1, min(n, int(rng.choice([64, 700, max(n, 1)])))))
        )  # sizes and kinds stand near the beginning
        length = int(rng.integers(1, max(2, min(n, int(2 ** rng.integers(0, 10))))))
        kind = rng.integers(9)
        if kind <= 1:
            for i in rng.integers(0, max(n, 1), rng.integers(1, 5)) if kind else [at]:
                if n:
                    data[i] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at : at + length] = rng.bytes(length)
        elif kind in (3, 4):
            width, order = rng.choice(["BHIQ"[i] for i in range(4)]), rng.choice(["<", ">"])
            word = struct.pack(
                order + width, WORDS[rng.integers(len(WORDS))] & (256 ** struct.calcsize(width) - 1)
            )
            data[at : at + len(word)] = word
        elif kind == 5:
            del data[at : at + length]
        elif kind == 6:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 50))
        elif kind == 7:
            other = others[rng.integers(len(others))]
            cut = int(rng.integers(0, len(other)))
            data[at : at + length] = other[cut : cut + length]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data[:LONGEST])


def mended_png(data: bytes) -> bytes:
    """The same chunks with right checksums, as far as their lengths lead."""
    out, at = bytearray(data[:8]), 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


def mended_weights(data: bytes) -> bytes:
    """The same file with our checksum made to fit, where there is still a header to hold it."""
    from mtrestore import weights

    try:
        header, values = weights.split(data)
        header["__metadata__"]["sha256"] = weights.digest(header, values)
        text = json.dumps(header).encode()
    except Exception:
        return data
    return struct.pack("<Q", len(text)) + text + bytes(values)


def reworded(rng: np.random.Generator, text: bytes) -> bytes:
    """A text in which up to three numbers or words are others, or twice there or not."""
    for _ in range(rng.integers(1, 4)):
        words = list(
            re.finditer(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|\w+|\[[^][]*\]|\{[^{}]*\}', text)
        )
        if not words:
            break
        word, other = words[rng.integers(len(words))], words[rng.integers(len(words))].group()
        anew = (TOKENS[rng.integers(len(TOKENS))], other, b"", word.group() * 2)[
            rng.choice(4, p=[0.6, 0.2, 0.1, 0.1])
        ]
        text = text[: word.start()] + anew + text[word.end() :]
    return text[:LONGEST]


def mutant(target: str, rng: np.random.Generator, data: bytes) -> bytes:
    """A broken file of a target, made from one that is less so."""
    if target == "weights" and data[8:9] == b"{" and rng.random() < 0.5:
        end = 8 + int.from_bytes(data[:8], "little")
        header = reworded(rng, data[8:end])
        data = struct.pack("<Q", len(header)) + header + data[end:]
    elif target in ("yaml", "notebook", "runs", "bundle", "journal") and rng.random() < 0.7:
        data = reworded(rng, data)
    else:
        data = mutated(rng, data, seeds(target))
    if rng.random() < 0.8:
        data = (
            mended_png(data)
            if data[:4] == b"\x89PNG"
            else mended_weights(data)
            if target == "weights"
            else data
        )
    return data


def case(target: str, seed: int, n: int) -> bytes:
    """The bytes of a case; the first are the good files as they are."""
    good = seeds(target)
    if n < len(good):
        return good[n]
    rng = np.random.default_rng((seed, n))
    return mutant(target, rng, good[rng.integers(len(good))])


# ---- one case -----------------------------------------------------------------------------------


def status(name: str) -> int:
    """A number of MiB from /proc/self/status; 0 where there is none."""
    try:
        return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    except OSError:
        return 0


def forget_peak() -> None:
    """Begin VmHWM, the most memory so far, anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Late(BaseException):
    """A reader takes too long; no `except Exception` keeps it."""


@contextlib.contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Raise Late in what runs longer, by the processor's time (POSIX, in the main thread)."""

    def ring(*_: object) -> None:
        raise Late(f"more than {seconds:g} s of the processor")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fault(target: str, data: bytes, path: Path) -> str:
    """What is wrong with what the target makes of the bytes; "" when nothing is."""
    readers, errors = TARGETS[target]()
    path.write_bytes(data)
    forget_peak()
    began, memory = time.process_time(), status("VmHWM")
    for read in readers:
        try:
            with interrupted(LATE) if hasattr(signal, "setitimer") else contextlib.nullcontext():
                wrong = read(path)
            if wrong:
                return wrong
        except (Exception, Late) as e:
            frames = [f for f in traceback.extract_tb(e.__traceback__) if f.name != "ring"]
            where = next(
                (f for f in reversed(frames) if "mtrestore" in Path(f.filename).parent.parts[-2:]),
                frames[-1],
            )
            if type(e) not in errors:
                return f"{type(e).__name__}: {e} ({Path(where.filename).name}:{where.lineno})"
            if not (str(e).isprintable() and 20 < len(str(e)) < 1000):
                return (
                    f"no clear line: {str(e)[:200]!r} ({Path(where.filename).name}:{where.lineno})"
                )
    seconds, grown = time.process_time() - began, status("VmHWM") - memory
    return (
        f"{seconds:.1f} s of the processor"
        if seconds > SECONDS
        else f"{grown} MiB"
        if grown > MIB
        else ""
    )


def limits() -> None:
    """Refuse this process more memory, whatever it does; its time is bounded by `alarm`."""
    if os.name == "posix" and (used := status("VmSize")):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, ((used + HARD_MIB) << 20, resource.RLIM_INFINITY))


def alarm() -> None:
    """The next case ends the process when it takes too long, also where it stands in C."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_VIRTUAL, HARD_SECONDS)


def keep(target: str, data: bytes) -> Path:
    """A reproducer, where it can be found again."""
    path = FOUND / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def kind(wrong: str) -> str:
    """What findings of one cause share: an error's name and place, or words alone."""
    error = re.match(r"(?s)(\w+: |no clear line: ).*(\(\S+:\d+\))$", wrong)
    return "".join(error.groups()) if error else re.sub(r"'.*?'|\d+", "", wrong)[:100]


# ---- many cases ---------------------------------------------------------------------------------


def fuzz(
    target: str,
    seed: int,
    seconds: float,
    folder: Path,
    first: int = 0,
    cases: int = 0,
    alarm: Callable[[], None] = int,
) -> tuple[int, list[str]]:
    """(cases tried, what was wrong, once of a kind) in the time, or of so many cases.

    `alarm` is called before each.
    """
    case(target, seed, first)  # imports and good files are made before the clock starts
    deadline, wrong, n = time.monotonic() + seconds, {}, first
    while n == first or (n < first + cases if cases else time.monotonic() < deadline):
        alarm()
        if bad := fault(target, case(target, seed, n), folder / "case.bin"):
            wrong.setdefault(kind(bad), f"--target {target} --seed {seed} --case {n}: {bad[:300]}")
        n += 1
    return n - first, list(wrong.values())


def guided(target: str, seed: int, seconds: float, folder: Path) -> None:
    """The same, led by coverage. libFuzzer ends the process; folder/wrong has the findings."""
    import atheris

    with atheris.instrument_imports(include=list(WATCHED), enable_loader_override=False):
        for data in seeds(target):
            fault(target, data, folder / "case.bin")
    known = set()
    limits()

    def one(data: bytes) -> None:
        alarm()
        if (bad := fault(target, data, folder / "case.bin")) and kind(bad) not in known:
            known.add(kind(bad))
            with open(folder / "wrong", "a", encoding="utf-8") as file:
                file.write(json.dumps([str(keep(target, data)), bad[:300]]) + "\n")

    def change(data: bytes, most: int, salt: int) -> bytes:
        rng = np.random.default_rng(salt)
        if rng.random() < 0.5:
            return mutant(target, rng, data)[:most]
        data = atheris.Mutate(data, min(most, len(data) + 64))
        return (
            mended_png(data)
            if data[:4] == b"\x89PNG"
            else mended_weights(data)
            if target == "weights"
            else data
        )[:most]

    learnt = FOUND / "corpus" / target
    learnt.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed + 1}",
        f"-max_len={LONGEST}",
        "-len_control=0",
        "-timeout=120",
        "-rss_limit_mb=0",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        str(learnt),
        str(SEEDS / target),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
    atheris.Fuzz()


def inside(args: argparse.Namespace) -> int:
    """What the process that may crash does; its last line is [cases, findings]."""
    folder, findings = args.inside, []
    if not args.plain:
        guided(args.target, args.seed, args.seconds, folder)
    if args.file or args.case is not None:
        data = args.file.read_bytes() if args.file else case(args.target, args.seed, args.case)
        fault(
            args.target, seeds(args.target)[0], folder / "case.bin"
        )  # so that imports are not counted
        limits()
        alarm()
        bad, tried = fault(args.target, data, folder / "case.bin"), 1
        findings = (
            [f"--target {args.target} --file {keep(args.target, data)}: {bad}"] if bad else []
        )
    else:
        fault(args.target, seeds(args.target)[0], folder / "case.bin")
        limits()
        tried, findings = fuzz(args.target, args.seed, args.seconds, folder, alarm=alarm)
    print(json.dumps([tried, findings]))
    return int(bool(findings))


def start(
    target: str, folder: str, args: argparse.Namespace, *more: str
) -> subprocess.CompletedProcess[str]:
    """A process of its own: a decoder that crashes should be named, not end this one."""
    command = [
        sys.executable,
        __file__,
        "--target",
        target,
        "--seed",
        str(args.seed),
        "--inside",
        folder,
        *more,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=args.seconds + 300,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, -signal.SIGALRM, "", "it stood still")


def again(target: str, path: Path, args: argparse.Namespace) -> str:
    """What is wrong with one file in a fresh process without instruments; "" when nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        done = start(target, folder, args, "--plain", "--file", str(path))
        return ended(done) or "".join(json.loads(done.stdout.splitlines()[-1])[1])


def ended(done: subprocess.CompletedProcess[str]) -> str:
    """How a process ended that should not have; "" for one that said what it had to say."""
    if (
        done.returncode in (0, 1)
        and done.stdout.splitlines()[-1:]
        and done.stdout.splitlines()[-1].startswith("[")
    ):
        return ""
    name = (
        signal.Signals(-done.returncode).name
        if done.returncode < 0
        else f"status {done.returncode}"
    )
    name += f", more than {HARD_SECONDS:g} s of the processor" if name == "SIGVTALRM" else ""
    return f"the process ended with {name}: {done.stderr[-300:].strip()!r}"


def outside(target: str, args: argparse.Namespace) -> list[str]:
    """What is wrong with a target, printed; after a crash it goes on for the time that is left."""
    deadline, tried, wrong, suspects = time.monotonic() + args.seconds, 0, [], []
    one = (
        ["--file", str(args.file)]
        if args.file
        else ["--case", str(args.case)]
        if args.case is not None
        else []
    )
    plain = args.plain or bool(one)
    reached, seed = "", args.seed
    while tried == 0 or time.monotonic() < deadline - 1:
        args.seed = seed + len(suspects)  # another way than the one that ended in a crash
        with tempfile.TemporaryDirectory() as folder:
            left = str(max(1.0, deadline - time.monotonic()))
            done = start(
                target, folder, args, "--seconds", left, *one, *(["--plain"] if plain else [])
            )
            lines = (
                Path(folder, "wrong").read_text("utf-8").splitlines()
                if Path(folder, "wrong").is_file()
                else []
            )
            suspects += [Path(json.loads(line)[0]) for line in lines]
            units = re.findall(
                r"^(?:stat::number_of_executed_units: |#)(\d+)", done.stderr, re.MULTILINE
            )
            reached = (re.findall(r"cov: \d+", done.stderr) or [""])[-1]
            if plain and not ended(done):
                more, findings = json.loads(done.stdout.splitlines()[-1])
                tried, wrong = tried + more, wrong + findings
            else:
                tried += int(units[-1]) if units else 1
                if plain or done.returncode:
                    suspects.append(keep(target, Path(folder, "case.bin").read_bytes()))
                    print(f"   {target}: {ended(done)}")
        if one or len(suspects) > 20:
            break
    args.seed = seed
    for path in dict.fromkeys(suspects):
        if bad := again(target, path, args):
            wrong.append(
                bad if bad.startswith("--target") else f"--target {target} --file {path}: {bad}"
            )
        else:
            print(
                f"   {path.name}: only among others, or watched; alone it is read as it should be"
            )
    how = "" if plain else f" (atheris, {reached})"
    print(f"{target:8} seed {seed}: {tried} cases, {len(wrong)} wrong{how}", flush=True)
    print(
        "".join(f"   WRONG {text}\n" for text in wrong)
        .encode("utf-8", "backslashreplace")
        .decode(),
        end="",
        flush=True,
    )
    return wrong


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--target", choices=list(TARGETS), help="default: all")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=1800.0, help="for each target")
    p.add_argument("--case", type=int, help="only this one")
    p.add_argument("--file", type=Path, help="only this file")
    p.add_argument("--plain", action="store_true", help="without atheris")
    p.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    sys.path[:0] = [str(ROOT)]
    sys.path.append(str(Path(sys.prefix) / "fuzz"))
    if args.inside:
        return inside(args)
    try:
        import atheris  # noqa: F401
    except ImportError:
        args.plain = True
        print("atheris is not installed: the seeded mutator goes on alone, without coverage")
    failed = False
    for target in [args.target] if args.target else TARGETS:
        failed |= bool(outside(target, args))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
