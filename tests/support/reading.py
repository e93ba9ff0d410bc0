"""Readers of what tasks yield, on a real cluster."""

from typing import Any

import drumbeat


def read(generator: Any) -> list[Any]:
    """Return all values, and the error at the end if there is one."""
    found: list[Any] = []
    for ref in generator:
        try:
            found.append(drumbeat.get(ref, timeout=20))
        except drumbeat.TaskError as error:
            found.append(error)
    return found


def settled() -> bool:
    """Say whether nothing of any task is left in scheduler and nodes."""
    tasks = drumbeat.client.api._session().query("status")["tasks"]
    return not any(tasks[name] for name in ("waiting", "queued", "assigned", "blocked"))
