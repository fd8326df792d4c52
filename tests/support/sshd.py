"""A real OpenSSH server on loopback, as the user who runs the tests: the device of these tests."""

import contextlib
import getpass
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SSH = shutil.which("ssh")
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


MARK = "VITEDGE_TEST_DEVICE"
"""In the environment of all that runs on a device."""


class Device:
    """A server whose keys and configuration are in `folder`; clients leave things in `cache`."""

    def __init__(self, folder, cache):
        self.folder = folder
        self.cache = cache
        self.port = _free_port()
        self._server = None
        for name in ("host_key", "user_key"):
            self.make_key(name)
        shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
        key = (folder / "host_key.pub").read_text()
        known = f"[127.0.0.1]:{self.port} {key}[localhost]:{self.port} {key}"
        (folder / "known_hosts").write_text(known)

    @property
    def address(self):
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def other_address(self):
        """Of the same machine."""
        return f"ssh://{getpass.getuser()}@localhost:{self.port}"

    def make_key(self, name):
        """A new key pair in place of any."""
        (self.folder / name).unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name]
        subprocess.run(command, check=True)

    def client(self, *options):
        """The environment of a user whose ssh knows this device: a PATH with that ssh first."""
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n"
            f"UserKnownHostsFile {self.folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
            + "".join(f"{option}\n" for option in options)
        )
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {self.folder}/ssh_config "$@"\n')
        (folder / "ssh").chmod(0o755)
        return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}

    def start(self, *, file_bytes=-1, **environment):
        """Serve; `file_bytes` is the largest file that can be written there."""
        settings = {
            MARK: self.folder,
            "XDG_CACHE_HOME": self.cache,
            "PATH": os.environ["PATH"],
            **environment,
        }
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\n"
            f"PidFile none\nAuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            "SetEnv " + " ".join(f'"{key}={value}"' for key, value in settings.items())
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)

        def limit():
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

    def processes(self):
        """Everything that runs on this device, but its server."""
        mark, pids = f"{MARK}={self.folder}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                if mark in environment and (entry / "cmdline").read_bytes():  # empty of a zombie
                    pids.append(int(entry.name))
        return pids

    def cut(self):
        """Break every connection, as a network does; the server goes on, and so do jobs."""
        for pid in {_parent(pid) for pid in self.processes()}:
            if b"sshd" in _command(pid):
                _kill(pid)

    def lose_power(self):
        """Everything on it ends at once."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None
        sessions = {_parent(pid) for pid in self.processes()}
        for pid in [*self.processes(), *(pid for pid in sessions if b"sshd" in _command(pid))]:
            _kill(pid)


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _parent(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _command(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        return port
