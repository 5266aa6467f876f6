"""The tour in a real JupyterLab, and under Voilà, in headless Chromium: the workbench is used by
mouse and by keyboard.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from test_notebooks import SWEPT, notebooks, standing_for_all

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@pytest.fixture
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        page = browser.new_page(viewport={"width": 1360, "height": 1000})
        page.set_default_timeout(120_000)
        page.told = []
        page.on("pageerror", lambda error: page.told.append(str(error)))
        yield page
        browser.close()


@contextmanager
def served(tmp_path, root, program, *options):
    """The address of a server of `program` in a folder that holds the tour, with settings of its
    own.
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shutil.copy(root / "notebooks" / "00_tour.ipynb", tmp_path)
    own = {
        f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
        for name in ("CONFIG", "RUNTIME", "DATA")
    }
    command = [sys.executable, "-m", program, "--no-browser", f"--port={port}", *options]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | own,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert server.poll() is None, (tmp_path / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/static/nothing", timeout=5)
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # with its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def use(page, tmp_path):
    """Restore the sample on the workbench, drag the slider, edit the boxes, restore again."""
    status, press = (
        page.locator(".widget-html-content [role=status]"),
        lambda name: page.get_by_role("button", name=name, exact=True).click(),
    )
    boxes, picture = page.get_by_label("face boxes", exact=True), page.locator("svg.mtr-boxes")

    def says(words):
        status.filter(has_text=re.compile(words)).wait_for()

    says("512×512 px, worn by")
    press("Restore")
    says("restored in .* 1 of 1 faces, PSNR")
    page.screenshot(path=tmp_path / "restored.png")

    canvas = page.locator(".widget-tab .mtr-canvas, .jupyter-widget-tab .mtr-canvas").first
    where = lambda: float(canvas.evaluate("e => parseFloat(e.style.getPropertyValue('--mtr-x'))"))
    canvas.scroll_into_view_if_needed()
    assert where() == 50
    r = canvas.bounding_box()
    page.mouse.move(r["x"] + 0.5 * r["width"], r["y"] + 40)
    page.mouse.down()
    page.mouse.move(r["x"] + 0.25 * r["width"], r["y"] + 50, steps=4)
    page.screenshot(path=tmp_path / "dragged.png")
    page.mouse.up()
    assert abs(where() - 25) < 1
    page.keyboard.press("ArrowRight")
    assert abs(where() - 26) < 1

    found = [float(v) for v in boxes.input_value().split()]
    assert len(found) == 4 and picture.locator("rect").count() == 1
    picture.scroll_into_view_if_needed()
    r = picture.bounding_box()
    k = min(r["width"], r["height"]) / 512  # CSS pixels for one of the photo
    x, y = r["x"] + 316 * k, r["y"] + 216 * k
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100 * k, y + 80 * k, steps=4)
    page.mouse.up()
    says("face boxes: 2")
    drawn = [float(v) for v in boxes.input_value().split(";")[1].split()]
    assert drawn == pytest.approx([316, 216, 416, 296], abs=2)
    page.screenshot(path=tmp_path / "drawn.png")
    page.keyboard.press("ArrowRight")  # the new box has the focus
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_function(
        "n => [...document.querySelectorAll('input')].some(i => i.value.endsWith(n))",
        arg=f" {drawn[3] + 5.1:g}".rstrip("0"),
    )
    moved = [float(v) for v in boxes.input_value().split(";")[1].split()]
    assert moved == pytest.approx(
        [drawn[0] + 5.12, drawn[1], drawn[2] + 5.12, drawn[3] + 5.12], abs=0.11
    )
    page.keyboard.press("Delete")
    says("face boxes: 1")
    page.keyboard.press("n")
    says("face boxes: 2")
    press("Restore")
    says("restored in .* (2 of 2 faces|1 of 2 faces, 1 made worse), PSNR")
    for tab in ("Every step", "Faces", "Recipe"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(500)
        page.screenshot(path=tmp_path / f"{tab.split()[-1].lower()}.png")
    assert picture.locator("rect").count() == 2


def lab_options(folder):
    return (
        "--allow-root",
        "--IdentityProvider.token=",
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.news_url=None",
    )


def test_in_jupyterlab(page, tmp_path, root):
    with served(tmp_path, root, "jupyterlab", *lab_options(tmp_path)) as address:
        page.goto(f"{address}/lab/tree/00_tour.ipynb?reset")
        page.get_by_text(
            "Python 3 (ipykernel) | Idle"
        ).wait_for()  # sooner, JupyterLab would ask for a kernel
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.locator("svg.mtr-boxes").wait_for()
        use(page, tmp_path)
        assert (
            page.locator(
                ".jp-OutputArea-output[data-mime-type*=error], "
                ".jp-OutputArea-output[data-mime-type*=stderr]"
            ).count()
            == 0
        )
        assert page.told == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory, root):
    """(address, folder) of a JupyterLab that holds every notebook, with tiny parameters."""
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, root, "jupyterlab", *lab_options(folder)) as address:
        for path in notebooks():
            content = json.loads(path.read_text())
            tagged = (c for c in content["cells"] if "parameters" in c["metadata"].get("tags", []))
            values = SWEPT.get(path.stem, {}) | {"out": str(folder / f"out_{path.stem}")}
            for cell in tagged:
                text = "".join(cell["source"])
                for name, value in values.items():
                    line = f"{name} = {value!r}"
                    text = re.sub(rf"^{name} = .*$", lambda _, line=line: line, text, flags=re.M)
                cell["source"] = text
            (folder / path.name).write_text(json.dumps(content))
        yield address, folder


ENDED = """() => {
  const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
  const cells = [...notebook.widgets].map(w => w.model).filter(m => m.type === 'code');
  const outputs = cells.flatMap(m => m.outputs.toJSON());
  const faults = outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue);
  const words = outputs.filter(o => o.name === 'stderr').map(o => [o.text].flat().join(''));
  const run = cells.filter(m => m.executionCount && m.executionState !== 'running').length;
  return faults.length || run === cells.length ? {faults, words, run, all: cells.length} : null;
}"""


@pytest.mark.parametrize("path", standing_for_all("15"), ids=lambda p: p.stem)
def test_every_notebook_by_hand(page, lab, path, tmp_path):
    """Opened, run from its menu, looked at: tmp_path keeps the picture."""
    address, folder = lab
    page.goto(f"{address}/lab/tree/{path.name}?reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    ended = page.wait_for_function(ENDED, timeout=400_000, polling=500).json_value()
    assert ended["faults"] == [] and ended["run"] == ended["all"] > 5
    strange = [text for text in ended["words"] if "%|" not in text and "it/s" not in text]
    assert strange == []
    assert json.loads((folder / f"out_{path.stem}" / "metrics.json").read_text())
    page.set_viewport_size({"width": 1360, "height": 5000})
    page.evaluate("window.jupyterapp.shell.currentWidget.content.scrollToItem(0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=tmp_path / f"{path.stem}.png")
    pictures = page.locator(".jp-OutputArea-output img")
    assert pictures.count() > 0
    assert pictures.evaluate_all("all => all.every(i => i.naturalWidth > 0)")
    page.evaluate("window.jupyterapp.serviceManager.sessions.shutdownAll()")
    assert page.told == []


@pytest.mark.skipif(find_spec("voila") is None, reason="voila is not installed")
def test_under_voila(page, tmp_path, root):
    with served(tmp_path, root, "voila", "00_tour.ipynb") as address:
        page.goto(address, wait_until="commit")
        page.locator("svg.mtr-boxes").wait_for()
        use(page, tmp_path)
        assert (
            page.locator(
                "[data-mime-type*=error], .jp-RenderedText[data-mime-type*=stderr]"
            ).count()
            == 0
        )
        assert page.told == []
