"""What stands beside the pixels: EXIF tags worth keeping, the place that may have to go, the
profile and its colours. XMP and IPTC are cleaned in `packets`.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageCms

from .text import shown
from .tiff import EXIF_IFD, GPS_IFD, ORIENTATION

GEO_TAGS = {33550, 33922, 34264, 34735, 34736, 34737}
ELSEWHERE = {700, 33723, 34377}  # XMP, IPTC, Photoshop's resources: `beside` has them
RESOLUTION = (282, 283, 296)  # across, down, unit
TIFF_KEPT = {  # about the picture; the rest is about the file
    *(269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 33432, EXIF_IFD, GPS_IFD),
}
CAMERA_KEPT = {  # of the EXIF directory, where the place goes
    *(0x829A, 0x829D, 0x8822, 0x8824, 0x8827, 0x9000, 0x9003, 0x9004, 0x9101, 0x9102, 0x9214),
    *(0xA000, 0xA001, 0xA20E, 0xA20F, 0xA210, 0xA215, 0xA217, 0xA300, 0xA301, 0xA40C, 0xA420),
    *(0xA500, *range(0x8830, 0x8836), *range(0x9010, 0x9013), *range(0x9201, 0x920B)),
    *(*range(0x9290, 0x9293), *range(0xA401, 0xA40B), *range(0xA430, 0xA436)),
}


def clean_exif(exif: bytes | None, tiff: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """What is worth keeping of an EXIF block, or of a whole TIFF file, which has the same
    structure, and notes.
    """
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        stale = {ORIENTATION, *ELSEWHERE}
        for tag in [t for t in tags if t in stale or tiff and t not in TIFF_KEPT]:
            del tags[tag]
        for tag in (0xA002, 0xA003) if EXIF_IFD in tags else ():  # the size before it changed
            tags.get_ifd(EXIF_IFD).pop(tag, None)
        return tags.tobytes() if len(tags) else None, ()  # this leaves out IFD1, the thumbnail
    except Exception:
        return None, ("EXIF ignored: unreadable",)


def has_location(exif: bytes | None) -> bool:
    """Whether an EXIF block says where the photo was taken."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        return bool(tags.get_ifd(GPS_IFD)) or any(tag in tags for tag in GEO_TAGS)
    except Exception:
        return False


def resolution(exif: bytes | None) -> tuple[float, float] | None:
    """Dots an inch, across and down, that an EXIF block states."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        each = {2: 1.0, 3: 2.54}[tags.get(296, 2)]
        dpi = (float(tags[282]) * each, float(tags[283]) * each)
        return dpi if all(1 <= n <= 30_000 for n in dpi) else None
    except Exception:
        return None


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes | None:
    """An EXIF block that states it, for formats that have no other place."""
    tags = Image.Exif()
    try:
        tags.load(exif or b"")
        tags[282], tags[283], tags[296] = *dpi, 2
        return tags.tobytes()
    except Exception:
        return exif


def without_location(exif: bytes | None) -> bytes | None:
    """An EXIF block without the place: what stays are the standard's tags about the picture and the
    camera.

    The GPS directory goes, and so does whatever may hold a place in a form of its own: XMP, IPTC,
    GeoTIFF, a camera's private notes, comments. The caption (ImageDescription) stays.
    """
    old, new = Image.Exif(), Image.Exif()
    try:
        old.load(exif or b"")
        for tag in TIFF_KEPT - {EXIF_IFD, GPS_IFD}:
            if tag in old:
                new[tag] = old[tag]
        camera = {tag: value for tag, value in old.get_ifd(EXIF_IFD).items() if tag in CAMERA_KEPT}
        if camera:
            new.get_ifd(EXIF_IFD).update(camera)
        return new.tobytes() if len(new) or camera else None
    except Exception:
        return None


def fitting_icc(icc: bytes | None, grey: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile if it fits the pixels, and what to say of it."""
    if not icc:
        return None, ()
    try:
        profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space, name = (
            profile.profile.xcolor_space.strip(),
            shown(ImageCms.getProfileDescription(profile).strip()),
        )
    except Exception:
        return None, ("ICC profile ignored: unreadable",)
    if space != ("GRAY" if grey else "RGB"):
        return None, (f"ICC profile ignored: {name} is for {space}",)
    return icc, (f"ICC profile kept: {name}",)


def to_srgb(im: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """Any colours -> sRGB, through the profile where there is a usable one."""
    try:
        source = (
            ImageCms.createProfile("LAB")
            if im.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        )
        target = ImageCms.createProfile("sRGB")
        out: Any = ImageCms.profileToProfile(im, source, target, outputMode="RGB")
        return out, f"{im.mode} converted to sRGB"
    except Exception:  # no profile, rubbish, or one for other colours
        return im.convert("RGB"), f"{im.mode} converted to sRGB without a profile"
