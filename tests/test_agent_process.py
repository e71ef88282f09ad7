"""Processes in the agent's place that die, hang or talk: what the host says of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from agent_processes import HERE, addresses, ask, python, wait_for_end
from ssh_server import is_running

import edgelstm
from edgelstm.errors import (
    EdgeLstmError,
)
from edgelstm.profiles import agent
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.profiles.targets.session import AgentProcess, describe_exit


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGKILL"])
def test_a_killed_agent_names_the_signal_and_the_command(name: str) -> None:
    """Whatever kills it, the message says which signal and during what."""
    with python(f"import os, signal; input(); os.kill(os.getpid(), signal.{name})") as session:
        with pytest.raises(EdgeLstmError, match=f"'load': killed by {name}") as caught:
            ask(session, "load")
    assert caught.value.cure


def test_an_agent_that_ends_says_its_status_and_its_last_words() -> None:
    """Exit status 3 and the last line of stderr."""
    code = "import sys; input(); print('no space left', file=sys.stderr); sys.exit(3)"
    with python(code) as session:
        with pytest.raises(EdgeLstmError, match="exit status 3.*no space left"):
            ask(session, "first")
        with pytest.raises(EdgeLstmError):
            ask(session, "first")


def test_a_hung_agent_is_ended_with_its_children_when_the_time_is_over() -> None:
    """The error names the limit; neither the agent nor its child is left."""
    code = """
        import json, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        input()
        print(json.dumps({"ok": True, "child": child.pid}), flush=True)
        input()
        time.sleep(600)
    """
    with python(code) as session:
        child = int(ask(session, "hello")["child"])
        assert is_running(child)
        with pytest.raises(EdgeLstmError, match=r"no answer to 'warm' within 0.1 s"):
            session.ask("warm", time_limit_s=0.1)
    assert wait_for_end(session.pid)
    assert wait_for_end(child)


def test_an_answer_outside_of_the_protocol_is_shown() -> None:
    """What came instead is part of the message."""
    with python("input(); print('hello world')") as session:
        with pytest.raises(EdgeLstmError, match="hello world"):
            ask(session, "hello")


def test_a_python_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    absent = str(tmp_path / "python")
    target = LocalTarget(Device("here", "local", python=absent))
    with pytest.raises(EdgeLstmError, match="does not start") as caught, target.connect():
        pass
    assert absent in str(caught.value)


def test_an_agent_ends_when_its_host_is_killed() -> None:
    """A host that dies without a word leaves no process behind."""
    root = str(Path(edgelstm.__file__).resolve().parents[1])
    code = textwrap.dedent(
        """
        import os, signal
        from edgelstm.profiles.devices import Device
        from edgelstm.profiles.targets.local import LocalTarget
        session = LocalTarget(Device("here", "local")).run()
        session.ask("hello", time_limit_s=60)
        print(session.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert wait_for_end(int(done.stdout))


def test_leaving_the_connection_ends_every_session() -> None:
    """Also those that nobody closed."""
    target = LocalTarget(HERE)
    with target.connect():
        forgotten = target.run()
        ask(forgotten, "hello")
    assert not is_running(forgotten.pid)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-11, "killed by SIGSEGV"),
        (139, "killed by SIGSEGV"),
        (1, "exit status 1"),
        (0, "exit status 0"),
        (255, "exit status 255"),
        (None, "its output closed, but it still runs"),
    ],
)
def test_an_exit_status_is_put_into_words(status: int | None, text: str) -> None:
    """Signals by name, also as shells and emulators report them."""
    assert describe_exit(status) == text


def test_two_agents_have_the_same_addresses_and_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions of an inference depend on both, so that they count the same in every process;
    also where ssh's environment has another length."""
    found = []
    for ssh in ("10.0.0.1 1 10.0.0.2 22", "10.0.0.1 54321 10.0.0.2 22"):
        monkeypatch.setenv("SSH_CONNECTION", ssh)
        with LocalTarget(HERE).run() as session:
            facts = ask(session, "hello")
            if facts["layout"] != "fixed":
                pytest.skip(f"this system keeps layouts random: {facts['layout']}")
            environment = Path(f"/proc/{session.pid}/environ").read_text().split("\0")
            found.append((addresses(facts["pid"]), "PYTHONHASHSEED=0" in environment))
    assert found[0] == found[1]
    assert found[0][1]


def test_an_agent_whose_layout_cannot_be_fixed_says_so() -> None:
    """As in a container that forbids the call: it runs all the same."""
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from edgelstm_agent import layout, main
        layout._personality = lambda wanted: 0 if wanted == layout.ASK else None
        sys.argv = ["agent"]
        main.main()
    """
    argv = [sys.executable, "-c", textwrap.dedent(code), str(agent.archive_path())]
    with AgentProcess(argv, name="here", env=os.environ) as session:
        assert ask(session, "hello")["layout"] == "random"
