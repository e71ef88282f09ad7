"""Marker models and LSTM specs made of random numbers, and interpreters to run them in."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tflite_runner
from flatbuffers import flexbuffers

from edgelstm.converters.flatbuffer import Model, Subgraph
from edgelstm.converters.lowering.fused import MARKER_CODE
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.spec import Activation, Array, Gates, Layout, LstmSpec

Calls = Sequence[Sequence[Array]]


@dataclasses.dataclass(frozen=True)
class Way:
    """How an interpreter runs: threads, and the default delegate (0 or 1)."""

    threads: int = 1
    xnnpack: int = 1


WAYS = [Way(threads, xnnpack) for threads in (1, 2) for xnnpack in (1, 0)]


def random_gates(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float, *, coupled: bool = False
) -> Gates:
    """Four normal arrays; `i` is None when coupled."""
    arrays = [(rng.standard_normal(shape) * scale).astype(np.float32) for _ in range(4)]
    return Gates(None if coupled else arrays[0], arrays[1], arrays[2], arrays[3])


def random_spec(
    seed: int = 0,
    *,
    name: str = "lstm",
    units: int = 5,
    features: int = 3,
    outputs: int | None = None,
    projection_bias: bool = False,
    coupled: bool = False,
    peephole: bool = False,
    layer_norm: bool = False,
    diagonal: bool = False,
    activation: Activation = Activation.TANH,
    cell_clip: float = 0.0,
    projection_clip: float = 0.0,
    layout: Layout = Layout.BATCH_MAJOR,
) -> LstmSpec:
    """A spec of random weights; `outputs` adds a projection."""
    rng = np.random.default_rng(seed)
    width = units if outputs is None else outputs
    holes = random_gates(rng, (units,), 0.5, coupled=coupled)
    norms = random_gates(rng, (units,), 0.5, coupled=coupled)
    return LstmSpec(
        name=name,
        kernel=random_gates(rng, (units, features), 0.6, coupled=coupled),
        recurrent=random_gates(rng, (units,) if diagonal else (units, width), 0.5, coupled=coupled),
        bias=random_gates(rng, (units,), 0.4, coupled=coupled),
        activation=activation,
        peephole=Gates(holes.i, holes.f, None, holes.o) if peephole else None,
        layer_norm=norms if layer_norm else None,
        projection=None
        if outputs is None
        else (rng.standard_normal((outputs, units)) * 0.6).astype(np.float32),
        projection_bias=rng.standard_normal(outputs).astype(np.float32)
        if projection_bias and outputs is not None
        else None,
        cell_clip=cell_clip,
        projection_clip=projection_clip,
        layout=layout,
    )


def add_marker(
    subgraph: Subgraph,
    ident: int,
    inputs: Sequence[int],
    spec: LstmSpec,
    *,
    final_c: bool = False,
    rows: Rows | None = None,
) -> list[int]:
    """Adds a marker; returns its output tensors, [sequence] or [sequence, final c].

    `rows` tells where the batch stands in the model's inputs; None: where it stands in x.
    """
    x = subgraph.tensor(inputs[0]).signature
    axis = 0 if spec.layout is Layout.BATCH_MAJOR else 1
    attributes = {"id": ident, **(rows or Rows(axis)).attributes()}
    batch = x[axis]
    outputs = [subgraph.add_tensor(f"sequence_{ident}", (x[0], x[1], spec.output_size))]
    if final_c:
        outputs.append(subgraph.add_tensor(f"final_c_{ident}", (batch, spec.units)))
    subgraph.add_op(
        MARKER_CODE, inputs, outputs, custom_options=bytes(flexbuffers.Dumps(attributes))
    )
    return outputs


def marker_model(
    spec: LstmSpec,
    *,
    batch: int = -1,
    time: int = -1,
    initial: bool = False,
    final_c: bool = False,
) -> Model:
    """One marker between graph inputs x [, h0, c0] and outputs sequence [, final c]."""
    model = Model()
    main = model.add_subgraph("main")
    shape = (batch, time) if spec.layout is Layout.BATCH_MAJOR else (time, batch)
    inputs = [main.add_tensor("x", (*shape, spec.input_size))]
    names = ["x"]
    if initial:
        inputs.append(main.add_tensor("h0", (batch, spec.output_size)))
        inputs.append(main.add_tensor("c0", (batch, spec.units)))
        names += ["h0", "c0"]
    outputs = add_marker(main, 0, inputs, spec, final_c=final_c)
    main.inputs, main.outputs = inputs, outputs
    model.set_signature(
        "serving_default",
        inputs=dict(zip(names, inputs, strict=True)),
        outputs=dict(zip(["sequence", "c"], outputs, strict=False)),
    )
    return model


def job(
    model: bytes, calls: Calls, way: Way = WAYS[0], *, resets: Sequence[int] = ()
) -> dict[str, Array]:
    """A job for `tflite_runner.run`."""
    made: dict[str, Array] = {
        "model": np.frombuffer(model, np.uint8),
        "threads": np.asarray(way.threads),
        "xnnpack": np.asarray(way.xnnpack),
    }
    for number, inputs in enumerate(calls):
        for position, array in enumerate(inputs):
            made[f"call{number}_{position}"] = array
    for number in resets:
        made[f"reset{number}"] = np.asarray(1)
    return made


def run(interpreter: str, jobs: Sequence[dict[str, Array]], folder: Path) -> list[dict[str, Array]]:
    """Answers of jobs in `litert`, `tensorflow` or `tflite_runtime`; skips when it is absent."""
    if interpreter == "litert":
        pytest.importorskip("ai_edge_litert.interpreter")
        return [tflite_runner.run("litert", one) for one in jobs]
    python = sys.executable
    if interpreter == "tflite_runtime":
        python = os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON", "")
        if not python:
            pytest.skip("EDGELSTM_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")
    else:
        pytest.importorskip("tensorflow.lite")
    command = [python, tflite_runner.__file__, interpreter]
    answers = []
    for number, one in enumerate(jobs):
        question, answer = folder / f"job{number}.npz", folder / f"answer{number}.npz"
        np.savez(question, **one)  # type: ignore[arg-type]
        command += [str(question), str(answer)]
        answers.append(answer)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return [dict(np.load(answer)) for answer in answers]


# One of each form that a fused LSTM may have.
FORMS: dict[str, Callable[[], LstmSpec]] = {
    "standard": random_spec,
    "peepholes and clips": lambda: random_spec(1, peephole=True, cell_clip=0.4),
    "projection": lambda: random_spec(
        2, units=6, outputs=4, projection_bias=True, projection_clip=0.3
    ),
    "coupled, layer norm": lambda: random_spec(3, coupled=True, layer_norm=True),
    "coupled, peepholes": lambda: random_spec(8, coupled=True, peephole=True),
    "layer norm, peepholes": lambda: random_spec(4, layer_norm=True, peephole=True),
    "diagonal": lambda: random_spec(5, diagonal=True),
    "relu6": lambda: random_spec(6, activation=Activation.RELU6),
    "time first": lambda: random_spec(7, layout=Layout.TIME_MAJOR),
}
