"""Outputs beside the truth: how far off, and from which step on."""

from __future__ import annotations

import io
from typing import Any

from .inputs import tensor_names
from .messages import AgentError, Message

IN, OUT = "in:", "out:"


def outputs(interpreter: Any) -> dict[str, Any]:
    """The output arrays by the signature's names, by the tensors' where there is none."""
    named: dict[int, str] = {}
    full = getattr(interpreter, "_get_full_signature_list", None)
    if full is not None:
        for signature in full().values():
            for name, index in signature.get("outputs", {}).items():
                named.setdefault(int(index), str(name))
    found = {}
    for detail in interpreter.get_output_details():
        index = int(detail["index"])
        found[named.get(index, str(detail["name"]))] = interpreter.get_tensor(index).copy()
    return found


def archive(interpreter: Any, inputs: list[Any]) -> bytes:
    """An .npz: inputs as `in:NAME`, outputs as `out:NAME`."""
    import numpy as np

    names = tensor_names(interpreter)
    arrays = {IN + names[index][0]: data for index, data in inputs}
    arrays.update({OUT + name: data for name, data in outputs(interpreter).items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read(path: str, interpreter: Any) -> tuple[list[Any], dict[str, Any]]:
    """Inputs by tensor index, and the expected outputs by name."""
    import numpy as np

    names = tensor_names(interpreter)
    with np.load(path, allow_pickle=False) as archive:
        given = {key[len(IN) :]: archive[key] for key in archive.files if key.startswith(IN)}
        expected = {key[len(OUT) :]: archive[key] for key in archive.files if key.startswith(OUT)}
    inputs = []
    for detail in interpreter.get_input_details():
        index = int(detail["index"])
        name = next((name for name in names[index] if name in given), None)
        if name is None:
            raise AgentError("input", f"the golden data have no input '{names[index][0]}'")
        inputs.append((index, given[name].astype(detail["dtype"])))
    return inputs, expected


def differences(
    found: dict[str, Any], expected: dict[str, Any], tolerance: float, steps: int | None
) -> list[Message]:
    """Per output: worst absolute error, range of the truth, and the first step beyond tolerance.

    `first_step` counts along axis 1 of outputs [batch, steps, ...] and is null where nothing
    exceeds `tolerance` times the range, or the output has no such axis.
    """
    import numpy as np

    results = []
    for name, truth in expected.items():
        if name not in found and len(found) == len(expected) == 1:
            (name_here,) = found  # one output has no need of a name
        else:
            name_here = name
        if name_here not in found:
            there = ", ".join(sorted(found))
            raise AgentError("input", f"the model has no output '{name}' (it has: {there})")
        here = found[name_here]
        if here.shape != truth.shape:
            text = f"output '{name}' has shape {list(here.shape)}, the truth {list(truth.shape)}"
            raise AgentError("input", text)
        error = np.abs(here.astype(np.float64) - truth.astype(np.float64))
        # NaN on one side only is the largest of errors; on both sides it is agreement.
        error[np.isnan(here) & np.isnan(truth)] = 0.0
        error[np.isnan(error)] = np.inf
        span = float(np.nanmax(np.abs(truth), initial=0.0)) if truth.size else 0.0
        beyond = error > tolerance * (span or 1.0)
        first = None
        if truth.ndim >= 3 and truth.shape[1] == steps:
            axes = tuple(axis for axis in range(truth.ndim) if axis != 1)
            at = np.flatnonzero(beyond.any(axis=axes))
            first = int(at[0]) if len(at) else None
        worst = float(error.max(initial=0.0))
        results.append(
            {
                "name": name_here,
                "worst": worst if np.isfinite(worst) else None,
                "range": span,
                "first_step": first,
                "within": not bool(beyond.any()),
                "zero": bool(truth.any()) and not bool(here.any()),
            }
        )
    return results
