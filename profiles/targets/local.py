"""This machine: the agent runs in place, as a child process."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from edgelstm.errors import OutputError
from edgelstm.profiles import agent
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead
from edgelstm.profiles.targets.agent_calls import ask_facts, ask_overhead, ask_state
from edgelstm.profiles.targets.session import AgentProcess


class LocalTarget:
    """Runs the agent with `device.python`, or with the Python that runs this."""

    def __init__(self, device: Device, *, time_limit_s: float = 120.0) -> None:
        self._device = device
        self._time_limit_s = time_limit_s
        self._sessions: list[AgentProcess] = []

    @contextlib.contextmanager
    def connect(self) -> Iterator[DeviceFacts]:
        """See `edgelstm.profiles.targets.Target`."""
        try:
            with self.run() as session:
                facts = ask_facts(session, self._device, self._time_limit_s)
            yield facts
        finally:
            for session in self._sessions:
                session.close()
            self._sessions.clear()

    def calibrate(self) -> DeviceState:
        """See `edgelstm.profiles.targets.Target`."""
        with self.run() as session:
            return ask_state(session, self._device, self._time_limit_s)

    def push(self, local: Path) -> str:
        """The file is here already."""
        return str(local.resolve())

    def run(self) -> AgentProcess:
        """See `edgelstm.profiles.targets.Target`."""
        python = self._device.python or sys.executable
        # The interpreters' own messages would bury the cause when an agent dies.
        env = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
        session = AgentProcess([python, str(agent.archive_path())], name=self._device.name, env=env)
        self._sessions.append(session)
        return session

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file.

        Raises:
            OutputError: it cannot be read, or `local` cannot be written.
        """
        try:
            shutil.copyfile(remote, local)
        except OSError as error:
            raise OutputError(
                f"cannot copy the file: {error.strerror}",
                where=f"{remote} -> {local}",
                cure="check who may read the one and write the other, and the room on the disk",
            ) from error

    def overhead(self) -> Overhead:
        """See `edgelstm.profiles.targets.Target`."""
        with self.run() as session:
            return ask_overhead(session, self._time_limit_s)
