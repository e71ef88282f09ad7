"""What every remote target does, whatever carries its commands: a folder, a keeper, agents."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from edgelstm.errors import DeviceError, EdgeLstmError, OutputError
from edgelstm.profiles import agent
from edgelstm.profiles.devices import Device, Setup
from edgelstm.profiles.native_runner import NativeRunner
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead
from edgelstm.profiles.targets.agent_calls import ask_facts, ask_overhead, ask_state
from edgelstm.profiles.targets.environment import install
from edgelstm.profiles.targets.session import AgentProcess

BEAT_S = 10.0
"""Well below the keeper's LONGEST_SILENCE_S."""

ANSWER_S = 60.0
"""A device that has just run out of memory reads its programs back from storage before it answers."""

END_MARK = "edgelstm-ended"
PYTHONS = ("python3", "python")
COPY_LIMIT_S = 600.0


class Connection(Protocol):
    """A way to run POSIX shell command lines on a device."""

    def argv(self, command: str) -> list[str]:
        """The command here that runs `command` there, with its stdin, stdout and stderr."""

    def call(
        self, command: str, *, stdin: Path | None = None, stdout: Path | None = None,
        time_limit_s: float,
    ) -> str:  # fmt: skip
        """Runs a command line to its end and returns what it printed.

        Args:
            stdin: a file to feed it. stdout: a file to write what it prints into.

        Raises:
            DeviceError: it failed; the message holds its last line. ConnectionLost: nothing says
                that it ended at all.
        """

    def __enter__(self) -> Connection: ...

    def __exit__(self, *exception: object) -> None: ...


Require = Callable[[DeviceFacts], None]


class RemoteTarget:
    """A device with a POSIX shell, reached through a `Connection`; it needs Python 3.9 too, unless
    the native runner is brought."""

    def __init__(
        self,
        device: Device,
        connection: Connection,
        *,
        home: str,
        time_limit_s: float,
        native: NativeRunner | None = None,
        require: Require | None = None,
    ) -> None:
        """
        Args:
            require: called with the device's facts before anything is installed there; raises what
                shall end it.
            home: a shell word: the folder that holds all of ours on the device.
            native: runs there instead of the agent.
        """
        self._device = device
        self._connection = connection
        self._home = home
        self._time_limit_s = time_limit_s
        self._sessions: list[AgentProcess] = []
        self._pushed: dict[Path, str] = {}
        self._folder = ""
        self._native = native
        self._require = require
        self._python = ""
        self._agent = ""
        self._program: list[str] = []  # the agent or the native runner
        self._serve: list[str] = []  # its arguments when it measures
        self._keeper: AgentProcess | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def connect(self) -> Iterator[DeviceFacts]:
        """See `edgelstm.profiles.targets.Target`."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._connection)
            if self._native is None:
                self._python = self._find_python()
            else:
                self._check_machine(self._native)
            self._folder = self._make_folder()
            stack.callback(self._remove_folder)
            if self._native is None:
                self._agent = self._unpack_agent()
                self._program = [self._python, self._agent]
            else:
                self._bring(self._native)
            stack.enter_context(self._kept())
            stack.callback(self._close_sessions)
            with self.run() as session:
                facts = ask_facts(session, self._device, self._time_limit_s)
            if self._require is not None:
                self._require(facts)
            lacking = self._native is None and (not facts.backends or facts.numpy is None)
            if lacking and self._device.setup is not Setup.NEVER:
                environment = install(self, facts)
                if self._device.setup is Setup.REMOVE:
                    stack.callback(self._remove, environment.folder)
                self._python = environment.python
                self._program = [self._python, self._agent]
                with self.run() as session:
                    facts = ask_facts(session, self._device, self._time_limit_s)
            yield facts

    @contextlib.contextmanager
    def shell(self) -> Iterator[None]:
        """Only the connection and a folder, for runners that need no Python."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._connection)
            self._folder = self._make_folder()
            stack.callback(self._remove_folder)
            yield

    def calibrate(self) -> DeviceState:
        """See `edgelstm.profiles.targets.Target`."""
        with self.run() as session:
            return ask_state(session, self._device, self._time_limit_s)

    def push(self, local: Path) -> str:
        """Copies a file, once; its name there is ours, so that no name of a user's is a word of
        a shell there.

        Raises:
            DeviceError: it cannot be read, or the device has no room.
        """
        if local not in self._pushed:
            name = f"{len(self._pushed)}{safe_suffix(local.name)}"
            self._pushed[local] = self.put(local, f"{self._folder}/{name}")
        return self._pushed[local]

    def put(self, local: Path, remote: str) -> str:
        """Copies a file to a path on the device; a copy that is cut off leaves nothing there."""
        if not os.access(local, os.R_OK):
            raise DeviceError("the file cannot be read", where=str(local))
        word = shlex.quote(remote)
        size = local.stat().st_size
        self.call(
            f"if cat > {word}; then n=$(wc -c < {word}); [ $n = {size} ] && exit 0; "
            f"echo the copy holds $n of {size} bytes >&2; fi; rm -f {word}; exit 1",
            stdin=local,
            time_limit_s=COPY_LIMIT_S,
        )
        return remote

    def run(self) -> AgentProcess:
        """See `edgelstm.profiles.targets.Target`."""
        return self._start([*self._program, *self._serve])

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file here.

        Raises:
            OutputError: `local` cannot be written. DeviceError: `remote` cannot be read.
        """
        try:
            local.open("wb").close()
        except OSError as error:
            raise OutputError(
                f"cannot write the file: {error.strerror}",
                where=str(local),
                cure="give a path that may be written, on a disk with room",
            ) from error
        self.call(f"cat < {shlex.quote(remote)}", stdout=local, time_limit_s=COPY_LIMIT_S)

    def overhead(self) -> Overhead:
        """See `edgelstm.profiles.targets.Target`."""
        with self.run() as session:
            return ask_overhead(session, self._time_limit_s)

    def ask_agent(self, *arguments: str) -> str:
        """Runs one command of the agent's archive to its end."""
        words = [self._python, self._agent, *arguments]
        return self.call(shlex.join(words), time_limit_s=COPY_LIMIT_S)

    @property
    def folder(self) -> str:
        """The private folder of this connection on the device."""
        return self._folder

    def call(
        self,
        command: str,
        *,
        time_limit_s: float,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> str:
        """See `Connection.call`."""
        return self._connection.call(command, stdin=stdin, stdout=stdout, time_limit_s=time_limit_s)

    def home(self) -> str:
        """The folder that holds all of ours on the device, made if it is missing."""
        text = self.call(
            f"umask 077 && mkdir -p {self._home} && cd {self._home} && pwd -P",
            time_limit_s=self._time_limit_s,
        )
        return text.removesuffix("\n")

    def exists(self, remote: str) -> bool:
        """Whether there is such a file on the device."""
        text = self.call(
            f"test -e {shlex.quote(remote)} && echo yes || echo no", time_limit_s=self._time_limit_s
        )
        return text.strip() == "yes"

    def remove_all(self) -> None:
        """Removes everything of ours, from this and from earlier times."""
        with self._connection:
            self.call(f"rm -rf {self._home}", time_limit_s=self._time_limit_s)

    # What follows is not for callers.

    def _find_python(self) -> str:
        names = PYTHONS if self._device.python is None else (self._device.python,)
        words = " ".join(map(shlex.quote, names))
        found = self.call(
            f"for p in {words}; do "
            "if \"$p\" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then "
            'echo "$p"; exit 0; fi; done; echo none',
            time_limit_s=self._time_limit_s,
        ).removesuffix("\n")
        if found not in names:
            raise DeviceError(
                f"the device has no Python 3.9 or newer ({' or '.join(names)})",
                where=self._device.name,
                cure="install python3 there, name it as `python` in the device's profile, or "
                "measure with --runner native",
            )
        return found

    def _unpack_agent(self) -> str:
        """As a folder, where Python keeps what it compiled; it does not beside an archive."""
        archive, folder = self.push(agent.archive_path()), f"{self._folder}/agent"
        words = [self._python, "-m", "zipfile", "-e", archive, folder]
        self.call(shlex.join(words), time_limit_s=self._time_limit_s)
        return folder

    def _check_machine(self, native: NativeRunner) -> None:
        machine = self.call("uname -m", time_limit_s=self._time_limit_s).strip()
        native.check_device(machine, self._device.name)

    def _bring(self, native: NativeRunner) -> None:
        """The runner and its library."""
        runner = self.push(native.binary)
        self.call(f"chmod 700 {shlex.quote(runner)}", time_limit_s=self._time_limit_s)
        self._program, self._serve = [runner], ["serve", self.push(native.library)]

    def _make_folder(self) -> str:
        text = self.call(
            f"umask 077 && mkdir -p {self._home} && cd {self._home} && "
            'd=$(mktemp -d "$PWD/run-XXXXXX") && mkdir "$d/pids" && echo "$d"',
            time_limit_s=self._time_limit_s,
        )
        return text.removesuffix("\n")

    def _remove_folder(self) -> None:
        """Usually the keeper has done so."""
        self._remove(self._folder)
        self._pushed.clear()

    def _remove(self, folder: str) -> None:
        word = shlex.quote(folder)
        with contextlib.suppress(EdgeLstmError):
            self.call(
                f"rm -rf {word}; rmdir {self._home} 2>/dev/null; true",
                time_limit_s=self._time_limit_s,
            )

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """A keeper on the device, and a beat every few seconds."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT_S):
                self._tell("beat")

        words = [*self._program, "keep", self._folder]
        with self._start(words, _Keeper) as keeper:
            # Without a keeper nobody would clean up behind a lost connection.
            keeper.ask("beat", time_limit_s=self._time_limit_s)
            self._keeper = keeper
            beating = threading.Thread(target=beat, daemon=True)
            beating.start()
            try:
                yield
            finally:
                stop.set()
                beating.join()
                self._tell("bye")
                self._keeper = None

    def _tell(self, command: str, **arguments: str) -> dict[str, object]:
        """A request to the keeper; {} where it cannot answer."""
        with self._lock, contextlib.suppress(EdgeLstmError):
            if self._keeper is not None:
                return self._keeper.ask(command, time_limit_s=ANSWER_S, **arguments)
        return {}

    def _start(self, words: Sequence[str], far: type[_FarProcess] | None = None) -> AgentProcess:
        token = secrets.token_hex(8)
        note = shlex.quote(f"{self._folder}/pids/{token}")
        # The shell that waits tells the true exit status, also where ssh reports every signal as
        # 255, and adb a lost device as 0. `&` takes stdin away, so it is kept as descriptor 3.
        # Drivers cache what they compile (Mesa's shaders): in our folder, so that it goes with it.
        cache = shlex.quote(f"{self._folder}/cache")
        command = (
            f"exec 3<&0; TF_CPP_MIN_LOG_LEVEL=3 XDG_CACHE_HOME={cache} {shlex.join(words)} "
            "<&3 3<&- & p=$!; exec 3<&-; "
            f'echo $p > {note}; wait $p; s=$?; rm -f {note}; echo "{END_MARK} $s $p" >&2; exit $s'
        )
        session = AgentProcess(
            self._connection.argv(command),
            name=self._device.name,
            env=os.environ,
            far=(far or _FarProcess)(self, token),
        )
        self._sessions.append(session)
        return session

    def _close_sessions(self) -> None:
        for session in self._sessions:
            if session is not self._keeper:
                session.close()
        self._sessions.clear()


class _FarProcess:
    """A process on the device, known by its token."""

    def __init__(self, target: RemoteTarget, token: str) -> None:
        self._target = target
        self._token = token
        self._pid = 0

    def ended(self, last_words: Sequence[str]) -> tuple[int | None, list[str]]:
        """See `session.Far`."""
        status, others = None, []
        for line in last_words:
            mark, _, rest = line.partition(" ")
            numbers = rest.split()
            if mark == END_MARK and len(numbers) == 2 and all(n.isdigit() for n in numbers):
                status, self._pid = int(numbers[0]), int(numbers[1])
            else:
                others.append(line)
        return status, others

    def explain(self, status: int | None) -> str | None:
        """See `session.Far`."""
        answer = self._target._tell("why", pid=str(self._pid))
        log, kills = answer.get("log"), answer.get("oom_kills")
        if log:
            return f"the kernel says: {log}"
        if status == 137 and isinstance(kills, int) and kills > 0:
            return "the device ran out of memory: its kernel counts an out-of-memory kill"
        return None

    def kill(self) -> None:
        """See `session.Far`."""
        self._target._tell("kill", token=self._token)


class _Keeper(_FarProcess):
    """The keeper itself, which nobody can be asked about and nobody needs to kill."""

    def explain(self, status: int | None) -> str | None:
        """See `session.Far`."""
        return None

    def kill(self) -> None:
        """It ends when its stdin does."""


def safe_suffix(name: str) -> str:
    """The suffix of a file name if it is plain, else none."""
    suffix = Path(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ""
