"""The agent, spoken to in a process of its own: what it loads, allocates, refuses and reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import profile_models
import pytest
from agent_processes import HERE, ask, python, start

from edgelstm.errors import (
    EdgeLstmError,
    OptionError,
)
from edgelstm.profiles import agent
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.profiles.targets.session import AgentProcess


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-input model of `profile_models`."""
    return profile_models.write_dense(tmp_path_factory.mktemp("profile") / "dense.tflite")


@pytest.fixture
def session() -> Iterator[AgentProcess]:
    """A running agent."""
    with LocalTarget(HERE).run() as running:
        yield running


def test_the_agent_imports_nothing_of_ours_and_no_interpreter_before_it_must() -> None:
    """After `hello`, `state` and `overhead` neither numpy nor an interpreter is loaded."""
    code = textwrap.dedent(
        """
        import json, sys
        from edgelstm_agent.serve import Agent
        served = Agent()
        for command in ("hello", "state", "overhead"):
            getattr(served, "do_" + command)({"runs": 10})
        print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
        """
    )
    folder = str(agent.archive_path())
    env = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {
        "edgelstm", "rich", "typer", "numpy", "tensorflow", "ai_edge_litert", "tflite_runtime",
    }  # fmt: skip


def test_dynamic_dimensions_take_batch_1_and_the_time_size(
    session: AgentProcess, dense: Path
) -> None:
    """Inputs are named as the signature names them."""
    inputs = start(session, dense, time=37)["inputs"]
    assert {each["name"]: each["shape"] for each in inputs} == {"x": [1, 37, 3], "ids": [1, 37]}
    assert {each["name"]: each["dtype"] for each in inputs} == {"x": "float32", "ids": "int32"}


def test_given_shapes_are_used(session: AgentProcess, dense: Path) -> None:
    """A shape by the signature's name and one by the tensor's name."""
    shapes = {"x": [2, 5, 3], "serving_default_ids:0": [2, 5]}
    inputs = start(session, dense, shapes=shapes)["inputs"]
    assert {each["name"]: each["shape"] for each in inputs} == {"x": [2, 5, 3], "ids": [2, 5]}
    assert ask(session, "first")["first_ns"] > 0


def test_an_unknown_input_is_refused_with_the_known_names(
    session: AgentProcess, dense: Path
) -> None:
    """The message lists ids and x."""
    with pytest.raises(OptionError, match="'z' .*ids, x"):
        start(session, dense, shapes={"z": [1]})


def test_plain_integers_are_0_or_1_unless_a_range_is_given(
    session: AgentProcess, dense: Path
) -> None:
    """The table has two rows: the default draw runs, a range beyond it is refused by the
    interpreter, which shows that ranges reach it."""
    start(session, dense)
    ask(session, "first")
    start(session, dense, integer_ranges={"ids": [2, 5]})
    with pytest.raises(EdgeLstmError, match="cannot run the model"):
        ask(session, "first")


def test_a_batch_ends_after_n_runs_or_its_time(session: AgentProcess, dense: Path) -> None:
    """n samples without a limit; one sample when the limit is over after the first."""
    start(session, dense)
    assert len(ask(session, "warm", n=17)["samples_ns"]) == 17
    assert len(ask(session, "warm", n=17, limit_ns=1)["samples_ns"]) == 1
    assert len(ask(session, "warm", n=3, variables="reset")["samples_ns"]) == 3


def test_a_wrong_request_is_answered_and_the_agent_goes_on(session: AgentProcess) -> None:
    """Unknown commands, missing keys and calls out of order do not end it."""
    with pytest.raises(EdgeLstmError, match="unknown command"):
        ask(session, "dance")
    with pytest.raises(EdgeLstmError, match="no model is loaded"):
        ask(session, "first")
    with pytest.raises(EdgeLstmError, match="KeyError"):
        ask(session, "overhead")
    assert ask(session, "hello")["protocol"] == agent.PROTOCOL


@pytest.mark.parametrize("keep", [8, 100, 0.5])
def test_a_damaged_model_is_an_error_and_no_traceback(
    session: AgentProcess, dense: Path, tmp_path: Path, keep: float
) -> None:
    """Cut off after the header or in the middle: refused, or the crash is named."""
    content = dense.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(EdgeLstmError) as caught:
        start(session, path)
    assert "Traceback" not in str(caught.value)


def test_what_native_code_prints_does_not_disturb_the_protocol() -> None:
    """A line written to descriptor 1 after the start goes to stderr."""
    source = str(agent.archive_path())
    code = f"""
        import os, sys
        sys.path.insert(0, {source!r})
        from edgelstm_agent.serve import Agent, serve
        def noisy(self, request):
            os.write(1, b"INFO: delegate created\\n")
            return {{"protocol": 1}}
        Agent.do_hello = noisy
        serve(Agent())
    """
    with python(code) as session:
        assert ask(session, "hello")["protocol"] == 1


def test_the_agents_own_reading_is_what_others_read_of_it(
    session: AgentProcess, dense: Path
) -> None:
    """/proc/PID/status read from outside agrees within a megabyte."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    start(session, dense)
    inside = ask(session, "memory")
    status = Path(f"/proc/{session.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    for key, name in (("VmHWM", "peak_bytes"), ("VmRSS", "resident_bytes")):
        assert abs(inside[name] - int(fields[key].split()[0]) * 1024) < 1_000_000
