"""The command: exit codes, one line for each problem, nothing lost."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faults import Here
from PIL import ExifTags, Image

from mtrestore import cli, image
from mtrestore.folder import pool as workers
from mtrestore.folder import run as batch


def run(*args: object) -> int:
    try:
        return cli.main([os.fspath(a) if isinstance(a, Path) else str(a) for a in args])
    except SystemExit as e:
        return e.code


@pytest.fixture
def small(tmp_path, astronaut):
    path = tmp_path / "in" / "small.jpg"
    path.parent.mkdir()
    image.write(path, astronaut[::4, ::4])
    return path


def test_one_file(small, tmp_path, capsys):
    assert run("restore", small, "-o", tmp_path / "out.png", "--scale", 1.5) == 0
    assert image.read(tmp_path / "out.png").shape == (192, 192, 3)
    assert "restored" in capsys.readouterr().out


def test_html_and_report(small, tmp_path):
    assert (
        run(
            "restore",
            small,
            "-o",
            tmp_path / "o",
            "--html",
            "--report",
            tmp_path / "r.json",
            "--no-faces",
        )
        == 0
    )
    assert "<img" in (tmp_path / "o" / "small.html").read_text()
    (row,) = json.loads((tmp_path / "r.json").read_text())["files"]
    assert row["status"] == "restored" and row["input"] == str(small) and row["seconds"] > 0


def test_a_bad_file_never_stops_the_folder(small, tmp_path, capsys):
    (small.parent / "a bad.jpg").write_text("this is text")
    (small.parent / "sub").mkdir()
    image.write(small.parent / "sub" / "deep.png", np.full((20, 30, 3), 0.5, np.float32))
    (small.parent / "zero.png").touch()
    assert (
        run(
            "restore",
            small.parent,
            "-o",
            tmp_path / "out",
            "--report",
            tmp_path / "r.json",
            "--no-faces",
        )
        == 3
    )
    rows = {
        Path(r["input"]).name: r for r in json.loads((tmp_path / "r.json").read_text())["files"]
    }
    assert {n: (r["status"], r["code"]) for n, r in rows.items()} == {
        "a bad.jpg": ("failed", "E_FORMAT"),
        "deep.png": ("restored", None),
        "small.jpg": ("restored", None),
        "zero.png": ("failed", "E_EMPTY"),
    }
    assert (tmp_path / "out" / "sub" / "deep.png").exists() and (
        tmp_path / "out" / "small.jpg"
    ).exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_nothing_is_overwritten_unasked(small, tmp_path, capsys):
    target = tmp_path / "out.png"
    target.write_text("precious")
    assert run("restore", small, "-o", target, "--no-faces") == 1
    assert target.read_text() == "precious" and "--overwrite" in capsys.readouterr().err
    assert run("restore", small, "-o", target, "--no-faces", "--overwrite") == 0


def test_an_input_is_never_its_own_output(small, capsys):
    before = small.read_bytes()
    assert run("restore", small, "-o", small, "--overwrite") == 1
    assert run("restore", small.parent, "-o", small.parent, "--overwrite") == 1
    assert small.read_bytes() == before and "own restoration" in capsys.readouterr().err


def test_a_report_never_replaces_an_input(small, tmp_path, capsys):
    before = small.read_bytes()
    assert run("restore", small, "-o", tmp_path / "o.png", "--report", small) == 1
    assert small.read_bytes() == before and "overwrite an input" in capsys.readouterr().err


def test_resume_skips_what_is_done(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(workers, "Local", Here)
    assert run("restore", small.parent, "-o", tmp_path / "out", "--no-faces", "--jobs", 1) == 0
    assert (
        run("restore", small.parent, "-o", tmp_path / "out", "--no-faces", "--jobs", 1) == 1
        and "--overwrite" in capsys.readouterr().err
    )
    assert (
        run("restore", small.parent, "-o", tmp_path / "out", "--no-faces", "--jobs", 1, "--resume")
        == 0
    )
    assert "0 restored, 1 skipped, 0 failed" in capsys.readouterr().out


def test_formats_that_cannot_be_written_become_png(tmp_path, astronaut, monkeypatch):
    monkeypatch.setattr(workers, "Local", Here)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.rint(astronaut[::8, ::8] * 255).astype(np.uint8)).save(
        tmp_path / "in" / "a.gif"
    )
    assert run("restore", tmp_path / "in", "-o", tmp_path / "out", "--no-faces") == 0
    assert (tmp_path / "out" / "a.gif.png").exists()


@pytest.mark.parametrize(
    "option",
    [("--scale", "99"), ("--face-strength", "2"), ("--device", "cuda:77"), ("--memory-mb", "1")],
)
def test_set_up_errors_exit_1_in_one_line(small, tmp_path, capsys, option):
    assert run("restore", small, "-o", tmp_path / "o.png", *option) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["restore"],
        ["restore", "x.jpg", "y.jpg"],
        ["nonsense"],
        ["restore", "x", "-o", "y", "--scale", "two"],
        ["models", "eat"],
        ["demo", "--port", "1"],
        ["restore", "x", "-o", "y", "--jobs", "0"],
        ["restore", "x", "-o", "y", "--timeout", "inf"],
    ],
)
def test_usage_exits_2(args, capsys):
    assert run(*args) == 2
    assert "Traceback" not in capsys.readouterr().err


def bad_inputs(folder: Path) -> dict[str, tuple[list, int, str]]:
    """name -> (arguments, exit code, what the line must say)."""
    import struct
    import zlib

    folder.mkdir()
    good = folder / "good.png"
    image.write(good, np.random.default_rng(0).random((64, 64, 3), np.float32))
    data = good.read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("hello")
    chunk = lambda t, d: struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))  # noqa: E731
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(10**6)),
        b"IEND": b"",
    }
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(t, d) for t, d in parts.items())
    (folder / "bomb.png").write_bytes(bomb)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.jpg").mkdir()
    odd = os.fsencode(folder) + b"/\xff\xfe.jpg"
    with open(odd, "wb") as f:
        f.write(b"hello")
    (folder / "w.safetensors").write_bytes(b"not weights at all, but long enough to have a header")
    out = ["-o", folder / "out.png"]
    return {
        "empty": (["restore", folder / "empty.jpg", *out], 1, "empty"),
        "truncated": (["restore", folder / "cut.png", *out], 1, "truncated"),
        "text": (["restore", folder / "text.jpg", *out], 1, "text.jpg"),
        "bomb": (["restore", folder / "bomb.png", *out], 1, "30000"),
        "folder": (["restore", folder / "folder.jpg", *out], 1, "folder.jpg"),
        "pipe": (["restore", folder / "pipe.png", *out], 1, "pipe.png"),
        "name": (["restore", os.fsdecode(odd), *out], 1, "jpg"),
        "missing": (["restore", folder / "none.jpg", *out], 1, "none.jpg"),
        "weights": (
            ["restore", good, *out, "--face", folder / "w.safetensors"],
            1,
            "w.safetensors",
        ),
        "weights missing": (
            ["restore", good, *out, "--face", folder / "x.safetensors"],
            1,
            "x.safetensors",
        ),
    }


def test_bad_input_is_one_clear_line(tmp_path):
    """In real processes; torch is not even imported for a file that cannot be read: it is slow."""
    for name, (args, code, words) in bad_inputs(tmp_path / "bad").items():
        program = (
            "import sys; from mtrestore.cli import main; code = main(sys.argv[1:]); "
            "assert 'torch' not in sys.modules; sys.exit(code)"
        )
        p = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, timeout=60)
        lines = p.stderr.decode().strip().splitlines()
        assert p.returncode == code, (name, lines)
        assert len(lines) == 1 and words in lines[0] and "Traceback" not in lines[0], (name, lines)
        assert not (tmp_path / "bad" / "out.png").exists()


def test_demo(tmp_path, capsys):
    assert run("demo", "-o", tmp_path / "o") == 0
    names = {p.name for p in (tmp_path / "o").iterdir()}
    assert names == {"degraded.png", "restored.png", "compare.html", "recipe.json"}
    assert image.read(tmp_path / "o" / "restored.png").shape == (512, 512, 3)


def test_models_lists_what_is_shipped(capsys):
    assert run("models") == 0
    out = capsys.readouterr().out
    for name in ("face", "restorer", "upsampler", "sharpener_x1", "sharpener_x2", "landmarks"):
        assert name in out


def test_lab_opens_the_notebooks_and_passes_options_on(monkeypatch):
    called = []
    monkeypatch.setattr(cli.os, "execv", lambda program, args: called.append(args))
    run("lab", "--port", "8899")
    assert called[0][1:3] == ["-m", "jupyterlab"] and called[0][-2:] == ["--port", "8899"]
    root = Path(called[0][3].removeprefix("--notebook-dir="))
    assert root.is_absolute() and (root / "notebooks" / "00_tour.ipynb").exists()
    assert (root / "pyproject.toml").exists(), "photos and outputs lie beside the notebooks"
    assert called[0][4] == "--LabApp.default_url=/lab/tree/notebooks"


def test_fetching_offline_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run("models", "fetch", "yunet") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_evaluate_prints_its_table(tmp_path, astronaut, capsys):
    (tmp_path / "photos_clean").mkdir()
    image.write(tmp_path / "photos_clean" / "a.png", astronaut[::6, ::6])
    assert run("evaluate", tmp_path, "--seeds", 1, "--json", tmp_path / "rows.json") == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {r["method"] for r in rows} == {
        "input",
        "bicubic",
        "non-local means",
        "photo branch",
        "photo branch, sharpened",
    }
    assert "| photos | noise 25 | photo branch |" in capsys.readouterr().out


def test_evaluate_an_unknown_folder(tmp_path, capsys):
    assert run("evaluate", tmp_path) == 1
    assert "faces_clean" in capsys.readouterr().err


# ---- what is there stays


def test_a_page_of_others_stays(small, tmp_path, capsys):
    (tmp_path / "b.html").write_text("NOTES")
    assert run("restore", small, "-o", tmp_path / "b.png", "--html", "--no-faces") == 1
    assert "b.html exists already" in capsys.readouterr().err and not (tmp_path / "b.png").exists()
    assert (
        run(
            "restore",
            small,
            "-o",
            tmp_path / "b.png",
            "--html",
            "--no-faces",
            "--report",
            tmp_path / "b.html",
            "--overwrite",
        )
        == 1
    )
    assert (
        "would overwrite a page of the same run" in capsys.readouterr().err
        and (tmp_path / "b.html").read_text() == "NOTES"
    )
    assert (
        run("restore", small, "-o", tmp_path / "b.png", "--html", "--no-faces", "--overwrite") == 0
    )


def test_a_report_replaces_no_net(small, tmp_path, capsys):
    from mtrestore import weights

    net = tmp_path / "my.safetensors"
    net.write_bytes(weights.shipped()["restorer"].read_bytes())
    before = net.read_bytes()
    for report in (net, tmp_path / "x" / ".." / "my.safetensors", weights.shipped()["face"]):
        assert (
            run(
                "restore",
                small,
                "-o",
                tmp_path / "o.png",
                "--restorer",
                net,
                "--report",
                report,
                "--overwrite",
            )
            == 1
        )
        assert "net in use" in capsys.readouterr().err
    assert net.read_bytes() == before and not (tmp_path / "o.png").exists()


def test_a_lost_report_exits_3_and_the_picture_is_there(small, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise image.ImageError("E_WRITE", "the disk is full")

    monkeypatch.setattr(batch, "write_reports", full)
    assert (
        run(
            "restore",
            small,
            "-o",
            tmp_path / "o.png",
            "--no-faces",
            "--report",
            tmp_path / "r.json",
        )
        == 3
    )
    assert "no report: the disk is full" in capsys.readouterr().err and image.read(
        tmp_path / "o.png"
    ).shape == (128, 128, 3)
    (tmp_path / "text.png").write_text("text")
    assert (
        run(
            "restore",
            tmp_path / "text.png",
            "-o",
            tmp_path / "p.png",
            "--no-faces",
            "--report",
            tmp_path / "r.json",
        )
        == 1
    )


def test_report_replaces_only_its_own_page(root, tmp_path, capsys):
    bundle = tmp_path / "b.json"
    bundle.write_bytes((root / "experiments" / "results" / "skips.json").read_bytes())
    before = bundle.read_bytes()
    os.link(bundle, tmp_path / "hard.html")
    for out in (bundle, tmp_path / "hard.html", tmp_path / "x" / ".." / "b.json"):
        assert run("report", bundle, "-o", out, "--overwrite") == 1
        assert "what the page is made of" in capsys.readouterr().err
    (tmp_path / "mine.html").write_text("mine")
    assert run("report", bundle, "-o", tmp_path / "mine.html") == 1
    assert run("report", bundle, "-o", tmp_path / "new.html", "--json", tmp_path / "mine.html") == 1
    assert (
        run("report", bundle, "-o", tmp_path / "same", "--json", tmp_path / "same") == 1
        and "of the same run" in capsys.readouterr().err
    )
    assert (
        (tmp_path / "mine.html").read_text() == "mine"
        and bundle.read_bytes() == before
        and not (tmp_path / "new.html").exists()
    )
    assert (
        run("report", bundle, "-o", tmp_path / "p.html")
        == run("report", bundle, "-o", tmp_path / "p.html")
        == 0
    )


def test_export_rows_and_runs_replace_nothing_unasked(tmp_path, capsys, astronaut, monkeypatch):
    from mtrestore import weights

    there = tmp_path / "there.onnx"
    there.write_text("there")
    assert run("models", "export", "restorer", "-o", there) == 1
    for net in (weights.shipped()["restorer"], weights.shipped()["face"]):
        before = net.read_bytes()
        assert (
            run("models", "export", "restorer", "-o", net, "--overwrite") == 1
            and net.read_bytes() == before
        )
    (tmp_path / "photos_clean").mkdir()
    photo = image.write(tmp_path / "photos_clean" / "a.png", astronaut[::8, ::8])
    before = photo.read_bytes()
    assert (
        run("evaluate", tmp_path, "--json", there) == 1
        and run("evaluate", tmp_path, "--json", photo, "--overwrite") == 1
    )
    (tmp_path / "mine" / "pairs").mkdir(parents=True)
    (tmp_path / "mine" / "pairs" / "x").write_text("mine")
    assert run("rerun", tmp_path / "run", "-o", tmp_path / "mine") == 1
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "restored.png").write_text("mine")
    assert run("demo", "-o", tmp_path / "o") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 7
    assert (
        there.read_text() == "there"
        and photo.read_bytes() == before
        and (tmp_path / "mine" / "pairs" / "x").read_text() == "mine"
    )
    assert (tmp_path / "o" / "restored.png").read_text() == "mine"


# ---- where a photo was taken


def placed() -> bytes:
    """EXIF that says the place in every way that we keep: GPS, XMP, a camera's notes, a comment."""
    tags = Image.Exif()
    tags[ExifTags.Base.Make], tags[ExifTags.Base.ImageDescription], tags[700] = (
        "Maker",
        "a portrait",
        b"<x exif:GPSLatitude='SECRET'/>",
    )
    tags[34737] = "SECRET"
    sub, gps = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
    (
        sub[ExifTags.Base.DateTimeOriginal],
        sub[ExifTags.Base.MakerNote],
        sub[ExifTags.Base.UserComment],
    ) = "2001:02:03 04:05:06", b"SECRET", b"ASCII\0\0\0SECRET"
    (
        gps[ExifTags.GPS.GPSLatitudeRef],
        gps[ExifTags.GPS.GPSLatitude],
        gps[ExifTags.GPS.GPSAreaInformation],
    ) = "N", (47.0, 22.0, 1.0), b"SECRET"
    return tags.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_place_is_kept_with_a_note_or_goes_when_asked(tmp_path, suffix, bits, capsys):
    photo = np.random.default_rng(0).integers(0, 1 << bits, (24, 32, 3)).astype(f"u{bits // 8}")
    image.write(tmp_path / "x.png", replace(image.load(photo), exif=placed()))
    path = image.write(tmp_path / f"in{suffix}", image.load(tmp_path / "x.png"))
    assert run("restore", path, "-o", tmp_path / f"kept{suffix}", "--no-faces") == 0
    assert "(GPS) is kept; --strip-location removes it" in capsys.readouterr().out
    assert (
        run(
            "restore",
            path,
            "-o",
            tmp_path / f"out{suffix}",
            "--no-faces",
            "--strip-location",
            "--report",
            tmp_path / "r.json",
        )
        == 0
    )
    assert (
        "the place where it was taken (GPS) is removed"
        in json.loads((tmp_path / "r.json").read_text())["files"][0]["notes"]
    )
    data = (tmp_path / f"out{suffix}").read_bytes()
    assert (
        b"SECRET" not in data
        and b"GPS" not in data
        and b"SECRET" in (tmp_path / f"kept{suffix}").read_bytes()
    )
    with Image.open(tmp_path / f"kept{suffix}") as file:
        assert file.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    with Image.open(tmp_path / f"out{suffix}") as file:
        tags = file.getexif()
        assert not tags.get_ifd(ExifTags.IFD.GPSInfo) and ExifTags.IFD.GPSInfo not in tags
        assert (tags[ExifTags.Base.Make], tags[ExifTags.Base.ImageDescription]) == (
            "Maker",
            "a portrait",
        )
        assert (
            tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2001:02:03 04:05:06"
        )


def test_a_folder_restored_with_places_is_done_again_without(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Local", Here)
    (tmp_path / "in").mkdir()
    image.write(
        tmp_path / "in" / "a.jpg",
        replace(image.load(np.zeros((24, 32, 3), np.uint8)), exif=placed()),
    )
    arguments = (
        "restore",
        tmp_path / "in",
        "-o",
        tmp_path / "out",
        "--no-faces",
        "--jobs",
        1,
        "--resume",
    )
    assert run(*arguments) == 0 and b"SECRET" in (tmp_path / "out" / "a.jpg").read_bytes()
    assert (
        run(*arguments, "--strip-location") == 0
        and b"SECRET" not in (tmp_path / "out" / "a.jpg").read_bytes()
    )
