"""Signals: immediate outside of training, deferred within it, and the previous handlers are restored."""

import os
import signal
import threading

import pytest

from sspa.stage2_training.training.interruption import StopRequestedError, interruptions, leave


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_at_once_outside_and_is_noted_inside(number: int, ends: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with interruptions() as interruption:
        with pytest.raises(ends):
            os.kill(os.getpid(), number)
        assert interruption.requested == number
    with interruptions() as interruption:
        with interruption.deferred():
            interruption.stop_if(interruption.requested)
            os.kill(os.getpid(), number)
            with pytest.raises(StopRequestedError) as stopped:
                interruption.stop_if(interruption.requested)
        assert stopped.value.number == number
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_not_wait() -> None:
    with interruptions() as interruption, interruption.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_exit_codes() -> None:
    with pytest.raises(SystemExit) as ended:
        leave(signal.SIGTERM)
    assert ended.value.code == 143
    with pytest.raises(KeyboardInterrupt):
        leave(signal.SIGINT)


def test_a_thread_that_is_not_the_main_one_sets_no_handler() -> None:
    handlers = []

    def run() -> None:
        with interruptions():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    thread.join()
    assert handlers == [before]
