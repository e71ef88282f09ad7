"""Live Keras models in groups of layers that share one conversion, and what became of each layer.

A case is one combination of layer options. The cases of a group stand side by side in one model,
so that twenty combinations cost one conversion; each is judged alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fused_models import Way, job, run

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.load import LoadedKeras
from edgelstm.converters.sources.keras.source import live_model
from edgelstm.converters.sources.keras.trace import (
    LiveModel,
    MarkedModel,
    convert_traced,
    trace_model,
)
from edgelstm.converters.spec import Array, Recurrence, StatePolicy, TensorSpec

KERAS3, TF_KERAS = KerasEngine.KERAS3, KerasEngine.TF_KERAS
BOTH = (KERAS3, TF_KERAS)
FUSED, LOOP = "fused", "loop"

# (batch, time) of the calls: a batch that grows, shrinks and repeats, in one interpreter.
SHAPES = ((1, 7), (3, 10), (5, 2), (2, 1))
CALLS_PER_SHAPE = 2
VOCABULARY = 9

Build = Callable[[Any, "Layers", Any], Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One combination.

    Attributes:
        build: (keras, its layers, inputs) -> output tensor or tensors.
        lowering: of each recurrence, sorted.
    """

    name: str
    build: Build
    lowering: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Group:
    """Cases over the same inputs, in one model.

    Attributes:
        inputs: shape without the batch, and dtype, by name.
        slow: the engines that only the long run takes.
        batch: None is dynamic.
        shapes: (batch, time) of the calls; a fixed size takes precedence.
    """

    name: str
    cases: tuple[Case, ...]
    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]
    engines: tuple[KerasEngine, ...] = BOTH
    slow: tuple[KerasEngine, ...] = ()
    batch: int | None = None
    shapes: tuple[tuple[int, int], ...] = SHAPES


class Layers:
    """`keras.layers`, giving every layer a name that tells its case."""

    def __init__(self, layers: Any, prefix: str) -> None:
        self._layers, self._prefix, self._count = layers, prefix, 0

    def __getattr__(self, class_name: str) -> Callable[..., Any]:
        made = getattr(self._layers, class_name)

        def named(*args: Any, **kwargs: Any) -> Any:
            return self.make(made, *args, **kwargs)

        return named

    def make(self, made: Any, *args: Any, **kwargs: Any) -> Any:
        """A layer of any class, named."""
        self._count += 1
        kwargs.setdefault("name", f"{self._prefix}_{made.__name__.lower()}{self._count}")
        return made(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the conversion of a group came to.

    Attributes:
        lowering: per case, of each recurrence, sorted.
        outputs: per case, the positions of its outputs.
        expected: per call, the live model's outputs.
    """

    inputs: Sequence[TensorSpec]
    recurrences: Sequence[Recurrence]
    flatbuffer: bytes
    lowering: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, range]
    calls: Sequence[Sequence[Array]]
    expected: Sequence[Sequence[Array]]

    def errors(self, interpreter: str, ways: Sequence[Way], folder: Path) -> dict[str, float]:
        """Largest error of each case relative to its outputs' range, over all calls and ways."""
        jobs = [job(self.flatbuffer, self.calls, way) for way in ways]
        worst = dict.fromkeys(self.outputs, 0.0)
        for answer in run(interpreter, jobs, folder):
            for number, expected in enumerate(self.expected):
                for case, positions in self.outputs.items():
                    for position in positions:
                        actual = answer[f"out{number}_{position}"]
                        worst[case] = max(worst[case], relative_error(expected[position], actual))
        return worst


def relative_error(expected: Array, actual: Array) -> float:
    """Largest difference relative to the largest value; infinite for another shape or a new NaN.

    NaN equals NaN: the mean over the valid steps of a row without any is one in Keras too.
    """
    if expected.shape != actual.shape or not np.array_equal(np.isnan(expected), np.isnan(actual)):
        return float("inf")
    wanted = np.nan_to_num(expected.astype(np.float64), nan=0.0)
    difference = np.abs(wanted - np.nan_to_num(actual, nan=0.0)).max(initial=0.0)
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-3)
    return float(difference / scale)


def build(group: Group, engine: KerasEngine) -> tuple[Any, dict[str, range]]:
    """The group's model with random weights, and the output positions of each case."""
    keras = engine.module
    tensorflow().random.set_seed(1)
    keras.utils.set_random_seed(1)
    keras.backend.clear_session()
    inputs = {
        name: keras.Input(shape, batch_size=group.batch, dtype=dtype, name=name)
        for name, (shape, dtype) in group.inputs.items()
    }
    outputs: list[Any] = []
    positions: dict[str, range] = {}
    for number, case in enumerate(group.cases):
        layers = Layers(keras.layers, f"case{number}")
        made = case.build(keras, layers, SimpleNamespace(**inputs))
        made = list(made) if isinstance(made, list | tuple) else [made]
        positions[case.name] = range(len(outputs), len(outputs) + len(made))
        outputs += made
    model = keras.Model(list(inputs.values()), outputs)
    randomise(model)
    return model, positions


def randomise(model: Any, seed: int = 1) -> None:
    """All float weights, biases included, to random values that keep recurrences stable."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name = getattr(variable, "path", None) or variable.name
        shape = tuple(variable.shape)
        value = rng.standard_normal(shape)
        if "variance" in name:
            value = np.abs(value) + 0.5
        elif "gamma" in name:
            value = 1 + 0.3 * value
        elif len(shape) >= 2 and "bias" not in name:
            value *= 0.8 / np.sqrt(np.prod(shape[:-1]))
        else:
            value *= 0.3
        if "int" not in str(variable.dtype):
            variable.assign(value)


def example(group: Group, batch: int, time: int, seed: int) -> list[Array]:
    """One call's inputs; zeros, which layers may mask, lead, trail, are scattered, fill a row."""
    rng = np.random.default_rng(seed)
    arrays: list[Array] = []
    for shape, dtype in group.inputs.values():
        sizes = [batch if group.batch is None else group.batch]
        sizes += [time if size is None else size for size in shape]
        if dtype == "int32":
            array = rng.integers(1, VOCABULARY, sizes).astype(dtype)
        else:
            array = rng.standard_normal(sizes).astype(dtype)
        if len(shape) > 1 or dtype == "int32":
            steps = sizes[1]
            array[0, steps - 3 :] = 0 if steps > 3 else array[0, steps - 3 :]
            array[-1, : steps // 3] = 0
            array[-1, steps // 2 : steps // 2 + (steps > 4)] = 0
            if sizes[0] > 2:
                array[1] = 0
        arrays.append(array)
    return arrays


def write(
    model: Any, engine: KerasEngine, options: ConvertOptions
) -> tuple[LiveModel, MarkedModel, bytes]:
    """The model through the converter, as `edgelstm convert` writes it."""
    live = live_model(LoadedKeras(model, engine, (), ""), options)
    traced = trace_model(live, options.state, options.precision)
    marked = convert_traced(live, traced, options.precision)
    return live, marked, write_recurrences(marked).to_bytes()


def run_live(model: Any, engine: KerasEngine, inputs: Sequence[Array]) -> list[Array]:
    """The model run eagerly by its own Keras."""
    tf = tensorflow()
    tensors = [tf.constant(array) for array in inputs]
    with active_engine(engine):
        outputs = model(tensors if len(tensors) > 1 else tensors[0], training=False)
    return [np.asarray(tensor) for tensor in tf.nest.flatten(outputs)]


def evaluate(group: Group, engine: KerasEngine) -> Outcome:
    """Build, convert and run the live model of a group."""
    model, positions = build(group, engine)
    live, marked, flatbuffer = write(model, engine, ConvertOptions(state=StatePolicy.RESET))
    lowering: dict[str, list[str]] = {case.name: [] for case in group.cases}
    for recurrence in marked.recurrences:
        found = re.search(r"case(\d+)_", recurrence.name)
        assert found is not None, recurrence.name
        lowering[group.cases[int(found[1])].name].append(recurrence.lowering.value)
    calls, expected = [], []
    for seed, (batch, time) in enumerate(group.shapes):
        inputs = example(group, batch, time, seed)
        calls += [inputs] * CALLS_PER_SHAPE
        expected += [run_live(model, engine, inputs)] * CALLS_PER_SHAPE
    return Outcome(
        inputs=live.inputs,
        recurrences=marked.recurrences,
        flatbuffer=flatbuffer,
        lowering={name: tuple(sorted(found)) for name, found in lowering.items()},
        outputs=positions,
        calls=calls,
        expected=expected,
    )


def operators(flatbuffer: bytes) -> dict[str, int]:
    """Count of every operator in all subgraphs."""
    counts: dict[str, int] = {}
    for subgraph in Model.read(flatbuffer).subgraphs:
        for op in subgraph.ops:
            counts[op.name] = counts.get(op.name, 0) + 1
    return counts
