"""What a picture keeps from file to file: its colours as numbers in a known space, its depth, its
way up, its day and its camera.
"""

import io
import itertools
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, features
from test_image import colours, encode, exif, icc_profile, picture

from mtrestore import image

SUFFIXES = [
    ".jpg",
    ".png",
    ".webp",
    ".tif",
    pytest.param(
        ".avif",
        marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF"),
    ),
]
# linear RGB -> XYZ under D50, as the profiles of these spaces have it; columns are the primaries
XYZ = {
    "sRGB": [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]],
    "Display P3": [
        [0.51512, 0.29198, 0.15710],
        [0.24120, 0.69225, 0.06657],
        [-0.00105, 0.04189, 0.78407],
    ],
    "Adobe RGB": [
        [0.60974, 0.20528, 0.14919],
        [0.31111, 0.62567, 0.06322],
        [0.01947, 0.06087, 0.74457],
    ],
}
GAMMA = 563 / 256  # Adobe RGB (1998)


def linear(space: str, rgb: np.ndarray) -> np.ndarray:
    return (
        rgb**GAMMA
        if space == "Adobe RGB"
        else np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    )


def to_xyz(space: str, rgb: np.ndarray) -> np.ndarray:
    return linear(space, rgb.astype(np.float64)) @ np.array(XYZ[space]).T


def to_srgb(space: str, rgb: np.ndarray) -> np.ndarray:
    out = np.clip(to_xyz(space, rgb) @ np.linalg.inv(XYZ["sRGB"]).T, 0, 1)
    return np.where(out <= 0.0031308, 12.92 * out, 1.055 * out ** (1 / 2.4) - 0.055)


def profile(space: str) -> bytes:
    fixed = lambda *values: b"".join(struct.pack(">i", round(v * 65536)) for v in values)
    curve = (
        b"curv\0\0\0\0" + struct.pack(">IH", 1, 563)
        if space == "Adobe RGB"
        else b"para\0\0\0\0"
        + struct.pack(">HH", 3, 0)
        + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    )
    primaries = {
        name: b"XYZ \0\0\0\0" + fixed(*column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), np.array(XYZ[space]).T)
    }
    return icc_profile(b"RGB ", {**primaries, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def tagged(
    tmp_path, space: str, suffix: str = ".png", bits: int = 8
) -> tuple[np.ndarray, image.Picture]:
    """Smooth colours that sRGB holds as well, written with a profile, and what is read of them."""
    a = (0.15 + 0.6 * colours(dtype=np.uint16) / 65535).astype(np.float32)
    source = replace(image.load(a), icc=profile(space), bits=bits)
    return a, image.load(image.write(tmp_path / f"source{suffix}", source))


def test_the_profiles_are_what_their_names_say():
    for space in XYZ:
        assert np.allclose(np.array(XYZ[space]).sum(1), (0.9642, 1, 0.8249), atol=2e-4), (
            "white is D50"
        )
        levels = np.rint(np.linspace(0, 255, 7)).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels[1:6], levels[1:6], levels[1:6]), -1).reshape(5, 25, 3)
        by_lcms = ImageCms.profileToProfile(
            Image.fromarray(grid),
            ImageCms.ImageCmsProfile(io.BytesIO(profile(space))),
            ImageCms.createProfile("sRGB"),
        )
        assert np.abs(np.asarray(by_lcms) / 255 - to_srgb(space, grid / 255)).max() < 2.5 / 255, (
            space
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_wide_colour_stays_the_same_colour(tmp_path, suffix):
    """The profile is kept to the byte, so the same numbers still mean the same colours: checked in
    XYZ.
    """
    for space, bits in itertools.product(["Display P3", "Adobe RGB"], [8, 16]):
        a, got = tagged(tmp_path, space, suffix, bits)
        with Image.open(tmp_path / f"source{suffix}") as file:
            assert file.info["icc_profile"] == profile(space) == got.icc, (space, bits)
        assert any(note.startswith("ICC profile kept: mine") for note in got.notes), (space, bits)
        lossless = suffix in (".png", ".tif")
        bound = 0.51 / (65535 if lossless and bits == 16 else 255) if lossless else 0.1
        assert np.abs(got.pixels - a).max() < bound, (space, bits)
        wrong = np.abs(to_xyz("sRGB", a) - to_xyz(space, a)).mean()
        assert np.abs(to_xyz(space, got.pixels) - to_xyz(space, a)).mean() < wrong * (
            0.1 if lossless else 0.8
        ), "nearer than the same numbers taken for sRGB"


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB"])
def test_where_no_profile_fits_the_colours_are_converted(tmp_path, space):
    a, got = tagged(tmp_path, space)
    assert any("converted to sRGB" in text for text in image.what_is_lost(got, ".bmp"))
    out = np.asarray(Image.open(image.write(tmp_path / "x.bmp", got))) / 255
    a = np.rint(a * 255) / 255
    assert np.abs(out - to_srgb(space, a)).max() < 2.5 / 255
    assert np.abs(a - to_srgb(space, a)).max() > 8 / 255, "unconverted they would be wrong by more"


def test_a_grey_profile_is_converted_too(tmp_path):
    grey = icc_profile(
        b"GRAY", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)}
    )  # linear light
    got = replace(image.load(np.full((8, 8), 64, np.uint8)), icc=grey)
    out = np.asarray(Image.open(image.write(tmp_path / "x.bmp", got)))
    assert abs(int(out.reshape(8, 8, -1)[4, 4, 0]) - 137) <= 2  # 64/255 of the light is 137 in sRGB


# ---- the way up, the day, the camera -------------------------------------------------------------

TAKEN, ZONE = "2001:02:03 04:05:06", "+01:00"


def camera(turn: int = 6) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Make], tags[ExifTags.Base.Model], tags[ExifTags.Base.DateTime] = (
        "Maker",
        "Model 3",
        TAKEN,
    )
    tags[ExifTags.Base.Orientation] = turn
    sub = tags.get_ifd(ExifTags.IFD.Exif)
    sub[ExifTags.Base.DateTimeOriginal], sub[ExifTags.Base.OffsetTimeOriginal] = TAKEN, ZONE
    sub[ExifTags.Base.ExifImageWidth], sub[ExifTags.Base.ExifImageHeight] = 31, 24
    gps = tags.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (47.0, 22.0, 1.0)
    return tags.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_day_camera_and_place_are_kept_and_what_is_stale_is_not(tmp_path, suffix, bits):
    (tmp_path / "x.jpg").write_bytes(encode(picture(), "JPEG", exif=camera()))
    got = replace(image.load(tmp_path / "x.jpg"), bits=bits)
    larger = got.with_pixels(image.enlarge(got.pixels, 2))
    with Image.open(image.write(tmp_path / f"y{suffix}", larger)) as file:
        tags, size = file.getexif(), file.size
        sub, gps = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
        assert size == (48, 62) and ImageOps.exif_transpose(file).size == size, (
            "upright, and nothing says to turn it again"
        )
    assert (tags[ExifTags.Base.Make], tags[ExifTags.Base.Model], tags[ExifTags.Base.DateTime]) == (
        "Maker",
        "Model 3",
        TAKEN,
    )
    assert (sub[ExifTags.Base.DateTimeOriginal], sub[ExifTags.Base.OffsetTimeOriginal]) == (
        TAKEN,
        ZONE,
    )
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "N" and [
        float(v) for v in gps[ExifTags.GPS.GPSLatitude]
    ] == [47, 22, 1]
    assert (
        ExifTags.Base.Orientation not in tags
        and ExifTags.Base.ExifImageWidth not in sub
        and not tags.get_ifd(ExifTags.IFD.IFD1)
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_turned_picture_comes_out_upright_in_five_formats(tmp_path, suffix):
    """In as the camera held it, out as one sees it, whoever reads the file and whether or not he
    looks at the tag.
    """
    for turn in range(1, 9):
        (tmp_path / "x.png").write_bytes(encode(picture(), "PNG", exif=exif(turn)))
        upright = (
            np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.png")), np.float32) / 255
        )
        with Image.open(
            image.write(tmp_path / f"y{suffix}", image.load(tmp_path / "x.png"))
        ) as file:
            out = np.asarray(file.convert("RGB"), np.float32) / 255
        assert out.shape == upright.shape and np.abs(out - upright).mean() < 0.02, turn
        assert np.abs(out - upright[::-1]).mean() > 0.05, turn


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_picture_goes_through_every_format(tmp_path, mode, suffix):
    source = {"P": lambda: picture().quantize(32), "1": lambda: picture("L").convert("1")}.get(
        mode, lambda: picture(mode)
    )()
    (tmp_path / "x.tif").write_bytes(encode(source, "TIFF"))
    got = image.load(tmp_path / "x.tif")
    back, lost = (
        image.load(image.write(tmp_path / f"y{suffix}", got)),
        " ".join(image.what_is_lost(got, suffix)),
    )
    assert np.abs(back.pixels - got.pixels).mean() < 0.04
    assert got.grey == (mode in ("L", "LA", "1")) and (back.grey == got.grey or "grey" in lost)
    assert (got.alpha is not None) == ("A" in mode)
    assert (
        "alpha" in lost
        if got.alpha is not None and back.alpha is None
        else (back.alpha is None) == (got.alpha is None)
    )
    if back.alpha is not None:
        assert np.abs(back.alpha - got.alpha).mean() < 0.02
