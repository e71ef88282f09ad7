"""SwiftShader, a Vulkan device made of software, for LiteRT's GPU accelerator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PARTS = ("libvk_swiftshader.so", "vk_swiftshader_icd.json", "libvulkan.so.1")


def vulkan_environment(folder: Path) -> dict[str, str]:
    """An environment in which Vulkan finds SwiftShader, three files of Debian's chromium that are
    put into `folder`; skips the test where they cannot be had."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing or os.uname().machine != "x86_64":
        pytest.skip("needs Debian on x86-64, for chromium's software Vulkan device")
    argv = ["apt-get", "download", "-qq", "chromium-common"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"needs Debian's package chromium-common: {done.stderr.strip()[-200:]}")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "x")], check=True)
    for part in PARTS:
        shutil.move(folder / "x" / "usr" / "lib" / "chromium" / part, folder / part)
    shutil.rmtree(folder / "x")
    return {
        **os.environ,
        "VK_ICD_FILENAMES": str(folder / "vk_swiftshader_icd.json"),
        "LD_LIBRARY_PATH": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
    }
