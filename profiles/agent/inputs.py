"""The model's inputs: names, shapes, and random data."""

from __future__ import annotations

from typing import Any

from .messages import AgentError, Message


def tensor_names(interpreter: Any) -> dict[int, list[str]]:
    """By tensor index: every name a user may know an input by, the signature's name first."""
    names: dict[int, list[str]] = {}
    full = getattr(interpreter, "_get_full_signature_list", None)
    if full is not None:
        for signature in full().values():
            for name, index in signature.get("inputs", {}).items():
                names.setdefault(int(index), []).append(str(name))
    for detail in interpreter.get_input_details():
        name = str(detail["name"])
        known = names.setdefault(int(detail["index"]), [])
        known.append(name)
        short = name.split(":")[0]
        if short.startswith("serving_default_"):
            short = short[len("serving_default_") :]
        known.append(short)
    return names


def input_shape(detail: Message, names: list[str], shapes: Message, time_size: int) -> list[int]:
    """The shape an input is measured with: the given one, else dynamic sizes filled in.

    An unknown first dimension is the batch and becomes 1, any other becomes `time_size`.
    """
    for name in names:
        if name in shapes:
            return [int(size) for size in shapes[name]]
    signature = detail.get("shape_signature")
    if signature is None or len(signature) == 0:
        signature = detail["shape"]
    filled = []
    for axis, size in enumerate(signature):
        filled.append(int(size) if size >= 0 else (1 if axis == 0 else time_size))
    return filled


def draw_input(detail: Message, shape: list[int], limits: list[int] | None, rng: Any) -> Any:
    """Random data for one input: array of the input's dtype and `shape`.

    Floats are uniform in [-1, 1). Integers take `limits` (inclusive); without limits, quantized
    ones span their dtype and plain ones are 0 or 1, which index any table of two rows.
    """
    import numpy as np

    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return rng.uniform(-1.0, 1.0, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind not in "iu":
        name = detail["name"]
        raise AgentError("unsupported", f"input '{name}' has type {dtype}: no random data")
    if limits is not None:
        low, high = limits
    elif float(detail["quantization"][0]) != 0.0:
        bits = 8 * dtype.itemsize
        low, high = (
            (0, 2**bits - 1) if dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
    else:
        low, high = 0, 1
    return rng.integers(low, high, size=shape, dtype=np.int64, endpoint=True).astype(dtype)
