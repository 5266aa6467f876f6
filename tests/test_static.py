"""What may not stand in our source at all: calls that run code from files, or that fail without a
word. Read from the syntax tree.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    p
    for folder in ("mtrestore", "experiments", "benchmarks", "tests/long", ".ci", "docs")
    for p in (ROOT / folder).rglob("*.py")
)
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cPickle.load", "cPickle.loads", "dill.load",
    "dill.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads", "marshal.load",
    "marshal.loads", "shelve.open", "eval", "exec", "compile", "__import__", "os.system",
    "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "yaml.full_load_all", "cv2.imread", "cv2.imwrite",
    "cv2.imreadmulti", "torch.hub.load", "torch.jit.load", "tempfile.mktemp", "Image.open",
    "PIL.Image.open",
}  # fmt: skip


def faults(source: str) -> list[str]:
    """line: what, for every forbidden call; names are followed through `import a as b` and `from a
    import b as c`.
    """
    tree, known, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = ast.unparse(node.func).partition(".")
        name = known.get(first, first) + ("." + rest if rest else "")
        options = {
            k.arg: getattr(k.value, "value", None) for k in node.keywords
        }  # of a literal; None for anything else
        if name in FORBIDDEN:
            found.append(f"{node.lineno}: {name}")
        if name == "torch.load" and options.get("weights_only") is not True:
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if name in ("numpy.load", "np.load") and (
            "allow_pickle" in options and options["allow_pickle"] is not False
        ):
            found.append(f"{node.lineno}: numpy.load with allow_pickle")
        if "shell" in options and options["shell"] is not False:
            found.append(f"{node.lineno}: a shell")
        if name.endswith(".extractall"):
            found.append(f"{node.lineno}: an archive unpacked to the disk")
    return found


def test_nothing_in_our_source_runs_code_from_files():
    for path in SOURCES:
        assert not faults(path.read_text("utf-8")), path


@pytest.mark.parametrize("line", [
    "import pickle; pickle.load(f)", "from pickle import loads; loads(b)",
    "import pickle as p\np.Unpickler(f)", "import torch; torch.load(f)",
    "from torch import load as get\nget(f, weights_only=False)",
    "import torch; torch.load(f, weights_only=x)", "import yaml; yaml.load(f)",
    "from yaml import unsafe_load; unsafe_load(f)", "eval(s)", "exec(s)", "import os; os.system(s)",
    "import subprocess\nsubprocess.run(s, shell=True)",
    "from subprocess import Popen\nPopen(s, shell=x)", "import cv2; cv2.imread(p)",
    "import cv2 as c\nc.imwrite(p, a)", "import numpy as np; np.load(p, allow_pickle=True)",
    "from PIL import Image\nImage.open(p)", "import zipfile; zipfile.ZipFile(p).extractall()",
])  # fmt: skip
def test_the_search_finds_what_it_is_for(line):
    assert faults(line)


@pytest.mark.parametrize("line", [
    "net.eval()", "import yaml; yaml.safe_load(f)",
    "import torch; torch.load(p, weights_only=True)", "import re; re.compile(s)", "model.load(f)",
    "import cv2; cv2.imdecode(a, 1)", "import numpy as np; np.load(p)",
    "import numpy as np; np.load(p, allow_pickle=False)", "run(c, shell=False)",
])  # fmt: skip
def test_the_search_leaves_the_rest_alone(line):
    assert not faults(line)


def test_files_are_opened_for_reading_in_one_place():
    """Pictures, weights and settings come through files.read_bytes, which waits for no pipe and
    knows a limit.
    """
    readers = {}
    for path in sorted((ROOT / "mtrestore").rglob("*.py")):
        calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
        readers[str(path.relative_to(ROOT))] = sum(
            isinstance(c.func, ast.Attribute)
            and c.func.attr in ("read_bytes", "fromfile", "imread")
            and not (isinstance(c.func.value, ast.Name) and c.func.value.id in ("image", "files"))
            for c in calls
        )
    assert not {name for name, n in readers.items() if n}, (
        "call image.read_bytes or files.read_bytes"
    )


NETWORK = {
    "socket", "ssl", "ftplib", "smtplib", "http", "http.client", "http.server", "urllib.request",
    "xmlrpc", "xmlrpc.client", "requests", "httpx", "aiohttp", "urllib3", "websocket", "websockets",
    "httpcore", "pooch", "torch.hub", "huggingface_hub", "webbrowser", "tornado.httpclient",
    "tornado.simple_httpclient", "tornado.curl_httpclient", "tornado.tcpclient",
    "tornado.websocket", "tornado.auth",
}  # fmt: skip


def reached(source: str) -> set[str]:
    """The modules of the network that a source imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in NETWORK or name.split(".")[0] in NETWORK}


def test_one_function_fetches_and_nothing_else_reaches_the_network():
    """`weights.fetch`, which a person calls by hand; a cluster's address is handed to
    dask.distributed, and the address of the app's page, on this machine, to the browser.
    """
    found = {}
    for path in sorted((ROOT / "mtrestore").rglob("*.py")):
        found |= (
            {str(path.relative_to(ROOT)): names}
            if (names := reached(path.read_text("utf-8")))
            else {}
        )
    places = {
        "mtrestore/app/server.py": ("start", {"webbrowser"}),
        "mtrestore/weights.py": ("fetch", {"pooch"}),
    }
    assert found == {path: names for path, (_, names) in places.items()}
    for path, (function, names) in places.items():
        (node,) = (
            node
            for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
            if getattr(node, "name", "") == function
        )
        assert reached(ast.unparse(node)) == names


@pytest.mark.parametrize(
    "line",
    [
        "import socket",
        "import urllib.request as r",
        "from urllib import request",
        "def f():\n    from http.client import X",
    ],
)
def test_the_search_for_the_network_finds_what_it_is_for(line):
    assert reached(line) and not reached(
        "from urllib.parse import quote\nfrom . import requests\nimport httpcore2"
    )


def test_nothing_but_the_tests_points_at_a_folder_beside_the_project():
    """Pictures that do not come with the project are named by the one who runs it."""
    names = ["mtrestore", "notebooks", "experiments", "benchmarks", "docs", ".ci"]
    files = [p for name in names for p in (ROOT / name).rglob("*") if p.is_file()]
    files += [ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml")]
    texts = [p for p in files if p.suffix not in {".safetensors", ".png", ".onnx", ".pyc"}]
    assert len(texts) > 100
    assert not [str(p) for p in texts if re.search(rb"\bshared/", p.read_bytes())]


@pytest.mark.parametrize(
    "script",
    ["experiments/embedding_report.py", "experiments/prior_report.py", "benchmarks/train.py"],
)
def test_a_script_without_its_folder_says_what_to_give(script):
    done = subprocess.run([sys.executable, ROOT / script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("give --data FOLDER, the folder that holds train_faces/")


def test_every_promise_in_the_docs_names_a_test_that_exists():
    words = "".join((ROOT / "docs" / name).read_text("utf-8") for name in ("trust.md", "app.md"))
    there = {
        node.name
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"\btest_\w+", words)) - {
        path.stem for path in (ROOT / "tests").glob("test_*.py")
    }
    assert len(named) > 25 and not named - there
    assert all(
        (ROOT / name).is_file()
        for name in re.findall(r"(?:experiments|benchmarks|tests/long|\.ci)/\w+\.py", words)
    )
