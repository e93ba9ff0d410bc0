"""Writes docs/settings.md from the one table of settings; `make format` runs it."""

from pathlib import Path

from drumbeat.protocol.settings import Description, describe

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"

OPENING = """\
# Settings

This page is generated from the class `Settings` in [protocol/settings.py](../protocol/settings.py),
where each setting is written once. `make format` writes it anew, and a unit test compares.

A setting can be given

1. as a keyword argument: `drumbeat.init(cancel_grace_s=1)`,
2. else as an environment variable: `DRUMBEAT_CANCEL_GRACE_S=1`,
3. else it has its default.

A name that does not exist, or a value out of bounds, raises `ConfigError`, which names the setting,
where the value came from and what is allowed. The last word of a name is its unit: `s` seconds,
`bytes` bytes, `intervals` heartbeats; a name that ends in `max` without a unit is a count.

| setting | type | default | unit | meaning |
|---|---|---|---|---|
"""

CLOSING = """
The environment variable of a setting is `DRUMBEAT_` and its name in capitals. One more variable is
read: `DRUMBEAT_ADDRESS`, where `init()`, commands and nodes connect to when they are told nothing
else: a cluster file, the directory of a running cluster, or a `drumbeat://` string (a secret).
"""


def shown(row: Description) -> str:
    """Return the default as people read it."""
    if isinstance(row.default, str):
        return f"`{row.default}`" if row.default else "(empty)"
    if isinstance(row.default, float):
        return f"{row.default:g}"
    if row.unit == "bytes":
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if row.default % size == 0:
                return f"{row.default} ({row.default // size} {name})"
    return str(row.default)


def render() -> str:
    """Return the page."""
    rows = [
        f"| `{row.name}` | {row.type.__name__} | {shown(row)} | {row.unit} | {row.help} |"
        for row in describe()
    ]
    return OPENING + "\n".join(rows) + "\n" + CLOSING


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
