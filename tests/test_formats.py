"""docs/formats.md holds what each format keeps, as round trips show it: this makes the table.

`python tests/test_formats.py` writes it anew; its diff shows what users will see change.
"""

import struct
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from mtrestore import image
from mtrestore.io.beside import Beside

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
BEGIN, END = "<!-- table: made by tests/test_formats.py -->\n", "<!-- end of the table -->\n"
XMP = b'<a xmlns="b"/>'
IPTC = b"\x1c\x02\x19" + struct.pack(">H", 3) + b"Oma"
DEEP = np.random.default_rng(0).integers(0, 1 << 16, (16, 16, 3)).astype(np.uint16)


def exif() -> bytes:
    tags = Image.Exif()
    tags[271] = "Maker"
    return tags.tobytes()


# Made once: a profile holds the second it was made in.
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PLAIN = image.Picture(np.full((16, 16, 3), 99, np.uint8))
ALPHA = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
FACTS = {  # column -> a picture that has it, and whether another one has it too
    "16 bits": (replace(PLAIN, samples=DEEP, bits=16), lambda p: p.bits == 16),
    "alpha": (replace(PLAIN, alpha=ALPHA), lambda p: p.alpha is not None),
    "grey": (replace(PLAIN, grey=True), lambda p: p.grey),
    "ICC": (replace(PLAIN, icc=ICC), lambda p: p.icc == ICC),
    "EXIF": (replace(PLAIN, exif=exif()), lambda p: b"Maker" in (p.exif or b"")),
    "XMP": (replace(PLAIN, beside=Beside(xmp=XMP)), lambda p: p.beside.xmp == XMP),
    "IPTC": (replace(PLAIN, beside=Beside(iptc=IPTC)), lambda p: p.beside.iptc == IPTC),
    "dpi": (
        replace(PLAIN, beside=Beside(dpi=(300.0, 300.0))),
        lambda p: p.beside.dpi is not None and abs(p.beside.dpi[0] - 300) < 0.1,
    ),
    "comment": (
        replace(PLAIN, beside=Beside(texts=(("Comment", "a"),))),
        lambda p: p.beside.texts == (("Comment", "a"),),
    ),
    "texts": (
        replace(PLAIN, beside=Beside(texts=(("Title", "a"),))),
        lambda p: p.beside.texts == (("Title", "a"),),
    ),
}
FORMATS = [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"]


def cell(folder: Path, suffix: str, picture: image.Picture, has) -> str:
    """kept; converted or dropped, where the notes say so; "" never."""
    lost = image.what_is_lost(picture, suffix)
    back = image.load(image.write(folder / f"x{suffix}", picture))
    if has(back):
        return "kept" if not lost else "kept, said"
    words = " ".join(lost)
    kind = "converted" if any(w in words for w in ("converted", "rounded", "channels")) else "said"
    return kind if lost else "LOST"


def gain_map(folder: Path, suffix: str) -> str:
    """Of a JPEG with a gain map: named by the reader, so for every output."""
    data = image.write(folder / "y.jpg", PLAIN).read_bytes()
    part = b"urn:iso:std:iso:ts:21496:-1\0"
    segment = struct.pack(">BBH", 0xFF, 0xE2, len(part) + 2) + part
    (folder / "y.jpg").write_bytes(data[:2] + segment + data[2:])
    got = image.load(folder / "y.jpg")
    back = image.load(image.write(folder / f"z{suffix}", got))
    return "said" if any("gain map" in n for n in got.notes) and not back.notes else "LOST"


def table(folder: Path) -> str:
    heads = [*FACTS, "gain map"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for suffix in FORMATS:
        cells = [cell(folder, suffix, *fact) for fact in FACTS.values()]
        cells.append(gain_map(folder, suffix))
        lines.append(f"| `{suffix}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_the_table_of_formats_is_what_round_trips_show(tmp_path):
    text = PAGE.read_text("utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == table(tmp_path)
    assert "LOST" not in text, "nothing is lost without a word"
    assert text.count("| `.") == 6


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
        PAGE.write_text(head + BEGIN + table(Path(place)) + END + rest.partition(END)[2], "utf-8")
    sys.exit(0)
