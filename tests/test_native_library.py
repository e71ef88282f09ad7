"""The native library: found, of the right ABI, and telling the truth about this CPU."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import edgelstm
from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.runtime import native


@pytest.fixture
def library() -> native.NativeLibrary:
    """The installed library; where the package is not installed at all there is none."""
    try:
        metadata.distribution("edgelstm")
    except metadata.PackageNotFoundError:
        pytest.skip("edgelstm is not installed in this environment: pip install .")
    return native.load()[1]


def test_the_library_is_of_this_package(library: native.NativeLibrary) -> None:
    """Version and ABI are those of the Python side."""
    assert library.abi == native.ABI
    assert library.version == edgelstm.__version__ == metadata.version("edgelstm")


def test_the_cpu_features_are_those_that_the_system_tells(library: native.NativeLibrary) -> None:
    """Compared with /proc/cpuinfo, which has its own names for them."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpuinfo.is_file():
        pytest.skip("only the flags of x86-64 Linux are known here")
    lines = cpuinfo.read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    names = {
        "sse4.2": "sse4_2",
        "avx2": "avx2",
        "fma": "fma",
        "f16c": "f16c",
        "avx512f": "avx512f",
        "avx512bw": "avx512bw",
        "avx512dq": "avx512dq",
        "avx512vl": "avx512vl",
        "avx512vnni": "avx512_vnni",
        "amxint8": "amx_int8",
        "amxbf16": "amx_bf16",
        "avxvnni": "avx_vnni",
    }
    assert set(library.isa) == {ours for ours, theirs in names.items() if theirs in flags}


def test_a_feature_list_that_does_not_fit_is_cut_and_its_length_told(
    library: native.NativeLibrary,
) -> None:
    """As with snprintf, and never a byte behind the buffer."""
    loaded, _ = native.load()
    whole = ",".join(library.isa).encode()
    call = loaded.edgelstm_cpu_features
    call.argtypes, call.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_size_t
    for size in range(1, len(whole) + 3):
        buffer = ctypes.create_string_buffer(b"?" * (size + 4), size + 4)
        assert call(buffer, size) == len(whole)
        assert buffer.value == whole[: size - 1]
        assert buffer.raw[size:] == b"????"
    assert call(None, 0) == len(whole)


def test_an_environment_variable_that_names_no_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It does not fall back to another library than the one asked for."""
    monkeypatch.setenv(native.ENVIRONMENT, str(tmp_path / "missing.so"))
    with pytest.raises(OptionError, match=r"missing\.so"):
        native.load()


def test_a_file_that_is_no_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the reason of the system's loader."""
    path = tmp_path / "text.so"
    path.write_text("no library")
    monkeypatch.setenv(native.ENVIRONMENT, str(path))
    with pytest.raises(MissingPackageError, match="does not load"):
        native.load()


def test_a_library_of_another_abi_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both numbers are in the message."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler in this environment")
    source, path = tmp_path / "other.cc", tmp_path / "other.so"
    source.write_text('extern "C" int edgelstm_abi_version() { return 12345; }\n')
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, source], check=True)
    monkeypatch.setenv(native.ENVIRONMENT, str(path))
    with pytest.raises(
        MissingPackageError, match=f"ABI 12345, this package needs ABI {native.ABI}"
    ):
        native.load()
