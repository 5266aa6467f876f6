"""Decoders that neither warn nor log, and that fail on what is cut."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import warnings
from collections.abc import Callable

import cv2
from PIL import Image, ImageFile


def _libtiff() -> list[Callable[[int | None], int | None]]:
    """The two functions of Pillow's libtiff that set who is told of errors and of warnings, by
    default stderr; none where it has none.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        setters = [library.TIFFSetErrorHandler, library.TIFFSetWarningHandler]
        for setter in setters:
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
        return setters
    return []


class Quiet:
    """While a reader is inside: truncated files fail whatever others told Pillow.

    Pillow, its libtiff and OpenCV neither warn nor log.
    """

    def __init__(self):
        self.lock, self.stack = threading.Lock(), contextlib.ExitStack()
        self.inside = 0

    def __enter__(self):
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module="PIL")
                self.stack.callback(
                    setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES
                )
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                logger = logging.getLogger("PIL")
                self.stack.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.CRITICAL + 1)
                for setter in LIBTIFF:
                    self.stack.callback(setter, setter(None))
                self.stack.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.getLogLevel())
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.stack.close()


LIBTIFF = _libtiff()
QUIET = Quiet()
