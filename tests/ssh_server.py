"""A real OpenSSH server on a loopback port, run by whoever runs the tests."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgelstm.profiles.devices import Device, Setup


class Server:
    """A server, the client configuration that reaches it, and where the device's files go.

    Attributes:
        home: what is ~/.cache on the device.
        config: an ssh_config that knows the server as `bed`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home 'of' \"the\" device; $x"
        self.home.mkdir()
        self.port = free_port()
        self.config = folder / "ssh_config"
        for name in ("host", "other", "user"):
            keygen(folder / name)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        (folder / "authorized_keys").chmod(0o600)
        self.know(folder / "host.pub")
        self.config.write_text(
            f"Host bed\n  HostName 127.0.0.1\n  Port {self.port}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile /dev/null\n"
        )
        quoted = str(self.home).replace("\\", "\\\\").replace('"', '\\"')
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile {folder}/pid\n"
            "UsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
            f'SetEnv "XDG_CACHE_HOME={quoted}"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def know(self, key: Path) -> None:
        """Makes this the key that the client expects."""
        text = key.read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {text}")

    def device(self, **values: object) -> Device:
        """The server as a device."""
        return Device(
            "bed",
            "ssh",
            host="bed",
            ssh_config=str(self.config),
            python=sys.executable,
            setup=Setup.NEVER,
            **values,  # type: ignore[arg-type]
        )

    def start(self, *, before: tuple[str, ...] = ()) -> None:
        """Starts it; `before` is a command that runs the server, such as prlimit."""
        if os.getuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        assert sshd is not None
        argv = [*before, sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        log_path = self.folder / "log"
        log_path.write_bytes(b"")
        with log_path.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while "Server listening" not in (said := log_path.read_text()):
            assert self.process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None
        # A process that it had just forked for a connection may hold the listening socket yet.
        end = time.monotonic() + 10
        while self._listens():
            assert time.monotonic() < end
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return True
        except OSError:
            return False

    def connections(self) -> list[int]:
        """Processes of the server that serve a connection."""
        assert self.process is not None
        return children(self.process.pid)

    def left(self) -> list[str]:
        """What is in the device's cache folder, empty when nothing of ours is."""
        while True:
            # What is being removed may be gone before it is looked into.
            with contextlib.suppress(FileNotFoundError):
                return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))


def free_port() -> int:
    """A port below those that the kernel gives to connections: one of these may connect to
    itself while nothing listens, and then nothing can."""
    for port in random.sample(range(20_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def keygen(path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(argv, check=True)


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    """Processes below a process, all generations."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    found = [pid]
    for parent in found:
        found += [child for child, above in parents.items() if above == parent]
    return found[1:]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A started server; skips where OpenSSH is not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if not shutil.which(name, path=path)]
    if missing:
        pytest.skip(f"needs OpenSSH: {', '.join(missing)} not found (apt install openssh-server)")
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs Linux's /proc")
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
