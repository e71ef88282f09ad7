"""The command line: help, errors, exit codes, and what goes to stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from edgelstm import arguments, cli, files, npz, terminal
from edgelstm.errors import DataError, OptionError, OutputError, VerificationFailed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODEL = ROOT / "tests" / "data" / "runtime" / "reset.tflite"

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
OPTIONS = [
    pytest.param(parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in COMMANDS.items()
    for parameter in command.params
]


def _edgelstm(*call: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgelstm", *call],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=HERE,  # the root would shadow an installed package
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help_and_is_in_the_readme(name: str) -> None:
    """Nobody has to read the code to learn what there is."""
    assert COMMANDS[name].help
    assert f"edgelstm {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("parameter", OPTIONS)
def test_each_argument_and_option_has_help(parameter: Any) -> None:
    """A sentence that ends with a full stop."""
    assert parameter.help
    assert parameter.help.endswith((".", "]"))


def test_help_imports_nothing_heavy() -> None:
    """Help answers at once: neither numpy nor rich nor TensorFlow is loaded for it."""
    heavy = ("numpy", "rich", "tensorflow", "keras", "ai_edge_litert", "h5py")
    script = (
        "import sys; from edgelstm import cli; cli.run(['--help']); cli.run(['convert', '--help'])"
        f"; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=HERE)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    "call",
    [
        ["unknown"],
        ["convert"],
        ["convert", "a.keras"],
        ["convert", "a.keras", "-o", "b.tflite", "--quantize", "int1"],
        ["convert", "a.keras", "-o", "b.tflite", "--batch", "0"],
        ["convert", "a.keras", "-o", "b.tflite", "--time", "-3"],
        ["convert", "a.keras", "-o", "b.tflite", "--data", "missing.npz"],
        ["convert", "a.keras", "-o", "b.tflite", "--report", "b.tflite"],
        ["convert", "missing.keras", "-o", "b.tflite"],
        ["verify", "missing.keras", "missing.tflite"],
        ["inspect", "missing.tflite"],
        ["profile", "missing.tflite"],
        ["profile", str(MODEL), "--threads", "one"],
        ["profile", str(MODEL), "--delegate", "abacus"],
        ["profile", str(MODEL), "--on", "nowhere"],
        ["profile", str(MODEL), "--budget", "speed=1"],
        ["profile", str(MODEL), "--json", str(MODEL), "--overwrite"],
        ["profile", str(MODEL), "--html", "-"],
        ["profile", str(MODEL), "--threads", "100000"],
        ["profile", str(MODEL), "--tflite-library", "lib.so"],
        ["profile", str(MODEL), "--native-runner", "runner"],
        ["profile", str(MODEL), "--benchmark-model", "tool"],
        ["profile", str(MODEL), "--runner", "benchmark_model", "--html", "page.html"],
        ["profile", str(MODEL), "--runner", "benchmark_model", "--as-source"],
        ["convert", str(MODEL), "-o", "-"],
        ["devices", "--name", "pi"],
        ["devices", "--probe", "a@b", "--remove", "a@b"],
        ["bench", "--sizes", "1000000x1000000"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_ends_with_two_and_one_message(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Nothing on stdout, no traceback, nothing left behind."""
    monkeypatch.chdir(tmp_path)
    before = MODEL.read_bytes()
    assert cli.run(call) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "rror: " in said.err
    assert "internal" not in said.err
    assert list(tmp_path.iterdir()) == []
    assert MODEL.read_bytes() == before


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes `edgelstm info` raise what it is given."""

    def install(error: BaseException) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr("edgelstm.about.about", fail)

    yield install


def test_a_failed_check_ends_with_one(failing: Any, capsys: Any) -> None:
    """The message has what, where and the cure."""
    failing(VerificationFailed("It differs.", where="output y", cure="look at step 3"))
    assert cli.run(["info"]) == 1
    expected = "error: It differs.\n  where: output y\n  do:    look at step 3\n"
    assert capsys.readouterr().err == expected


def test_a_fault_of_the_program_shows_no_traceback(
    failing: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to report, and EDGELSTM_DEBUG=1 lets the traceback through."""
    monkeypatch.delenv("EDGELSTM_DEBUG", raising=False)
    failing(ZeroDivisionError("by zero"))
    assert cli.run(["info"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: internal error: ZeroDivisionError: by zero\n")
    assert "EDGELSTM_DEBUG=1" in said
    assert "Traceback" not in said
    monkeypatch.setenv("EDGELSTM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["info"])


def test_too_little_memory_is_no_fault_of_the_program(failing: Any, capsys: Any) -> None:
    """It says how much was asked for and what to do."""
    failing(MemoryError("Unable to allocate 29.1 TiB"))
    assert cli.run(["info"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: There is not enough memory: Unable to allocate 29.1 TiB.\n")
    assert "do: " in said


def test_an_interruption_ends_with_130(failing: Any, capsys: Any) -> None:
    """As shells expect after Ctrl-C."""
    failing(KeyboardInterrupt())
    assert cli.run(["info"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_info_as_json_is_one_document() -> None:
    """Nothing else is on stdout; the delegate's keys are there even when it is not built."""
    done = _edgelstm("info", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert {"path", "abi", "isa"} <= set(found["delegate"])
    assert found["interpreters"]


def test_info_tells_why_the_delegate_does_not_load(tmp_path: Path) -> None:
    """A broken delegate does not keep `info` from telling the rest."""
    done = _edgelstm("info", "--json", EDGELSTM_DELEGATE=str(tmp_path / "missing.so"))
    assert done.returncode == 0
    delegate = json.loads(done.stdout)["delegate"]
    assert delegate["path"] is None
    assert "missing.so" in delegate["problem"]


def test_devices_lists_this_machine() -> None:
    """It is the one device that is always there."""
    assert "local  this machine" in _edgelstm("devices").stdout
    found = json.loads(_edgelstm("devices", "--json").stdout)
    assert {"name": "local", "target": "local"} in found["devices"]


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    """As in `edgelstm info | head -0`."""
    done = subprocess.Popen(
        [sys.executable, "-m", "edgelstm", "info", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=HERE,
    )
    assert done.stdout is not None and done.stderr is not None
    done.stdout.close()
    assert done.stderr.read() == b""
    assert done.wait(60) == 1


@pytest.mark.parametrize("text", ["", "1.5", "²", "many", "0", "-1", " 1"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    """The message names the option."""
    with pytest.raises(OptionError, match="--batch"):
        arguments.size("--batch", text)


def test_npz_files_are_read_by_name(tmp_path: Path) -> None:
    """Arrays come back as they were saved."""
    saved = {"x": np.arange(6, dtype=np.int32).reshape(2, 3), "y": np.ones(2)}
    np.savez(tmp_path / "data.npz", **saved)  # type: ignore[arg-type]
    found = npz.arrays(tmp_path / "data.npz")
    assert set(found) == {"x", "y"}
    np.testing.assert_array_equal(found["x"], saved["x"])


def _npz_of_objects(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def _npy(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.ones(3))


def _truncated(path: Path) -> None:
    np.savez(path, x=np.ones(1000))
    path.write_bytes(path.read_bytes()[:-200])


def _damaged(path: Path) -> None:
    np.savez_compressed(path, x=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[150:170] = b"?" * 20
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "write",
    [
        _npz_of_objects,
        _npy,
        _truncated,
        _damaged,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("text"),
        lambda path: path.mkdir(),
        lambda path: None,
    ],
    ids=["objects", "npy", "truncated", "damaged", "empty", "text", "folder", "missing"],
)
def test_data_files_that_cannot_be_read_are_refused(write: Any, tmp_path: Path) -> None:
    """Python objects in them are never loaded, since loading would run their code."""
    path = tmp_path / "data.npz"
    write(path)
    with pytest.raises(DataError, match=r"data\.npz"):
        npz.arrays(path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """An existing file stays, and nothing temporary is left, when writing fails."""
    path = tmp_path / "out.json"
    files.write_atomically(path, b"first")
    assert path.read_bytes() == b"first"
    with pytest.raises(OutputError):
        files.write_atomically(tmp_path / "missing" / "out.json", b"second")
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(("name", "said"), [("a", "exists"), ("", "folder"), ("b/c", "mkdir")])
def test_an_output_that_cannot_be_written_is_found_first(
    tmp_path: Path, name: str, said: str
) -> None:
    """Before any work is done."""
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match=said):
        files.check_output(tmp_path / name, may_replace=False)


def test_control_characters_of_a_file_do_not_reach_the_terminal() -> None:
    """A layer's name could otherwise clear the screen or fake a line."""
    assert terminal.printable("a\x1b[2Jb\r\nc") == "a\\x1b[2Jb\\x0d\nc"


def test_json_documents_hold_no_nan() -> None:
    """JSON has none; null stands for them."""
    content = {"a": float("nan"), "b": [1.5, float("inf")], "c": ("x", {"d": -float("inf")})}
    assert json.loads(terminal.document(content)) == {
        "a": None,
        "b": [1.5, None],
        "c": ["x", {"d": None}],
    }


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("edgelstm ver", {"verify"}),
        ("edgelstm convert --calib", {"--calibration"}),
        ("edgelstm convert --state ca", {"carry"}),
    ],
)
def test_the_shell_completes_commands_options_and_choices(line: str, offered: set[str]) -> None:
    """As bash asks for it after --install-completion."""
    asked = {"_EDGELSTM_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-m", "edgelstm"],
        env={**os.environ, **asked, "COMP_CWORD": str(line.count(" "))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert set(done.stdout.split()) == offered, done.stderr
