"""mtrestore restores portraits: old, blurred, noisy, over-compressed, out of focus or shaken ones.

    import mtrestore as mt
    result = mt.restore("old.jpg")          # two branches at the same time: faces, whole photo
    result.save("new.png")
    result.compare()                        # a draggable before/after, in a notebook

The flow is the docstring of `mtrestore.pipeline`; each stage has a numbered notebook. A photo is a
float32 array, H×W×3, RGB, 0..1.
"""

from .guard import safe as safe  # noqa: I001  first: what is imported after it comes from no album, and sends nothing
import sys

import lazy_loader

from . import _moved

sys.meta_path.append(_moved.OldPaths())

# Imported when first used: torch takes two seconds, and a bad file is refused before that.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["nets", "view", "metrics", "training", "lab", "folder", *_moved.MOVED],
    submod_attrs={
        "crop": ["Crop", "eye_crop", "landmark_crop", "paste"],
        "degrade": ["Recipe", "apply", "draw"],
        "face": ["Face", "detect", "faces_from"],
        "image": ["ImageError", "Picture", "enlarge", "load", "read", "resize", "shrink", "write"],
        "options": ["Options"],
        "pipeline": ["Restored", "Restorer", "identity", "keep_large", "restore"],
        "lab.record": ["Run", "runs"],
        "lab.samples": ["sample"],
        "view": ["compare", "show"],
        "weights": ["WeightsError"],
    },
)
__version__ = "0.1.0"
