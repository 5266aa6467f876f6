"""Where the modules of before 0.2 live now.

Their old paths still import, with a DeprecationWarning, until 1.0.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "data": "training.batches",
    "evaluate": "lab.evaluate",
    "plan": "training.settings",
    "report": "lab.report",
    "results": "lab.statistics",
    "run": "lab.record",
    "stages": "training.stages",
    "train": "training.fit",
    "workbench": "lab.workbench",
}


class OldPaths(MetaPathFinder, Loader):
    """Finds `mtrestore.train` and its like: the very module object that the new path gives."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == __package__ and old in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        old = spec.name.partition(".")[2]
        new = f"{__package__}.{MOVED[old]}"
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__  # ours, which the import system has put in its place
        module.__spec__ = spec and spec.loader_state
