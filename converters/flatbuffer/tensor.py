"""A tensor of a subgraph, seen through its record in the file."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelstm.converters.flatbuffer import schema
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError

if TYPE_CHECKING:
    from edgelstm.converters.flatbuffer.subgraph import Subgraph

_NUMPY_NAMES = frozenset(
    "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool "
    "complex64 complex128".split()
)


@dataclasses.dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (stored - zero_point).

    Attributes:
        scale, zero_point: one entry, or one per index of dimension `axis`.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    @staticmethod
    def per_tensor(scale: float, zero_point: int = 0) -> Quantization:
        return Quantization((float(scale),), (int(zero_point),))


class Tensor:
    """View of one tensor; it stays valid until the subgraph is pruned."""

    def __init__(self, subgraph: Subgraph, index: int, raw: Any) -> None:
        self.subgraph = subgraph
        self.index = index
        self._raw = raw

    def __repr__(self) -> str:
        return f"Tensor({self.index}, {self.name!r}, {self.dtype}, {self.signature})"

    @property
    def name(self) -> str:
        """Name; empty when it has none, bytes that are not UTF-8 are replaced."""
        return text(self._raw.name)

    @name.setter
    def name(self, value: str | None) -> None:
        self._raw.name = value
        self.subgraph.renamed()

    @property
    def dtype(self) -> str:
        """Type name, numpy's where numpy has the type (`float32`, `string`, `resource`, ...)."""
        return schema.tensor_type_names().get(self._raw.type, f"unknown({self._raw.type})")

    @dtype.setter
    def dtype(self, value: str) -> None:
        self._raw.type = schema.tensor_types()[value]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as stored: 1 stands where the size is dynamic."""
        return tuple(self._raw.shape)

    @property
    def signature(self) -> tuple[int, ...]:
        """Shape with -1 where the size is dynamic."""
        return tuple(self._raw.shapeSignature or self._raw.shape)

    def set_shape(self, signature: tuple[int, ...]) -> None:
        """Sets the shape; -1 in `signature` makes the dimension dynamic."""
        self._raw.shape = [max(1, size) if size < 0 else size for size in signature]
        self._raw.shapeSignature = list(signature) if -1 in signature else None
        self._raw.hasRank = True

    def store_sizes(self, shape: tuple[int, ...]) -> None:
        """Sets the stored shape alone: dimensions that are dynamic stay so, with another size."""
        signature = list(self.signature)
        self._raw.shape = list(shape)
        self._raw.shapeSignature = signature if -1 in signature else None

    @property
    def is_variable(self) -> bool:
        """Whether the interpreter keeps the tensor from call to call."""
        return bool(self._raw.isVariable)

    @is_variable.setter
    def is_variable(self, value: bool) -> None:
        self._raw.isVariable = value
        if value:
            self._raw.buffer = 0

    @property
    def quantization(self) -> Quantization | None:
        """Affine parameters, or None when the tensor has no scale."""
        raw = self._raw.quantization
        if raw is None or not raw.scale:
            return None
        zero_point = raw.zeroPoint or [0] * len(raw.scale)
        return Quantization(tuple(raw.scale), tuple(zero_point), int(raw.quantizedDimension))

    @quantization.setter
    def quantization(self, value: Quantization | None) -> None:
        if value is None:
            self._raw.quantization = None
            return
        raw = schema.module().QuantizationParametersT()
        raw.scale = [float(item) for item in value.scale]
        raw.zeroPoint = [int(item) for item in value.zero_point]
        raw.quantizedDimension = value.axis
        self._raw.quantization = raw

    @property
    def constant(self) -> bool:
        """Whether the file holds the tensor's data."""
        return self._raw_data() is not None

    @property
    def nbytes(self) -> int:
        """Bytes of constant data; 0 when not constant."""
        data = self._raw_data()
        return 0 if data is None else len(data)

    def _raw_data(self) -> Array | None:
        buffers = self.subgraph.model._raw.buffers
        data = buffers[self._raw.buffer].data if self._raw.buffer else None
        return None if data is None or len(data) == 0 else data

    def data(self) -> Array:
        """Constant content in the tensor's shape and dtype; read-only.

        Raises:
            UnreadableModelError: the tensor is not constant, its type has no numpy equivalent,
                or its data do not fill its shape.
        """
        raw = self._raw_data()
        if raw is None or self.dtype not in _NUMPY_NAMES:
            raise UnreadableModelError(
                f"tensor {self.name!r} holds no constant numbers ({self.dtype})", where=self.name
            )
        dtype = np.dtype(self.dtype)
        if len(raw) != math.prod(self.shape) * dtype.itemsize:
            raise UnreadableModelError(
                f"tensor {self.name!r} has {len(raw)} bytes of data for {dtype} {self.shape}",
                where=self.name,
            )
        values = np.ascontiguousarray(raw).view(dtype).reshape(self.shape)
        values.flags.writeable = False
        return values

    def content(self) -> bytes:
        """Constant content as it stands in the file; empty when not constant."""
        data = self._raw_data()
        return b"" if data is None else data.tobytes()

    def set_data(self, data: Array) -> None:
        """Makes the tensor a constant: shape and dtype become those of `data`.

        The array is kept, not copied: it must not change until the model is written.
        """
        array = np.ascontiguousarray(data)
        self.dtype = array.dtype.name
        self._raw.shape = list(data.shape)
        self._raw.shapeSignature = None
        self._raw.hasRank = True
        self._raw.isVariable = False
        self._raw.buffer = self.subgraph.model._add_buffer(array)


def text(raw: Any) -> str:
    """A string field of the file as str."""
    if raw is None:
        return ""
    return raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")
