"""Paths on the command line that lead to nothing that can be read, for every command there is."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from cli_calls import fails

from edgelstm import cli

# What is written; all else that is a path is read.
OUTPUTS = {
    "output",
    "report",
    "html",
    "json_to",
    "trace",
    "kotlin",
    "swift",
    "c",
    "js",
    "keep",
    "raw",
}
# SavedModels are folders.
FOLDERS = {
    "convert-source",
    "doctor-source",
    "profile-model",
    "quantize-search-source",
    "verify-source",
}
MODEL = Path(__file__).parent / "data" / "runtime" / "carry.tflite"


def _commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*before, name))
        else:
            yield (*before, name), command


def _inputs() -> Iterator[Any]:
    """Every path that is read: the command's name, its parameters, and which one."""
    for name, command in _commands(typer.main.get_command(cli.app)):
        for parameter in command.params:
            if parameter.type_descriptor.annotation is Path and parameter.name not in OUTPUTS:
                yield pytest.param(name, command, parameter, id="-".join((*name, parameter.name)))


def _call(name: tuple[str, ...], command: Any, wanted: Any, path: str) -> list[str]:
    """A call with `path` for one parameter and something for those that are required."""
    call = list(name)
    for parameter in command.params:
        if parameter is not wanted and not parameter.required:
            continue
        value = path if parameter is wanted else "not-there"
        call += [value] if parameter.param_type_name == "argument" else [parameter.opts[0], value]
    return call


def test_all_commands_that_read_files_are_among_them() -> None:
    """Else the tests below would pass for want of cases."""
    found = {case.id for case in _inputs()}
    assert len(found) >= 25
    assert {"convert-source", "compare-after", "profile-golden", "verify-data"} <= found


@pytest.mark.parametrize(("name", "command", "parameter"), list(_inputs()))
@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(
    name: tuple[str, ...], command: Any, parameter: Any, kind: str, tmp_path: Path, capsys: Any
) -> None:
    """A pipe without a writer would be waited for without a word."""
    path = tmp_path / "odd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path = Path(os.devnull)
    said = fails(_call(name, command, parameter, str(path)), 2, tmp_path, capsys, str(path))
    assert "symbolic links" in said if kind == "loop" else "no regular file" in said


@pytest.mark.parametrize(
    ("name", "command", "parameter"), [case for case in _inputs() if case.id not in FOLDERS]
)
def test_a_folder_in_a_files_place_is_refused(
    name: tuple[str, ...], command: Any, parameter: Any, tmp_path: Path, capsys: Any
) -> None:
    """Where no SavedModel may stand."""
    folder = tmp_path / "folder"
    folder.mkdir()
    said = fails(_call(name, command, parameter, str(folder)), 2, tmp_path, capsys, str(folder))
    assert "This is a folder" in said


@pytest.mark.parametrize("option", ["--quantize", "--calibration"])
def test_a_pipe_in_the_place_of_a_plan_or_data_is_refused(
    option: str, tmp_path: Path, capsys: Any
) -> None:
    """These options take words too, so their paths are looked at when they are known to be one."""
    pipe = tmp_path / "odd.toml"
    os.mkfifo(pipe)
    output = str(tmp_path / "out.tflite")
    fails(["convert", "x.keras", "-o", output, option, str(pipe)], 2, tmp_path, capsys, "odd.toml")


@pytest.mark.parametrize(
    "call",
    [
        ["inspect", ""],
        ["convert", "", "-o", "out.tflite"],
        ["convert", "model.keras", "-o", ""],
        ["convert", "model.keras", "--output="],
        ["compare", "a.json", ""],
        ["profile", str(MODEL), "--golden", ""],
        ["demo", "--keep", ""],
        ["export-app", str(MODEL), "--c", ""],
    ],
    ids=" ".join,
)
def test_an_empty_value_is_refused(
    call: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a path it is the working folder; a variable of the shell that is unset gives one."""
    monkeypatch.chdir(tmp_path)
    fails(call, 2, tmp_path, capsys, "A value is empty", "unset")


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"in:x": [1.0]}))


def _objects(path: Path) -> None:
    np.savez(path, **{"in:x": np.array([{}], dtype=object)})  # type: ignore[arg-type]


def _one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize("write", [_pickled, _objects, _one_array, Path.touch])
def test_golden_data_that_are_none_tell_how_to_write_them(
    write: Any, tmp_path: Path, capsys: Any
) -> None:
    """Nothing is unpickled, and nobody is told to."""
    path = tmp_path / "golden.npz"
    write(path)
    call = ["profile", str(MODEL), "--golden", str(path)]
    said = fails(call, 2, tmp_path, capsys, str(path), "numpy.savez", "in:x")
    assert "allow_pickle" not in said


def test_processors_that_the_device_lacks_are_told_with_those_it_has(
    tmp_path: Path, capsys: Any
) -> None:
    """It is no fault of the model's."""
    call = ["profile", str(MODEL), "--cores", "4095"]
    said = fails(call, 2, tmp_path, capsys, "4095; it has", "--cores")
    assert "model does not fit" not in said
