"""What a measurement of quantization found: the types and their JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgelstm.converters.quantize.advice import Advice
from edgelstm.converters.quantize.fidelity.figures import Drift, Figures, number
from edgelstm.converters.quantize.fidelity.sequences import LongRun
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.spec import Precision

PARTS: Mapping[str, str] = {
    "x": "input",
    "gate_i": "gate i",
    "gate_f": "gate f",
    "gate_c": "gate c",
    "gate_o": "gate o",
    "c": "cell state",
    "h": "output",
    "own": "own error",
}
"""Keys of a layer's parts and what readers see. `own` is the error that the layer adds: float32
on the same quantized input, instead of float32 throughout."""


@dataclasses.dataclass(frozen=True)
class Saturation:
    """How many values stand at a limit.

    Attributes:
        clipped: stored values at an end of their type, by overflow or by chance; of a gate its
            sum before the activation. None for float arithmetic.
        float_limit, limit: gates within 1/256 of 0 or 1 (-1 or 1 for c), and cell states at the
            cell's clip, in float32 and in the quantized layer; None where there is no limit.
    """

    clipped: int | None = None
    float_limit: int | None = None
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "clipped": self.clipped,
            "at_limit": self.limit,
            "at_limit_float": self.float_limit,
        }


@dataclasses.dataclass(frozen=True)
class Part:
    """One quantity of a layer, over sequences of usual length and over the long one."""

    figures: Figures
    saturation: Saturation
    drift: Drift | None
    long_saturation: Saturation

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        long = None
        if self.drift is not None:
            long = {**self.drift.to_json(), **self.long_saturation.to_json()}
        return {**self.figures.to_json(), **self.saturation.to_json(), "long": long}


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """One fused operator.

    Attributes:
        precision: int8, int16, dynamic, float16, or float32 where it stayed so.
        parts: by the keys of `PARTS`; empty where the operator cannot be followed.
        kernel_error: largest difference between the arithmetic that gates come from and the
            interpreter's output; 0 for int8. None where no interpreter ran the operator.
        cell_exponent: log2 of the cell state's scale; None for float cells.
        ranges: lowest and highest value that integers stand for, of x and h; empty for floats.
        form: whether one or two integers stand for each input; None for floats.
    """

    name: str
    units: int
    precision: str
    parts: Mapping[str, Part]
    kernel_error: float | None
    cell_exponent: int | None
    ranges: Mapping[str, tuple[float, float]]
    form: InputForm | None = None

    @property
    def is_exact(self) -> bool:
        """Nothing in it differs from float32, its input included."""
        return all(part.figures.max_error == 0 for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "units": self.units,
            "precision": self.precision,
            "input": None if self.form is None else self.form.value,
            "kernel_error": self.kernel_error,
            "cell_scale": None if self.cell_exponent is None else 2.0**self.cell_exponent,
            "ranges": {
                key: [number(low), number(high)] for key, (low, high) in self.ranges.items()
            },
            "parts": {key: part.to_json() for key, part in self.parts.items()},
        }


@dataclasses.dataclass(frozen=True)
class OutputReport:
    """One output of the model.

    Attributes:
        range: of its float values.
        growth: of outputs without a time axis too; their drift is measured after some numbers of
            steps, and its points are these.
    """

    name: str
    figures: Figures
    range: float
    drift: Drift | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            **self.figures.to_json(),
            "range": self.range,
            "long": None if self.drift is None else self.drift.to_json(),
        }


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """A quantized model beside its float32 form.

    Attributes:
        data: where the inputs came from.
        rows: sequences of usual length.
        steps: usual length; None without a time axis.
        long_steps: of the long sequence, `times` as long as usual; 0 where there was none.
        warnings: each with its cure.
        notes: what could not be measured, and why.
    """

    precision: Precision
    data: str
    rows: int
    steps: int | None
    long_steps: int
    times: int
    long_rows: int
    long_run: LongRun
    layers: tuple[LayerReport, ...]
    outputs: tuple[OutputReport, ...]
    warnings: tuple[Advice, ...]
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object; its keys are described in `converters/README.md`."""
        return {
            "precision": self.precision.value,
            "data": self.data,
            "rows": self.rows,
            "steps": self.steps,
            "long": {
                "steps": self.long_steps,
                "rows": self.long_rows,
                "times": self.times,
                "run": self.long_run.value,
            },
            "layers": [layer.to_json() for layer in self.layers],
            "outputs": [output.to_json() for output in self.outputs],
            "warnings": [warning.to_json() for warning in self.warnings],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }
