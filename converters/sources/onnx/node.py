"""A node of an ONNX graph as the operators' translations read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.files import array_of
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError


@dataclasses.dataclass(frozen=True)
class OnnxNode:
    """One node with the values of its inputs.

    Attributes:
        inputs: numpy arrays where the value is known before the model runs, else TensorFlow
            tensors; None for an optional input that is left out.
        opset: version of the operator set; several operators changed with it.
        where: the node and its file, for messages.
    """

    proto: Any
    inputs: Sequence[Any]
    opset: int
    where: str

    @property
    def op(self) -> str:
        """The operator's name."""
        return str(self.proto.op_type)

    @property
    def outputs(self) -> int:
        """How many outputs are named."""
        return len(self.proto.output)

    def input(self, index: int) -> Any:
        """An input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return any(a.name == name for a in self.proto.attribute)

    def _attribute(self, name: str) -> Any:
        return next((a for a in self.proto.attribute if a.name == name), None)

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self._attribute(name)
        return default if found is None else int(found.i)

    def number(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        found = self._attribute(name)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self._attribute(name)
        return default if found is None else found.s.decode("utf-8", "replace")

    def ints(self, name: str) -> list[int] | None:
        """A list of integers, None where it is not given."""
        found = self._attribute(name)
        return None if found is None else [int(i) for i in found.ints]

    def floats(self, name: str) -> list[float]:
        """A list of floats, empty where it is not given."""
        found = self._attribute(name)
        return [] if found is None else [float(f) for f in found.floats]

    def texts(self, name: str) -> list[str]:
        """A list of strings, empty where it is not given."""
        found = self._attribute(name)
        return [] if found is None else [s.decode("utf-8", "replace") for s in found.strings]

    def tensor(self, name: str) -> Array | None:
        """A constant in an attribute."""
        found = self._attribute(name)
        return None if found is None else array_of(found.t, self.where)

    def graph(self, name: str) -> Any:
        """A graph in an attribute: a branch, or the body of a loop."""
        found = self._attribute(name)
        if found is None:
            raise self.unsupported(f"has no {name}")
        return found.g

    def known(self, index: int, what: str) -> Array:
        """An input whose value has to be known before the model runs.

        Raises:
            UnsupportedModelError: it depends on the model's inputs.
        """
        value = self.input(index)
        if not isinstance(value, np.ndarray):
            raise self.unsupported(
                f"computes its {what} from the model's inputs",
                cure="fix the sizes of the inputs: --inputs 'NAME[1,100,8]'",
            )
        return value

    def integers(self, index: int, name: str) -> list[Any] | None:
        """Integers that older operator sets have as an attribute and newer ones as an input."""
        if self.has(name):
            return self.ints(name)
        if self.input(index) is None:
            return None
        return [int(i) for i in self.known(index, name).reshape(-1)]

    def unsupported(self, what: str, cure: str | None = None) -> UnsupportedModelError:
        """The error of a node that cannot be converted."""
        return UnsupportedModelError(f"{self.op} {what}.", where=self.where, cure=cure)
