"""A model that also tells what goes into its fused operators, and what comes out of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Tensor
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE, layer_name
from edgelstm.converters.lowering.state import COPY_OP
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.fidelity.layer import IntegerKernel, Kernel, State, kernel_of
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.spec import Array
from edgelstm.runtime import Delegate, Session


@dataclasses.dataclass(frozen=True)
class WatchedLayer:
    """One fused operator.

    Attributes:
        kernel: None where it cannot be followed.
        precision: int8, int16, dynamic, float16 or float32.
        carried: whether its states go on from call to call.
    """

    name: str
    units: int
    kernel: Kernel | None
    precision: str
    carried: bool

    @property
    def cell_exponent(self) -> int | None:
        """log2 of the cell state's scale; None for float cells."""
        return self.kernel.lstm.cell_exponent if isinstance(self.kernel, IntegerKernel) else None

    @property
    def form(self) -> InputForm | None:
        """Whether one or two integers stand for each input; None for floats."""
        if not isinstance(self.kernel, IntegerKernel):
            return None
        return InputForm.SPLIT if self.kernel.split else InputForm.SINGLE

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value that integers stand for, of x and h; empty for floats."""
        if not isinstance(self.kernel, IntegerKernel):
            return {}
        lstm = self.kernel.lstm
        limits = np.iinfo("int16" if lstm.wide else "int8")
        return {
            key: (
                affine.scale * (int(limits.min) - affine.zero_point),
                affine.scale * (int(limits.max) - affine.zero_point),
            )
            for key, affine in (("x", lstm.x), ("h", lstm.h))
        }


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """What one fused operator met in one call, as it stores it.

    Attributes:
        y: its output; None where the operator is computed outside the interpreter.
        state: what it started from; None for zeros.
    """

    x: Array
    y: Array | None
    state: State | None


@dataclasses.dataclass(frozen=True)
class Seen:
    """One call: the model's outputs by name, and its layers in the order of the graph."""

    outputs: dict[str, Array]
    layers: tuple[LayerCall, ...]


class Watched:
    """A model in the interpreter, or emulated where it has 16-bit activations."""

    def __init__(self, model: Model, pairs: Mapping[str, str]) -> None:
        """Opens a model.

        Args:
            model: float32 inputs and outputs; not changed.
            pairs: explicit states, input to output by name; they start from zero.
        """
        ops = model.main.find(FUSED_OP)
        self.layers = [_layer(op) for op in ops]
        self._pairs = pairs
        self._explicit: dict[str, Array] = {}
        self._wide = any((x := op.input(0)) is not None and x.dtype == "int16" for op in ops)
        self._number = {}
        if self._wide:
            wide = [n for n, layer in enumerate(self.layers) if layer.precision == "int16"]
            self._number = dict(enumerate(wide))
            self._met: dict[int, tuple[Array, State | None]] = {}
            self._session: Session | EmulatedSession = EmulatedSession(model.to_bytes(), self._meet)
        else:
            self._session = Session(_exposed(model), delegate=Delegate.CPU)

    def reset(self) -> None:
        """States to zero."""
        self._session.reset()
        self._explicit.clear()

    def run(
        self, inputs: Mapping[str, Array], rows: int, fed: Mapping[str, str] | None = None
    ) -> Seen:
        """One call; states go on from the last one, as far as the model carries them.

        Args:
            inputs: by name, without explicit states.
            rows: the batch size, for explicit states that start from zero.
            fed: inputs that take what an output was in the call before, by name; in the first
                call they are `inputs` too.
        """
        arrays = {**inputs, **self._explicit}
        for info in self._session.inputs:
            if info.name in self._pairs and info.name not in arrays:
                shape = tuple(rows if n is None else n for n in info.shape)
                arrays[info.name] = np.zeros(shape, info.dtype)
        if self._wide:
            self._met = {}
            outputs = self._session.run(arrays)
            layers = tuple(
                LayerCall(self._met[n][0], None, self._met[n][1])
                if n in self._met
                else LayerCall(np.zeros(0), None, None)
                for n in range(len(self.layers))
            )
        else:
            found = self._session.run(arrays)
            outputs = {n[4:]: a for n, a in found.items() if n.startswith("out/")}
            layers = tuple(_call(found, n) for n in range(len(self.layers)))
        for name, output in {**self._pairs, **(fed or {})}.items():
            self._explicit[name] = outputs[output]
        kept = {n: a for n, a in outputs.items() if n not in self._pairs.values()}
        return Seen(kept, layers)

    def _meet(self, number: int, x: Array, state: State | None) -> None:
        self._met[self._number[number]] = (x, state)


def carrying(model: Model, batches: Sequence[int]) -> Model:
    """A copy whose states go on from call to call, where each call started them from zero.

    Args:
        batches: rows of each fused operator, which become fixed.
    """
    made = Model.read(model.to_bytes())
    subgraph = made.main
    for op, batch in zip(subgraph.find(FUSED_OP), batches, strict=True):
        for position in (H_STATE, C_STATE):
            state = op.input(position)
            assert state is not None
            writers = _writers(op, state)
            if any(writer.name == COPY_OP for writer in writers):
                continue
            for writer in writers:
                subgraph.remove_op(writer)
            state.set_shape((batch, state.shape[-1]))
    made.prune()
    return made


def starts_from_zero(model: Model) -> bool:
    """Whether some fused operator's states are set to zero in every call, and left so."""
    writers = [
        [writer.name for writer in _writers(op, state)]
        for op in model.main.find(FUSED_OP)
        if (state := op.input(H_STATE)) is not None
    ]
    return any(names and COPY_OP not in names for names in writers)


def _layer(op: Op) -> WatchedLayer:
    x, forget = op.input(0), op.input(6)
    assert x is not None and forget is not None
    kernel = op.input(4)
    precision = x.dtype
    if precision == "float32" and kernel is not None:
        stored = op.subgraph.stored(kernel.index).dtype
        precision = {"int8": "dynamic", "float16": "float16", "int16": "float16"}.get(
            stored, stored
        )
    state = op.input(H_STATE)
    assert state is not None
    return WatchedLayer(
        layer_name(op), forget.shape[0], kernel_of(op), precision, not _writers(op, state)
    )


def _writers(op: Op, state: Tensor) -> list[Op]:
    return [one for one in op.subgraph.ops if state.index in one.outputs]


def _exposed(model: Model) -> bytes:
    """The model with further outputs: layer/N/x, y, and h and c where it gives the states."""
    made = Model.read(model.to_bytes())
    subgraph = made.main
    (signature,) = made.signatures
    outputs = {f"out/{name}": index for name, index in signature.outputs.items()}
    for number, op in enumerate(subgraph.find(FUSED_OP)):
        outputs |= {f"layer/{number}/{name}": index for name, index in _ends(op)}
    made.set_signature(signature.key, inputs={**signature.inputs}, outputs=outputs)
    subgraph.outputs = list(dict.fromkeys(outputs.values()))
    return made.to_bytes()


def _ends(op: Op) -> Iterator[tuple[str, int]]:
    yield "x", op.inputs[0]
    yield "y", op.outputs[0]
    for name, position in (("h", H_STATE), ("c", C_STATE)):
        writer = op.subgraph.producer(op.inputs[position])
        if writer is not None and writer.name == COPY_OP:
            yield name, writer.inputs[0]


def _call(found: Mapping[str, Array], number: int) -> LayerCall:
    def get(name: str) -> Array | None:
        return found.get(f"layer/{number}/{name}")

    x, h, c = get("x"), get("h"), get("c")
    assert x is not None
    return LayerCall(x, get("y"), None if h is None or c is None else (h, c))
