"""Means and deviations that a file tells of its inputs and outputs, and what applies them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.errors import UnreadableModelError, UnsupportedModelError
from edgelstm.runtime.tensors import Array, TensorInfo

ENTRY = "normalisation"


class Normalisation(enum.Enum):
    """What a file's mean and standard deviation do to arrays that go in and come out."""

    LEAVE = "leave"  # nothing: arrays are as the model has them
    APPLY = "apply"  # inputs become (x - mean) / std, outputs y * std + mean


@dataclasses.dataclass(frozen=True, eq=False)
class Constants:
    """Of one input or output.

    Attributes:
        mean, std: float32 [1] or [size of the last axis]; std is above zero.
    """

    mean: Array
    std: Array

    @classmethod
    def of(cls, mean: npt.ArrayLike, std: npt.ArrayLike) -> Constants:
        """From numbers or vectors.

        Raises:
            ValueError: says why they are none.
        """
        arrays = []
        for kind, given in (("mean", mean), ("std", std)):
            try:
                with np.errstate(over="ignore"):
                    array = np.atleast_1d(np.asarray(given, np.float64)).astype(np.float32)
            except (TypeError, ValueError):
                raise ValueError(f"{kind} does not consist of numbers") from None
            if array.ndim != 1 or not array.size:
                raise ValueError(f"{kind} has the shape {list(array.shape)}, not one axis")
            if not np.isfinite(array).all():
                raise ValueError(f"{kind} holds NaN or a value beyond float32")
            arrays.append(array)
        if not (arrays[1] > 0).all():
            at = int(np.argmin(arrays[1]))
            raise ValueError(f"std is {arrays[1][at]:g} at position {at}; it must be above zero")
        return cls(*arrays)

    def to_json(self) -> dict[str, list[float]]:
        """A JSON object; numbers in the fewest digits that give the same float32."""
        return {
            "mean": [float(str(value)) for value in self.mean],
            "std": [float(str(value)) for value in self.std],
        }

    def misfit(self, info_shape: Sequence[int | None]) -> str | None:
        """Why they do not fit a tensor of this shape; None where they do."""
        last = info_shape[-1] if info_shape else 1
        for kind, array in (("mean", self.mean), ("std", self.std)):
            if len(array) not in (1, last):
                wanted = "1" if last in (None, 1) else f"1 or {last}"
                return f"{kind} has {len(array)} numbers, not {wanted}"
        return None


def read_constants(metadata: Mapping[str, Any] | None, where: str) -> dict[str, Constants]:
    """By input and output, what the metadata tell; empty where they tell nothing.

    Raises:
        UnreadableModelError: what they tell are no such constants.
    """
    told = (metadata or {}).get(ENTRY)
    if told is None:
        return {}
    try:
        return {str(name): Constants.of(each["mean"], each["std"]) for name, each in told.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableModelError(
            f"The metadata tell of normalisation constants that are none: {error}.",
            where=where,
            cure="convert the model again",
        ) from None


class Scaling:
    """Normalises inputs and takes it back from outputs.

    Arrays that do not fit pass as they are, so that the model's own checks name what is wrong.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any] | None,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        where: str,
    ) -> None:
        """For a model's inputs and outputs, states left out.

        Raises:
            UnreadableModelError: the metadata tell of constants that do not fit the model.
            UnsupportedModelError: they tell of none for these, or such a tensor holds integers.
        """
        constants = read_constants(metadata, where)
        self._inputs = _chosen(constants, inputs, where)
        self._outputs = _chosen(constants, outputs, where)
        self._only = inputs[0].name if len(inputs) == 1 else None
        if not self._inputs and not self._outputs:
            raise UnsupportedModelError(
                "The file tells no mean and standard deviation of its inputs or outputs.",
                where=where,
                cure="edgelstm convert SOURCE -o OUT.tflite --normalisation FILE, or leave "
                "normalisation= out",
            )

    def inputs(self, given: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> Any:
        """Arrays by name, or that of the only input, as the model takes them."""
        if isinstance(given, Mapping):
            return {name: self._input(name, array) for name, array in given.items()}
        return given if self._only is None else self._input(self._only, given)

    def outputs(self, made: dict[str, Array]) -> dict[str, Array]:
        """The same arrays, those with constants changed in place."""
        for name, constants in self._outputs.items():
            np.multiply(made[name], constants.std, out=made[name])
            np.add(made[name], constants.mean, out=made[name])
        return made

    def _input(self, name: str, given: npt.ArrayLike) -> npt.ArrayLike:
        constants = self._inputs.get(name)
        if constants is None:
            return given
        array = np.asarray(given)
        size = array.shape[-1] if array.ndim else 1
        if array.dtype.name != "float32" or constants.misfit((size,)):
            return given
        scaled: Array = (array - constants.mean) / constants.std
        return scaled


def _chosen(
    constants: Mapping[str, Constants], infos: Sequence[TensorInfo], where: str
) -> dict[str, Constants]:
    chosen = {}
    for info in infos:
        own = constants.get(info.name)
        if own is None:
            continue
        misfit = own.misfit(info.shape)
        if misfit is not None:
            raise UnreadableModelError(
                f"The metadata's constants do not fit {info.name!r}: {misfit}.",
                where=where,
                cure="convert the model again",
            )
        if info.dtype != "float32":
            raise UnsupportedModelError(
                f"{info.name!r} holds {info.dtype}, its mean and standard deviation are those of "
                "real numbers.",
                where=where,
                cure="convert the model without --io, or leave normalisation= out",
            )
        chosen[info.name] = own
    return chosen
