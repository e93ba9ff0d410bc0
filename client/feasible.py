"""What is refused before it is sent: tasks that no known node could run, values too large.

Never a promise that a node is free.
"""

from collections.abc import Sequence
from typing import Final

from ..protocol import labels
from ..protocol.errors import Infeasible, MessageTooLarge
from ..protocol.messages import Options, Shape
from ..protocol.settings import Settings

#: an error names so many nodes
SHOWN_MAX: Final = 16


def infeasible(name: str, options: Options, shapes: Sequence[Shape]) -> Infeasible:
    """Return the error for a task that fits no node: what it asks for, what there is."""
    asked = ", ".join(f"{key} {amount:g}" for key, amount in asked_of(options).items())
    where = f" on node {options.node!r}" if options.node else ""
    if options.node_labels:
        where += f" on a node with {labels.show_asked(options.node_labels)}"
    there = "; ".join(_show(one) for one in shapes[:SHOWN_MAX])
    if len(shapes) > SHOWN_MAX:
        there += f"; and {len(shapes) - SHOWN_MAX} more"
    return Infeasible(
        f"{name} asks for {asked or 'nothing'}{where}, which no node has ({there}); ask for less, "
        "or set wait_for_nodes=True if such a node is to come"
    )


def _show(shape: Shape) -> str:
    has = [f"{name} {amount:g}" for name, amount in sorted(shape.resources.items())]
    if shape.labels:
        has.append(labels.show(shape.labels))
    return f"{shape.name}: " + ", ".join(has)


def asked_of(options: Options) -> dict[str, float]:
    """Return what a task asks for, by resource."""
    asked = {"CPU": options.num_cpus, "GPU": options.num_gpus, **dict(options.resources)}
    return {name: amount for name, amount in asked.items() if amount > 0}


def fits(options: Options, shape: Shape) -> bool:
    """Return whether a node, if idle, could run a task with these options."""
    if options.node and options.node not in (shape.name, shape.id.hex()):
        return False
    if not labels.carries(shape.labels, options.node_labels):
        return False
    has = shape.resources
    return all(has.get(name, 0) >= amount - 1e-9 for name, amount in asked_of(options).items())


def too_large(what: str, size: int, settings: Settings) -> MessageTooLarge:
    """Return the error for what cannot be sent."""
    limit = settings.value_bytes_max
    return MessageTooLarge(
        f"{what} takes {size:,} bytes, and value_bytes_max is {limit:,}",
        size_bytes=size,
        limit_bytes=limit,
    )
