"""Fetch axe-core, which looks for barriers in pages, into .venv/axe, for test_browser_axe.py.

It is MPL-2.0, a tool beside the environment, never a part of the project or its wheel.
"""

import shutil
import sys
import tarfile
from pathlib import Path

import pooch

URL = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
FOLDER = Path(__file__).parents[1] / ".venv" / "axe"


def main() -> None:
    archive = pooch.retrieve(URL, SHA256, fname="axe-core.tgz", path=FOLDER)
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script, "the archive is the one of this sum"
        with (FOLDER / "axe.min.js").open("wb") as target:
            shutil.copyfileobj(script, target)
    print(FOLDER / "axe.min.js")


if __name__ == "__main__":
    sys.exit(main())
