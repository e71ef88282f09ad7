"""POSIX shell commands on this machine, for what other targets do through a connection."""

from __future__ import annotations

from pathlib import Path

from edgelstm.errors import DeviceError
from edgelstm.profiles.targets.commands import call, last_line

HOME = '"${TMPDIR:-/tmp}/edgelstm-$(id -u)"'


class LocalShell:
    """A `Connection` to nowhere else."""

    def __enter__(self) -> LocalShell:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def argv(self, command: str) -> list[str]:
        """See `remote.Connection`."""
        return ["/bin/sh", "-c", command]

    def call(
        self,
        command: str,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        time_limit_s: float,
    ) -> str:
        """See `remote.Connection`."""
        done = call(self.argv(command), "local", stdin, stdout, time_limit_s)
        if done.status != 0:
            said = last_line(done.errors or done.output) or f"exit status {done.status}"
            raise DeviceError(f"a command on the device failed: {said}", where="local")
        return done.output
