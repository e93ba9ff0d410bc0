"""Units, Dockerfile and compose file, as far as they can be tried without an engine or systemd."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=more.get("cwd")
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_to_complain_about_in_the_units(tmp_path: Path) -> None:
    # The only thing that differs: it wants the program to exist.
    program = tmp_path / "drumbeat"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = []
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        assert "=/usr/local/lib/drumbeat/bin/drumbeat " in text
        made.append(tmp_path / unit.name)
        made[-1].write_text(text.replace("/usr/local/lib/drumbeat/bin/drumbeat", str(program)))
    done = run("systemd-analyze", "verify", "--man=no", *map(str, made))
    assert (done.returncode, done.stderr) == (0, "")


def compose_plugin() -> bool:
    return (
        shutil.which("docker") is not None and run("docker", "compose", "version").returncode == 0
    )


@pytest.mark.skipif(not compose_plugin(), reason="docker has no compose plugin here")
def test_docker_understands_the_compose_file() -> None:
    done = run("docker", "compose", "config", "--format", "json", cwd=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == {"scheduler", "node", "demo"}


def stages() -> list[list[tuple[str, list[str]]]]:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: list[list[tuple[str, list[str]]]] = []
    for line in text.splitlines():
        if line.startswith("FROM"):
            found.append([])
        if found and line and line[0] != "#":
            word, *rest = line.split()
            found[-1].append((word, rest))
    return found


def sent_to_docker(name: str) -> bool:
    """As .dockerignore has it."""
    return "__pycache__" not in name and not name.endswith((".pyc", ".cluster"))


def test_the_steps_of_the_image_lead_to_a_command_line_that_works(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Each step is carried out as it stands, with the image's places moved below tmp_path.
    source, target = tmp_path / "src", tmp_path / "opt" / "drumbeat"
    source.mkdir()
    build, final = stages()
    for word, rest in build:
        if word == "COPY":
            for name in rest[:-1]:
                place = source / rest[-1] / (name if rest[-1].endswith("/") else "")
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.cluster")
                    shutil.copytree(ROOT / name, place, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, place)
        elif word == "RUN":
            assert rest[0] == "python"
            words = [part.replace("/usr/local/lib/drumbeat", str(target)) for part in rest[1:]]
            done = run(sys.executable, *words, cwd=str(source))
            assert done.returncode == 0, done.stderr
    assert ("COPY", ["--from=build", "/usr/local/lib/drumbeat", "/usr/local/lib/drumbeat"]) in final
    shutil.rmtree(source)  # not in the image

    version = run(str(target / "bin" / "drumbeat"), "--version", cwd="/")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("drumbeat ")
    there = [path.name for path in (target / "bin").iterdir()]
    assert not [name for name in there if name.startswith("pip")], "no tools in the image"
    squares = "import drumbeat\nwith drumbeat.init() as c:\n print(sum(drumbeat.map(abs, [-3, 4])))"
    script = tmp_path / "script.py"
    script.write_text(squares)
    runtime = tmp_path_factory.mktemp("x")  # short: the paths of sockets have little room
    done = run(
        "env", "-i", f"XDG_RUNTIME_DIR={runtime}", "PATH=/usr/bin:/bin", f"HOME={tmp_path}",
        str(target / "bin" / "python"), str(script), cwd="/",
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_without_an_engine_the_compose_test_says_so_and_is_no_failure(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "compose" / "run.py")],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "not tried: no docker command here" in done.stdout
