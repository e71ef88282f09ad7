"""Installs wheels on a device without a network, and without pip, which many devices lack.

A wheel may be installed by unpacking it (PEP 427); the interpreters' wheels have no scripts, no
data files and no entry points that would need more.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile

from .messages import AgentError

COMPLETE = "complete"


def install(folder: str, *wheels: str) -> None:
    """Makes a virtual environment in `folder`, which also sees the system's packages.

    Raises:
        AgentError: it cannot be made, or does not fit on the disk; nothing is left then.
    """
    try:
        import venv
    except ImportError:
        raise AgentError("package", "this Python has no module venv") from None
    shutil.rmtree(folder, ignore_errors=True)
    try:
        venv.EnvBuilder(system_site_packages=True, symlinks=True).create(folder)
        name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = os.path.join(folder, "lib", name, "site-packages")
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                content.extractall(packages)
            os.remove(wheel)
        with open(os.path.join(folder, COMPLETE), "w") as file:
            file.write("\n".join(os.path.basename(wheel) for wheel in wheels))
    except (OSError, zipfile.BadZipFile) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise AgentError("agent", f"cannot install: {error}") from error
