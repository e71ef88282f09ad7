"""What the inner loops of the NEON kernels take on ARM cores, by llvm-mca's models of them.

    python tests/arm_inner_loops.py [--build FOLDER]

Cross-builds the objects of the 64-bit ARM kernels, finds the loop of each product in their machine
code, and prints cycles per iteration and multiply-adds per cycle. The models count decoding, ports and
latencies; every load hits the first cache. Where a version of llvm-mca has no model of its own for a
core it takes that of a relative: Cortex-A57 for A72 and, up to version 18, for A76.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parent.parent / "edgelstm" / "native"
PREFIX = "aarch64-linux-gnu-"
ITERATIONS = 1000
ALL_CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
# Multiply-adds of one instruction, by its name and the form of its destination.
MULTIPLY_ADDS = {
    ("fmla", "4s"): 4,
    ("sdot", "4s"): 16,
    ("smmla", "4s"): 32,
    ("smlal", "8h"): 8,
    ("smlal2", "8h"): 8,
    ("smull", "8h"): 8,
    ("smull2", "8h"): 8,
}


@dataclasses.dataclass(frozen=True)
class Product:
    """A loop to find: the set of kernels, and the function of which it is the longest.

    Attributes:
        cores: those that have its instructions.
    """

    kernels: str
    what: str
    function: str
    cores: tuple[str, ...] = ALL_CORES


_FLOAT = "FloatProduct<edgelstm::(anonymous namespace)::Neon>::Accumulate"
_INT8 = "Int8Product<edgelstm::(anonymous namespace)::Neon>::Add"
PRODUCTS = (
    Product("neon", "float32, 1 row", f"{_FLOAT}<1, 2, 4, float>"),
    Product("neon", "float32, 5 rows", f"{_FLOAT}<5, 1, 4, float>"),
    Product("neon", "float16, 1 row", f"{_FLOAT}<1, 2, 4, unsigned short>"),
    Product("neon", "int8, 1 row", f"{_INT8}<1, 1, 8>"),
    Product("neon", "int8, 2 rows", f"{_INT8}<2, 1, 4>"),
    Product("neondot", "int8, 1 row", f"{_INT8}<1, 2, 4>", ("cortex-a76",)),
    Product("neondot", "int8, 4 rows", f"{_INT8}<4, 1, 4>", ("cortex-a76",)),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one iteration on one core."""

    cycles: float
    multiply_adds: int

    @property
    def per_cycle(self) -> float:
        """Multiply-adds per cycle."""
        return self.multiply_adds / self.cycles


def build(folder: Path) -> None:
    """Cross-builds the objects."""
    configure = [
        *("cmake", "-S", str(NATIVE), "-B", str(folder)),
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={PREFIX}g++",
    ]
    subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
    make = ["cmake", "--build", str(folder), "--target", "edgelstm_objects", "-j2"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)


def loops(folder: Path, kernels: str) -> dict[str, list[str]]:
    """The loop with the most multiplications of every function, as instructions of the assembler.

    Only innermost loops count: one branch, at the end, back to the start.
    """
    (path,) = folder.rglob(f"lstm_{kernels}.cc.o")
    text = subprocess.run(
        [f"{PREFIX}objdump", "-dC", "--no-show-raw-insn", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, list[str]] = {}
    function = ""
    places: dict[int, int] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if named := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function, places, lines = named[1], {}, []
            continue
        parts = re.match(r" *([0-9a-f]+):\t(.*)", line)
        if parts is None:
            continue
        places[int(parts[1], 16)] = len(lines)
        lines.append(re.sub(r"\s*//.*", "", parts[2]))
        back = re.match(r"(?:b\.\w+|cbn?z)\s.*?([0-9a-f]+) <", lines[-1])
        if back is None or int(back[1], 16) not in places:
            continue
        body = lines[places[int(back[1], 16)] :]
        if any(re.match(r"b\.|b\s|bl|cb|tb|ret", each) for each in body[:-1]):
            continue
        if multiply_adds(body) > multiply_adds(found.get(function, [])):
            found[function] = body
    return found


def multiply_adds(body: list[str]) -> int:
    """Of all instructions of a loop."""
    total = 0
    for line in body:
        if parts := re.match(r"(\w+)\s+v\d+\.(\w+),", line):
            total += MULTIPLY_ADDS.get((parts[1], parts[2]), 0)
    return total


def cost(body: list[str], core: str) -> Cost:
    """By llvm-mca, over many iterations."""
    last = re.sub(r"[0-9a-f]+ <.*", "inner", body[-1])
    source = "\n".join(["inner:", *body[:-1], last, ""])
    done = subprocess.run(
        [
            *("llvm-mca", "--mtriple=aarch64-linux-gnu", f"--mcpu={core}"),
            *(f"--iterations={ITERATIONS}", "-"),
        ],
        input=source,
        capture_output=True,
        text=True,
    )
    cycles = re.search(r"^Total Cycles:\s+(\d+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or cycles is None:
        raise SystemExit(f"llvm-mca does not read a loop for {core}: {done.stderr[-500:]}")
    return Cost(int(cycles[1]) / ITERATIONS, multiply_adds(body))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, help="where to build; kept for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.build or Path(temporary)).resolve()
        build(folder)
        found = {kernels: loops(folder, kernels) for kernels in {p.kernels for p in PRODUCTS}}
    print("kernels  product           core        instructions  cycles  multiply-adds  per cycle")
    for product in PRODUCTS:
        names = [name for name in found[product.kernels] if product.function in name]
        if len(names) != 1:
            raise SystemExit(f"{len(names)} functions are called {product.function}")
        body = found[product.kernels][names[0]]
        for core in product.cores:
            taken = cost(body, core)
            print(
                f"{product.kernels:8} {product.what:17} {core:11} {len(body):12}"
                f"  {taken.cycles:6.1f}  {taken.multiply_adds:13}  {taken.per_cycle:9.2f}"
            )


if __name__ == "__main__":
    main()
