"""Decodes one picture of a format that `foreign` knows, within bounds that the kernel holds.

A program of its own, which knows nothing of the package: a file on stdin, on stdout a line of JSON
(mode, size, lengths), the blocks beside the pixels, and the rows. Arguments: Pillow's name of the
format, its plugin's module or "", bytes of memory, seconds of the processor.
"""

import importlib
import io
import json
import signal
import sys

BLOCKS = ("icc_profile", "exif", "xmp")
MOST = 4 << 20  # bytes of a block
STRIP = 128  # rows


def bound(memory: int, seconds: float) -> None:
    """No more than so much memory beside what is in use now, and no longer."""
    try:
        import resource

        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory))
    except (ImportError, OSError, AttributeError):  # not every system has them
        pass


def main(name: str, module: str, memory: str, seconds: str) -> None:
    from PIL import Image

    out, data = sys.stdout.buffer, sys.stdin.buffer.read()
    Image.MAX_IMAGE_PIXELS = None  # the parent's limit was asked
    try:
        plugin = importlib.import_module(module) if module else None
        bound(int(memory), float(seconds))
        if module == "pillow_heif":
            plugin.register_heif_opener(thumbnails=False, decode_threads=1)
        else:
            Image.init()
        im = Image.OPEN[name][0](io.BytesIO(data), "")
        facts = {"frames": getattr(im, "n_frames", 1), "bits": im.info.get("bit_depth", 8)}
        im.load()
        own = ("L", "LA", "RGB", "RGBA", "I;16")
        im = im if im.mode in own else im.convert("RGBA" if "A" in im.mode else "RGB")
        blocks = [bytes(im.info.get(kind) or b"")[:MOST] for kind in BLOCKS]
        facts |= {"mode": im.mode, "size": im.size, "blocks": [len(block) for block in blocks]}
    except Exception as e:
        words = {"error": str(e)[:300] or type(e).__name__, "memory": isinstance(e, MemoryError)}
        out.write(json.dumps(words).encode() + b"\n")
        return
    out.write(json.dumps(facts).encode() + b"\n" + b"".join(blocks))
    for y in range(0, im.height, STRIP):
        out.write(im.crop((0, y, im.width, min(y + STRIP, im.height))).tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
