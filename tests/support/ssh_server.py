"""An ssh server of a test's own: on loopback, with its own keys, for the test's user."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from support.ports import own_port
from support.waiting import until

#: it is not on everybody's PATH
PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin"


def missing() -> str:
    """Return why there can be no such server here; "" if there can."""
    for program in ("sshd", "ssh", "ssh-keygen"):
        if shutil.which(program, path=PLACES) is None:
            return f"there is no {program} here"
    return ""


class SshServer:
    """Serves until it is closed.

    Args:
        directory: for its files.
        variables: in the environment of each session.
    """

    def __init__(self, directory: Path, **variables: str) -> None:
        self.port = own_port()
        self.identity = directory / "identity"
        host_key = directory / "host_key"
        for path in (self.identity, host_key):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
            subprocess.run(command, check=True)
        environment = " ".join(f"{name}={value}" for name, value in variables.items())
        config = directory / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.identity}.pub\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n"
            f"PermitRootLogin prohibit-password\nSetEnv {environment}\n",
            encoding="utf-8",
        )
        self.log = directory / "sshd.log"
        if os.geteuid() == 0:
            # root's wants this empty directory, which the system makes when its own server starts
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd", path=PLACES)
        assert sshd, "asked before"
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(config)], stdout=log, stderr=log
            )
        until(lambda: self._process.poll() is not None or self._answers())
        assert self._process.poll() is None, self.log.read_text(encoding="utf-8")

    def _answers(self) -> bool:
        with socket.socket() as asker:
            return asker.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        """End it; sessions that run go on to their end."""
        self._process.terminate()
        self._process.wait()
