"""XMP packets and IPTC datasets without what would lie after a restoration, or without the place.

A packet is read with expat, which stops at a document type and so at every entity; what has to go
is cut out of its bytes, and the rest stays to the byte. Time and memory follow its length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from xml.parsers import expat

from .beside import Beside

RDF, META = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "adobe:ns:meta/"
TIFF, EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
XMP, GOOGLE = "http://ns.adobe.com/xap/1.0/", "http://ns.google.com/photos/1.0/"
PHOTOSHOP, DUBLIN = "http://ns.adobe.com/photoshop/1.0/", "http://purl.org/dc/elements/1.1/"
STALE = {  # about the file that was; a pair of namespace and name
    *((TIFF, name) for name in ("Orientation", "ImageWidth", "ImageLength", "BitsPerSample")),
    *((TIFF, name) for name in ("Compression", "PhotometricInterpretation", "SamplesPerPixel")),
    *((EXIF, name) for name in ("PixelXDimension", "PixelYDimension")),
    *((XMP, "Thumbnails"), ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP")),
}
GONE = (  # namespaces of parts that are left out
    *("http://ns.adobe.com/hdr-gain-map/1.0/", "http://ns.apple.com/HDRGainMap/1.0/"),
    *(GOOGLE + part for part in ("container/", "depthmap/", "image/", "audio/")),
)
REGIONS = ("http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/")
NO_PLACE = (  # namespaces that stay where the place goes
    *(RDF, META, TIFF, EXIF, XMP, DUBLIN, "http://ns.adobe.com/xap/1.0/rights/"),
    *("http://ns.adobe.com/exif/1.0/aux/", "http://cipa.jp/exif/1.0/", PHOTOSHOP),
    "http://www.w3.org/XML/1998/namespace",
)
PLACE = re.compile(
    r"gps|location|latitude|longitude|\b(?:city|country)|\bstate$|coverage|usercomment", re.I
)
TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*(?:"[^"]*"|'[^']*')""")
IPTC_KEPT = {  # datasets of record 2 that stay where the place goes (IIM 4.2)
    *(0, 3, 5, 7, 10, 12, 15, 20, 22, 25, 30, 35, 37, 38, 40, 47, 55, 60, 62, 63, 65, 70),
    *(75, 80, 85, 105, 110, 115, 116, 120, 122, 135),
}
IPTC_PLACE = {26, 27, 90, 92, 95, 100, 101}
Drop = Callable[[str, str], bool]


def without(packet: bytes, drop: Drop, comments: bool = False) -> bytes:
    """A packet without the properties that `drop(namespace, name)` names, and without comments.

    Raises ValueError for what is no XML in UTF-8, or has a document type.
    """
    parser = expat.ParserCreate("utf-8", " ")
    parser.namespace_prefixes = True
    cuts: list[tuple[int, int]] = []
    depth, inside = 0, 0  # of the element that is being cut

    def named(name: str) -> tuple[str, str]:
        space, _, rest = name.partition(" ")
        return (space, rest.partition(" ")[0]) if rest else ("", space)

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, inside
        depth += 1
        at = parser.CurrentByteIndex
        if inside:
            return
        if drop(*named(name)):
            inside = depth
            cuts.append((at, TAG.match(packet, at).end()))
        elif bad := {qualified(a) for a in attributes if drop(*named(a))}:
            tag = TAG.match(packet, at)
            skip = re.compile(rb"<[^\s/>]+").match(packet, at).end()
            for found in ATTRIBUTE.finditer(packet, skip, tag.end()):
                if found[1] in bad:
                    cuts.append(found.span())

    def end(name: str) -> None:
        nonlocal depth, inside
        if inside == depth:
            begin, stop = cuts.pop()
            if not packet.endswith(b"/>", begin, stop):
                stop = packet.index(b">", parser.CurrentByteIndex) + 1
            cuts.append((begin, stop))
            inside = 0
        depth -= 1

    def comment(_: str) -> None:
        at = parser.CurrentByteIndex
        if comments and not inside:
            cuts.append((at, packet.index(b"-->", at) + 3))

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CommentHandler, parser.StartDoctypeDeclHandler = comment, refuse
    try:
        parser.Parse(packet, True)
    except expat.ExpatError as e:
        raise ValueError(str(e)) from e
    parts, at = [], 0
    for begin, stop in cuts:
        parts.append(packet[at:begin])
        at = stop
    return b"".join((*parts, packet[at:]))


def qualified(name: str) -> bytes:
    """expat's `namespace name prefix` as it stands in the text."""
    words = name.split(" ")
    return (f"{words[2]}:{words[1]}" if len(words) > 2 else words[-1]).encode()


def stale(space: str, name: str) -> bool:
    """Whether a property speaks of the old file's pixels or of a part that is left out."""
    motion = space == GOOGLE + "camera/" and name.startswith(("Motion", "MicroVideo"))
    sizes = space == GOOGLE + "panorama/" and name.endswith("Pixels")
    return (space, name) in STALE or space.startswith(GONE) or motion or sizes


def tells_place(space: str, name: str) -> bool:
    """Whether a property says, or may say, where a photo was taken."""
    return space not in NO_PLACE or space != RDF and bool(PLACE.search(name))


def datasets(iptc: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Record, number and whole bytes of each dataset (IIM 4.2, 1.5), as far as they go."""
    at = 0
    while iptc[at : at + 1] == b"\x1c" and at + 5 <= len(iptc):
        size = int.from_bytes(iptc[at + 3 : at + 5], "big")
        if size & 0x8000 or at + 5 + size > len(iptc):
            return
        yield iptc[at + 1], iptc[at + 2], iptc[at : at + 5 + size]
        at += 5 + size


def clean(beside: Beside, turned: bool) -> Beside:
    """Without what would be wrong of a picture that was turned upright, or made larger."""
    xmp, notes = beside.xmp, list(beside.notes)
    if xmp:
        try:
            xmp = without(xmp, stale)
            regions = without(xmp, lambda space, _: space.startswith(REGIONS)) if turned else xmp
            if regions != xmp:
                notes.append("the regions in its XMP are left out: it was turned upright")
            xmp = regions
        except ValueError:
            xmp = None
            notes.append("XMP ignored: unreadable")
    iptc = b"".join(
        data for record, number, data in datasets(beside.iptc or b"")
        if record == 1 or record == 2 and number < 200  # no sizes, no preview
    )  # fmt: skip
    if beside.iptc and not iptc:
        notes.append("IPTC ignored: unreadable")
    return beside._replace(xmp=xmp, iptc=iptc or None, notes=tuple(notes))


def has_place(beside: Beside) -> bool:
    """Whether XMP or IPTC says where a photo was taken."""
    words = []

    def listen(space: str, name: str) -> bool:
        words.append(space != RDF and bool(PLACE.search(name)))
        return False

    if beside.xmp:
        without(beside.xmp, listen)
    kinds = {number for record, number, _ in datasets(beside.iptc or b"") if record == 2}
    return any(words) or bool(kinds & IPTC_PLACE)


def without_place(beside: Beside) -> Beside:
    """Without what says, or may say in a form of its own, where a photo was taken.

    Of XMP the properties of well-known namespaces stay, of IPTC its well-known datasets, of texts
    the well-known keywords; captions and keywords are people's words, and stay.
    """
    kept = {"Title", "Author", "Description", "Copyright", "Creation Time", "Software", "Source"}
    texts = tuple(pair for pair in beside.texts if pair[0] in kept)
    xmp = beside.xmp and without(beside.xmp, tells_place, comments=True)
    iptc = b"".join(
        data for record, number, data in datasets(beside.iptc or b"")
        if record == 1 or number in IPTC_KEPT
    )  # fmt: skip
    return beside._replace(xmp=xmp, iptc=iptc or None, texts=texts)
