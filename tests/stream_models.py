"""Small models with state in each form that a file can have, and what they must answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from fused_models import add_marker, marker_model, random_spec
from lstm_reference import lstm

from edgelstm.converters.flatbuffer import Model, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.bind_state import StatePair, bind_states
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Array, Layout, StatePolicy

FEATURES, UNITS = 3, 4


@dataclasses.dataclass(frozen=True)
class StreamModel:
    """A model file with state.

    Attributes:
        expected: the sequence [B, T, ...] in float64 for x [B, T, F], from zero states.
        output: name of that output.
        batch: rows that x must have.
        step: frames per call; None for any number.
        states: names of the states.
    """

    content: bytes
    expected: Callable[[Array], Array]
    output: str
    batch: int
    step: int | None
    states: tuple[str, ...]


def carry(
    batch: int = 2, time: int = -1, *, units: int = UNITS, features: int = FEATURES, seed: int = 0
) -> StreamModel:
    """One fused LSTM whose states stay in its own variables."""
    spec = random_spec(seed, units=units, features=features)
    model = marker_model(spec, batch=batch, time=time)
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    return StreamModel(
        _with_metadata(model, StatePolicy.CARRY),
        lambda x: lstm(spec, x)[0],
        "sequence",
        batch,
        None if time < 0 else time,
        ("lstm/h", "lstm/c"),
    )


def time_major() -> StreamModel:
    """As `carry`, with x [T, B, F]; `expected` takes and gives that layout."""
    spec = random_spec(layout=Layout.TIME_MAJOR, units=UNITS)
    model = marker_model(spec, batch=2)
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    content = _with_metadata(model, StatePolicy.CARRY)
    return StreamModel(content, lambda x: lstm(spec, x)[0], "sequence", 2, None, ())


def explicit(batch: int = -1, time: int = -1) -> StreamModel:
    """One fused LSTM whose h and c go in and out, declared and listed in unlike orders."""
    spec = random_spec(units=UNITS)
    model = Model()
    main = model.add_subgraph("main")
    c_in = main.add_tensor("c_in", (batch, UNITS))
    x = main.add_tensor("x", (batch, time, FEATURES))
    h_in = main.add_tensor("h_in", (batch, UNITS))
    sequence, c_out = add_marker(main, 0, [x, h_in, c_in], spec, final_c=True)
    h_out = _last_frame(main, sequence, batch)
    main.inputs, main.outputs = [c_in, x, h_in], [h_out, sequence, c_out]
    model.set_signature(
        "serving_default",
        inputs={"c_in": c_in, "h_in": h_in, "x": x},
        outputs={"c_out": c_out, "h_out": h_out, "y": sequence},
    )
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    states = [
        {"name": "h", "input": "h_in", "output": "h_out"},
        {"name": "c", "input": "c_in", "output": "c_out"},
    ]
    return StreamModel(
        _with_metadata(model, StatePolicy.EXPLICIT, states),
        lambda x: lstm(spec, x)[0],
        "y",
        max(batch, 1),
        None if time < 0 else time,
        ("h", "c"),
    )


def sized_in_call() -> StreamModel:
    """As `carry`, with an output whose size comes up in the call: interpreters move memory."""
    plain = carry(1)
    model = Model.read(plain.content)
    main = model.main
    x, sequence = main.inputs[0], main.outputs[0]
    dims = main.add_tensor("dims", (3,), "int32")
    main.add_op("SHAPE", [sequence], [dims], options={"out_type": 2})
    least = main.add_constant("least", as_int32(0, 0, 0))
    in_call = main.add_tensor("dims_in_call", (3,), "int32")
    main.add_op("MAXIMUM", [dims, least], [in_call])
    y, twice, half = (main.add_tensor(name, (1, -1, UNITS)) for name in ("y", "twice", "half"))
    main.add_op("BROADCAST_TO", [sequence, in_call], [y], version=2)
    main.add_op("ADD", [y, y], [twice])
    by = main.add_constant("by", np.full((1, 1, 1), 0.5, np.float32))
    main.add_op("MUL", [twice, by], [half])
    main.outputs = [half]
    model.set_signature("serving_default", inputs={"x": x}, outputs={"sequence": half})
    return dataclasses.replace(plain, content=model.to_bytes())


def bound_loop() -> StreamModel:
    """h = tanh(x + h / 2), one step per call, h bound to a variable of another shape."""
    model = Model()
    main = model.add_subgraph("main")
    x, h = (main.add_tensor(name, (1, 1, FEATURES)) for name in ("x", "h"))
    half = main.add_constant("half", np.full((1, 1, FEATURES), 0.5, np.float32))
    decayed, total, y = (main.add_tensor(name, (1, 1, FEATURES)) for name in ("d", "t", "y"))
    main.add_op("MUL", [h, half], [decayed])
    main.add_op("ADD", [x, decayed], [total])
    main.add_op("TANH", [total], [y])
    main.inputs, main.outputs = [x, h], [y]
    model.set_signature("serving_default", inputs={"x": x, "h": h}, outputs={"y": y, "h_new": y})
    names = bind_states(model, [StatePair("h", h, y, "h_new")])

    def expected(x: Array) -> Array:
        state, frames = np.zeros(FEATURES), []
        for frame in x[0].astype(np.float64):
            state = np.tanh(frame + state / 2)
            frames.append(state)
        return np.asarray([frames])

    content = _with_metadata(model, StatePolicy.CARRY)
    return StreamModel(content, expected, "y", 1, 1, tuple(names))


def reset() -> bytes:
    """One fused LSTM that starts every call from zero."""
    spec = random_spec(units=UNITS)
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return _with_metadata(model, StatePolicy.RESET)


MODELS: dict[str, Callable[[], StreamModel]] = {
    "carry": carry,
    "carry, four steps": lambda: carry(1, 4),
    "carry, one step": lambda: carry(1, 1),
    "explicit": explicit,
    "explicit, fixed": lambda: explicit(2, 3),
    "sized in the call": sized_in_call,
    "bound loop": bound_loop,
}


def _with_metadata(
    model: Model, policy: StatePolicy, states: list[dict[str, str]] | None = None
) -> bytes:
    content: dict[str, Any] = {"state_policy": policy.value, "states": states or []}
    content["source"] = {"sha256": "5" * 64}
    model.set_metadata("edgelstm", json.dumps(content).encode())
    return model.to_bytes()


def _last_frame(main: Subgraph, sequence: int, batch: int) -> int:
    last = main.add_tensor("h_out", (batch, UNITS))
    bounds = [
        main.add_constant(f"last/{part}", as_int32(*values))
        for part, values in (("begin", (0, -1, 0)), ("end", (0, 0, 0)), ("step", (1, 1, 1)))
    ]
    masks = {"begin_mask": 0b101, "end_mask": 0b111, "shrink_axis_mask": 0b010}
    main.add_op("STRIDED_SLICE", [sequence, *bounds], [last], options=masks)
    return last


def noise(model: StreamModel, frames: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """x [B, T, F]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((model.batch, frames, FEATURES)).astype(np.float32)
