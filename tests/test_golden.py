"""A golden picture: a worn portrait comes back as it did when people last looked at it.

`golden.png` holds windows of two restorations: the face and a corner where four of the restorer's
tiles meet, at the photo's own size, and the eyes at twice that. Between them they pass through
every shipped net that restores, the tiler, the paste and both sharpeners. Threads, the fused pass
and ONNX in the place of torch change nothing, another processor a level here and there; a net
whose last layer is a fifth stronger (but the sharpener of x1), a tile without context or a face
pasted at 0.95 is seen.

If the change is meant: `python tests/test_golden.py` writes the picture anew. Look at it beside the
old one, and commit it with the reason.
"""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from mtrestore import degrade, image
from mtrestore.pipeline import Restorer

GOLDEN = Path(__file__).with_name("golden.png")
WORN = degrade.Recipe(
    (
        {"op": "gaussian_blur", "sigma": 1.2},
        {"op": "gaussian_noise", "sigma": 20, "seed": 7},
        {"op": "jpeg", "quality": 50},
    )
)
ONCE = {"working_size": 496, "memory_mb": 64}  # nine tiles of the restorer
TWICE = {"working_size": 256, "scale": 2, "face_fidelity": 1}
WINDOWS = {  # options, rows and columns of the output, first row of the golden picture
    "face": (ONCE, np.s_[54:182, 168:280], 0),
    "tiles": (ONCE, np.s_[294:342, 262:374], 128),
    "eyes": (TWICE, np.s_[170:226, 390:502], 176),
}


def restored(options: dict) -> np.ndarray:
    """The worn portrait restored, H×W×3 uint8; its face is looked for, found and restored."""
    clean = skimage.data.astronaut().astype(np.float32) / 255
    result = Restorer(device="cpu", **options)(degrade.apply(clean, WORN))
    assert [f.status for f in result.faces] == ["restored"]
    return image.as_samples(result.image, np.uint8)


@pytest.fixture(scope="module")
def pictures():
    return {name: restored(options) for name, options in (("once", ONCE), ("twice", TWICE))}


def difference(name: str, pictures: dict) -> np.ndarray:
    """What a window differs by from the golden picture, H×W×3 in levels of 8 bits."""
    options, window, top = WINDOWS[name]
    part = pictures["once" if options is ONCE else "twice"][window].astype(int)
    with Image.open(GOLDEN) as golden:
        return part - np.asarray(golden, int)[top : top + len(part)]


@pytest.mark.parametrize("name", WINDOWS)
def test_a_worn_portrait_is_restored_as_it_was(pictures, name):
    levels = np.abs(difference(name, pictures))
    assert levels.mean() < 0.1 and levels.max() <= 2


if __name__ == "__main__":
    parts = [restored(options)[window] for options, window, _ in WINDOWS.values()]
    Image.fromarray(np.concatenate(parts)).save(GOLDEN, optimize=True)
