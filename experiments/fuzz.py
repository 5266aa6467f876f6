"""Broken pictures and weights files without end: the readers must give a sound value or their own one-line error, soon, whatever the bytes.

    python experiments/fuzz.py --seconds 60                    # both readers, half of the time each
    python experiments/fuzz.py --target reader --case 123      # one case again: case n of a seed is always the same bytes

Good files are cut, spliced, repeated and overwritten, at the places where formats keep their sizes more than elsewhere. PNG checksums and
the sha256 of weights files are then often mended, so that what lies behind them is reached as well.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SLOW = 5.0  # seconds of the processor for one file
WORDS = (0, 1, 2, 3, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**63, 2**64 - 1)


@functools.cache
def pictures() -> tuple[bytes, ...]:
    """Small good files of every format that is read, plain and with all that hangs on a picture."""
    from PIL import Image, ImageCms, features

    small = np.random.default_rng(0).random((6, 7, 3)).repeat(3, 0).repeat(3, 1)
    im = Image.fromarray((small * 255).astype(np.uint8))
    tags = Image.Exif()
    tags[271], tags[274] = "Maker", 6
    rich = {"exif": tags.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    grey, palette = im.convert("L"), im.quantize(16)
    files = [(im, "JPEG", rich), (im, "JPEG", {"progressive": True}), (im.convert("CMYK"), "JPEG", {}), (im, "PNG", rich),
             (palette, "PNG", {"transparency": 3}),
             (Image.fromarray((small[..., 0] * 65535).astype(np.uint16)), "PNG", {}), (im, "TIFF", rich), (grey, "TIFF", {"compression": "tiff_lzw"}),
             (im, "TIFF", {"compression": "tiff_adobe_deflate"}), (Image.fromarray(small[..., 0].astype(np.float32)), "TIFF", {}),
             (im, "WEBP", rich), (im, "WEBP", {"lossless": True}), (palette, "GIF", {"save_all": True, "append_images": [palette, palette]}),
             (im, "BMP", {}), (palette, "BMP", {}), (im, "PPM", {}), (grey, "PNG", {"save_all": True, "append_images": [grey]})]  # fmt: skip
    files += [(im, "AVIF", rich)] if features.check("avif") else []
    out = []
    for picture, format, options in files:
        buffer = io.BytesIO()
        picture.save(buffer, format, **options)
        out.append(buffer.getvalue())
    from mtrestore import formats

    deep = (small * 65535).astype(np.uint16)
    return (*out, formats._png16(deep, None, tags.tobytes()), formats._tiff_file(deep, None, None), b"P6 3 2 65535\n" + bytes(36), b"P3 2 1 255\n1 2 3 4 5 6\n")


@functools.cache
def weight_files() -> tuple[bytes, ...]:
    """Small good weights files of ours, and what other programs write."""
    import torch
    from safetensors.torch import save

    from mtrestore import nets, weights

    out = []
    with tempfile.TemporaryDirectory() as folder:
        for net in (nets.Refiner(width=4, blocks=1), nets.Sharpener(scale=2, width=4, blocks=1)):
            out.append(weights.save(net, Path(folder) / "x.safetensors", steps=3).read_bytes())
    state = nets.Refiner(width=4, blocks=1).state_dict()
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        buffer = io.BytesIO()
        torch.save(state, buffer, **options)
        out.append(buffer.getvalue())
    return (*out, save(state))


def mutated(rng: np.random.Generator, files: tuple[bytes, ...]) -> bytes:
    """A good file with one to eight faults."""
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 9)):
        n = len(data)
        at = int(rng.integers(0, max(1, min(n, int(rng.choice([64, 700, n]))))))  # sizes and kinds stand near the beginning
        length = int(rng.integers(1, max(2, min(n, int(2 ** rng.integers(0, 10))))))
        kind = rng.integers(9)
        if kind <= 1:
            for i in rng.integers(0, max(n, 1), rng.integers(1, 5)) if kind else [at]:
                if n:
                    data[i] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at:at + length] = rng.bytes(length)
        elif kind in (3, 4):
            width, order = rng.choice(["BHIQ"[i] for i in range(4)]), rng.choice(["<", ">"])
            word = struct.pack(order + width, WORDS[rng.integers(len(WORDS))] & (256 ** struct.calcsize(width) - 1))
            data[at:at + len(word)] = word
        elif kind == 5:
            del data[at:at + length]
        elif kind == 6:
            data[at:at] = data[at:at + length] * int(rng.integers(1, 50))
        elif kind == 7:
            other = files[rng.integers(len(files))]
            cut = int(rng.integers(0, len(other)))
            data[at:at + length] = other[cut:cut + length]
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data[:200_000])


def mended_png(data: bytes) -> bytes:
    """The same chunks with right checksums, as far as their lengths lead."""
    out, at = bytearray(data[:8]), 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        body = data[at + 4:at + 8 + length]
        out += data[at:at + 4] + body + struct.pack(">I", zlib.crc32(body))
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


def reworded(rng: np.random.Generator, data: bytes) -> bytes:
    """A weights file whose header says other numbers, names and kinds."""
    (n,) = struct.unpack("<Q", data[:8])
    if n > len(data):
        return data
    text, number = data[8:8 + n].decode("latin-1"), lambda m: rng.choice([m[0], "0", "1", "-1", "4294967296", "1e9", "[]", "null", "9" * 30])
    text = re.sub(r"\d+", number, text, count=int(rng.integers(1, 4))) if rng.random() < 0.5 else text
    for old, new in (("F16", "F64"), ("F16", "I64"), ("Refiner", "Sharpener"), ("weight", "bias"), ('"width"', '"depth"'), ("[", "[[")):
        if rng.random() < 0.2:
            text = text.replace(old, new, int(rng.integers(1, 4)))
    body = text.encode("latin-1")
    return struct.pack("<Q", len(body)) + body + data[8 + n:]


def case(target: str, seed: int, n: int) -> bytes:
    """The bytes of a case."""
    rng = np.random.default_rng((seed, n))
    if target == "reader":
        data = mutated(rng, pictures())
        return mended_png(data) if data[:4] == b"\x89PNG" and rng.random() < 0.8 else data
    data = weight_files()[rng.integers(2)]
    data = reworded(rng, data) if rng.random() < 0.5 else mutated(rng, weight_files())
    return mended_weights(data) if rng.random() < 0.8 else data


def fault(target: str, data: bytes, path: Path) -> str:
    """What is wrong with what the reader makes of the bytes; "" when nothing is."""
    from mtrestore import image, nets, weights

    path.write_bytes(data)
    began, error = time.process_time(), None
    try:
        if target == "reader":
            got = image.load(path, max_pixels=4_000_000)
            a = got.pixels
            if a.dtype != np.float32 or a.ndim != 3 or a.shape[2] != 3 or not (a.min() >= 0 and a.max() <= 1):
                return f"no photo: {a.dtype} {a.shape}"
            if not all(note.isprintable() for note in got.notes):
                return f"a note is not printable: {got.notes}"
        else:
            for read in (weights.load, lambda p: weights.adopt(nets.Refiner(width=4, blocks=1), p)):
                try:
                    net = read(path)
                    if not all(np.isfinite(v.numpy()).all() for v in net.state_dict().values()):
                        return "weights that are not finite were loaded"
                except weights.WeightsError as e:
                    error = e
    except image.ImageError as e:
        error = e
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if error and not (str(error).isprintable() and len(str(error)) > 20):
        return f"no clear line: {str(error)!r}"
    seconds = time.process_time() - began
    return f"{seconds:.1f} s" if seconds > SLOW else ""


def fuzz(target: str, seed: int, seconds: float, folder: Path, first: int = 0) -> tuple[int, list[str]]:
    """(cases tried, what was wrong) within the time; `folder`/now.txt says which case is being tried, in case the process dies."""
    case(target, seed, first)  # imports and good files are made before the clock starts
    deadline, wrong, n = time.monotonic() + seconds, [], first
    while time.monotonic() < deadline or n == first:
        (folder / "now.txt").write_text(str(n))
        if bad := fault(target, case(target, seed, n), folder / "case.bin"):
            wrong.append(f"--target {target} --seed {seed} --case {n}: {bad[:300]}")
        n += 1
    return n - first, wrong


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--target", choices=["reader", "weights"], help="default: both")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=60.0)
    p.add_argument("--case", type=int, help="only this one, in this process")
    p.add_argument("--inside", help=argparse.SUPPRESS)
    args = p.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.inside or args.case is not None:
        with tempfile.TemporaryDirectory() as temporary:
            seconds = 0 if args.case is not None else args.seconds
            tried, wrong = fuzz(args.target or "reader", args.seed, seconds, Path(args.inside or temporary), args.case or 0)
        print(f"{args.target or 'reader':8} seed {args.seed}: {tried} cases, {len(wrong)} wrong")
        print("".join(f"   WRONG {text}\n" for text in wrong).encode("utf-8", "backslashreplace").decode(), end="")
        return int(bool(wrong))
    failed, targets = False, [args.target] if args.target else ["reader", "weights"]
    for target in targets:
        with tempfile.TemporaryDirectory() as folder:  # in a process of its own: a decoder that crashes should be named, not end this one
            share = str(args.seconds / len(targets))
            command = [sys.executable, __file__, "--target", target, "--seed", str(args.seed), "--seconds", share, "--inside", folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=args.seconds + 120)
            print(done.stdout, end="")
            if done.returncode not in (0, 1) or not done.stdout:
                print(f"   WRONG --target {target} --seed {args.seed} --case {Path(folder, 'now.txt').read_text()}: the process ended with {done.returncode}")
                print(done.stderr[-2000:])
            failed |= bool(done.returncode)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
