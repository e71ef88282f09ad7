"""Chooses by trying which int8 layers take their float32 input as two integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.calibration_calls import Call
from edgelstm.converters.quantize.choose import run_calls, squares_by_row
from edgelstm.converters.quantize.input_form import InputForm, is_split
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import Precision

Progress = Callable[[str], None]

# One LSTM(64) on 16 inputs has 0.78 of the error split, one of 32 on 8 inputs 0.83; other ways of
# choosing ranges give or take a tenth.
WORTH = 0.9
# A kernel of half of its recurrent kernel's size adds a third to both.
LARGEST_GROWTH = 4 / 3
# What int8 promises of files above this size: at most this share of float32. Small records keep
# single layers from it up to 170 kB; these may be split.
LARGEST_SHARE = 0.27
SMALL_BYTES = 100_000
# When files are written, metadata come and records that no interpreter reads go.
_ROOM_BYTES = 2_000


def choose_forms(
    model: Model,
    calibration: Calibration,
    taken: Sequence[Call],
    pairs: Mapping[str, str],
    plan: Plan,
    observers: Observers,
    progress: Progress,
) -> list[str]:
    """Gives each int8 layer of `calibration` its form of input; returns what to tell.

    Layers left to AUTO are split all or none: where the error on `taken` falls to `WORTH`, the file
    grows to `LARGEST_GROWTH` at most, and stays within `LARGEST_SHARE` of a float32 file that is not
    small if it is.

    Args:
        model: float32, its markers lowered; not changed.
        pairs: explicit states, input to output by name; their outputs do not count.
        observers: ranges to measure with.
    """
    asked = {output: _asked(layer, plan) for output, layer in calibration.layers.items()}
    _set(calibration, asked, InputForm.SINGLE)
    notes: list[str] = []
    if InputForm.AUTO in asked.values():
        progress("measuring inputs of LSTM layers as two integers")
        notes += _measured(model, calibration, taken, pairs, plan, observers, asked)
    if InputForm.SPLIT in asked.values():
        made, _ = quantize_static(model, calibration, plan, observers)
        names = [n for n in _split(made) if _form(asked, calibration, n) is InputForm.SPLIT]
        notes.append(
            f"Two integers for each input of {', '.join(names)}, whose kernels are twice as large."
            if names
            else "No input was split: no int8 layer that was to reads float32. What an operator in "
            "integers gives has no more to tell."
        )
    return notes


def _asked(layer: LayerStatistics, plan: Plan) -> InputForm:
    """Layers with ranges from training take their input as they did there."""
    if layer.learned is not None or plan.layer(layer.name).precision is not Precision.INT8:
        return InputForm.SINGLE
    return plan.form_of(layer.name)


def _set(calibration: Calibration, asked: Mapping[str, InputForm], automatic: InputForm) -> None:
    for output, layer in calibration.layers.items():
        form = asked[output]
        layer.form = automatic if form is InputForm.AUTO else form


def _form(asked: Mapping[str, InputForm], calibration: Calibration, name: str) -> InputForm:
    (output,) = [o for o, layer in calibration.layers.items() if layer.name == name]
    return asked[output]


def _split(made: Model) -> list[str]:
    return [layer_name(op) for op in made.main.find(FUSED_OP) if is_split(op)]


def _measured(
    model: Model,
    calibration: Calibration,
    taken: Sequence[Call],
    pairs: Mapping[str, str],
    plan: Plan,
    observers: Observers,
    asked: Mapping[str, InputForm],
) -> list[str]:
    files = {}
    for form in (InputForm.SINGLE, InputForm.SPLIT):
        _set(calibration, asked, form)
        files[form], _ = quantize_static(model, calibration, plan, observers)
    single, split = (files[form] for form in (InputForm.SINGLE, InputForm.SPLIT))
    names = [name for name in _split(split) if name not in _split(single)]
    if not names:
        _set(calibration, asked, InputForm.SINGLE)
        return []
    title = ", ".join(names)
    sizes = [len(one.to_bytes()) for one in (model, single, split)]
    reason = _too_large(*sizes)
    if not reason:
        expected = run_calls(model, taken, pairs)
        errors = [
            float(np.sqrt(np.mean(squares_by_row(expected, run_calls(one, taken, pairs)))))
            for one in (single, split)
        ]
        share = errors[1] / errors[0] if errors[0] > 0 else 1.0
        told = f"{share:.2f} of the error on the calibration data"
        if share <= WORTH:
            return [
                f"Input split: two integers for each input of {title} leave {told} and take "
                f"{sizes[2] - sizes[1]:,} bytes."
            ]
        reason = f"two integers would leave {told}, and {WORTH:.2f} is what they must be worth"
    _set(calibration, asked, InputForm.SINGLE)
    return [f"Input of {title} in one integer: {reason} (--lstm-input split)."]


def _too_large(plain: int, single: int, split: int) -> str:
    """Why the file may not grow so far, or an empty string."""
    if split > LARGEST_GROWTH * single:
        return f"the file would have {split:,} bytes instead of {single:,} with two"
    most = LARGEST_SHARE * plain
    if plain > SMALL_BYTES and single - _ROOM_BYTES <= most < split + _ROOM_BYTES:
        return f"the file would have {split / plain:.3f} of the bytes of float32 with two"
    return ""
