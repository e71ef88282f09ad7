"""TensorFlow Lite Micro: what it runs, its interpreter, and the memory that a model needs in it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, schema
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.lowering.state import COPY_OP, COPY_VERSION
from edgelstm.converters.spec import Array
from edgelstm.converters.targets.tables import MICRO_LSTM_LACKS, MICRO_OPS
from edgelstm.errors import MissingPackageError, UnsupportedModelError
from edgelstm.runtime import TensorInfo

LABEL = "tflite-micro"
_WHERE = "--target tflm"
_REFUSED_CURE = "convert with --target cpu, or leave out the operator that the message names"
_CURE = "use --step-only, which writes plain operators, or change the layer"
_KERNEL_I = 1
_ARENA = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_STDERR = 2


def check_micro(model: Model) -> None:
    """Raises where TensorFlow Lite Micro has no kernel for something of the model.

    Raises:
        UnsupportedModelError: so it is; the operator or layer is named.
    """
    for subgraph in model.subgraphs:
        for op in subgraph.ops:
            if op.custom_code or op.name not in MICRO_OPS:
                raise UnsupportedModelError(
                    f"TensorFlow Lite Micro has no kernel for {op.custom_code or op.name}, which "
                    f"computes '{op.output(0).name}'.",
                    where=_WHERE,
                    cure="change the layer that needs it",
                )
            if op.name == FUSED_OP:
                _check_lstm(op)
            for tensor in (op.output(place) for place in range(len(op.outputs))):
                if -1 in tensor.signature:
                    raise UnsupportedModelError(
                        f"TensorFlow Lite Micro takes fixed sizes only, and '{tensor.name}' is "
                        f"{list(tensor.signature)}.",
                        where=_WHERE,
                        cure="give them with --batch and --time",
                    )


def write_micro(model: Model) -> None:
    """Rewrites what Micro has other kernels for, in a model of fixed sizes.

    Its FILL knows no int16, which states in integers start from. Its BROADCAST_TO, which copies
    states, wants a constant shape; elsewhere a computed one keeps delegates from moving the copy,
    and Micro runs operators in their order.
    """
    for op in model.main.find(COPY_OP):
        shape, copied = op.input(1), op.output(0)
        if shape is not None and not shape.constant and -1 not in copied.signature:
            dims = model.main.add_constant(f"{copied.name}_dims", as_int32(*copied.shape))
            op.inputs = [op.inputs[0], dims]
    for op in model.main.find("FILL"):
        value, state = op.input(1), op.output(0)
        if value is None or not value.constant or state.dtype != "int16":
            continue
        zero = model.main.add_tensor(
            f"{state.name}_start",
            (1, 1),
            data=value.data().reshape(1, 1),
            quantization=state.quantization,
        )
        model.main.add_op(
            COPY_OP, [zero, op.inputs[0]], [state.index], version=COPY_VERSION, before=op
        )
        model.main.remove_op(op)
    model.prune()


def _check_lstm(op: Op) -> None:
    lacks = [
        name
        for name, places in MICRO_LSTM_LACKS.items()
        if any(op.input(place) is not None for place in places)
    ]
    if op.input(_KERNEL_I) is None:
        lacks.append("coupled gates")
    if op.option("diagonal_recurrent_tensors"):
        lacks.append("diagonal recurrent kernels")
    if int(op.option("fused_activation_function")) != schema.activation_code("TANH"):
        lacks.append("activation but tanh")
    if lacks:
        raise UnsupportedModelError(
            f"TensorFlow Lite Micro's LSTM kernel has no {', no '.join(lacks)}.",
            where=f"layer {layer_name(op)}",
            cure=_CURE,
        )


class MicroSession:
    """A file in TensorFlow Lite Micro's own interpreter."""

    def __init__(self, content: bytes) -> None:
        """Allocates a model.

        Raises:
            MissingPackageError: tflite-micro is not installed.
            UnsupportedModelError: the interpreter refuses the file; its words are told.
        """
        try:
            from tflite_micro.python.tflite_micro import runtime
        except ImportError:
            raise MissingPackageError(
                "TensorFlow Lite Micro is not installed.", cure="pip install tflite-micro"
            ) from None
        model = Model.read(content)
        (signature,) = [s for s in model.signatures if s.key == "serving_default"]
        self.inputs = _infos(model, signature.inputs)
        self.outputs = _infos(model, signature.outputs)
        places = (list(model.main.inputs), list(model.main.outputs))
        self._given = {name: places[0].index(i) for name, i in signature.inputs.items()}
        self._read = {name: places[1].index(i) for name, i in signature.outputs.items()}
        with _heard() as said:
            try:
                self._interpreter = runtime.Interpreter.from_bytes(content)
            except (RuntimeError, ValueError) as error:
                raise UnsupportedModelError(
                    f"TensorFlow Lite Micro refuses the file: {_words(said) or error}",
                    where=_WHERE,
                    cure=_REFUSED_CURE,
                ) from None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call; see `Session.run`."""
        for info in self.inputs:
            array = np.ascontiguousarray(inputs[info.name], info.dtype)
            self._interpreter.set_input(array, self._given[info.name])
        with _heard() as said:
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise UnsupportedModelError(
                    f"TensorFlow Lite Micro fails on the file: {_words(said) or error}",
                    where=_WHERE,
                    cure=_REFUSED_CURE,
                ) from None
        return {name: np.array(self._interpreter.get_output(i)) for name, i in self._read.items()}

    def reset(self) -> None:
        """States to zero."""
        self._interpreter.reset()

    def allocations(self) -> str:
        """What the interpreter says of its memory, after a call."""
        with _heard() as said:
            self._interpreter.print_allocations()
            return _text(said)


def arena(content: bytes) -> dict[str, int]:
    """Bytes of a file's arena: `total`, of it `head` (planned, shared by operators) and `tail`.

    Raises:
        MissingPackageError: tflite-micro is not installed.
        UnsupportedModelError: it refuses the file.
    """
    session = MicroSession(content)
    zeros = {i.name: np.zeros([n or 1 for n in i.shape], i.dtype) for i in session.inputs}
    session.run(zeros)
    return {name: int(count) for name, count in _ARENA.findall(session.allocations())}


def _infos(model: Model, tensors: Mapping[str, int]) -> tuple[TensorInfo, ...]:
    found = []
    for name, index in tensors.items():
        tensor = model.main.tensor(index)
        found.append(TensorInfo(name, tensor.shape, tensor.dtype))
    return tuple(found)


@contextmanager
def _heard() -> Iterator[IO[Any]]:
    """What the interpreter writes to the process's standard error, which is all that it tells."""
    with tempfile.TemporaryFile() as said:
        before = os.dup(_STDERR)
        os.dup2(said.fileno(), _STDERR)
        try:
            yield said
        finally:
            os.dup2(before, _STDERR)
            os.close(before)


def _text(said: IO[Any]) -> str:
    said.seek(0)
    return bytes(said.read()).decode("utf-8", "replace")


def _words(said: IO[Any]) -> str:
    lines = [line.strip() for line in _text(said).splitlines() if line.strip()]
    return "; ".join(lines)[:300]
