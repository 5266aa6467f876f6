"""What stands in front of a face stays: a bar, a hand and glasses drawn on it keep at least 90 % of
the contrast that the worn picture has.
"""

import cv2
import numpy as np
import pytest

from mtrestore import degrade
from mtrestore.crop import landmark_crop
from mtrestore.face import faces_from
from mtrestore.pipeline import Restorer

SIZE, BOX = 256, (75, 45, 190, 215)


@pytest.fixture(scope="module")
def face(_astronaut):
    five = np.array([[201, 100], [247, 103], [228, 125], [208, 142], [243, 144]], float)
    return landmark_crop(five, size=SIZE).cut(_astronaut)


@pytest.fixture(scope="module")
def restorer():
    return Restorer(device="cpu")


def bar(face):
    mask = np.zeros(face.shape[:2], np.uint8)
    cv2.line(mask, (60, 180), (200, 110), 1, 14)
    return mask, (0.08, 0.08, 0.1)


def hand(face):
    """Four fingers and a palm across mouth and cheek, in a skin colour of its own."""
    mask = np.zeros(face.shape[:2], np.uint8)
    for x in range(80, 160, 20):
        cv2.line(mask, (x, 230), (x + 6, 150), 1, 15)
    cv2.ellipse(mask, (112, 240), (52, 26), 0, 0, 360, 1, -1)
    return mask, (0.42, 0.27, 0.2)


def glasses(face):
    mask = np.zeros(face.shape[:2], np.uint8)
    for x in (98, 156):
        cv2.ellipse(mask, (x, 112), (25, 19), 0, 0, 360, 1, 5)
    cv2.line(mask, (123, 110), (131, 110), 1, 5)
    return mask, (0.1, 0.07, 0.05)


def contrast(photo: np.ndarray, mask: np.ndarray) -> float:
    """How far the drawn thing differs from the skin within 9 px of it, a mean over channels."""
    near = (cv2.dilate(mask, np.ones((19, 19), np.uint8)) > 0) & (
        cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
    )
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
    return float(np.abs(photo[inside].mean(0) - photo[near].mean(0)).mean())


@pytest.mark.parametrize("preset", ["mild", "medium", "severe"])
@pytest.mark.parametrize("thing", [bar, hand, glasses])
def test_what_stands_before_a_face_stays(face, restorer, thing, preset):
    mask, colour = thing(face)
    drawn = np.where(mask[..., None] > 0, np.float32(colour), face).astype(np.float32)
    worn = degrade.apply(drawn, degrade.draw(preset, np.random.default_rng(3)))
    photo = np.pad(worn, ((64, 64), (64, 64), (0, 0)), mode="reflect")
    box = [(BOX[0] + 64, BOX[1] + 64, BOX[2] + 64, BOX[3] + 64)]
    result = restorer(photo, faces_from(box))
    assert [f.status for f in result.faces] == ["restored"]
    before, after = contrast(worn, mask), contrast(result.image[64:-64, 64:-64], mask)
    assert before > 0.05, "the drawn thing is visible in the worn picture"
    assert after >= 0.9 * before
