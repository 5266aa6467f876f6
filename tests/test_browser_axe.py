"""axe-core finds no serious barrier in the pages that we make: app, gallery, report, comparison.

axe-core is MPL-2.0 and no part of the project: `make axe` fetches it; MTRESTORE_AXE names another.
"""

import os
from pathlib import Path

import pytest
from test_browser_app import app, browser, page, portrait, settled  # noqa: F401, fixtures
from test_browser_gallery import index  # noqa: F401, a fixture
from test_browser_report import page_file  # noqa: F401, a fixture

from mtrestore import view

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
AXE = Path(os.environ.get("MTRESTORE_AXE", ROOT / ".venv" / "axe" / "axe.min.js"))
NEEDED = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: make axe fetches it")


def barriers(page) -> list[str]:  # noqa: F811
    """What axe-core calls serious or critical, by rule, with the first element."""
    page.evaluate(AXE.read_text("utf-8") + "; undefined")
    found = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)"
    )
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]} {rule['nodes'][0]['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def opened(browser, path, scheme):  # noqa: F811
    context = browser.new_context(offline=True, color_scheme=scheme)
    page = context.new_page()  # noqa: F811
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(300)
    return page


@NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_app_has_no_barrier(page, portrait, scheme):  # noqa: F811
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    assert not barriers(page)
    files = [("a.png", portrait), ("bad.png", b"no picture")]
    page.locator("#files").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    )
    settled(page)
    page.locator("#cards .failed").wait_for()
    page.locator("#more summary").click()
    assert not barriers(page)
    page.locator("#view-faces").click()
    page.keyboard.press("Tab")
    assert not barriers(page)
    page.locator("#cards button").nth(1).click()
    assert not barriers(page)


@NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gallery_has_no_barrier(browser, index, scheme):  # noqa: F811
    page = opened(browser, index, scheme)  # noqa: F811
    assert not barriers(page)
    page.locator("figure img").first.click()
    assert not barriers(page)


@NEEDED
def test_a_report_has_no_barrier(browser, page_file):  # noqa: F811
    page = opened(browser, page_file, "light")  # noqa: F811
    for fold in page.locator("summary").all():
        fold.click()
    assert not barriers(page)


@NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_has_no_barrier(browser, tmp_path, face_photo, scheme):  # noqa: F811
    path = view.compare(face_photo, 1 - face_photo, title="Oma").save(tmp_path / "a.html")
    assert not barriers(opened(browser, path, scheme))


@NEEDED
def test_a_barrier_would_be_found(browser, tmp_path):  # noqa: F811
    path = tmp_path / "bad.html"
    path.write_text("<html><body><img src='a.png'><button></button><p style='color:#eee'>words</p>")
    words = " ".join(barriers(opened(browser, path, "light")))
    for rule in ("image-alt", "button-name", "color-contrast", "html-has-lang"):
        assert rule in words
