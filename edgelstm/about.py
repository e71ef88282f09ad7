"""What is installed here: versions, interpreters, the native library."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import edgelstm
from edgelstm.errors import EdgeLstmError
from edgelstm.runtime import native
from edgelstm.runtime.interpreters import find_backends

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("numpy", "tensorflow", "tf_keras", "keras", "h5py")


def about() -> dict[str, Any]:
    """A JSON object: versions, interpreters best first, and the delegate with path, abi, isa.

    A delegate that cannot be loaded has nulls and a `problem`. Nothing heavy is imported.
    """
    return {
        "edgelstm": edgelstm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "interpreters": [
            {"name": backend.name, "version": backend.version} for backend in find_backends()
        ],
        "delegate": _delegate(),
    }


def print_about(found: dict[str, Any], console: Console) -> None:
    """The same for people."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row("edgelstm", found["edgelstm"])
    table.add_row("python", f"{found['python']} on {found['platform']}")
    for name, version in found["packages"].items():
        table.add_row(name, version or "not installed")
    for each in found["interpreters"]:
        table.add_row("interpreter", f"{each['name']} {each['version']}")
    if not found["interpreters"]:
        table.add_row("interpreter", "none: pip install ai-edge-litert")
    delegate = found["delegate"]
    if delegate["path"] is None:
        table.add_row("delegate", Text(delegate["problem"]))
    else:
        isa = ", ".join(delegate["isa"]) or "no special instructions"
        kernels = ", ".join(delegate["kernels"])
        used = delegate["chosen"] or "none of them: EDGELSTM_ISA names another"
        lines = [
            delegate["path"],
            f"ABI {delegate['abi']}; {isa}",
            f"kernels {kernels}; used: {used}",
        ]
        table.add_row("delegate", Text("\n".join(lines)))
    console.print(table, highlight=False)


def devices() -> dict[str, Any]:
    """A JSON object: the known devices and which target reaches each."""
    from edgelstm.profiles import devices as profiles

    known = [profiles.find(name) for name in profiles.names()]
    return {"devices": [{"name": device.name, "target": device.target} for device in known]}


def print_devices(found: dict[str, Any], console: Console) -> None:
    """The same for people."""
    for device in found["devices"]:
        reached = "this machine" if device["target"] == "local" else f"over {device['target']}"
        console.print(f"{device['name']}  {reached}", highlight=False, markup=False)


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _delegate() -> dict[str, Any]:
    try:
        _, library = native.load()
    except EdgeLstmError as error:
        nothing = dict.fromkeys(("path", "version", "abi", "isa", "kernels", "chosen"))
        return {**nothing, "problem": str(error)}
    return {
        "path": str(library.path),
        "version": library.version,
        "abi": library.abi,
        "isa": list(library.isa),
        "kernels": list(library.kernels),
        "chosen": library.chosen,
    }
