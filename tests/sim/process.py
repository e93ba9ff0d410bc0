"""A process of the simulated cluster: a core and a shell, turned by the virtual clock.

It wakes a moment after something came or when a deadline is due, and stands still while it is
paused. Never knows what its core decides about.
"""

import traceback
from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .world import World

TURN_DELAY_S = 3e-5
IDLE_S = 1.0
#: what clocks of hosts may round off; a loop that wakes too early would turn in vain
ROUNDING_S = 1e-7
#: so many turns one after the other may leave something undone that is due
SLEEPLESS_TURNS_MAX = 100
NEVER_S = float("inf")


class HostClock(NamedTuple):
    """What a host's monotonic clock shows: it began somewhere, and runs a little fast or slow."""

    offset_s: float = 0.0
    rate: float = 1.0

    def shows_s(self, true_s: float) -> float:
        """Return what it shows at a time of the world."""
        offset_s, rate = self
        return offset_s + rate * true_s

    def true_s(self, shown_s: float) -> float:
        """Return at which time of the world it shows that."""
        offset_s, rate = self
        return (shown_s - offset_s) / rate + ROUNDING_S


class Process(ABC):
    """One loop with a core inside.

    Whatever is told to core and shell is in the time of the host's clock, all else in the world's.
    """

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.clock = world.clock
        self.host_clock = HostClock(*world.scenario.clocks.get(world.host_of(name), ()))
        #: which process of the world it is: two lives of one name differ
        self.number = world.next_number()
        self.random = Random(f"{world.scenario.seed} {name} {self.number}")
        self.is_alive = True
        self.paused_until_s = 0.0
        self.core: Any = None
        self.shell: Any = None
        self.turns = 0
        self._audit_each = world.scenario.audit_each
        self._wake_s = NEVER_S
        #: alarms that the clock has for this process, the next one last
        self._alarms_s: list[float] = []
        self._due_s = NEVER_S
        self._sleepless = 0
        self._told: list[Any] = []

    def tell(self, event: Any) -> None:
        """Give the core an event in its next turn."""
        self._told.append(event)
        self.wake()

    def wake(self) -> None:
        """Turn in a moment."""
        self._turn_at(self.clock.now_s + TURN_DELAY_S * (0.3 + self.random.random()))

    def pause(self, for_s: float) -> None:
        """Stand still (SIGSTOP), and go on later."""
        self.paused_until_s = max(self.paused_until_s, self.clock.now_s + for_s)

    def _turn_at(self, when_s: float) -> None:
        if when_s < self._wake_s:
            self._wake_s = when_s
            alarms_s = self._alarms_s
            if not alarms_s or when_s < alarms_s[-1]:
                alarms_s.append(when_s)
                self.clock.at(when_s, self._alarm)

    def _alarm(self) -> None:
        """Turn, if it is time; one alarm for later stays where it is while others come and go."""
        self._alarms_s.pop()
        if not self.is_alive:
            return
        if self.clock.now_s < self._wake_s:
            later_s, self._wake_s = self._wake_s, NEVER_S
            self._turn_at(later_s)
            return
        self._wake_s = NEVER_S
        if self.clock.now_s < self.paused_until_s:
            self._turn_at(self.paused_until_s)
            return
        now_s = self.host_clock.shows_s(self.clock.now_s)
        self.turns += 1
        try:
            self._turn(now_s)
            if self.turns % self._audit_each == 0:
                self.core.check_invariants()
        except Exception:  # noqa: BLE001  # whatever it is, it is a finding
            self.world.oracle.wrong(f"{self.name} crashed:\n{traceback.format_exc(limit=-6)}")
            self.is_alive = False
            return
        if not self.is_alive:
            return
        due_s = now_s + IDLE_S
        core_s, shell_s = self.core.deadline_s(), self.shell.deadline_s()
        if core_s is not None and core_s < due_s:
            due_s = core_s
        if shell_s is not None and shell_s < due_s:
            due_s = shell_s
        if due_s <= now_s:
            self._look_whether_it_sleeps(now_s, core_s, shell_s)
            due_s = max(due_s, now_s + 1e-6)
        else:
            self._sleepless = 0
        self._due_s = due_s
        self._turn_at(self.host_clock.true_s(due_s))

    def _look_whether_it_sleeps(self, now_s: float, *dues_s: float | None) -> None:
        """What is due after a turn was not done in it: a real loop would keep a CPU busy."""
        self._sleepless += 1
        if self._sleepless > SLEEPLESS_TURNS_MAX:
            text = f"it is {now_s}, due are core {dues_s[0]}, shell {dues_s[1]}"
            self.world.oracle.wrong(f"{self.name} does not sleep: {text}")

    def _turn(self, now_s: float) -> None:
        for event in self._happenings(now_s):
            self._carry_out(self.core.handle(event, now_s))
        told, self._told = self._told, []
        for event in told:
            self._carry_out(self.core.handle(event, now_s))
        if now_s >= self._due_s:
            late_s = now_s - self._due_s
            self._carry_out(self.core.handle(self._time_passed(late_s), now_s))
        self._carry_out(self.core.turn(now_s))
        self._flush(now_s)

    def _flush(self, now_s: float) -> None:
        """Send."""
        self.shell.flush(now_s)

    @abstractmethod
    def _happenings(self, now_s: float) -> list[Any]:
        """Return the events of what has come."""

    @abstractmethod
    def _time_passed(self, late_s: float) -> Any:
        """Return the event that says so."""

    @abstractmethod
    def _carry_out(self, commands: list[Any]) -> None:
        """Do what the core commands."""
