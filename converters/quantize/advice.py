"""What calibration shows that a user should know, each with its cure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.cut_sums import LIMIT
from edgelstm.converters.quantize.observer import Observer
from edgelstm.converters.quantize.plan import STATIC, WEIGHTS_ONLY, Plan
from edgelstm.converters.quantize.ranges import CELL_EXPONENTS, LARGEST_CELL, cell_exponent
from edgelstm.converters.quantize.static import Observers
from edgelstm.converters.spec import Precision

GATES = ("input", "forget", "cell", "output")
_SATURATED_SHARE = 0.9
# Twelve layers of the trained models that this was tried on had at most 7e-5, one had 0.014.
_CUT_RMS = 2.0**-9
_OUTLIER_RATIO = 4.0
# Below this the smallest scale of the cell state leaves fewer than 4096 of 32768 steps.
_SMALL_CELL = 2.0**-3


@dataclasses.dataclass(frozen=True)
class Advice:
    """Something that a user should know of a layer.

    Attributes:
        layer: its name; empty for the whole model.
        what: a sentence without its full stop.
        cure: what to do.
    """

    layer: str
    what: str
    cure: str

    @property
    def sentence(self) -> str:
        """Both in one."""
        return f"{self.what}: {self.cure}."

    def to_json(self) -> dict[str, str]:
        """A JSON object."""
        return {"layer": self.layer, "what": self.what, "cure": self.cure}


def of_cell(layer: str, largest: float) -> Iterator[Advice]:
    """Where a largest |c| needs a scale beyond the kernel's limits of 2^-15 and 2^-9, or the last.

    The smallest scale is told of only where it leaves few steps.
    """
    if largest > LARGEST_CELL:
        yield Advice(
            layer,
            f"The cell state of {layer} reaches {largest:.3g}, the integer kernel holds "
            f"{LARGEST_CELL:.0f} with its largest scale, 2^{CELL_EXPONENTS[-1]}: it saturates",
            "train with a cell clip, or keep the layer float (--quantize dynamic)",
        )
    elif cell_exponent(largest) == CELL_EXPONENTS[-1]:
        yield Advice(
            layer,
            f"The cell state of {layer} reaches {largest:.3g} and has the largest scale that the "
            f"integer kernel takes, 2^{CELL_EXPONENTS[-1]}, which holds {LARGEST_CELL:.0f}",
            "calibrate with sequences as long as they will be, or train with a cell clip",
        )
    elif 0 < largest < _SMALL_CELL:
        yield Advice(
            layer,
            f"The cell state of {layer} stays below {largest:.3g} and has the smallest scale that "
            f"the integer kernel takes, 2^{CELL_EXPONENTS[0]}: it uses "
            f"{int(largest * 2.0 ** -CELL_EXPONENTS[0])} of 32768 steps",
            "check the scale of the inputs, or keep the layer float (--quantize dynamic)",
        )


def of_gate(layer: str, gate: int, share: float) -> Iterator[Advice]:
    """Where a gate i, f, c, o stands at its limits nearly all the time."""
    if share > _SATURATED_SHARE:
        yield Advice(
            layer,
            f"The {GATES[gate]} gate of {layer} is at a limit {share:.0%} of the time",
            "check the scale of the inputs, which the model may expect normalised",
        )


def of_cut_sums(layer: str, gate: int, rms: float) -> Iterator[Advice]:
    """Where a gate i, f, c, o moves since the kernel cuts the two parts of its sum."""
    if rms > _CUT_RMS:
        yield Advice(
            layer,
            f"What inputs and outputs add to the {GATES[gate]} gate of {layer} exceeds "
            f"{LIMIT:g} with opposite signs: the kernel of this precision cuts "
            f"parts of the sum there, which moves the gate by {rms:.1%} (rms)",
            "keep the layer float (dynamic in a plan), or train with a smaller range of inputs",
        )


def of_outlier(
    layer: str, what: str, seen: Observer, held: tuple[float, float]
) -> Iterator[Advice]:
    """Where few values set a range, or a range leaves them out; `what` is input or output.

    Args:
        held: the lowest and highest value of the range.
    """
    ratio = seen.outlier_ratio
    if ratio <= _OUTLIER_RATIO:
        return
    told = (
        f"One in 10,000 values of the {what} of {layer} is up to {ratio:.1f} times larger than "
        "all others"
    )
    if max(abs(bound) for bound in held) * _OUTLIER_RATIO < seen.extremes.largest:
        yield Advice(
            layer,
            f"{told} and stands outside of the range, which ends at {held[0]:.3g} and "
            f"{held[1]:.3g}",
            "clip the data before the model if these are faults, or use --observer minmax if they "
            "matter",
        )
    else:
        yield Advice(
            layer,
            f"{told} and sets the range",
            "try --observer percentile or --observer mse",
        )


def shown(calibration: Calibration, plan: Plan, observers: Observers) -> list[str]:
    """What the data show, one sentence each with its cure."""
    notes = []
    for layer in calibration.layers.values():
        notes += _of_layer(layer, plan.layer(layer.name).precision, observers)
    watched = {f"input '{name}'": calibration.tensors.get(name) for name in calibration.inputs}
    watched |= {f"the input of {layer.name}": layer.x for layer in calibration.layers.values()}
    still = [
        what
        for what, seen in watched.items()
        if seen is not None and seen.seen and seen.extremes.low == seen.extremes.high
    ]
    if still:
        notes.append(
            f"Constant over all calibration data: {', '.join(still)}. Its range says nothing of "
            "other values: calibrate with data that vary."
        )
    return notes


def where_it_runs(plan: Plan) -> list[str]:
    """What runs 16-bit activations."""
    notes = []
    if Precision.INT16 in plan.of_recurrences:
        micro = "in TensorFlow Lite Micro where batch and time are fixed (--batch, --time)"
        if (plan.of_recurrences | plan.of_operators) & set(WEIGHTS_ONLY):
            micro = "not in TensorFlow Lite Micro, which has no kernels for float16 and dynamic"
        notes.append(
            "16-bit activations with 8-bit weights: this file runs in the interpreters with "
            f"EdgeLSTM's delegate, and {micro}."
        )
    return notes


def _of_layer(layer: LayerStatistics, precision: Precision, observers: Observers) -> list[str]:
    if precision not in STATIC:
        return []
    name = layer.name
    if not layer.vectors:
        return [f"No calibration data reached {name}: it stays float32."]
    largest = layer.cell.extremes.largest
    # Beyond what the kernel holds a layer stays float32, which is told elsewhere.
    found = [] if largest > LARGEST_CELL else [*of_cell(name, largest)]
    for gate, share in enumerate(layer.saturated / layer.vectors):
        found += of_gate(name, gate, float(share))
    for gate, rms in enumerate(layer.cut_sums.rms(precision)):
        found += of_cut_sums(name, gate, float(rms))
    if precision is Precision.INT8:
        ranges = layer.ranges(observers.inputs, observers.states, 8)
        for what, seen, held in (
            ("input", layer.x, ranges.x),
            ("output", layer.h, ranges.h),
        ):
            found += of_outlier(name, what, seen, (held.low, held.high))
    return [one.sentence for one in found]
