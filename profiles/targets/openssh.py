"""One OpenSSH connection that all commands to a host share (ssh_config: ControlMaster)."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from edgelstm.errors import ConnectionLost, DeviceError, MissingPackageError, OptionError
from edgelstm.profiles.targets.commands import call, last_line

CONNECT_LIMIT_S = 30.0
FAILED = 255
"""What ssh itself exits with when it fails; any command's own status is passed on."""

HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][\w.+-]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)

OPTIONS = (
    # Nobody is there to answer a question about passwords or unknown keys.
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_LIMIT_S / 2:.0f}",
    # A device that vanished without a word is noticed after half a minute.
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RequestTTY=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)


def parse_host(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port of `[user@]host[:port]`; host may be a name of ~/.ssh/config.

    Raises:
        OptionError: it is none of that. Nothing else may reach ssh: a name that begins with a
            dash would be an option, and one with a semicolon reaches a shell through ProxyCommand.
    """
    match = HOST.fullmatch(text)
    port = int(match["port"]) if match is not None and match["port"] else None
    if match is None or (port is not None and not 1 <= port <= 65535):
        raise OptionError(
            f"{text!r} is no host",
            where="--on",
            cure="write a name of ~/.ssh/config, user@host, or user@host:port",
        )
    return match["user"], match["host"].strip("[]"), port


class OpenSsh:
    """A `Connection` through the ssh client: its keys, agent, jump hosts and configuration."""

    def __init__(self, name: str, host: str, *, config: Path | None, options: tuple[str, ...]):
        """
        Args:
            name: of the device, for messages.
            host: see `parse_host`.
            config: another file than ~/.ssh/config. options: `Key=value` of ssh_config.

        Raises:
            OptionError: the host is none. MissingPackageError: there is no ssh client.
        """
        self._name = name
        user, self._host, port = parse_host(host)
        if shutil.which("ssh") is None:
            raise MissingPackageError(
                "there is no ssh client", where=name, cure="install openssh-client"
            )
        self._words = ["ssh", "-T"]
        if config is not None:
            self._words += ["-F", str(config)]
        for option in (*OPTIONS, *options):
            self._words += ["-o", option]
        if user is not None:
            self._words += ["-l", user]
        if port is not None:
            self._words += ["-p", str(port)]
        self._master: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> OpenSsh:
        # Below /tmp, because a socket's path has at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="edgelstm-ssh-", dir=_short_folder())
        socket = Path(self._folder.name) / "s"
        errors = Path(self._folder.name) / "e"
        argv = [*self._words, "-o", f"ControlPath={socket}", "-o", "ControlMaster=yes"]
        argv += ["-o", "ControlPersist=no", "--", self._host, "echo ready; exec cat >/dev/null"]
        try:
            with errors.open("wb") as stderr:
                # `cat` ends with our pipe: a host that is killed leaves no connection behind.
                self._master = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    start_new_session=True,
                )
            self._wait_until_ready(self._master, errors)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        master, self._master = self._master, None
        if master is not None:
            for stream in (master.stdin, master.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            try:
                master.wait(2.0)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(master.pid, signal.SIGKILL)
                master.wait()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def argv(self, command: str) -> list[str]:
        """See `remote.Connection`. The login shell there may be any; it starts POSIX sh."""
        assert self._folder is not None
        return [
            *self._words,
            "-o",
            f"ControlPath={self._folder.name}/s",
            "-o",
            "ControlMaster=no",
            # Without a master it must fail and not connect anew.
            "-o",
            "ProxyCommand=false",
            "--",
            self._host,
            "exec /bin/sh -c " + shlex.quote(command),
        ]

    def call(
        self,
        command: str,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        time_limit_s: float,
    ) -> str:
        """See `remote.Connection`."""
        done = call(self.argv(command), self._name, stdin, stdout, time_limit_s)
        if done.status == FAILED:
            raise ConnectionLost(
                f"the connection was lost: {last_line(done.errors) or 'ssh says no more'}",
                where=self._name,
                cure="check the device's power and network, and whether it has restarted",
            )
        if done.status != 0:
            said = last_line(done.errors) or f"exit status {done.status}"
            raise DeviceError(f"a command on the device failed: {said}", where=self._name)
        return done.output

    def _wait_until_ready(self, master: subprocess.Popen[bytes], errors: Path) -> None:
        assert master.stdout is not None
        os.set_blocking(master.stdout.fileno(), False)
        end = time.monotonic() + CONNECT_LIMIT_S
        said = b""
        while not said.endswith(b"ready\n"):
            status = master.poll()
            if status is not None:
                raise self._refused(errors.read_text("utf-8", "replace"))
            if time.monotonic() > end:
                raise DeviceError(
                    f"no connection within {CONNECT_LIMIT_S:g} s",
                    where=f"{self._name}: {self._host}",
                    cure=f"try: ssh {self._host}",
                )
            said += master.stdout.read() or b""
            time.sleep(0.02)

    def _refused(self, errors: str) -> DeviceError:
        """What ssh said, and the cure for the usual cases."""
        reason = last_line(errors) or "ssh says no more"
        cure = f"try: ssh {self._host}"
        for sign, (sentence, what_to_do) in REFUSALS.items():
            if sign in errors:
                reason, cure = sentence, what_to_do.format(host=self._host)
                break
        return DeviceError(
            f"the device cannot be reached: {reason}",
            where=f"{self._name}: {self._host}",
            cure=cure,
        )


REFUSALS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "its host key is not the one that is known for it",
        "find out why: a new system on the device, or another machine in its place; then "
        "ssh-keygen -R {host}",
    ),
    "Host key verification failed": (
        "its host key is not known here",
        "connect once by hand and compare the key: ssh {host}",
    ),
    "Permission denied": (
        "it does not let us in",
        "ssh must work without a password: ssh-copy-id {host}, or load the key with ssh-add",
    ),
    "Could not resolve hostname": ("its name is not known", "check the name: ssh {host}"),
    "Connection refused": (
        "nothing listens there",
        "check that it is on, and that its ssh server runs",
    ),
    "timed out": ("it does not answer", "check that it is on and in this network"),
    "No route to host": ("there is no way to it", "check that it is on and in this network"),
}
"""What ssh says -> what that means, and the cure; the first that fits."""


def _short_folder() -> str | None:
    return "/tmp" if os.access("/tmp", os.W_OK) else None
