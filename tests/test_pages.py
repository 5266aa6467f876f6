"""The rendered notebooks: each has a page, of today's notebook, without a fault or a stranger."""

import base64
import importlib.util
import json
import re
import shutil

import cv2
import nbformat
import numpy as np
import pytest
from conftest import ROOT

from mtrestore import weights

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = ROOT / "docs" / "notebooks"
MOST_BYTES = 15 << 20
FAULTS = (" output_stderr ", " output_error", "Traceback (most")


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", ROOT / "docs" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(path):
    return (PAGES / f"{path.stem}.html").read_text("utf-8")


def strangers(text):
    """What a page would ask of others, or run of theirs."""
    tags = re.findall(
        r"<(\w+)([^>]*)>", re.sub(r"data:image/[\w+]+;base64,[\w+/=]+", "data:", text)
    )
    asks = [t for t, _ in tags if t in ("link", "iframe", "object", "embed", "base", "form")]
    for tag, words in tags:
        sources = re.findall(r"""\b(?:src|srcset|data|poster|action)=["']?([^"' >]+)""", words)
        asks += [f"{tag} {source}" for source in sources if not source.startswith("data:")]
    return asks + re.findall(r"@import|url\(\s*['\"]?(?:https?:)?//", text)


# ---- the pages that are there


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_is_of_todays_notebook(render, path):
    page = PAGES / f"{path.stem}.html"
    assert page.is_file(), "there is no page: make docs"
    assert render.recorded(page)["cells"] == render.sources(path)["cells"], "stale: make docs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_shows_the_whole_notebook_without_a_fault(path):
    text = text_of(path)
    assert not [fault for fault in FAULTS if fault in text]
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert text.count('class="highlight hl-ipython3"') >= len(cells)
    assert len(re.findall("data:image/webp", text)) >= 3
    words = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"/(tmp|home|root|Users|var)/", words), "a folder of who rendered it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_page_asks_nothing_of_anybody(path):
    text = text_of(path)
    assert not strangers(text)
    assert "default-src 'none'" in text and "MathJax" not in text and "require" + ".js" not in text
    assert all(re.search(r'\balt="[^"]+"', words) for words in re.findall(r"<img([^>]*)>", text))
    links = re.findall(r'<a [^>]*href="([^"#]+)', text)
    local = [link for link in links if not link.startswith(("https://", "data:"))]
    assert local and all((PAGES / link).resolve().is_file() for link in local)


def test_pages_are_those_of_the_notebooks_and_small_together():
    assert {p.stem for p in PAGES.iterdir()} == {p.stem for p in NOTEBOOKS}
    assert sum(p.stat().st_size for p in PAGES.iterdir()) < MOST_BYTES


def test_readme_links_every_page(root):
    readme = (root / "README.md").read_text()
    assert [p.stem for p in NOTEBOOKS if f"(docs/notebooks/{p.stem}.html)" not in readme] == []


# ---- how they are made


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/a.js"></script>',
        "<img alt='x' src=//example/a.png>",
        '<link rel="stylesheet" href="a.css">',
        '<style>@import "a.css"</style>',
        "<style>a { background: url( 'https://example/a.png') }</style>",
        '<iframe srcdoc="x"></iframe>',
    ],
)
def test_a_stranger_is_noticed(text):
    assert strangers(f"<html>{text}</html>")


def png(h, w, seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (h, w, 3), np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


def test_a_picture_is_bounded_and_a_chart_keeps_every_pixel(render):
    uri, width, height = render.webp(png(300, 2400))
    assert (width, height) == (render.SIDE, render.SIDE // 8)
    chart = np.full((60, 90, 3), 255, np.uint8)
    chart[30, 10:80] = (10, 90, 200)
    uri, *size = render.webp(cv2.imencode(".png", chart)[1].tobytes())
    content = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(content, cv2.IMREAD_COLOR), chart)
    assert size == [90, 60]


def output(**data):
    return nbformat.v4.new_output("display_data", data)


def test_outputs_are_shown_as_a_page_can(render):
    new = nbformat.v4.new_output
    bar = "all: 50%|####5     | 1/2 [00:01<00:01, 1.0it/s]\r\n"
    assert render.shown(new("stream", name="stderr", text=bar), "") is None
    for name, text in (("stderr", f"{bar}UserWarning: look"), ("stdout", bar)):
        kept = new("stream", name=name, text=text)
        assert render.shown(kept, "") is kept
    figure = render.shown(output(**{"image/png": base64.b64encode(png(8, 9)).decode()}), "A & B")
    assert 'alt="Figure: A &amp; B" width="9" height="8"' in figure.data["text/html"]
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}
    assert render.LIVE in render.shown(output(**widget), "").data["text/html"]
    widget["text/plain"] = "  0%|          | 0/3 [00:00<?, ?photo/s]"
    assert render.shown(output(**widget), "") is None
    widget["text/plain"] = "0photo [00:00, ?photo/s]"
    assert render.shown(output(**widget), "") is None
    html = f'<img src="data:image/png;base64,{base64.b64encode(png(8, 9)).decode()}">'
    assert "data:image/webp" in render.shown(output(**{"text/html": html}), "").data["text/html"]


def test_the_state_of_widgets_stays_out_of_a_page(render):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"a1": {"b": "c" * 99}}}}
    notebook.metadata["widgets"] = state
    text = render.page("a", notebook, {})
    assert "widget-state" not in text and "c" * 99 not in text


def test_formulas_are_pictures_that_say_their_tex_and_code_stays(render):
    text = render.FORMULA.sub(render.formula, "a `$x$` b $\\frac{a<b}{2}$ c\n```\n$y$ $z$\n```")
    assert "`$x$`" in text and "$y$ $z$" in text
    assert text.count("<img") == 1 and 'alt="\\frac{a&lt;b}{2}"' in text


def test_every_fault_of_a_cell_is_seen_on_its_page(render):
    new = nbformat.v4.new_output
    outputs = {
        "stderr": new("stream", name="stderr", text="UserWarning: look"),
        "error": new("error", ename="E", evalue="x", traceback=["Traceback (most recent call)"]),
    }
    for each in outputs.values():
        cell = nbformat.v4.new_code_cell("1", outputs=[each])
        text = render.page("a", nbformat.v4.new_notebook(cells=[cell]), {})
        assert [fault for fault in FAULTS if fault in text]


@pytest.mark.slow
def test_only_what_changed_is_rendered_and_what_fails_leaves_its_page(
    render, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(render, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(render, "PAGES", tmp_path / "pages")
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "gone.html").write_text("its notebook is gone")
    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks" / "10_a.ipynb"
    shutil.copy(ROOT / "tests" / "notebooks" / "tiny.ipynb", notebook)
    assert render.main(["--check"]) == 1 and render.main([]) == 0
    page = tmp_path / "pages" / "10_a.html"
    first = page.read_text()
    assert "1 rendered" in capsys.readouterr().out and str(tmp_path) not in first
    assert not (tmp_path / "pages" / "gone.html").exists()
    assert render.main([]) == 0 and "0 rendered" in capsys.readouterr().out
    assert render.main(["--check"]) == 0
    with monkeypatch.context() as other:
        other.setattr(weights, "shipped", lambda: {})
        assert render.stale(notebook), "with other weights its pictures are others"
    content = json.loads(notebook.read_text())
    content["cells"].append(nbformat.v4.new_code_cell("1 / 0", id="wrong"))
    notebook.write_text(json.dumps(content))
    assert render.main(["--check"]) == 1 and render.main([]) == 1
    assert "10_a.ipynb: ZeroDivisionError" in capsys.readouterr().err
    assert page.read_text() == first
