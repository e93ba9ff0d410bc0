"""Every setting, written once: name, type, default, bounds, unit and help.

The keyword arguments of `init`, the flags of the command line, the environment variables
(`DRUMBEAT_` + the name in capitals) and docs/settings.md are all read from this one class. Nothing
else reads the environment for a setting.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from .errors import ConfigError

ENVIRONMENT_PREFIX = "DRUMBEAT_"

Positive = Meta(gt=0)
NotNegative = Meta(ge=0)


def _help(text: str) -> Meta:
    return Meta(description=text)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process. Units are the last word of a name: s, bytes, max (a count)."""

    # liveness
    heartbeat_interval_s: Annotated[float, Positive, _help("Time between a node's beats.")] = 1.0
    suspect_after_intervals: Annotated[
        float, Positive, _help("Silent for so many intervals: the node gets no new work.")
    ] = 3.0
    lost_after_intervals: Annotated[
        float, Positive, _help("Silent for so many intervals: the node is given up.")
    ] = 10.0
    self_doubt_s: Annotated[
        float,
        NotNegative,
        _help("More than half of four or more nodes silent at once: they are lost so much later."),
    ] = 15.0
    connection_lost_s: Annotated[
        float, Positive, _help("A node whose connection closed and does not return is lost after.")
    ] = 0.7
    client_grace_s: Annotated[
        float,
        Positive,
        _help("A client whose connection closed and does not return is gone after."),
    ] = 10.0
    client_silence_s: Annotated[
        float, Positive, _help("A connected but silent client is given up after.")
    ] = 600.0
    recovery_wait_s: Annotated[
        float, Positive, _help("A scheduler that starts again waits so long for its nodes.")
    ] = 2.0
    register_timeout_s: Annotated[
        float,
        Positive,
        _help("After a restart, who is back and tells no more is waited for this long."),
    ] = 60.0
    recovery_bytes_max: Annotated[
        int, Positive, _help("After a restart, kept of a peer for tasks that nobody has named yet.")
    ] = 1 << 30
    lease_margin_s: Annotated[
        float, NotNegative, _help("What a lost node ran may start elsewhere so long after its end.")
    ] = 2.0
    pulse_interval_s: Annotated[float, Positive, _help("Time between a busy worker's pulses.")] = (
        0.25
    )

    # link
    frame_bytes_max: Annotated[int, Positive, _help("Largest frame on the wire.")] = 1 << 20
    inline_bytes_max: Annotated[
        int, Positive, _help("Larger payloads travel in chunks on the bulk link.")
    ] = 64 << 10
    value_bytes_max: Annotated[
        int,
        # MessagePack has no longer bytes, and who met them amid its work would end.
        Meta(gt=0, le=(1 << 32) - 1),
        _help("Largest argument list, value or function that can be sent; less than 4 GiB."),
    ] = 1 << 30
    segment_bytes_min: Annotated[
        int,
        NotNegative,
        _help("A larger buffer of a value lies in memory that its machine shares; 0: never."),
    ] = 1 << 20
    segment_bytes_max: Annotated[
        int, Positive, _help("Largest argument list or value that lies in such memory.")
    ] = 16 << 30
    data_bytes_min: Annotated[
        int,
        NotNegative,
        _help("Between machines, larger payloads go past the scheduler; 0: none does."),
    ] = 64 << 10
    data_port: Annotated[
        int,
        Meta(ge=0, le=65_535),
        _help("Where a node listens for others that get large values from it; 0: any free port."),
    ] = 0
    data_host: Annotated[
        str, _help("The name or address by which others reach a node; default: it finds out.")
    ] = ""
    segment_pool_bytes_max: Annotated[
        int,
        NotNegative,
        _help("Such memory of values that are gone, kept some seconds for those to come; 0: none."),
    ] = 512 << 20
    store_bytes_max: Annotated[
        int,
        NotNegative,
        _help("Memory for large values, of each program and node; more goes to disk; 0: 30 %."),
    ] = 0
    spill_bytes_max: Annotated[
        int, NotNegative, _help("Bytes of them on disk when memory may have no more; 0: none.")
    ] = 64 << 30
    spill_directory: Annotated[
        str,
        _help("Where they go, in files without a name; empty: the system's for temporary files."),
    ] = ""
    link_window_batches_max: Annotated[int, Positive, _help("Unacknowledged batches a link.")] = 64
    link_window_bytes_max: Annotated[int, Positive, _help("Unacknowledged bytes a link.")] = 8 << 20
    ack_delay_s: Annotated[
        float, Positive, _help("An acknowledgement that rides on nothing goes after.")
    ] = 0.1
    resend_after_s: Annotated[
        float, Positive, _help("A batch unacknowledged for so long is asked after.")
    ] = 1.0
    reconnect_min_s: Annotated[float, Positive, _help("Shortest pause before a reconnect.")] = 0.1
    reconnect_max_s: Annotated[float, Positive, _help("Longest pause before a reconnect.")] = 0.3
    handshake_timeout_s: Annotated[float, Positive, _help("Time for a connection's handshake.")] = (
        2.0
    )
    connections_max: Annotated[
        int,
        NotNegative,
        _help("Connections a scheduler has at a time; 0: what its limit of open files leaves."),
    ] = 0
    strangers_max: Annotated[
        int, Positive, _help("Connections that may have said Hello and not yet who they are.")
    ] = 256
    enter_timeout_s: Annotated[
        float,
        Positive,
        _help(
            "Of more than half as many, those who do not say it in this time go; on a Unix socket"
            " also who says nothing at all."
        ),
    ] = 5.0
    data_window_bytes: Annotated[
        int, Positive, _help("Asked of a peer ahead of what has come of a large payload.")
    ] = 16 << 20
    data_silence_s: Annotated[
        float, Positive, _help("A peer that sends nothing of a payload for so long is given up.")
    ] = 10.0
    data_idle_s: Annotated[
        float, Positive, _help("A connection for payloads that is not used for so long is closed.")
    ] = 60.0
    scheduler_port: Annotated[
        int, Meta(ge=1, le=65535), _help("Where a scheduler on the network listens.")
    ] = 7788
    advertise: Annotated[
        str,
        _help("HOST or HOST:PORT at which others reach such a scheduler; empty: found out."),
    ] = ""
    connect_timeout_s: Annotated[
        float, Positive, _help("init() gives up when no scheduler answers for so long.")
    ] = 15.0

    # submitting
    submit_buffer_max: Annotated[
        int, Positive, _help("Tasks a client may have unfinished before .remote() blocks.")
    ] = 2_000_000
    submit_buffer_bytes_max: Annotated[
        int, Positive, _help("Bytes of arguments a client may have unfinished before it blocks.")
    ] = 1 << 30
    submit_credit_tasks: Annotated[
        int, Positive, _help("Tasks the scheduler lets a client have unfinished; others wait.")
    ] = 2_000_000
    submit_credit_bytes: Annotated[
        int, Positive, _help("Bytes of arguments the scheduler lets a client have unfinished.")
    ] = 1 << 30
    small_value_bytes: Annotated[
        int, NotNegative, _help("Known values up to this size are sent along with a dependency.")
    ] = 4 << 10
    no_scheduler_notice_s: Annotated[
        float, Positive, _help("Without a connection to the scheduler: the client says so after.")
    ] = 5.0
    no_node_notice_s: Annotated[
        float, Positive, _help("Work that no node can run: the client says so after.")
    ] = 10.0
    infeasible_timeout_s: Annotated[
        float, Positive, _help("Work that no node can run any more fails after.")
    ] = 60.0

    # scheduling
    window_s: Annotated[float, Positive, _help("Work queued at a node ahead of each slot.")] = 0.020
    window_tasks_max: Annotated[int, Positive, _help("Tasks queued at a node a slot.")] = 4096
    packet_s: Annotated[float, Positive, _help("Expected work sent to a worker at once.")] = 0.001
    packet_tasks_max: Annotated[int, Positive, _help("Tasks sent to a worker at once.")] = 128
    packet_overdue_s: Annotated[
        float, Positive, _help("A packet that takes so much longer than expected is taken back.")
    ] = 0.005
    poison_deaths: Annotated[
        int, Positive, _help("Attempts that ended with their worker before PoisonTask.")
    ] = 3
    retry_backoff_max_s: Annotated[float, Positive, _help("Longest pause before a retry.")] = 30.0
    deadlock_after_s: Annotated[
        float,
        Positive,
        _help("All that runs waits in get() and nothing queued fits: one get() fails after."),
    ] = 1.0

    # workers
    workers_blocked_max: Annotated[
        int, Positive, _help("Workers of a node that may lend their CPUs while they wait in get().")
    ] = 64
    workers_max: Annotated[int, Positive, _help("Worker processes a node may have.")] = 512
    actors_max: Annotated[int, Positive, _help("Actors a node may host.")] = 2000
    actor_window_calls: Annotated[
        int, Positive, _help("Calls of one actor that its node has at a time; others wait.")
    ] = 1000
    checkpoints_bytes_max: Annotated[
        int, Positive, _help("Checkpoints of actors that a scheduler keeps; more it refuses.")
    ] = 1 << 30
    checkpoint_timeout_s: Annotated[
        float, NotNegative, _help("An actor whose __checkpoint__ takes longer is ended; 0: never.")
    ] = 300.0
    health_check_interval_s: Annotated[
        float,
        NotNegative,
        _help("So long after a call that ended well __health__ of an actor is asked; 0: never."),
    ] = 10.0
    health_timeout_s: Annotated[
        float, NotNegative, _help("An actor whose __health__ takes longer is ended; 0: never.")
    ] = 30.0
    worker_idle_s: Annotated[float, Positive, _help("A worker idle for so long ends.")] = 300.0
    start_timeout_s: Annotated[
        float, Positive, _help("A worker that is not ready after so long is killed.")
    ] = 300.0
    task_timeout_s: Annotated[
        float, NotNegative, _help("The timeout of tasks that name none; 0: none.")
    ] = 0.0
    call_timeout_s: Annotated[
        float, NotNegative, _help("The timeout of calls of actors that name none; 0: none.")
    ] = 0.0
    stopped_timeout_s: Annotated[
        float,
        NotNegative,
        _help("A task whose process is stopped or traced for so long is ended; 0: never."),
    ] = 0.0
    cancel_grace_s: Annotated[
        float, NotNegative, _help("From Interrupted to SIGTERM when a running task is cancelled.")
    ] = 5.0
    term_grace_s: Annotated[float, NotNegative, _help("From SIGTERM to SIGKILL.")] = 2.0
    memory_low_share: Annotated[
        float,
        Meta(ge=0, lt=1),
        _help("With less of its memory left, a node ends the task that uses most; 0: never."),
    ] = 0.03
    reap_timeout_s: Annotated[
        float,
        Positive,
        _help("A killed worker that has not ended after so long is replaced all the same."),
    ] = 10.0
    hang_timeout_s: Annotated[
        float,
        Positive,
        _help("A task that holds the GIL while all its threads wait for a lock is ended after."),
    ] = 120.0
    unkillable_after_s: Annotated[
        float, Positive, _help("A process that no signal reaches for so long is called unkillable.")
    ] = 60.0
    drain_timeout_s: Annotated[
        float, Positive, _help("A node that is drained for so long interrupts what still runs.")
    ] = 3600.0
    output_bytes_max: Annotated[
        int, Positive, _help("Output of a worker kept until it is forwarded; above, it is cut.")
    ] = 4 << 20
    events_max: Annotated[
        int, Positive, _help("So many events the scheduler remembers, for `drumbeat events`.")
    ] = 10_000
    output_backlog_bytes_max: Annotated[
        int, Positive, _help("With so much waiting for who does not read, output is dropped.")
    ] = 4 << 20
    results_backlog_bytes_max: Annotated[
        int, Positive, _help("With so much waiting for who does not read, its other tasks wait.")
    ] = 64 << 20

    # processes
    exit_grace_s: Annotated[
        float, Positive, _help("At interpreter exit everything is over after.")
    ] = 2.0
    runtime_directory: Annotated[
        str, _help("Where local clusters keep their sockets; empty: the user's runtime directory.")
    ] = ""
    machine: Annotated[
        str,
        Meta(max_length=256),
        _help("Programs and nodes of the same one see the same files; empty: found out."),
    ] = ""
    namespace: Annotated[
        str,
        Meta(max_length=255, pattern="^[^~]|^$"),
        _help("Where the names of this program's actors are looked up; empty: nobody else's."),
    ] = ""
    ship_code: Annotated[
        str,
        Meta(pattern="^(auto|always|never)$"),
        _help("The program's own modules go with its functions; auto: on a cluster over TCP."),
    ] = "auto"
    health_file: Annotated[
        str,
        _help("Touched each second while a scheduler works, a node is connected; empty: no file."),
    ] = ""
    socket_kind: Annotated[
        str,
        _help("Sockets between node and worker: seqpacket, dgram; auto takes the best there is."),
    ] = "auto"
    worker_start: Annotated[
        str,
        Meta(pattern="^(auto|fork|spawn)$"),
        _help("Workers: fork of a template, spawn of an interpreter; auto forks on Linux only."),
    ] = "auto"
    memory_files: Annotated[
        str, _help("Large packets and output: memfd, file; auto takes the best there is.")
    ] = "auto"

    @classmethod
    def load(
        cls,
        given: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        others: Sequence[str] = (),
    ) -> Self:
        """Return the settings: arguments, else environment, else defaults.

        Args:
            given: values by name, as from keyword arguments or flags.
            environ: the environment; None takes the process's own.
            others: what the caller takes besides settings, for those who mistype that.

        Raises:
            ConfigError: an unknown name, or a value out of bounds; says which and where from.
        """
        values: dict[str, Any] = {}
        for name in cls.__struct_fields__:
            text = (os.environ if environ is None else environ).get(environment_name(name))
            if text is not None:
                origin = f"environment variable {environment_name(name)}"
                values[name] = _checked(name, text, origin, strict=False)
        for name, value in (given or {}).items():
            if name not in cls.__struct_fields__:
                names = sorted((*cls.__struct_fields__, *others))
                from difflib import get_close_matches  # seldom needed

                near = get_close_matches(name, names, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ConfigError(
                    f"there is no setting {name!r}{hint}; there are " + ", ".join(names),
                    setting=name,
                    origin="argument",
                )
            values[name] = _checked(name, value, f"argument {name}", strict=True)
        return cls(**values)

    @classmethod
    def load_json(cls, text: str) -> Self:
        """Return the settings that another process has passed on: what differs, as JSON.

        Raises:
            ConfigError: it is no JSON object, or names or holds what does not fit.
        """
        try:
            given = json.loads(text)
            if not isinstance(given, dict):
                raise ValueError("it is another value")  # like any other
        except (ValueError, RecursionError) as error:
            reason = f"--settings is no JSON object of settings: {error}"
            raise ConfigError(reason, setting="settings", origin="flag") from None
        return cls.load(given)

    def changed(self) -> dict[str, Any]:
        """Return what differs from the defaults: enough to make a child process agree."""
        defaults = type(self)()
        return {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if getattr(self, name) != getattr(defaults, name)
        }


class Description(NamedTuple):
    """One row of the table of settings."""

    name: str
    type: type
    default: Any
    unit: str
    environment: str
    help: str


def environment_name(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def describe() -> list[Description]:
    """Return the table of all settings, in the order of the class."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = Settings()
    rows = []
    for name in Settings.__struct_fields__:
        base, *metas = get_args(hints[name])
        text = next(meta.description for meta in metas if meta.description)
        unit = name.rsplit("_", 1)[-1]
        unit = {"s": "seconds", "bytes": "bytes", "intervals": "heartbeats"}.get(unit, "")
        unit = "bytes" if "bytes" in name else unit
        rows.append(
            Description(name, base, getattr(defaults, name), unit, environment_name(name), text)
        )
    return rows


_HINTS = get_type_hints(Settings, include_extras=True)


def _checked(name: str, value: Any, origin: str, *, strict: bool) -> Any:
    hint = _HINTS[name]
    try:
        return msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError as error:
        base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        raise ConfigError(
            f"{origin} = {value!r} does not fit the setting {name} ({base.__name__}): {error}",
            setting=name,
            origin=origin,
        ) from None
