"""Which operator runs in which precision on which interpreter: code and docs read this table."""

from __future__ import annotations

import dataclasses

from edgelstm.converters.spec import Precision
from edgelstm.errors import UnsupportedModelError

RUNTIMES = ("litert", "tflite-runtime", "tensorflow")
MICRO = "tflite-micro"  # fixed sizes only
DELEGATE = "edgelstm delegate"  # in any of the runtimes, which have no kernel themselves


@dataclasses.dataclass(frozen=True)
class Legality:
    """One operator in one precision.

    Attributes:
        runtimes: interpreters that run it, or what does within one; empty when nothing does.
        written: whether this version writes it.
        note: what the kernel demands, or why nothing runs it.
    """

    op: str
    precision: Precision
    runtimes: tuple[str, ...]
    written: bool
    note: str


_UNI, _FULL, _BIDI = "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM"

TABLE: tuple[Legality, ...] = (
    Legality(_UNI, Precision.FLOAT32, RUNTIMES, True, "weights, activations and states float32"),
    Legality(_UNI, Precision.FLOAT16, RUNTIMES, True, "weights through DEQUANTIZE to float32"),
    Legality(_UNI, Precision.DYNAMIC, RUNTIMES, True, "weights int8, one scale per tensor"),
    Legality(_UNI, Precision.INT8, RUNTIMES, True, "8-bit activations, 16-bit cell state"),
    Legality(_UNI, Precision.INT16, (DELEGATE, MICRO), True, "16-bit activations, 8-bit weights"),
    Legality(_FULL, Precision.FLOAT32, RUNTIMES, False, "one step"),
    Legality(_FULL, Precision.FLOAT16, RUNTIMES, False, "weights through DEQUANTIZE to float32"),
    Legality(_FULL, Precision.DYNAMIC, RUNTIMES, False, "weights int8, one scale per tensor"),
    Legality(_FULL, Precision.INT8, RUNTIMES, False, "8-bit activations, 16-bit cell state"),
    Legality(_FULL, Precision.INT16, (), False, "no kernel"),
    Legality(_BIDI, Precision.FLOAT32, RUNTIMES, False, "wrong with merged outputs and batch > 1"),
    Legality(_BIDI, Precision.FLOAT16, RUNTIMES, False, "weights through DEQUANTIZE to float32"),
    Legality(_BIDI, Precision.DYNAMIC, RUNTIMES, False, "weights int8, one scale per tensor"),
    Legality(_BIDI, Precision.INT8, (), False, "the kernel demands float32 activations"),
    Legality(_BIDI, Precision.INT16, (), False, "the kernel demands float32 activations"),
)


def legality(op: str, precision: Precision) -> Legality:
    """The table's entry for an operator and a precision; KeyError where the table has none."""
    for entry in TABLE:
        if entry.op == op and entry.precision is precision:
            return entry
    raise KeyError((op, precision))


def require_written(op: str, precision: Precision) -> None:
    """Checks that this version can write an operator in a precision.

    Raises:
        UnsupportedModelError: it cannot, yet or at all.
    """
    entry = legality(op, precision)
    if entry.written:
        return
    able = [one.precision.value for one in TABLE if one.op == op and one.written]
    raise UnsupportedModelError(
        f"{op} in {precision.value} is not written yet ({entry.note})",
        cure=f"choose {' or '.join(able)}" if able else None,
    )
