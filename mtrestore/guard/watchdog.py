"""A time limit for work in this process: when it is over the process ends, with one line and
without temporary files.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator

from ..io import files

GRACE = 5.0  # seconds that the line may take; C code that never lets Python run ends without it


@contextlib.contextmanager
def limit(seconds: float, farewell: Callable[[], object]) -> Iterator[None]:
    """Ends this process with exit code 1 where what is inside takes more than `seconds`.

    `farewell` says so first, in another thread.
    """
    over = threading.Event()

    def watch() -> None:
        if not over.wait(seconds):
            try:
                for temp in list(files.UNFINISHED):
                    with contextlib.suppress(OSError):
                        os.unlink(temp)
                with contextlib.suppress(Exception):
                    farewell()
            finally:
                os._exit(1)

    with open(os.devnull, "w") as nowhere:
        thread = threading.Thread(target=watch, name="watchdog", daemon=True)
        thread.start()
        faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=nowhere)
        try:
            yield
        finally:
            over.set()
            faulthandler.cancel_dump_traceback_later()
            thread.join()
