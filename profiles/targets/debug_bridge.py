"""Commands on an Android device through the real adb client."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgelstm.errors import ConnectionLost, DeviceError, MissingPackageError, OptionError
from edgelstm.profiles.targets.commands import call, last_line

MARK = "edgelstm-status"
"""`adb shell` exits with 0 when the device dies, so every command line tells its own end."""

START_LIMIT_S = 30.0


class DebugBridge:
    """A `Connection` through `adb -s SERIAL shell`."""

    def __init__(self, name: str, serial: str | None) -> None:
        """
        Args:
            serial: as `adb devices` lists it; None where only one device is connected.

        Raises:
            OptionError: the serial cannot be one. MissingPackageError: there is no adb client.
        """
        if serial is not None and (serial.startswith("-") or not serial.isprintable()):
            raise OptionError(
                f"{serial!r} is no serial number", where=name, cure="take one of: adb devices"
            )
        if shutil.which("adb") is None:
            raise MissingPackageError(
                "there is no adb client", where=name, cure="install adb (platform-tools)"
            )
        self._name = name
        self._serial = serial

    def __enter__(self) -> DebugBridge:
        self._serial = self._serial or self._only_device()
        state = call(
            ["adb", "-s", self._serial, "get-state"], self._name, None, None, START_LIMIT_S
        )
        said = state.output.strip() or last_line(state.errors)
        if said != "device":
            raise DeviceError(
                f"the device cannot be used: {said}", where=self._where(), cure=_cure_of(said)
            )
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def argv(self, command: str) -> list[str]:
        """See `remote.Connection`."""
        assert self._serial is not None
        # -T: no terminal, which would turn line ends and merge stderr into stdout.
        return ["adb", "-s", self._serial, "shell", "-T", command]

    def call(
        self,
        command: str,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        time_limit_s: float,
    ) -> str:
        """See `remote.Connection`."""
        marked = f"( {command}\n); s=$?; echo {MARK} $s >&2; exit $s"
        done = call(self.argv(marked), self._name, stdin, stdout, time_limit_s)
        lines = done.errors.splitlines()
        ends = [line.split()[1:] for line in lines if line.startswith(f"{MARK} ")]
        said = last_line("\n".join(line for line in lines if not line.startswith(MARK)))
        if not ends or len(ends[-1]) != 1 or not ends[-1][0].isdigit():
            raise ConnectionLost(
                f"the connection was lost: {said or 'the command never told its end'}",
                where=self._where(),
                cure="check the cable or the network: adb devices",
            )
        status = int(ends[-1][0])
        if status != 0:
            said = said or f"exit status {status}"
            raise DeviceError(f"a command on the device failed: {said}", where=self._where())
        return done.output

    def _where(self) -> str:
        return f"{self._name}: {self._serial}"

    def _only_device(self) -> str:
        listed = call(["adb", "devices"], self._name, None, None, START_LIMIT_S).output
        found = [line.split("\t")[0] for line in listed.splitlines()[1:] if "\t" in line]
        if len(found) == 1:
            return found[0]
        raise DeviceError(
            f"{len(found)} devices are connected" if found else "no device is connected",
            where=self._name,
            cure=f"name one: --on adb:SERIAL, with one of {', '.join(found)}"
            if found
            else "connect one and allow USB debugging on it, or: adb connect HOST:PORT",
        )


def _cure_of(state: str) -> str:
    if "unauthorized" in state:
        return "allow this computer on the device's screen"
    if "offline" in state:
        return "connect it again: adb reconnect"
    return "look for it with: adb devices"
