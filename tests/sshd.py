"""A real OpenSSH server on loopback, as the user who runs the tests: the device of these tests."""

from __future__ import annotations

import getpass
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


class Device:
    """A server with keys, configuration and a cache of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        for name in ("host_key", "user_key"):
            self.make_key(name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        (folder / "environment").mkdir()
        self.trust()

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def make_key(self, name: str) -> None:
        """A new key pair in place of any."""
        (self.folder / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name]
        subprocess.run(command, check=True)

    def trust(self) -> None:
        """Let the client know the host key."""
        key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")

    def client(self, *options: str) -> dict[str, str]:
        """The environment of a user whose ssh knows this device: a PATH with that ssh first."""
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
            + "".join(f"{option}\n" for option in options)
        )
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        real = shutil.which("ssh")
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {self.folder}/ssh_config "$@"\n')
        (folder / "ssh").chmod(0o755)
        return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    def start(self, *options: str, file_bytes: int = -1, **environment: object) -> None:
        """Serve; `file_bytes` is the largest file that can be written there."""
        settings = {"XDG_CACHE_HOME": self.cache, "PATH": os.environ["PATH"], **environment}
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\n"
            f"PidFile none\nAuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "SetEnv "
            + " ".join(f'"{key}={value}"' for key, value in settings.items())
            + "\n"
            + "".join(f"{option}\n" for option in options)
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

        self._server = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=(self.folder / "sshd.log").open("ab"),
            start_new_session=True,
            preexec_fn=limit if file_bytes >= 0 else None,
        )
        for _ in range(100):
            if self._server.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def stop(self) -> None:
        """Stop serving; connections that are open stay."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def processes(self) -> list[int]:
        """Those on this device that work in its cache, or talk with a client."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "environ").read_bytes()
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"XDG_CACHE_HOME={self.cache}\0".encode() in words and line:
                found.append(int(entry.name))
        return found

    def cut(self) -> None:
        """Break every connection, as a network does."""
        for pid in self._sessions():
            os.kill(pid, signal.SIGKILL)

    def lose_power(self) -> None:
        """Everything on it ends at once."""
        self.stop()
        for pid in [*self._sessions(), *self.processes()]:
            with_kill(pid)

    def _sessions(self) -> list[int]:
        """The server's processes that hold this device's connections."""
        return []


def with_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    made = Device(Path(sys.argv[1]))
    made.start()
    made.client()
    print(made.address)
    time.sleep(3600)
