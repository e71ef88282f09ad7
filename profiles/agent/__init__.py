"""What is sent to a device: the modules of this folder in one file, run there by Python."""

from __future__ import annotations

import functools
import io
import tempfile
import zipfile
from pathlib import Path

from edgelstm.profiles.agent.messages import PROTOCOL as PROTOCOL

_PACKAGE = "edgelstm_agent"
_MAIN = f"from {_PACKAGE}.main import main\nmain()\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def archive() -> bytes:
    """The agent as a zip file that Python runs; the same bytes for the same code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr(zipfile.ZipInfo("__main__.py", _LONG_AGO), _MAIN)
        content.writestr(zipfile.ZipInfo(f"{_PACKAGE}/__init__.py", _LONG_AGO), "")
        for path in sorted(Path(__file__).parent.glob("*.py")):
            if path.name != "__init__.py":
                name = zipfile.ZipInfo(f"{_PACKAGE}/{path.name}", _LONG_AGO)
                content.writestr(name, path.read_bytes())
    return buffer.getvalue()


def archive_path() -> Path:
    """A file with the archive, which goes when this process ends."""
    return Path(_folder().name) / "agent.pyz"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="edgelstm-agent-")
    (Path(folder.name) / "agent.pyz").write_bytes(archive())
    return folder
