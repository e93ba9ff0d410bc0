"""Tries the door before anybody is served: strangers must be refused.

Never takes a frame from the socket it tests: whoever has come meanwhile loses nothing.
"""

from typing import Any, Final

from .clock import now_s
from .endpoints import split_tcp, tcp_endpoint
from .errors import ConfigError
from .excuses import Stage
from .keys import Credentials, Door
from .poller import Poller
from .settings import Settings
from .sockets import Dialing, Listening, new_keys, public_key

#: for both strangers together
_PATIENCE_S: Final = 5.0
_LOOK_EACH_S: Final = 0.05
#: where one's own machine is reached, for who listens on all interfaces
_HOMES: Final = {
    "0.0.0.0": ("127.0.0.1",),
    "::": ("127.0.0.1", "::1"),
}
_REFUSED: Final = {"a foreign key": Stage.KEY_REFUSED, "no key": Stage.STRANGER}


def try_door(context: Any, listening: Listening, door: Door, settings: Settings) -> None:
    """Come to a listening socket as two strangers, one with a foreign key and one with none.

    Where they are not refused, the socket is closed and the context ended.

    Raises:
        ConfigError: one of them was let in, or was not refused for the reason it should be.
    """
    host, port = split_tcp(listening.endpoint.removeprefix("tcp://"), "the endpoint")
    stages: dict[str, Stage] = {}
    for home in _HOMES.get(host, (host,)):
        stages = _come(context, listening, tcp_endpoint(home, port), door, settings)
        if Stage.BEGUN not in stages.values():
            break
    for name, stage in stages.items():
        if stage is not _REFUSED[name]:
            shown = listening.endpoint
            listening.close()
            context.term()
            raise ConfigError(
                f"{shown} is not opened: {_what_went_wrong(name, stage)}",
                setting="endpoint",
            )
    listening.forget_strangers()


def _what_went_wrong(name: str, stage: Stage) -> str:
    if stage is Stage.BEGUN:
        return (
            "whether it refuses strangers was to be tried, and it cannot be reached from its own"
            " machine: is its loopback interface down (on Linux `ip link set lo up` mends that), or"
            " does a firewall drop what the machine sends to itself?"
        )
    return (
        f"a stranger with {name} was to be refused, and was not"
        f" ({stage.name.lower().replace('_', ' ')}); is this build of ZeroMQ without CURVE, or does"
        " something stand between it and itself?"
    )


def _come(
    context: Any, listening: Listening, endpoint: str, door: Door, settings: Settings
) -> dict[str, Stage]:
    _, secret = new_keys()
    keys = {"a foreign key": Credentials(public_key(door.secret_key), secret), "no key": None}
    poller = Poller()
    listening.attach(poller)
    strangers = {
        name: Dialing(context, endpoint, settings, poller, key) for name, key in keys.items()
    }
    until_s = now_s() + _PATIENCE_S
    try:
        waiting = dict(strangers)
        while waiting and now_s() < until_s:
            poller.wait(_LOOK_EACH_S)
            listening.answer()
            for name, stranger in list(waiting.items()):
                if stranger.closing() or stranger.stage is Stage.OPEN:
                    del waiting[name]
                    stranger.close()
        return {name: stranger.stage for name, stranger in strangers.items()}
    finally:
        for stranger in waiting.values():
            stranger.close()
