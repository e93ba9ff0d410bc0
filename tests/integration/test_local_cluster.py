"""init(), shutdown() and what keeps a local cluster running, with real processes."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.client import runtime
from drumbeat.protocol.errors import ConfigError, NotInitialized, SchedulerUnreachable
from drumbeat.protocol.settings import Settings
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration


@drumbeat.remote
def double(x: int) -> int:
    return 2 * x


def script(text: str, root: str, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": root}
    done = subprocess.run(
        [sys.executable, *(arguments or ("-c", textwrap.dedent(text)))],
        input=textwrap.dedent(text) if arguments else None,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# ----------------------------------------------------------------------------------- init, shutdown


def test_a_cluster_starts_runs_tasks_and_leaves_nothing_behind(root: str) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as cluster:
        assert drumbeat.get([double.remote(i) for i in range(50)], timeout=20) == [
            2 * i for i in range(50)
        ]
        directory = Path(cluster.address)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        pids = list(cluster.processes.values())
    assert not directory.exists()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not drumbeat.is_initialized()


def test_two_nodes_share_the_machine_and_both_have_joined(root: str) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root):
        assert len(drumbeat.nodes()) == 2
        assert drumbeat.cluster_resources()["CPU"] == 2


@pytest.mark.skipif(sys.platform != "linux", reason="processes have no names of their own")
@pytest.mark.parametrize("worker_start", ["fork", "spawn"])
def test_ps_shows_what_each_process_of_a_node_is(root: str, worker_start: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, worker_start=worker_start):
        pid = drumbeat.get(drumbeat.remote(os.getpid).remote())
        keeper = psutil.Process(pid).parent()
        assert keeper is not None
        names = {one.pid: one.name() for one in (keeper, *keeper.children())}
        (node,) = drumbeat.nodes()
        assert (names[pid], names[node["pid"]]) == ("drum:worker", "drum:daemon")
        assert set(names.values()) - {"drum:worker"} == {
            "drum:keeper", "drum:daemon", "drum:template",
        }  # fmt: skip


def test_a_cluster_can_be_started_again_after_shutdown(root: str) -> None:
    for _ in range(2):
        drumbeat.init(num_cpus=1, runtime_directory=root)
        assert drumbeat.get(double.remote(4), timeout=20) == 8
        drumbeat.shutdown()
    drumbeat.shutdown()


def test_a_second_init_is_refused_in_plain_words(root: str) -> None:
    with (
        drumbeat.init(num_cpus=1, runtime_directory=root),
        pytest.raises(ConfigError, match="has a cluster already"),
    ):
        drumbeat.init(runtime_directory=root)


def test_inside_a_task_init_does_nothing(root: str) -> None:
    @drumbeat.remote
    def inner() -> str:
        with drumbeat.init(num_cpus=1):
            return str(drumbeat.get(double.remote(1)))

    with drumbeat.init(num_cpus=2, runtime_directory=root):
        assert drumbeat.get(inner.remote(), timeout=20) == "2"


def test_another_program_connects_by_the_directory(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        text = f"""
            import drumbeat
            with drumbeat.init({cluster.address!r}):
                print(drumbeat.get(drumbeat.remote(lambda: 40 + 2).remote(), timeout=20))
        """
        assert script(text, root).strip() == "42"
        assert drumbeat.get(double.remote(1), timeout=20) == 2


def test_an_address_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither the directory of a running local cluster"):
        drumbeat.init(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"nodes": 0}, "nodes = 0"),
        ({"num_cpus": -1}, "num_cpus = -1"),
        ({"resources": {"CPU": 1}}, "CPU = 1"),
        ({"preload": "numpy"}, "list of module names"),
        ({"no_such_setting": 1}, "no setting 'no_such_setting'"),
        ({"window_s": "long"}, "window_s"),
        ({"value_bytes_max": 1 << 32}, "value_bytes_max.*<= 4294967295"),
    ],
)
def test_a_wrong_argument_is_named(given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        drumbeat.init(**given)  # type: ignore[arg-type]


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long for a Unix socket"):
        drumbeat.init(runtime_directory=str(tmp_path / ("x" * 100)))


def test_a_runtime_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(ConfigError, match="can be written to by others"):
        drumbeat.init(runtime_directory=str(open_to_all))


def test_a_directory_of_a_dead_cluster_is_removed(root: str) -> None:
    dead = Path(root) / "1-abcdef"
    dead.mkdir(mode=0o700)
    (dead / runtime.LOCK).touch()
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        assert not dead.exists()
        assert runtime.running(Settings(runtime_directory=root)) == [Path(cluster.address)]


# -------------------------------------------------------------------------- programs and their ends


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_program_that_just_ends_leaves_nothing_behind(
    root: str, arguments: tuple[str, ...]
) -> None:
    text = """
        import time, drumbeat
        def work(x): return x + 1
        drumbeat.init(num_cpus=1)
        print(drumbeat.get(drumbeat.remote(work).remote(1), timeout=20))
        drumbeat.remote(time.sleep).remote(60)
    """
    watch = Watch()
    assert script(text, root, *arguments).strip() == "2"
    assert watch.own_s() < 6
    assert not list(Path(root).iterdir())


def test_a_program_that_is_killed_leaves_no_process_behind(root: str) -> None:
    text = """
        import os, signal, drumbeat
        cluster = drumbeat.init(num_cpus=1)
        drumbeat.get(drumbeat.remote(lambda: 1).remote(), timeout=20)
        print(*cluster.processes.values(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    pids = [int(pid) for pid in script(text, root, code=-signal.SIGKILL).split()]
    assert len(pids) == 2
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    until(lambda: not list(Path(root).iterdir()))


def test_what_is_left_of_a_cluster_that_was_killed_whole_goes_with_the_next(root: str) -> None:
    text = """
        import os, signal, drumbeat
        cluster = drumbeat.init(num_cpus=1)
        for pid in (*cluster.processes.values(), os.getpid()):
            os.kill(pid, signal.SIGKILL)
    """
    script(text, root, code=-signal.SIGKILL)
    assert len(list(Path(root).iterdir())) == 1
    drumbeat.init(num_cpus=1, runtime_directory=root)
    assert len(list(Path(root).iterdir())) == 1


def test_a_forked_child_is_told_so_and_harms_nothing(root: str) -> None:
    text = """
        import os, drumbeat
        drumbeat.init(num_cpus=1)
        ref = drumbeat.put(1)
        child = os.fork()
        if child == 0:
            for attempt in (lambda: drumbeat.get(ref), lambda: drumbeat.put(2)):
                try:
                    attempt()
                except drumbeat.NotInitialized as error:
                    print("refused:", "fork" in str(error), flush=True)
            del ref
            os._exit(0)
        os.waitpid(child, 0)
        print(drumbeat.get(ref))
    """
    assert script(text, root).split("\n")[:3] == ["refused: True", "refused: True", "1"]


def test_a_program_that_is_killed_is_seen_to_be_gone_though_a_child_that_it_forked_lives(
    root: str, tmp_path: Path
) -> None:
    program = """
        import os, signal, sys, time, drumbeat
        drumbeat.init(sys.argv[1])
        ref = drumbeat.remote(time.sleep).remote(100)
        while drumbeat.available_resources()["CPU"]:
            time.sleep(0.01)
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with drumbeat.init(num_cpus=1, runtime_directory=root, client_grace_s=0.5) as cluster:
        with (tmp_path / "out").open("w") as out:  # a pipe would stay open with the child
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program), cluster.address],
                stdout=out, timeout=60, check=False,
            )  # fmt: skip
        child = int((tmp_path / "out").read_text())
        try:
            assert done.returncode == -signal.SIGKILL
            until(lambda: drumbeat.available_resources()["CPU"] == 1.0, 15.0)
            assert psutil.pid_exists(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_ctrl_c_in_get_is_prompt_and_leaves_the_cluster_usable(root: str, tmp_path: Path) -> None:
    drumbeat.init(num_cpus=1, runtime_directory=root)
    drumbeat.get(double.remote(1), timeout=20)
    go = tmp_path / "go"
    ref = drumbeat.remote(until).remote(go.exists, 60.0)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        drumbeat.get(ref)
    timer.join()
    assert not ref.done(), "it did not wait for it"
    go.touch()
    assert drumbeat.get(ref, timeout=20) is True
    assert drumbeat.get(double.remote(2), timeout=20) == 4


# ------------------------------------------------------------------------------------------ crashes


def test_a_killed_node_is_started_anew_and_its_work_done(root: str) -> None:
    cluster = drumbeat.init(num_cpus=1, runtime_directory=root)
    assert drumbeat.get(double.remote(1), timeout=20) == 2
    before = next(pid for name, pid in cluster.processes.items() if name != "scheduler")
    os.kill(before, signal.SIGKILL)
    assert drumbeat.get([double.remote(i) for i in range(5)], timeout=30) == [0, 2, 4, 6, 8]
    # Its daemon may have done all that before anybody saw the keeper's end.
    until(lambda: before not in cluster.processes.values())


def test_a_killed_scheduler_is_started_anew_and_loses_nothing_that_may_be_retried(
    root: str,
) -> None:
    cluster = drumbeat.init(num_cpus=1, runtime_directory=root)
    assert drumbeat.get(double.remote(1), timeout=20) == 2
    slow = drumbeat.remote(time.sleep).remote(0.3)
    os.kill(cluster.processes["scheduler"], signal.SIGKILL)
    assert drumbeat.get(slow, timeout=30) is None
    assert drumbeat.get([double.remote(i) for i in range(5)], timeout=30) == [0, 2, 4, 6, 8]


def test_what_crashes_again_and_again_is_given_up_and_everybody_is_told(root: str) -> None:
    cluster = drumbeat.init(num_cpus=1, runtime_directory=root)
    ref = drumbeat.remote(time.sleep).remote(60)
    crashed: set[int | None] = {None}
    for _ in range(3):
        # The last life is in the list until its end has been noted, and dies no second time.
        crashed.add(until(lambda: _crash(cluster.processes.get("scheduler"), crashed)))
    with pytest.raises(SchedulerUnreachable, match="crashed 3 times"):
        drumbeat.get(ref, timeout=20)
    with pytest.raises(SchedulerUnreachable, match="crashed 3 times"):
        double.remote(1)
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        assert drumbeat.get(double.remote(1), timeout=20) == 2


def _crash(pid: int | None, crashed: set[int | None]) -> int:
    if pid is None or pid in crashed:
        return 0
    os.kill(pid, signal.SIGSEGV)
    return pid


def test_after_shutdown_a_ref_says_so(root: str) -> None:
    drumbeat.init(num_cpus=1, runtime_directory=root)
    ref = drumbeat.remote(time.sleep).remote(60)
    thread_error: list[BaseException] = []

    def wait() -> None:
        try:
            drumbeat.get(ref)
        except NotInitialized as error:
            thread_error.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    drumbeat.shutdown()
    thread.join(10)
    assert len(thread_error) == 1
