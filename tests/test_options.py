"""Each option is known once: Python, the command and the docstring agree; a public change is seen.

Where a change of help.txt or api.txt is meant: `python tests/test_options.py` writes both anew.
"""

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import mtrestore as mt
from mtrestore import cli, options
from mtrestore.options import Options

HERE = Path(__file__).parent
HELP = [["--help"], ["restore", "--help"], ["faces", "--help"]]


def help_text() -> str:
    """What the command says of itself, 80 columns wide, as Python 3.11 and 3.12 lay it out."""
    text = io.StringIO()
    for arguments in HELP:
        text.write(f"$ mtrestore {' '.join(arguments)}\n")
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            cli.parser().parse_args(arguments)
    return text.getvalue()


def api_text() -> str:
    """Every public name with its signature, one a line; an exception with its bases."""
    lines = []
    for name in sorted(set(mt.__all__) - set(mt._moved.MOVED)):
        thing = getattr(mt, name)
        if inspect.ismodule(thing):
            lines.append(f"{name}: module")
        elif isinstance(thing, type) and issubclass(thing, Exception):
            lines.append(f"{name}: {', '.join(kind.__name__ for kind in thing.__bases__)}")
        else:
            signature = re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.signature(thing)))
            lines.append(f"{name}{signature}")
    return "\n".join(lines) + "\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="its argparse writes -o, --output OUT")
def test_help_is_as_written(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert help_text() == (HERE / "help.txt").read_text()


def test_the_public_names_are_as_written():
    assert api_text() == (HERE / "api.txt").read_text()


def test_every_option_says_what_it_is():
    for f in fields(Options):
        assert f.metadata["help"] and f.metadata["group"] in options.TITLES, f.name
        for target in (mt.Restorer, mt.restore):
            assert inspect.signature(target).parameters[f.name].default == f.default, f.name
            assert f"\n    {f.name}: " in target.__doc__, f.name


def test_the_command_has_the_same_defaults():
    args = cli.parser().parse_args(["restore", "x.jpg", "-o", "y.jpg"])
    assert options.options_from(args) == {
        "scale": 1.0,
        "photo_strength": 1.0,
        "face_strength": 1.0,
        "face_fidelity": None,
        "faces": True,
        "crop": "landmark",
        "detector": "auto",
        "device": "auto",
        "working_size": 640,
        "memory_mb": None,
    }
    folders = options.folders_from(args)
    assert folders == options.Folders() and folders.timeout == 900 and folders.jobs is None


def test_flags_reach_their_options():
    line = (
        "restore x.jpg -o y.jpg --scale 1.5 --photo-strength .5 --face-strength .8 "
        "--face-fidelity .3 --no-faces --crop eye --detector mtcnn --device cpu "
        "--working-size 320 --memory-mb 64 --face face --upsampler net.onnx"
    )
    assert options.options_from(cli.parser().parse_args(line.split())) == {
        "scale": 1.5,
        "photo_strength": 0.5,
        "face_strength": 0.8,
        "face_fidelity": 0.3,
        "faces": False,
        "crop": "eye",
        "detector": "mtcnn",
        "device": "cpu",
        "working_size": 320,
        "memory_mb": 64.0,
        "face": "face",
        "upsampler": os.path.abspath("net.onnx"),
    }


@pytest.mark.parametrize("make", [mt.Restorer, lambda **o: mt.restore("none.jpg", **o)])
@pytest.mark.parametrize(
    "name, words",
    [
        ("face_strenght", "'face_strenght'; did you mean 'face_strength'?"),
        ("memory", "'memory'; did you mean 'memory_mb'?"),
        ("zzz", "'zzz'. There are: scale, photo_strength"),
    ],
)
def test_an_unknown_name_is_told_its_neighbour(make, name, words):
    with pytest.raises(TypeError, match="no option is called") as e:
        make(**{name: 1})
    assert words in str(e.value)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("scale", 0.05, "scale must lie in 0.1..8, got 0.05"),
        ("scale", 9, "scale must lie in 0.1..8, got 9"),
        ("scale", float("nan"), "scale must lie in 0.1..8, got nan"),
        ("scale", "2", "scale must lie in 0.1..8, got '2'"),
        ("scale", None, "scale must lie in 0.1..8, got None"),
        ("scale", True, "scale must lie in 0.1..8, got True"),
        ("working_size", 16385, "working_size must lie in 32..16384, got 16385"),
        ("memory_mb", 63, "memory_mb must be at least 64, got 63"),
        ("memory_mb", [64], r"memory_mb must be at least 64, got \[64\]"),
        ("photo_strength", -1, "photo_strength must lie in 0..1, got -1"),
        ("face_fidelity", float("inf"), "face_fidelity must lie in 0..1, got inf"),
        ("crop", "nose", "crop must be one of landmark, eye, got 'nose'"),
        ("crop", ["eye"], r"crop must be one of landmark, eye, got \['eye'\]"),
        ("detector", "dlib", "detector must be one of auto, mtcnn, yunet, got 'dlib'"),
        ("device", 0, "device must be auto, cpu or cuda, got 0"),
    ],
)
def test_a_value_out_of_range_is_named(name, value, words):
    with pytest.raises(ValueError, match=words):
        mt.Restorer(**{name: value})


@pytest.mark.parametrize("name, value", [("scale", 8), ("scale", 0.1), ("memory_mb", 64)])
def test_the_ends_of_a_range_belong_to_it(name, value):
    assert getattr(Options.of({name: value}), name) == value


@pytest.mark.parametrize("name", ["face_fidelity", "memory_mb"])
def test_none_is_a_value_where_it_is_the_default(name):
    assert getattr(Options.of({name: None}), name) is None


def test_a_function_may_look_for_faces():
    assert Options.of({"detector": len}).detector is len


def test_a_wrong_value_is_refused_before_torch_is_imported(tmp_path):
    program = (
        "import sys; from mtrestore.cli import main; "
        "code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    )
    arguments = ["restore", "x.jpg", "-o", tmp_path / "o.png", "--scale", "99"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"mtrestore: scale must lie in 0.1..8, got 99.0\n")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    (HERE / "help.txt").write_text(help_text())
    (HERE / "api.txt").write_text(api_text())
