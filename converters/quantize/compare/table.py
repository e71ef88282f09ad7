"""The figures of a comparison as text and JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence

from edgelstm.converters.quantize.compare.measure import FLOAT32, INT8, INT16, Figures
from edgelstm.converters.quantize.compare.stock import StockQuantizer

_HEAD = ("model", "int8 rms", "stock A", "stock B", "ratio", "int16/int8", "activations", "size",
         "accuracy: float32, int8, int16")  # fmt: skip
_WIDTHS = (40, 9, 9, 9, 6, 10, 11, 6, 0)
_NONE = "-"
_WANTED = 0.8  # of the better stock quantizer's error
# A stock file that is off by more of the signal's deviation computes something else.
_BROKEN = 0.5


@dataclasses.dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        stages: figures by stage, as `measure.py` finds them.
        reason: why there are none; empty where there are.
    """

    name: str
    data: str
    stages: dict[str, Figures]
    reason: str

    def rms(self, stage: str) -> float | None:
        """The rms error of a stage; of a stock quantizer by its name alone, whichever way went."""
        for name, figures in self.stages.items():
            if (name == stage or name.startswith(f"{stage}, ")) and "rms" in figures:
                return float(figures["rms"])
        return None

    @property
    def better_stock(self) -> float | None:
        """The smaller rms error of the stock quantizers."""
        found = [self.rms(quantizer.value) for quantizer in StockQuantizer]
        return min((one for one in found if one is not None), default=None)

    @property
    def stock_works(self) -> bool:
        """Whether the better stock file still says what the model says."""
        signal = float(self.stages.get(FLOAT32, {}).get("signal", 0.0))
        return self.better_stock is not None and self.better_stock < _BROKEN * signal

    @property
    def ratio(self) -> float | None:
        """Our int8 error by the better stock one's."""
        return _over(self.rms(INT8), self.better_stock)

    @property
    def wide(self) -> float | None:
        """int16's error by int8's."""
        return _over(self.rms(INT16), self.rms(INT8))

    @property
    def activations(self) -> float | None:
        """int16's error against float32 with the same weights, by int8's error."""
        found = self.stages.get(INT16, {}).get("activations_rms")
        return _over(found, self.rms(INT8))

    @property
    def size(self) -> float | None:
        """Bytes of int8 by those of float32."""
        return _over(
            self.stages.get(INT8, {}).get("bytes"), self.stages.get(FLOAT32, {}).get("bytes")
        )

    @property
    def accuracies(self) -> str:
        """In percent; empty without labels."""
        found = [self.stages.get(stage, {}).get("accuracy") for stage in (FLOAT32, INT8, INT16)]
        if found[0] is None:
            return ""
        answers = self.stages[FLOAT32]["answers"]
        told = ", ".join(_NONE if one is None else f"{100 * one:.2f} %" for one in found)
        return f"{told} of {answers}"


def _over(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def _short(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3g}"


def block(row: Row) -> str:
    """Everything found of one model, a line per stage."""
    lines = [f"\n{row.name}" + (f" ({row.data})" if row.data else "")]
    if row.reason:
        return f"{lines[0]}: left out: {row.reason}"
    for stage, figures in row.stages.items():
        if "failed" in figures:
            lines.append(f"  {stage}: failed: {figures['failed']}")
            continue
        told = [f"rms {figures['rms']:.4g}" if "rms" in figures else f"std {figures['signal']:.4g}"]
        told.append(f"{figures['bytes']} bytes")
        if "activations_rms" in figures:
            told.append(f"activations alone {figures['activations_rms']:.4g}")
        if "accuracy" in figures:
            told.append(f"{100 * figures['accuracy']:.2f} % of {figures['answers']} right")
        lines.append(f"  {stage:34} {', '.join(told)}")
    if row.ratio is not None:
        lines.append(f"  int8 over the better stock one: {row.ratio:.3f}")
    if row.wide is not None:
        lines.append(f"  int16 over int8: {row.wide:.3f}")
    if row.activations is not None:
        lines.append(f"  int16 activations over int8: {row.activations:.3f}")
    if row.size is not None:
        lines.append(f"  int8 bytes over float32: {row.size:.3f}")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """The table of all models, and the medians of its ratios."""
    lines = ["", _line(_HEAD)]
    for row in rows:
        if row.reason:
            lines.append(f"{row.name:40} left out: {row.reason}")
            continue
        stock = [_short(row.rms(quantizer.value)) for quantizer in StockQuantizer]
        ratios = [_short(row.ratio), _short(row.wide), _short(row.activations), _short(row.size)]
        lines.append(_line((row.name, _short(row.rms(INT8)), *stock, *ratios, row.accuracies)))
    known = [row.ratio for row in rows if row.ratio is not None and row.stock_works]
    broken = [row.name for row in rows if row.ratio is not None and not row.stock_works]
    if known:
        below = sum(ratio <= _WANTED for ratio in known)
        lines.append(
            f"ratio: median {statistics.median(known):.3g}, at most {_WANTED} in {below} of "
            f"{len(known)}"
        )
    if broken:
        lines.append(
            f"not counted, since the stock file's error is as large as the signal: "
            f"{', '.join(broken)}"
        )
    lines.append(
        "stock A: TFLiteConverter's quantizer; B: the flatbuffer calibrator; ratio: int8 over the "
        "better one; activations: int16 beside float32 of the same weights, over int8; size: int8 "
        "bytes over float32"
    )
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def to_json(rows: Sequence[Row]) -> str:
    """A list of objects: name, data, reason, stages, and the ratios of the table."""
    return json.dumps(
        [
            {
                **dataclasses.asdict(row),
                "ratio": row.ratio,
                "int16_over_int8": row.wide,
                "int16_activations_over_int8": row.activations,
                "bytes_over_float32": row.size,
            }
            for row in rows
        ],
        indent=1,
    )


def from_json(text: str) -> list[Row]:
    """What `to_json` wrote."""
    names = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: one[name] for name in names}) for one in json.loads(text)]
