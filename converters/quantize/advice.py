"""What calibration shows that a user should know, each with its cure."""

from __future__ import annotations

from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.plan import STATIC, WEIGHTS_ONLY, Plan
from edgelstm.converters.spec import Precision

_GATES = ("input", "forget", "cell", "output")
_SATURATED_SHARE = 0.9
_OUTLIER_RATIO = 4.0


def advice(calibration: Calibration, precision: Precision | Plan) -> list[str]:
    """Notes, one sentence each with its cure."""
    plan = Plan.of(precision)
    notes = []
    for layer in calibration.layers.values():
        notes += _of_layer(layer, plan.layer(layer.name).precision)
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
    if Precision.INT16 in plan.of_recurrences:
        micro = "in TensorFlow Lite Micro where batch and time are fixed (--batch, --time)"
        if (plan.of_recurrences | plan.of_operators) & set(WEIGHTS_ONLY):
            micro = "not in TensorFlow Lite Micro, which has no kernels for float16 and dynamic"
        notes.append(
            "16-bit activations with 8-bit weights: this file runs in the interpreters with "
            f"EdgeLSTM's delegate, and {micro}."
        )
    return notes


def _of_layer(layer: LayerStatistics, precision: Precision) -> list[str]:
    if precision not in STATIC:
        return []
    notes = []
    name = layer.name
    if not layer.vectors:
        return [f"No calibration data reached {name}: it stays float32."]
    for gate, share in zip(_GATES, layer.saturated / layer.vectors, strict=True):
        if share > _SATURATED_SHARE:
            notes.append(
                f"The {gate} gate of {name} is at a limit {share:.0%} of the time: check the scale "
                "of the inputs, which the model may expect normalised."
            )
    if precision is Precision.INT8:
        for what, observer in (("input", layer.x), ("output", layer.h)):
            if observer.outlier_ratio > _OUTLIER_RATIO:
                notes.append(
                    f"One in 10,000 values of the {what} of {name} is up to "
                    f"{observer.outlier_ratio:.1f} times larger than all others and sets the "
                    "range: try --observer percentile or --observer mse."
                )
    return notes
