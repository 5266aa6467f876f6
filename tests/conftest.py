"""What the tests share: three pictures that come with our dependencies, the optional data folder,
one thread, no network.
"""

import os
import socket
from pathlib import Path

# Before torch and OpenMP start; programs that a test starts inherit it. Two workers on two cores
# gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import matplotlib
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

matplotlib.use(
    "Agg"
)  # not through MPLBACKEND: the kernels that papermill starts must keep their inline pictures
cv2.setNumThreads(1)
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Connections that leave this machine fail at once, so that no test can depend on one;
    Jupyter's loopback ones work.
    """
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"tests do not use the network, asked for {address}")
        return connect(self, address)

    socket.socket.connect = local_only
    yield
    socket.socket.connect = connect


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The optional folder of data beside the project, or where MTRESTORE_SHARED says."""
    folder = Path(os.environ.get("MTRESTORE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"needs the optional data folder, and there is none at {folder} (set MTRESTORE_SHARED)"
        )
    return folder


@pytest.fixture(scope="session")
def _astronaut() -> np.ndarray:
    import skimage.data  # astronaut.png is inside scikit-image's wheel: nothing is fetched

    return skimage.data.astronaut().astype(np.float32) / 255


@pytest.fixture
def astronaut(_astronaut) -> np.ndarray:
    """Eileen Collins, 512×512, one frontal face; float32 RGB 0..1, a fresh copy for each test."""
    return _astronaut.copy()


@pytest.fixture
def face_photo(_astronaut) -> np.ndarray:
    """The same face cut tightly: columns 181..266, rows 60..177, so 118×86."""
    return _astronaut[60:178, 181:267].copy()


@pytest.fixture(scope="session")
def _hopper() -> np.ndarray:
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"), np.float32) / 255


@pytest.fixture
def hopper(_hopper) -> np.ndarray:
    """Grace Hopper, 600×512, from matplotlib's sample data; float32 RGB 0..1, a fresh copy for each
    test.
    """
    return _hopper.copy()


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


def relit(photo: np.ndarray, turn: float) -> np.ndarray:
    """The photo with a light from one side, so that it is no copy of itself."""
    h, w = photo.shape[:2]
    y, x = np.mgrid[0:h, 0:w]
    light = 0.75 + 0.5 * (np.cos(turn) * (x / w - 0.5) + np.sin(turn) * (y / h - 0.5))
    return np.float32(np.clip(photo * light[..., None], 0, 1))


@pytest.fixture(scope="session")
def shoebox(tmp_path_factory) -> Path:
    """Photos in one folder as people have them: two people, a drawing, what is broken, notes."""
    from mtrestore import image
    from mtrestore.lab import samples

    folder = tmp_path_factory.mktemp("shoebox")
    for name, photo in samples.people().items():
        for k in range(3):
            image.write(folder / f"{name} {k}.png", relit(photo, 2 * np.pi * k / 3))
    drawing = np.ones((200, 160, 3), np.float32)
    drawing[40:160, 30:130] = (0.9, 0.7, 0.5)
    image.write(folder / "drawing.jpg", drawing)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("left alone")
    return folder


@pytest.fixture(scope="session")
def own_faces(shoebox, tmp_path_factory) -> Path:
    """What `mtrestore prepare` makes of them."""
    from mtrestore.lab.prepare import prepare

    out = tmp_path_factory.mktemp("own") / "faces"
    prepare(shoebox, out, size=64)
    return out
