"""Writes a wrapper's folder: all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edgelstm.converters.export.app import AppModel, read_app_model
from edgelstm.converters.export.c import c_files
from edgelstm.converters.export.js import js_files
from edgelstm.converters.export.kotlin import kotlin_files
from edgelstm.converters.export.swift import swift_files
from edgelstm.converters.options import OverwritePolicy
from edgelstm.errors import OptionError, OutputError

Files = Mapping[str, bytes]

# By the command line's option.
LANGUAGES: Mapping[str, Callable[[AppModel], Files]] = {
    "kotlin": kotlin_files,
    "swift": swift_files,
    "c": c_files,
    "js": js_files,
}


def export_app(
    path: Path,
    folders: Mapping[str, Path],
    *,
    name: str | None = None,
    overwrite: OverwritePolicy = OverwritePolicy.KEEP,
) -> list[Path]:
    """Writes the wrappers of a model; returns their files.

    Args:
        folders: by language of `LANGUAGES`.
        name: of the wrapper; None takes the file's.

    Raises:
        OptionError: no language is given.
        OutputError: a folder exists and is not empty, or cannot be written.
        UnsupportedModelError: the model has no form that the language's runtime takes.
    """
    if not folders:
        raise OptionError(
            "No language was given.",
            cure="add " + ", ".join(f"--{language} DIR" for language in LANGUAGES),
        )
    if len(set(folders.values())) < len(folders):
        raise OptionError("Two languages were given one folder.", cure="give each its own")
    for folder in folders.values():
        _check(folder, overwrite)
    model = read_app_model(path, name)
    made = {folder: LANGUAGES[language](model) for language, folder in folders.items()}
    return [file for folder, files in made.items() for file in _write(folder, files)]


def _check(folder: Path, overwrite: OverwritePolicy) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and overwrite is OverwritePolicy.KEEP):
        raise OutputError(
            "The folder exists and is not empty." if folder.is_dir() else "This is no folder.",
            where=str(folder),
            cure="give another one, or --overwrite",
        )


def _write(folder: Path, files: Files) -> list[Path]:
    """The files appear together: they are written beside the folder, which then takes its name."""
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        made.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise OutputError(
            f"The folder cannot be written: {error.strerror}.",
            where=str(folder),
            cure="give a folder that may be written, on a disk with room",
        ) from None
    return [folder / name for name in files]
