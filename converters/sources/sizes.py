"""Batch and time sizes that the user asks for."""

from __future__ import annotations

from edgelstm.converters.options import Size
from edgelstm.errors import OptionError


def asked_size(
    shape: tuple[int | None, ...], axis: int, asked: int | Size, what: str, name: str
) -> tuple[int | None, ...]:
    """A shape with the size that was asked for on one axis.

    Args:
        what: "batch" or "time"; name: of the input.

    Raises:
        OptionError: the model fixes another size.
    """
    if asked is Size.ONE:
        asked = 1 if len(shape) > axis and shape[axis] is None else Size.SOURCE
    if asked is Size.SOURCE or len(shape) <= axis or asked == shape[axis]:
        return shape
    if asked is Size.DYNAMIC and shape[axis] is None:
        return shape
    if shape[axis] is not None:
        wish = "dynamic" if asked is Size.DYNAMIC else str(asked)
        raise OptionError(
            f"The model fixes the {what} size of input {name!r} at {shape[axis]}; "
            f"--{what} {wish} cannot change it.",
            cure=f"leave --{what} out, or save the model with that dimension None",
        )
    return (*shape[:axis], int(asked), *shape[axis + 1 :])  # type: ignore[arg-type]
