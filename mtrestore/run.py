"""What one run leaves behind: its numbers, its figures, and what made them (parameters, versions, weights)."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import image, weights

PACKAGES = ("mtrestore", "torch", "numpy", "opencv-python", "scikit-image", "papermill")


class Run:
    """A folder of results: `Run("outputs/tour", photo=photo).save({"psnr": 31.2}, steps=figure)`.

    `save` writes metrics.json (numbers, the only thing a report reads), run.json (parameters, versions, weights' sha256) and a PNG
    for each figure; every file is written whole or not at all.
    """

    def __init__(self, out: str | Path, **parameters: Any) -> None:
        self.folder, self.parameters = Path(out), parameters
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, numbers: Mapping[str, float], **figures: Any) -> Path:
        """Write numbers (name -> float) and matplotlib figures (file name -> figure); returns the folder."""
        made_by = {
            "parameters": self.parameters,
            "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}},
            "weights": {name: weights.check(name)[0]["sha256"] for name in weights.shipped()},
        }
        for name, content in (("metrics", {k: float(v) for k, v in numbers.items()}), ("run", made_by)):
            image.write_bytes(self.folder / f"{name}.json", json.dumps(content, indent=1).encode())
        for name, figure in figures.items():
            figure.savefig(self.folder / f"{name}.png")
        return self.folder
