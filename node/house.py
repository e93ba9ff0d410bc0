"""What a keeper hands to the daemon that it has forked.

Never behaviour.
"""

from typing import Any, NamedTuple

from ..protocol.settings import Settings
from .channel import Channel
from .page import PulsePage


class House(NamedTuple):
    """What there is in a node when its daemon begins."""

    #: the link to the keeper; the link to the template comes through it
    keeper: Channel
    page: PulsePage
    #: a pipe that ends with the keeper
    lifeline: int
    keeper_pid: int
    #: names the keeper, and no other there ever was
    mark: str
    settings: Settings
    #: filled by the daemon: its workers by process id
    workers: dict[int, Any]
    #: TERM drains the node; else the daemon takes its leave at once
    drains: bool = False
    #: the last daemon was refused: this one says that it is connected once it has stayed so
    hushed: bool = False
