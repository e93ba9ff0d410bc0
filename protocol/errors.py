"""Every exception that Drumbeat raises, in one tree.

Never an error without an address: each says what was wrong, where it came from and what to do. All
are picklable with their attributes: an error's details are keyword arguments that become
attributes and travel with it.

    DrumbeatError
      ConfigError            a setting is wrong
      ProtocolError          RemoteProtocolError, VersionMismatch, MessageTooLarge
      ClusterError           SchedulerUnreachable, KeyRefused, Infeasible, NotInitialized,
                             Backpressure, StoreFull, ResourceDeadlock
      GetTimeoutError        (also TimeoutError)
      TaskError              the user's exception; TaskCancelled, TaskTimedOut, TaskHung, NodeLost,
                             WorkerDied (WorkerOutOfMemory), PoisonTask, DependencyFailed,
                             NotPicklable (also pickle.PicklingError), WorkingDirMissing
      ActorError             ActorDied, ActorUnavailable, ActorCallLost, ActorUnhealthy,
                             CheckpointFailed, PendingCallsLimitExceeded
      ObjectLost
    Interrupted              (a BaseException) raised inside a task that is to stop
"""

import pickle
from typing import Any, Self


def _rebuild(error: type["DrumbeatError"], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    made = error.__new__(error, *args)
    made.args = args
    made.__dict__.update(state)
    return made


class DrumbeatError(Exception):
    """The root of all errors that Drumbeat raises.

    Args:
        text: what was wrong, where it came from, what to do.
        details: become attributes of the error.
    """

    def __init__(self, text: str = "", **details: Any) -> None:
        super().__init__(text)
        self.__dict__.update(details)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))

    def with_cause(self, cause: BaseException | None) -> Self:
        """Return this error with `cause` as its `__cause__`."""
        self.__cause__ = cause
        return self


class ConfigError(DrumbeatError):
    """A setting or option is wrong: the text names it, its origin and what is allowed."""

    #: the setting's name
    setting: str = ""
    #: where the value came from: an argument, an environment variable, a flag
    origin: str = ""


class ProtocolError(DrumbeatError):
    """What two processes said to each other did not fit."""


class RemoteProtocolError(ProtocolError):
    """The other side broke the protocol; it is dropped."""


class VersionMismatch(ProtocolError):
    """Two processes whose protocol or Python versions do not work together."""


class MessageTooLarge(ProtocolError):
    """A value is larger than what can be sent."""

    size_bytes: int = 0
    limit_bytes: int = 0


class ClusterError(DrumbeatError):
    """The cluster could not do it."""


class SchedulerUnreachable(ClusterError):
    """No scheduler answers at the address, or it has gone for good."""


class KeyRefused(ClusterError):
    """The scheduler does not admit this key, or not to what was tried with it."""


class Infeasible(ClusterError):
    """No node of the cluster is large enough for what a task asks for."""


class NotInitialized(ClusterError):
    """There is no cluster here: init() was not called, or shutdown() was, or this is a fork."""


class Backpressure(ClusterError):
    """More is submitted than may wait (submit_buffer_max), and this caller must not be blocked."""


class StoreFull(ClusterError):
    """Memory and disk have no room for a large value; see store_bytes_max and spill_bytes_max.

    Attributes:
        needed_bytes: how large it is.
        memory_bytes: what this process, or the node, keeps in memory.
        spilled_bytes: and on disk.
    """


class ResourceDeadlock(ClusterError):
    """All tasks wait in get() and none can run for what they keep; see workers_blocked_max."""


class GetTimeoutError(DrumbeatError, TimeoutError):
    """The value was not there in time; its task goes on."""


class TaskError(DrumbeatError):
    """A task failed. For an exception of the user's code see `cause` and `traceback_text`."""

    #: the user's exception, or None where it could not be brought here
    cause: BaseException | None = None
    #: the remote traceback, frames of Drumbeat removed
    traceback_text: str = ""
    #: name of the function
    name: str = ""
    #: printed id of the task
    task: str = ""
    #: name of the node
    node: str = ""
    #: process id of the worker; 0: none
    pid: int = 0
    #: which attempt it was, from 1; 0: none was made
    attempt: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        if "_report" not in self.__dict__:
            return super().__reduce__()
        # Its cause may be of a class that pickle cannot find.
        from .outcomes import reduced

        return reduced(self)


class TaskCancelled(TaskError):
    """The task was cancelled before it had a value."""


class Supervised:
    """Of a task that was ended by a limit or by evidence: what was seen of it and done about it."""

    #: what its node made of it: "deadlock: GIL not released, no CPU and no IO for 120 s, ..."
    verdict: str = ""
    #: the same without the verdict's name
    evidence: str = ""
    #: how many attempts it may have in all
    attempts: int = 0
    #: since its start, when it was judged
    elapsed_s: float = 0.0
    #: the option that it went beyond: "timeout", ...; hang_timeout_s is a setting; and its value
    limit: str = ""
    limit_s: float = 0.0
    #: what it said last with progress(), and how long ago: '310/900 "tile 310", 121 s ago'
    progress: str = ""
    progress_s: float = 0.0
    #: "stack 14:04:12 · cancel, no effect in 5 s · SIGTERM, no effect in 2 s · SIGKILL"
    actions: str = ""
    #: where its main thread was, innermost first: "imgtool.py:88 blur < pipeline.py:31 resize"
    stack: str = ""
    #: where all threads of its process were, as `faulthandler` writes it
    stacks: str = ""
    #: what it gave to progress() last as `details`
    last_details: Any = None
    #: whether a value still came, and that value
    has_partial: bool = False
    partial: Any = None

    def __str__(self) -> str:
        lines = [super().__str__()]
        for title in ("verdict", "progress", "actions", "stack"):
            text = getattr(self, title)
            if text:
                lines.append(f"  {title:<8}: {text}")
        return "\n".join(lines)


class TaskTimedOut(Supervised, TaskError):
    """The task took longer than a limit that it was given; it is not tried again."""


class TaskHung(Supervised, TaskError):
    """The task was ended because it hung; `verdict` says by what evidence."""


class WorkerDied(TaskError):
    """The worker process that ran the task ended."""

    #: exit code, or None when a signal ended it
    exit_code: int | None = None
    #: name of the signal ("SIGSEGV"), or ""
    signal_name: str = ""
    #: the last lines that the worker wrote
    stderr_tail: str = ""


class WorkerOutOfMemory(Supervised, WorkerDied):
    """The worker process that ran the task used more memory than it may, or than there was.

    Its memory_max, if `limit` says so; else its node had run out of memory: then the kernel killed
    the process, or the node ended it before that, as the one that used the most.
    """

    #: the most that was seen of it; 0: unknown
    peak_bytes: int = 0
    #: what it was allowed; 0: no such limit
    limit_bytes: int = 0


class WorkingDirMissing(TaskError):
    """The directory of the option working_dir is not on `node`, or may not be entered there."""

    #: as the option names it
    directory: str = ""


class NodeLost(TaskError):
    """The node that ran the task is gone."""


class PoisonTask(TaskError):
    """Three or more attempts ended together with their worker: the task itself kills them."""

    #: how many workers it took along
    deaths: int = 0


class NotPicklable(TaskError, pickle.PicklingError):
    """A value cannot be sent; `path` leads to the part at fault."""

    #: "args[0].handlers[2].lock"
    path: str = ""
    #: that part's type
    type_name: str = ""


class DependencyFailed(TaskError):
    """A task whose value this one needs failed; `cause` is that error."""


class ActorError(DrumbeatError):
    """A call of an actor has no value, and the actor is why."""

    #: name of the class and method
    name: str = ""
    #: printed id of the call
    task: str = ""
    #: printed id of the actor
    actor: str = ""
    #: name of the node
    node: str = ""
    #: which incarnation of the actor it was, from 1; 0: none
    incarnation: int = 0


class ActorDied(ActorError):
    """The actor has ended for good; the text says why."""


class ActorUnavailable(ActorError):
    """The actor's process has ended, and it is not running again yet."""

    #: whether the call may have begun: it has not; one that may have is lost, or repeated
    maybe_executed: bool = False


class ActorCallLost(ActorError):
    """The actor's process ended while it had the call, which is not tried again."""

    #: whether the call may have begun
    maybe_executed: bool = True


class ActorUnhealthy(ActorError):
    """A process of the actor was ended since its __health__ raised, or said False."""

    #: the remote traceback of what it raised; "": it returned False
    traceback_text: str = ""


class CheckpointFailed(ActorError):
    """The call has run, but its actor's state could not be saved (checkpoint_every_calls=1)."""

    #: whether the call may have begun: it has
    maybe_executed: bool = True


class PendingCallsLimitExceeded(ActorError):
    """So many calls of one caller wait for this actor that it takes no more (max_pending_calls)."""


class ObjectLost(DrumbeatError):
    """A value is gone: its home has left, or nobody held it any more."""


class Interrupted(BaseException):
    """Raised inside a task that is to stop; catch it to clean up, or to return the best so far."""

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        #: "cancelled", "drain", "timed_out", "hung" or "memory"
        self.reason = reason
