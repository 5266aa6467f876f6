"""A block that must not be cut in two, and a lock that one holds."""

import os
import signal

import pytest

from mtrestore.guard.lock import locked
from mtrestore.guard.signals import undivided

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def test_ctrl_c_waits_for_the_block_and_is_raised_then():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with undivided():
            signal.raise_signal(signal.SIGINT)
            steps.append("done")
    assert steps == ["done"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_at_the_end_of_a_run_it_is_dropped():
    before = signal.getsignal(signal.SIGTERM)
    with undivided(late=False):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with undivided():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_lock_is_held_by_one_and_free_again(tmp_path):
    with locked(tmp_path / "lock", ValueError("busy")):
        with pytest.raises(ValueError, match="busy"):
            with locked(tmp_path / "lock", ValueError("busy")):
                raise AssertionError("two hold it")
    with locked(tmp_path / "lock", ValueError("busy")):
        pass
