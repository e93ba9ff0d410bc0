"""Where results are kept, and what they depend on: the machine, the day, the commit.

Never measures anything itself.
"""

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
    }


def keep(kind: str, about: dict[str, object], **found: Any) -> Path:
    """Write results down, under their kind and the time at which they were begun; return where.

    Args:
        kind: what was measured: "table", "scale" and so on; `latest` finds it by this.
        about: what `machine` had returned before.
        found: the results, as JSON can hold them.
    """
    RESULTS.mkdir(exist_ok=True)
    begun = dt.datetime.fromisoformat(str(about["date"]))
    about = about | {"took_s": round((dt.datetime.now(dt.UTC) - begun).total_seconds())}
    path = RESULTS / f"{kind}-{str(about['date']).replace(':', '')}.json"
    path.write_text(json.dumps({"machine": about, **found}, indent=2) + "\n", encoding="utf-8")
    return path


def latest(kind: str) -> Path | None:
    """Return where the last results of a kind are; None: there are none."""
    found = sorted(RESULTS.glob(f"{kind}-[0-9]*.json"))
    return found[-1] if found else None
