"""Counts what one layer executes on 64-bit ARM, in qemu, beside the stock interpreters.

    python tests/arm_instructions.py [--build FOLDER] [--check]

Cross-builds the native library and its programs, runs 100 steps of a layer with every set of
kernels, and prints a table. The stock interpreters' counts are of the same emulator and plugin,
measured once; running their wheels needs an ARM root file system.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent.parent / "edgelstm" / "native"
SIZES = ((64, 128), (128, 256))
STEPS = 100

# Millions per invoke of 100 steps, by kind and size: LiteRT 2.3.0, tflite-runtime 2.14.0.
STOCK = {
    ("float32", 64): (15.24, 9.32),
    ("float32", 128): (56.18, 30.99),
    ("int8", 64): (8.54, 10.89),
    ("int8", 128): (26.48, 34.88),
}

# The largest ratio to LiteRT and to tflite-runtime, by kernels and kind.
LIMITS = {
    ("neon", "float32"): (0.45, 0.65),
    ("neon", "int8"): (0.6, None),
    ("neondot", "int8"): (0.25, None),
    ("neoni8mm", "int8"): (0.25, None),
}


def build(folder: Path) -> None:
    """Cross-builds the library and its programs, and the plugin for this machine's qemu."""
    compiler = "aarch64-linux-gnu-g++"
    subprocess.run(
        [
            *("cmake", "-S", str(NATIVE), "-B", str(folder), "-DEDGELSTM_TESTS=ON"),
            "-DCMAKE_SYSTEM_NAME=Linux",
            "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
            f"-DCMAKE_C_COMPILER={compiler.replace('g++', 'gcc')}",
            f"-DCMAKE_CXX_COMPILER={compiler}",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    make = ["cmake", "--build", str(folder), "--target", "steps", "-j2"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    plugin = ["cc", "-O2", "-shared", "-fPIC", "-o"]
    output = str(folder / "count_instructions.so")
    subprocess.run([*plugin, output, str(NATIVE / "test" / "count_instructions.c")], check=True)


def millions(folder: Path, kernels: str, kind: str, inputs: int, units: int) -> float:
    """Millions of instructions of one call of 100 steps, batch 1, on the largest CPU of qemu."""
    done = subprocess.run(
        [
            *("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"),
            *("-E", f"LD_LIBRARY_PATH={folder}"),
            *("-plugin", f"{folder / 'count_instructions.so'}"),
            *(str(folder / "steps"), kernels, kind, str(inputs), str(units), str(STEPS), "1"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r"^instructions (\d+)$", done.stderr, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{kernels} {kind} did not run: {done.stderr[-500:]}")
    return int(found[1]) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, help="where to build; kept for the next time")
    parser.add_argument("--check", action="store_true", help="exit 1 above a limit")
    arguments = parser.parse_args()
    too_many = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.build or Path(temporary)).resolve()
        build(folder)
        print(f"{'kernels':9} {'kind':8} {'size':8} {'millions':>8}  LiteRT 2.3  rt 2.14  limits")
        for (kernels, kind), limits in LIMITS.items():
            for inputs, units in SIZES:
                count = millions(folder, kernels, kind, inputs, units)
                ratios = [count / stock for stock in STOCK[kind, inputs]]
                above = any(
                    limit is not None and ratio > limit
                    for ratio, limit in zip(ratios, limits, strict=True)
                )
                too_many += above
                shown = ", ".join("-" if limit is None else f"{limit}" for limit in limits)
                print(
                    f"{kernels:9} {kind:8} {f'{inputs}x{units}':8} {count:8.2f}"
                    f"  {ratios[0]:10.3f}  {ratios[1]:7.3f}  {shown}{'  ABOVE' if above else ''}"
                )
    return 1 if arguments.check and too_many else 0


if __name__ == "__main__":
    sys.exit(main())
