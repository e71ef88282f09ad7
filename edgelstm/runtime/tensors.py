"""The named inputs and outputs of a model, and whether arrays fit them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError

Array = npt.NDArray[Any]


class NanPolicy(enum.Enum):
    """What to do with inputs that hold NaN."""

    PASS = "pass"  # as the interpreters do; a state that has met NaN stays NaN until it is reset
    REFUSE = "refuse"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A named input or output.

    Attributes:
        shape: None for a dimension that may vary from call to call.
        dtype: numpy name, e.g. "float32".
        scale, zero_point: real = scale * (stored - zero_point) for quantized integers; scale is 0
            for all others.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @classmethod
    def of(cls, name: str, detail: Mapping[str, Any]) -> TensorInfo:
        """From what an interpreter tells of a tensor."""
        # Files without shape signature give their fixed shape.
        signature = detail.get("shape_signature")
        sizes = detail["shape"] if signature is None or not len(signature) else signature
        scale, zero_point = detail["quantization"]
        return cls(
            name=name,
            shape=tuple(None if size < 0 else int(size) for size in sizes),
            dtype=np.dtype(detail["dtype"]).name,
            scale=float(scale),
            zero_point=int(zero_point),
        )


def named(details: list[dict[str, Any]], signature: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The graph's inputs or outputs by the signature's names, or by their own where it has none.

    A signature may give one tensor several names.
    """
    found: dict[str, dict[str, Any]] = {}
    for detail in {int(detail["index"]): detail for detail in details}.values():
        names = [name for name, index in signature.items() if index == detail["index"]]
        for name in names or [str(detail["name"])]:
            free = bool(name) and name not in found
            found[name if free else f"{name or 'tensor'}_{len(found)}"] = detail
    return found


def fitting_inputs(
    inputs: Mapping[str, npt.ArrayLike],
    infos: tuple[TensorInfo, ...],
    nan: NanPolicy,
    where: str,
) -> dict[str, Array]:
    """The given inputs as arrays, in the order of `infos`.

    Raises:
        DataError: one is missing, unknown, has the wrong dtype or shape, or holds NaN that `nan`
            refuses.
    """
    known = ", ".join(info.name for info in infos)
    if not isinstance(inputs, Mapping):
        raise DataError(
            f"The inputs are a {type(inputs).__name__}, not arrays by name.",
            where=where,
            cure="give a dict of: " + known,
        )
    names = [info.name for info in infos]
    unknown = [name for name in inputs if name not in names]
    if unknown:
        raise DataError(
            f"The model has no input called {unknown[0]!r}.",
            where=where,
            cure=f"its inputs are: {known}",
        )
    arrays = {}
    for info in infos:
        if info.name not in inputs:
            raise DataError(
                f"The input {info.name!r} is missing.", where=where, cure=f"give all of: {known}"
            )
        array = fitting(np.asarray(inputs[info.name]), info)
        if nan is NanPolicy.REFUSE and holds_nan(array):
            raise DataError(
                f"The input {info.name!r} holds NaN.",
                where=where,
                cure="replace it, or pass nan=NanPolicy.PASS",
            )
        arrays[info.name] = array
    return arrays


def fitting(array: Array, info: TensorInfo) -> Array:
    """`array` in native byte order.

    Raises:
        DataError: its dtype or shape is not the input's.
    """
    if array.dtype.name != info.dtype:
        raise DataError(
            f"The input {info.name!r} has dtype {array.dtype}, the model takes {info.dtype}.",
            cure=f"convert it with numpy.asarray(..., {info.dtype!r})",
        )
    fits = len(array.shape) == len(info.shape) and all(
        size >= 1 if wanted is None else size == wanted
        for size, wanted in zip(array.shape, info.shape, strict=True)
    )
    if not fits:
        wanted_text = ", ".join("any" if size is None else str(size) for size in info.shape)
        raise DataError(
            f"The input {info.name!r} has shape {list(array.shape)}, "
            f"the model takes [{wanted_text}].",
            cure="give it that shape; a batch of one row still has its axis",
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def holds_nan(array: Array) -> bool:
    """Whether an array of any dtype holds NaN."""
    if array.dtype.kind != "f":
        return False
    if array.dtype.itemsize < 4 or not array.flags.c_contiguous:
        return bool(np.isnan(array).any())
    # A third of the time of isnan().any(); squares are never negative, so infinities stay such.
    flat = array.reshape(-1)
    squares = flat.dot(flat)
    return bool(squares != squares)
