"""Processes that load the models once and restore file after file: on this machine, or on a Dask
cluster.

The pool is pebble's: unlike joblib's and the standard library's it ends the one worker that hangs
or crashes, says which file it had, and goes on. A Dask worker runs the same function in such a pool
of its own, so that time limit and crashes are the same there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from ..guard import safe
from ..guard.signals import die_with_parent
from ..io.text import one_line
from .journal import Row
from .names import Job
from .one_file import Settings, SetUpError, failed, models, work

TRIES = 3  # for a file whose pool broke before a worker said that it had it


def prepare(settings: Settings) -> None:
    """What a worker process does first. What is wrong with the models its first file will say."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, also in the middle of a net
    # Its own lock is shared by processes, and one of a worker that is ended counts as leaked.
    tqdm.set_lock(threading.RLock())
    die_with_parent()
    with contextlib.suppress(SetUpError):
        models(settings)


def results(pool: Local | Cluster, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Job, Row]]:
    """(job, its row) as they come, with at most two files given to each worker.

    A file whose pool broke is given to the next pool.
    """
    tasks, heard = iter(tasks), False
    waiting: dict[Future, tuple[Any, ...]] = {}
    tries: Counter[Job] = Counter()
    while True:
        room = 2 * pool.width - len(waiting)
        waiting |= {pool.submit(*task): task for task in islice(tasks, room)}
        if not waiting:
            return
        for future in wait_for(waiting, return_when=FIRST_COMPLETED).done:
            job, *rest = waiting.pop(future)
            try:
                row = pool.row(future, job)
            except BrokenProcessPool as e:
                tries[job] += 1
                if tries[job] < TRIES:
                    waiting[pool.submit(job, *rest)] = (job, *rest)
                    continue
                if not heard:
                    why = "is there enough memory? try a smaller --jobs"
                    raise SetUpError(
                        f"the worker processes end as soon as they have begun; {why}"
                    ) from e
                row = failed(job, "E_CRASH", f"{job.source} ended its worker process")
            heard = True
            yield job, row


class Local:
    """`jobs` processes on this machine.

    One that crashes, or takes longer than `timeout` seconds for a file, is replaced by a new one.
    """

    def __init__(self, settings: Settings, jobs: int, timeout: float) -> None:
        self.settings = settings
        self.width, self.timeout = jobs, timeout
        self.pool: ProcessPool | None = None
        self.guard = contextlib.ExitStack()

    def submit(self, *task: Any) -> Future:
        """The future of `work(*task)`."""
        return self.schedule(work, *task)

    def schedule(self, do: Callable[..., Any], *task: Any) -> Future:
        """The future of `do(*task)` in a worker; cancelled, it ends the worker that has it."""
        while True:
            if self.pool is None or not self.pool.active:
                self.close()
                self.start()
            with contextlib.suppress(RuntimeError):  # it broke just now
                assert self.pool
                return self.pool.schedule(do, args=task, timeout=self.timeout)

    def start(self) -> None:
        self.guard.enter_context(safe.imports())  # until it is closed, for it replaces workers
        context: Any = multiprocessing.get_context("spawn")  # threads of torch survive no fork
        self.pool = ProcessPool(
            self.width, initializer=prepare, initargs=[self.settings], context=context
        )
        # Workers inherit this: Ctrl-C is their parent's business.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            assert self.pool.active  # asking starts it
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def row(self, future: Future, job: Job) -> Row:
        """The row of a finished file.

        Raises SetUpError, and BrokenProcessPool when the workers ended before one could say what it
        had.
        """
        try:
            return future.result()
        except TimeoutError:
            return failed(job, "E_TIMEOUT", f"{job.source} {self.too_long()}")
        except ProcessExpired as e:
            return failed(job, "E_CRASH", f"{job.source} {ending(e)}")
        except (SetUpError, BrokenProcessPool):
            raise
        except Exception as e:
            return failed(job, "E_CRASH", one_line(e))

    def too_long(self) -> str:
        """What to say of a file that was not done in time."""
        return f"took more than {self.timeout:g} s and was stopped"

    def close(self) -> None:
        """End the workers at once, also in the middle of a file."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
        self.guard.close()


def ending(e: ProcessExpired) -> str:
    """What to say of a file whose worker process is no more."""
    code = e.exitcode or 0
    why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    why += "; out of memory?" if why == "SIGKILL" else ""
    return f"ended its worker process ({why})"


class Cluster:
    """The workers of a Dask cluster, which must see the same folders.

    Raises SetUpError when none answers at `address`.
    """

    def __init__(self, address: str, timeout: float) -> None:
        try:
            from distributed import Client
        except ImportError as e:
            how = "install it with: pip install 'mtrestore[dask]'"
            raise SetUpError(f"--dask needs the package distributed; {how}") from e
        try:
            self.client = Client(address, timeout=10, set_as_default=False)
            self.client.wait_for_workers(1, timeout=30)
        except (OSError, TimeoutError, ValueError) as e:
            where = f"no Dask cluster with a worker answers at {address}"
            raise SetUpError(f"{where}: {one_line(e)}") from e
        threads: Any = self.client.nthreads()
        self.width = sum(threads.values())
        self.executor = self.client.get_executor(pure=False)
        self.timeout = timeout

    def submit(self, *task: Any) -> Future:
        return self.executor.submit(on_cluster, self.timeout, *task)

    def row(self, future: Future, job: Job) -> Row:
        try:
            return future.result()
        except SetUpError:
            raise
        except (Exception, CancelledError) as e:  # a worker that was lost with its machine, say
            return failed(job, "E_CRASH", f"the cluster lost {job.source}: {one_line(e)}")

    def close(self) -> None:
        """Take back what has not begun; what has begun ends by itself and is forgotten."""
        self.executor.shutdown(wait=False)
        self.client.close()


ONE = threading.Lock()


@cache
def cluster_pool(settings: Settings, width: int, timeout: float) -> Local:
    """The pool of this Dask worker."""
    # Dask's workers are daemons, and those may not have processes.
    process: Any = multiprocessing.current_process()
    process._config["daemon"] = False
    return Local(settings, width, timeout)


def on_cluster(timeout: float, job: Job, settings: Settings, *rest: Any) -> Row:
    """`work` in a process of a Dask worker's own."""
    from distributed import get_worker

    with ONE:
        pool = cluster_pool(replace(settings, threads=1), get_worker().state.nthreads, timeout)
        future = pool.submit(job, replace(settings, threads=1), *rest)
    return pool.row(future, job)
