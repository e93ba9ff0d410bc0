"""No signal is lost that comes while the loop is turned, whatever the handlers do."""

import os
import signal
from typing import Any

import pytest
from drumbeat.client.deferral import Deferral


def defer(*numbers: int) -> None:
    with Deferral(lambda: None):
        for number in numbers:
            os.kill(os.getpid(), number)


def test_a_handler_that_raises_keeps_none_of_the_others_from_being_called() -> None:
    told: list[int] = []

    def handler(number: int, _frame: Any) -> None:
        told.append(number)
        raise ZeroDivisionError(number)

    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1)
    before = {number: signal.signal(number, handler) for number in set(numbers)}
    try:
        with pytest.raises(ZeroDivisionError):
            defer(*numbers)
        assert told == list(numbers)
        assert signal.getsignal(signal.SIGUSR1) is handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def test_ctrl_c_is_raised_though_another_handler_returns() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: told.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            defer(signal.SIGINT, signal.SIGUSR1)
        assert told == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
