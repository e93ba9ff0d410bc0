"""`make compose-test`: docker-compose.yml on an engine, a job, a scheduler that is killed.

Never a failure where no engine answers: it says that nothing was tried, and why.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("job.py")
TASKS, NODES = 600, 3
#: its containers and volumes are its own, whatever else of ours runs here
PROJECT = f"drumbeat-test-{os.getpid()}"
BUILD_S = 1800
JOB_S = 300


def docker(*words: str, within_s: float = 120, **more: object) -> subprocess.CompletedProcess[str]:
    """Run docker; its words are shown when it fails."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        ["docker", *words], cwd=ROOT, text=True, timeout=within_s, **more
    )


def compose(*words: str, within_s: float = 120) -> str:
    """Run docker compose; return what it printed.

    Raises:
        SystemExit: it failed.
    """
    print(f"docker compose {' '.join(words)}", flush=True)
    done = docker(
        "compose", "--project-name", PROJECT, *words, within_s=within_s, stdout=subprocess.PIPE
    )
    if done.returncode:
        raise SystemExit(f"compose test FAILED: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def why_not() -> str:
    """Return why nothing can be tried here; "" if it can."""
    if shutil.which("docker") is None:
        return "no docker command here"
    try:
        engine = docker("info", "--format", "{{.ServerVersion}}", within_s=30, capture_output=True)
        plugin = docker("compose", "version", within_s=30, capture_output=True)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer within 30 s"
    if engine.returncode or not engine.stdout.strip():
        return f"no Docker engine answers ({(engine.stderr or engine.stdout).strip()})"
    if plugin.returncode:
        return "docker has no compose plugin (`docker compose version` fails)"
    return ""


def killed_scheduler_comes_back(started: subprocess.Popen[str]) -> None:
    """Kill the scheduler while the job runs.

    From inside: what the engine itself is told to kill it does not start again.
    """
    time.sleep(5)  # a part of the job is done, most is not
    if started.poll() is not None:
        raise SystemExit("compose test FAILED: the job ended before the scheduler was killed")
    before = restarts()
    # How this command ends says nothing: its shell may be taken along.
    docker(
        "compose", "--project-name", PROJECT,
        "exec", "-T", "scheduler", "sh", "-c", "kill -9 -1",
    )  # fmt: skip
    until_s = time.monotonic() + 60
    while restarts() == before:
        if time.monotonic() > until_s:
            raise SystemExit("compose test FAILED: the scheduler was not started again")
        time.sleep(0.5)


def restarts() -> int:
    """Return how often the engine has started the scheduler again."""
    container = compose("ps", "--all", "--quiet", "scheduler").split()[0]
    shown = docker(
        "inspect", "--format", "{{.RestartCount}}", container, stdout=subprocess.PIPE, check=True
    )
    return int(shown.stdout)


def run_job() -> dict[str, object]:
    """Run the job, kill the scheduler meanwhile, and return what the job printed."""
    command = [
        "docker", "compose", "--project-name", PROJECT,
        "run", "--rm", "--no-deps", "-T", "demo", "-",
    ]  # fmt: skip
    with JOB.open(encoding="utf-8") as script:
        job = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    limit = threading.Timer(JOB_S, job.kill)
    limit.start()
    try:
        assert job.stderr is not None, "it was asked for"
        for line in job.stderr:
            print(f"job | {line.rstrip()}")
            if line.strip() == "begun":
                break
        killed_scheduler_comes_back(job)
        out, errors = job.communicate()
    finally:
        limit.cancel()
        job.kill()
        job.wait()
    if job.returncode:
        raise SystemExit(f"compose test FAILED: the job ended with {job.returncode}\n{errors}")
    return dict(json.loads(out.splitlines()[-1]))


def main() -> int:
    """Try it; return the exit code."""
    reason = why_not()
    if reason:
        print(f"compose test not tried: {reason}")
        return 0
    try:
        compose("build", within_s=BUILD_S)
        compose(
            "up", "--detach", "--wait", "--scale", f"node={NODES}", "scheduler", "node",
            within_s=180,
        )  # fmt: skip
        print(compose("exec", "-T", "scheduler", "drumbeat", "nodes",
                      "--address=/var/lib/drumbeat/scheduler"))  # fmt: skip
        seen = run_job()
        wanted = sum(number * number for number in range(TASKS))
        if seen["total"] != wanted or len(seen["hosts"]) != NODES:  # type: ignore[arg-type]
            raise SystemExit(f"compose test FAILED: {seen}, and not {wanted} from {NODES} nodes")
        compose("run", "--rm", "--no-deps", "-T", "demo", within_s=JOB_S)
    except BaseException:
        docker("compose", "--project-name", PROJECT, "logs", "--tail", "50")
        raise
    finally:
        docker(
            "compose", "--project-name", PROJECT, "down", "--volumes", "--remove-orphans",
            within_s=180,
        )  # fmt: skip
    print("compose test passed: a job on 3 nodes, its scheduler killed meanwhile; and the demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
