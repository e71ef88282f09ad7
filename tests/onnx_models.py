"""Small ONNX models for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Sequence[Any]]],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 17,
) -> Path:
    """A model of nodes; inputs are dtype and shape by name, a text in a shape is an open size."""
    import onnx
    from onnx import helper, numpy_helper

    def kind(dtype: str) -> int:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, kind(d), list(s)) for n, (d, s) in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = min(model.ir_version, 10)
    path.write_bytes(model.SerializeToString())
    return path


@dataclasses.dataclass
class Layers:
    """Recurrent operators side by side in one model, all on x.

    Attributes:
        batch_first: x [batch, time, features], else [time, batch, features].
        lengths: whether each row has a length of its own, an input.
        states: whether the initial states are inputs, `NAME_h` and `NAME_c`.
    """

    features: int = 4
    units: int = 6
    batch_first: bool = False
    lengths: bool = False
    states: bool = False
    batch: Any = "batch"
    time: Any = "time"

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(0)
        lead = [self.batch, self.time] if self.batch_first else [self.time, self.batch]
        self._inputs: dict[str, tuple[str, Sequence[Any]]] = {
            "x": ("float32", [*lead, self.features])
        }
        if self.lengths:
            self._inputs["lengths"] = ("int32", [self.batch])
        self._nodes: list[Any] = []
        self._outputs: list[str] = []
        self._constants: dict[str, Array] = {}

    def add(
        self,
        name: str,
        kind: str = "LSTM",
        *,
        bias: bool = True,
        peepholes: bool = False,
        outputs: Sequence[str] = ("y", "y_h", "y_c"),
        **attributes: Any,
    ) -> Layers:
        """One more operator; its outputs are `NAME_y` and so on."""
        from onnx import helper

        directions = 2 if attributes.get("direction") == "bidirectional" else 1
        gates, units = GATES[kind], self.units
        shapes = {
            "w": (gates * units, self.features),
            "r": (gates * units, units),
            "b": (2 * gates * units,),
            "p": (3 * units,),
        }
        taken = ["w", "r", *(["b"] if bias else []), *(["p"] if peepholes else [])]
        for part in taken:
            value = self._rng.standard_normal((directions, *shapes[part])) * 0.4
            self._constants[f"{name}_{part}"] = np.asarray(value, np.float32)
        names = ["x", f"{name}_w", f"{name}_r", f"{name}_b" if bias else "", "", "", "", ""]
        names[4] = "lengths" if self.lengths else ""
        if self.states:
            state = [self.batch, directions] if self.batch_first else [directions, self.batch]
            for place, part in enumerate("hc" if kind == "LSTM" else "h", 5):
                names[place] = f"{name}_{part}"
                self._inputs[names[place]] = ("float32", [*state, units])
        names[7] = f"{name}_p" if peepholes else ""
        while not names[-1]:
            names.pop()
        if self.batch_first:
            attributes["layout"] = 1
        every = ("y", "y_h", "y_c")[: 3 if kind == "LSTM" else 2]
        made = [f"{name}_{part}" if part in outputs else "" for part in every]
        self._nodes.append(
            helper.make_node(kind, names, made, name=name, hidden_size=units, **attributes)
        )
        self._outputs += [output for output in made if output]
        return self

    def save(self, path: Path, *, opset: int = 14) -> Path:
        """Write the model."""
        return save(path, self._nodes, self._inputs, self._outputs, self._constants, opset=opset)
