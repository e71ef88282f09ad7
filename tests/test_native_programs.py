"""The native tests, without Python: under sanitizers, and cross-built for ARM in an emulator."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parent.parent / "edgelstm" / "native"
pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Build:
    """How the library is built, and what must run its programs.

    Attributes:
        runs: emulated CPU to the kernels that must be chosen there; "" runs here.
    """

    arguments: tuple[str, ...]
    runs: dict[str, str]
    compiler: str = "c++"
    emulator: str = ""
    root: str = ""


def _cross(compiler: str, processor: str) -> tuple[str, ...]:
    return (
        "-DCMAKE_SYSTEM_NAME=Linux",
        f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        f"-DCMAKE_C_COMPILER={compiler.replace('g++', 'gcc')}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        "-DEDGELSTM_WERROR=ON",
    )


BUILDS = {
    "address and undefined": Build(("-DEDGELSTM_SANITIZE=address,undefined",), {"": ""}),
    "threads": Build(("-DEDGELSTM_SANITIZE=thread",), {"": ""}),
    "aarch64": Build(
        _cross("aarch64-linux-gnu-g++", "aarch64"),
        {"cortex-a53": "neon", "cortex-a72": "neon", "cortex-a76": "neondot", "max": "neoni8mm"},
        compiler="aarch64-linux-gnu-g++",
        emulator="qemu-aarch64",
        root="/usr/aarch64-linux-gnu",
    ),
    "armhf": Build(
        _cross("arm-linux-gnueabihf-g++", "arm"),
        {"cortex-a7": "neon", "cortex-a15": "neon"},
        compiler="arm-linux-gnueabihf-g++",
        emulator="qemu-arm",
        root="/usr/arm-linux-gnueabihf",
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_every_set_of_kernels_equals_the_reference(name: str, tmp_path: Path) -> None:
    """All layers of the native suite; a sanitizer ends the program at its first finding."""
    build = BUILDS[name]
    for tool in filter(None, ("cmake", build.compiler, build.emulator)):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    configure = ["cmake", "-S", str(NATIVE), "-B", str(tmp_path), "-DEDGELSTM_TESTS=ON"]
    for command in ([*configure, *build.arguments], ["cmake", "--build", str(tmp_path)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if build.emulator:
        stripped = tmp_path / "stripped.so"
        strip = build.compiler.replace("g++", "strip")
        library = tmp_path / "libedgelstm_delegate.so"
        subprocess.run([strip, "-o", str(stripped), str(library)], check=True)
        assert stripped.stat().st_size < 400_000
    for cpu, chosen in build.runs.items():
        command = [str(tmp_path / "kernels_test")]
        if build.emulator:
            path = f"LD_LIBRARY_PATH={tmp_path}"
            command = [build.emulator, "-cpu", cpu, "-L", build.root, "-E", path, *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        ran = re.findall(r"^(\w+): (\d+) layers, 0 failures$", done.stdout, re.MULTILINE)
        assert {"generic", "scalar"} < {kernels for kernels, _ in ran}
        assert all(int(layers) > 300 for _, layers in ran)
        if chosen:
            assert f"chosen {chosen}\n" in done.stdout


@pytest.mark.parametrize(("c", "cxx"), [("gcc", "g++"), ("clang", "clang++")])
def test_programs_in_c_link_the_static_library_with_a_shared_c_library_and_with_a_static_one(
    c: str, cxx: str, tmp_path: Path
) -> None:
    """As apps do; what they run is `test/static_test.c`."""
    for tool in ("cmake", c, cxx):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    compilers = (f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}", "-DEDGELSTM_TESTS=ON")
    programs = ("static_test", "static_test_alone")
    configure = ("cmake", "-S", str(NATIVE), "-B", str(tmp_path), *compilers)
    build = ("cmake", "--build", str(tmp_path), "-j2", "--target", *programs)
    for command in (configure, build, *((str(tmp_path / name),) for name in programs)):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.startswith("static: ")


def test_arm_kernels_execute_as_few_instructions_as_is_claimed(tmp_path: Path) -> None:
    """Counted in an emulator, beside the counts of the stock interpreters there."""
    for tool in ("cmake", "cc", "aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    script = Path(__file__).with_name("arm_instructions.py")
    command = [sys.executable, str(script), "--build", str(tmp_path), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ABOVE" not in done.stdout and "neoni8mm" in done.stdout


def test_the_inner_loops_for_arm_cores_are_found_and_costed(tmp_path: Path) -> None:
    """Every product of the table; what a core can do at most is never exceeded."""
    for tool in ("cmake", "aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump", "llvm-mca"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    script = Path(__file__).with_name("arm_inner_loops.py")
    command = [sys.executable, str(script), "--build", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(rows) == 17
    # Two vector instructions per cycle on the larger cores, one on the A53.
    most = {"float32,": 4, "float16,": 4, "int8,": 8}
    for kernels, kind, *_, core, _instructions, _cycles, _adds, per_cycle in rows:
        widest = 16 if kernels == "neondot" else most[kind]
        at_most = widest * (1 if core == "cortex-a53" else 2)
        assert 0.1 * at_most < float(per_cycle) <= at_most


def _compile_commands(folder: Path) -> list[dict[str, str]]:
    """As clang++ would build every file of the library."""
    configure = [
        *("cmake", "-S", str(NATIVE), "-B", str(folder), "-DCMAKE_CXX_COMPILER=clang++"),
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
    ]
    subprocess.run(configure, check=True, capture_output=True)
    files: list[dict[str, str]] = json.loads((folder / "compile_commands.json").read_text())
    assert len(files) > 15
    return files


def test_clang_tidy_finds_nothing(tmp_path: Path) -> None:
    """The checks of `edgelstm/native/.clang-tidy`, which says why others are off."""
    for tool in ("cmake", "clang++", "clang-tidy"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} here")
    for file in _compile_commands(tmp_path):
        command = ["clang-tidy", "-p", str(tmp_path), "--quiet", file["file"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_the_static_analyzer_of_clang_finds_nothing(tmp_path: Path) -> None:
    """Every file of the library, with the flags of its build."""
    if shutil.which("clang++") is None:
        pytest.skip("there is no clang++ here")
    found = []
    for file in _compile_commands(tmp_path):
        command = shlex.split(file["command"])
        command[command.index("-o") + 1] = str(tmp_path / "report")
        done = subprocess.run(
            [*command, "--analyze"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found += [line for line in done.stderr.splitlines() if "warning:" in line]
    assert found == []
