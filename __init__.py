"""A distributed task runner for Python clusters whose scheduler sees into every worker."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumbeat.client.actor_pool import ActorPool
    from drumbeat.client.api import (
        ActorHandle,
        as_completed,
        available_resources,
        cancel,
        cluster_resources,
        get,
        get_actor,
        is_initialized,
        kill,
        map,  # noqa: A004  # as in concurrent.futures and multiprocessing
        method,
        nodes,
        put,
        remote,
        wait,
    )
    from drumbeat.client.executor import Executor
    from drumbeat.client.generators import ObjectRefGenerator
    from drumbeat.client.inside import CurrentCall, current, progress, shield
    from drumbeat.client.local import init, shutdown
    from drumbeat.protocol.actor_calls import exit_actor
    from drumbeat.protocol.errors import (
        ActorCallLost,
        ActorDied,
        ActorError,
        ActorUnavailable,
        ActorUnhealthy,
        Backpressure,
        CheckpointFailed,
        ClusterError,
        ConfigError,
        DependencyFailed,
        DrumbeatError,
        GetTimeoutError,
        Infeasible,
        Interrupted,
        KeyRefused,
        MessageTooLarge,
        NodeLost,
        NotInitialized,
        NotPicklable,
        ObjectLost,
        PendingCallsLimitExceeded,
        PoisonTask,
        ProtocolError,
        RemoteProtocolError,
        ResourceDeadlock,
        SchedulerUnreachable,
        StoreFull,
        TaskCancelled,
        TaskError,
        TaskHung,
        TaskTimedOut,
        VersionMismatch,
        WorkerDied,
        WorkerOutOfMemory,
        WorkingDirMissing,
    )
    from drumbeat.protocol.modules import ship_by_value
    from drumbeat.protocol.references import ObjectRef

__version__ = "0.1.0"

__all__ = [
    "ActorCallLost",
    "ActorDied",
    "ActorError",
    "ActorHandle",
    "ActorPool",
    "ActorUnavailable",
    "ActorUnhealthy",
    "Backpressure",
    "CheckpointFailed",
    "ClusterError",
    "ConfigError",
    "CurrentCall",
    "DependencyFailed",
    "DrumbeatError",
    "Executor",
    "GetTimeoutError",
    "Infeasible",
    "Interrupted",
    "KeyRefused",
    "MessageTooLarge",
    "NodeLost",
    "NotInitialized",
    "NotPicklable",
    "ObjectLost",
    "ObjectRef",
    "ObjectRefGenerator",
    "PendingCallsLimitExceeded",
    "PoisonTask",
    "ProtocolError",
    "RemoteProtocolError",
    "ResourceDeadlock",
    "SchedulerUnreachable",
    "StoreFull",
    "TaskCancelled",
    "TaskError",
    "TaskHung",
    "TaskTimedOut",
    "VersionMismatch",
    "WorkerDied",
    "WorkerOutOfMemory",
    "WorkingDirMissing",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "current",
    "exit_actor",
    "get",
    "get_actor",
    "init",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "progress",
    "put",
    "remote",
    "shield",
    "ship_by_value",
    "shutdown",
    "wait",
]

# Where the names live that are not errors. They are imported when first used, so that neither
# `import drumbeat` nor a process that only needs drumbeat.node loads more than it must.
_HOMES = {
    "ActorHandle": "drumbeat.client.api",
    "ActorPool": "drumbeat.client.actor_pool",
    "CurrentCall": "drumbeat.client.inside",
    "Executor": "drumbeat.client.executor",
    "ObjectRef": "drumbeat.protocol.references",
    "ObjectRefGenerator": "drumbeat.client.generators",
    "current": "drumbeat.client.inside",
    "exit_actor": "drumbeat.protocol.actor_calls",
    "init": "drumbeat.client.local",
    "progress": "drumbeat.client.inside",
    "shield": "drumbeat.client.inside",
    "ship_by_value": "drumbeat.protocol.modules",
    "shutdown": "drumbeat.client.local",
    "as_completed": "drumbeat.client.api",
    "available_resources": "drumbeat.client.api",
    "cancel": "drumbeat.client.api",
    "cluster_resources": "drumbeat.client.api",
    "get_actor": "drumbeat.client.api",
    "get": "drumbeat.client.api",
    "is_initialized": "drumbeat.client.api",
    "kill": "drumbeat.client.api",
    "map": "drumbeat.client.api",
    "method": "drumbeat.client.api",
    "nodes": "drumbeat.client.api",
    "put": "drumbeat.client.api",
    "remote": "drumbeat.client.api",
    "wait": "drumbeat.client.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'drumbeat' has no attribute {name!r}")
    try:
        from drumbeat.protocol.interrupts import put_off

        with put_off():
            value = getattr(import_module(_HOMES.get(name, "drumbeat.protocol.errors")), name)
    except KeyboardInterrupt as interrupt:
        from drumbeat.protocol.interrupts import plainly

        raise plainly(interrupt, "while Drumbeat was being loaded") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
