"""State policies of Keras layers: the written file against a live stateful twin of the model."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fused_models import Way, job, run
from keras_models import BOTH, Layers, randomise, relative_error, run_live, write

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array, StatePolicy
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Stream

TOLERANCE = 1e-5
BATCH, UNITS = 3, 18
INTERPRETERS = ("litert", "tflite_runtime")

Build = Callable[[Layers, Any, dict[str, bool]], Any]


@dataclasses.dataclass(frozen=True)
class StateCase:
    """A model with state.

    Attributes:
        build: (layers, inputs x and frames, {"stateful": ...}) -> outputs.
        backwards: some layer runs backwards in time: carried only where the source is stateful.
    """

    name: str
    build: Build
    backwards: bool = False


def _stack(L: Layers, i: Any, s: dict[str, bool]) -> Any:
    return L.LSTM(5, **s)(L.LSTM(UNITS, return_sequences=True, **s)(i.x))


def _masked_stack(L: Layers, i: Any, s: dict[str, bool]) -> Any:
    x = L.LSTM(UNITS, return_sequences=True, **s)(L.Masking()(i.x))
    return L.LSTM(5, return_sequences=True, **s)(L.GRU(6, return_sequences=True, **s)(x))


HARD = {"recurrent_activation": "hard_sigmoid"}
BOTH_RETURNS = {"return_sequences": True, "return_state": True}
CASES = (
    StateCase("plain", lambda L, i, s: L.LSTM(UNITS, **s)(i.x)),
    StateCase("sequences", lambda L, i, s: L.LSTM(UNITS, return_sequences=True, **s)(i.x)),
    StateCase("return_state", lambda L, i, s: L.LSTM(UNITS, **BOTH_RETURNS, **s)(i.x)),
    StateCase("stack", _stack),
    StateCase("masked", lambda L, i, s: L.LSTM(UNITS, **s)(L.Masking()(i.x))),
    StateCase(
        "masked_return_state",
        lambda L, i, s: L.LSTM(UNITS, **BOTH_RETURNS, **s)(L.Masking()(i.x)),
    ),
    StateCase("masked_stack", _masked_stack),
    StateCase("hard_sigmoid", lambda L, i, s: L.LSTM(UNITS, **HARD, **BOTH_RETURNS, **s)(i.x)),
    StateCase("gru", lambda L, i, s: L.GRU(UNITS, return_sequences=True, **s)(i.x)),
    StateCase("masked_gru", lambda L, i, s: L.GRU(UNITS, **s)(L.Masking()(i.x))),
    StateCase("simple", lambda L, i, s: L.SimpleRNN(UNITS, **s)(i.x)),
    StateCase(
        "stacked_cells",
        lambda L, i, s: L.RNN([L.LSTMCell(UNITS), L.LSTMCell(5)], **BOTH_RETURNS, **s)(i.x),
    ),
    StateCase(
        "mixed_cells",
        lambda L, i, s: L.RNN([L.LSTMCell(UNITS), L.GRUCell(5)], **s)(L.Masking()(i.x)),
    ),
    StateCase(
        "conv_lstm",
        lambda L, i, s: L.ConvLSTM1D(3, 3, padding="same", return_sequences=True, **s)(i.frames),
    ),
    StateCase(
        "backwards",
        lambda L, i, s: L.LSTM(UNITS, go_backwards=True, return_sequences=True, **s)(i.x),
        backwards=True,
    ),
    StateCase(
        "bidirectional",
        lambda L, i, s: L.Bidirectional(L.LSTM(UNITS, return_sequences=True, **s))(i.x),
        backwards=True,
    ),
    StateCase(
        "masked_bidirectional",  # without return_state, on which Keras 3 itself fails
        lambda L, i, s: L.Bidirectional(L.LSTM(UNITS, **s), merge_mode="sum")(L.Masking()(i.x)),
        backwards=True,
    ),
)


@dataclasses.dataclass(frozen=True)
class Twins:
    """One model of all cases, and the same with every layer stateful.

    Attributes:
        outputs: positions of each case's outputs.
    """

    engine: KerasEngine
    plain: Any
    stateful: Any
    outputs: dict[str, range]

    def forget(self) -> None:
        """Zeroes all states (Keras 3's own reset_states fails on stacked cells)."""
        nest = tensorflow().nest
        for layer in self.stateful._flatten_layers(include_self=False):
            if getattr(layer, "stateful", False):
                for state in nest.flatten(getattr(layer, "states", None)):
                    if hasattr(state, "assign"):
                        state.assign(np.zeros(state.shape, np.float32))

    def expected(
        self, calls: Sequence[Sequence[Array]], resets: Sequence[int]
    ) -> list[list[Array]]:
        """The stateful twin's outputs per call, from zero states."""
        answers = []
        for number, inputs in enumerate(calls):
            if number == 0 or number in resets:
                self.forget()
            answers.append(run_live(self.stateful, self.engine, inputs))
        return answers


def _model(
    engine: KerasEngine, cases: Sequence[StateCase], stateful: bool, batch: int | None
) -> tuple[Any, dict[str, range]]:
    keras = engine.module
    inputs = SimpleNamespace(
        x=keras.Input((None, 4), batch_size=batch, name="x"),
        frames=keras.Input((None, 7, 2), batch_size=batch, name="frames"),
    )
    outputs: list[Any] = []
    positions = {}
    for number, case in enumerate(cases):
        layers = Layers(keras.layers, f"case{number}")
        made = case.build(layers, inputs, {"stateful": stateful})
        made = list(made) if isinstance(made, list | tuple) else [made]
        positions[case.name] = range(len(outputs), len(outputs) + len(made))
        outputs += made
    return keras.Model([inputs.x, inputs.frames], outputs), positions


@functools.lru_cache(maxsize=2)
def twins(engine: KerasEngine, backwards: bool, batch: int | None) -> Twins:
    """The cases that run backwards, or all the others."""
    cases = [case for case in CASES if case.backwards is backwards]
    plain, outputs = _model(engine, cases, False, batch)
    stateful, _ = _model(engine, cases, True, BATCH)
    randomise(plain)
    for source, target in zip(plain.trainable_weights, stateful.trainable_weights, strict=True):
        target.assign(source)
    return Twins(engine, plain, stateful, outputs)


def calls(times: Sequence[int]) -> list[list[Array]]:
    """Inputs x and frames; x with masked steps at the start, in the middle and at the end."""
    made = []
    for seed, time in enumerate(times):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((BATCH, time, 4)).astype(np.float32)
        x[0, -2:] = 0
        x[1] = 0 if seed == 1 else x[1]
        x[2, :2] = 0
        x[2, 3] = 0
        made.append([x, rng.standard_normal((BATCH, time, 7, 2)).astype(np.float32)])
    return made


def errors_by_case(
    outputs: dict[str, range], expected: Sequence[Sequence[Array]], answer: dict[str, Array]
) -> dict[str, float]:
    return {
        case: max(
            relative_error(call[position], answer[f"out{number}_{position}"])
            for number, call in enumerate(expected)
            for position in positions
        )
        for case, positions in outputs.items()
    }


RESETS = (2,)


@functools.cache
def persistent_errors(
    engine: KerasEngine, backwards: bool, source: str, policy: StatePolicy | None, interpreter: str
) -> dict[str, float]:
    """Errors of `carry` and `reset` files over three calls, states reset before the third."""
    pair = twins(engine, backwards, BATCH)
    flatbuffer, sequence, expected = _written(engine, backwards, source, policy)
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for xnnpack in (1, 0):
            question = job(flatbuffer, sequence, Way(1, xnnpack), resets=RESETS)
            (answer,) = run(interpreter, [question], Path(folder))
            for case, error in errors_by_case(pair.outputs, expected, answer).items():
                worst[case] = max(worst.get(case, 0.0), error)
    return worst


@functools.lru_cache(maxsize=1)
def _written(
    engine: KerasEngine, backwards: bool, source: str, policy: StatePolicy | None
) -> tuple[bytes, Sequence[Sequence[Array]], Sequence[Sequence[Array]]]:
    pair = twins(engine, backwards, BATCH)
    model = pair.stateful if source == "stateful" else pair.plain
    _, _, flatbuffer = write(model, engine, ConvertOptions(state=policy))
    sequence = calls((7, 7, 7))
    resets = (0, 1, 2) if policy is StatePolicy.RESET else RESETS
    return flatbuffer, sequence, pair.expected(sequence, resets)


# Of each policy one engine; the other in the slow run.
DEFAULT = {
    (KerasEngine.KERAS3, "plain", StatePolicy.CARRY),
    (KerasEngine.KERAS3, "stateful", StatePolicy.RESET),
    (KerasEngine.TF_KERAS, "stateful", None),
}


def _persistent() -> list[object]:
    return [
        pytest.param(
            engine,
            source,
            policy,
            interpreter,
            case,
            id=f"{engine.value}-{source}-{policy.value if policy else 'source'}-"
            f"{case.name}-{interpreter}",
            marks=[] if (engine, source, policy) in DEFAULT else [pytest.mark.slow],
        )
        for engine in BOTH
        for backwards in (False, True)
        for source, policy in (
            ("plain", StatePolicy.CARRY),
            ("stateful", None),
            ("stateful", StatePolicy.RESET),
        )
        for interpreter in INTERPRETERS
        for case in CASES
        if case.backwards is backwards and not (backwards and source == "plain")
    ]


@pytest.mark.parametrize(("engine", "source", "policy", "interpreter", "case"), _persistent())
def test_states_outlive_a_call_as_in_a_stateful_layer(
    engine: KerasEngine, source: str, policy: StatePolicy | None, interpreter: str, case: StateCase
) -> None:
    """`carry` continues until variables are reset, `reset` starts every call from zero."""
    found = persistent_errors(engine, case.backwards, source, policy, interpreter)
    assert found[case.name] <= TOLERANCE


@functools.cache
def explicit_errors(engine: KerasEngine, backwards: bool, interpreter: str) -> dict[str, float]:
    """Errors over three calls of different length whose states are fed back."""
    pair = twins(engine, backwards, None)
    live, marked, flatbuffer, sequence, expected = _explicit(engine, backwards)
    count, worst = len(live.outputs), dict.fromkeys(pair.outputs, 0.0)
    states = [np.zeros([BATCH, *slot.shape[1:]], np.float32) for slot in marked.slots]
    with tempfile.TemporaryDirectory() as folder:
        for inputs, wanted in zip(sequence, expected, strict=True):
            jobs = [job(flatbuffer, [[*inputs, *states]], Way(1, xnnpack)) for xnnpack in (1, 0)]
            for answer in run(interpreter, jobs, Path(folder)):
                for case, error in errors_by_case(pair.outputs, [wanted], answer).items():
                    worst[case] = max(worst[case], error)
            states = [answer[f"out0_{count + index}"] for index in range(len(states))]
    return worst


@functools.lru_cache(maxsize=1)
def _explicit(engine: KerasEngine, backwards: bool) -> tuple[Any, Any, bytes, Any, Any]:
    pair = twins(engine, backwards, None)
    written = write(pair.plain, engine, ConvertOptions(state=StatePolicy.EXPLICIT))
    sequence = calls((7, 12, 5))
    return *written, sequence, pair.expected(sequence, [])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize(
    "engine",
    [BOTH[0], *(pytest.param(engine, marks=pytest.mark.slow) for engine in BOTH[1:])],
    ids=lambda engine: engine.value,
)
def test_explicit_states_fed_back_equal_a_stateful_layer(
    engine: KerasEngine, interpreter: str, case: StateCase
) -> None:
    """Every state is an input and an output, at a dynamic batch and time."""
    assert explicit_errors(engine, case.backwards, interpreter)[case.name] <= TOLERANCE


def _one_layer(engine: KerasEngine, make: Callable[[Any], Any], batch: int | None) -> Any:
    keras = engine.module
    x = keras.Input((None, 6, 4) if batch == 0 else (None, 4), batch_size=batch or None)
    return keras.Model(x, make(keras.layers)(x))


@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
def test_carrying_with_a_dynamic_batch_asks_for_a_batch_size(engine: KerasEngine) -> None:
    """A state that persists needs a size: the error says which option gives it."""
    for make in (lambda L: L.LSTM(UNITS), lambda L: L.GRU(UNITS)):
        model = _one_layer(engine, make, None)
        with pytest.raises(UnsupportedModelError, match="fixed") as caught:
            write(model, engine, ConvertOptions(state=StatePolicy.CARRY))
        assert "--batch" in (caught.value.cure or "")
        assert caught.value.where


@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
def test_carrying_with_a_batch_size_given_carries(engine: KerasEngine) -> None:
    """`--batch 3` fixes the batch of a model that left it open."""
    model = _one_layer(engine, lambda L: L.LSTM(UNITS, return_sequences=True), None)
    live, _, flatbuffer = write(
        model, engine, ConvertOptions(state=StatePolicy.CARRY, batch=BATCH, time=6)
    )
    assert live.inputs[0].shape == (BATCH, 6, 4)
    whole = np.random.default_rng(0).standard_normal((BATCH, 12, 4)).astype(np.float32)
    (expected,) = run_live(model, engine, [whole])
    halves = [[whole[:, :6]], [whole[:, 6:]]]
    (answer,) = run("litert", [job(flatbuffer, halves)], Path())
    joined = np.concatenate([answer["out0_0"], answer["out1_0"]], axis=1)
    assert relative_error(expected, joined) <= TOLERANCE


def test_batch_and_time_of_a_model_with_time_first_are_those_axes(tmp_path: Path) -> None:
    """Keras 2's time_major: the written file against one call of the source on the whole."""
    engine = KerasEngine.TF_KERAS
    L = engine.module.layers
    x = engine.module.Input((None, 4), name="x")
    model = engine.module.Model(x, L.LSTM(UNITS, time_major=True, return_sequences=True)(x))
    randomise(model)
    model.save(tmp_path / "model.h5")
    path = tmp_path / "m.tflite"
    options = ConvertOptions(state=StatePolicy.CARRY, batch=BATCH)
    report = convert(tmp_path / "model.h5", path, options, progress=lambda text: None)
    (given,) = report.signatures["serving_default"].inputs
    assert given.shape == (None, BATCH, 4)
    whole = np.random.default_rng(0).standard_normal((12, BATCH, 4)).astype(np.float32)
    (expected,) = run_live(model, engine, [whole])
    stream = Stream(path)
    parts = [next(iter(stream.push(whole[i : i + 5]).values())) for i in range(0, 12, 5)]
    assert relative_error(expected, np.concatenate(parts)) <= TOLERANCE


@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
@pytest.mark.parametrize(
    "make",
    [
        lambda L: L.LSTM(UNITS, go_backwards=True),
        lambda L: L.Bidirectional(L.LSTM(UNITS)),
        lambda L: L.GRU(UNITS, go_backwards=True),
    ],
    ids=["backwards", "bidirectional", "gru_backwards"],
)
def test_carrying_backwards_in_time_is_refused(
    engine: KerasEngine, make: Callable[[Any], Any]
) -> None:
    """A later call cannot continue what ran from the end of an earlier one."""
    with pytest.raises(UnsupportedModelError, match="backwards") as caught:
        write(_one_layer(engine, make, BATCH), engine, ConvertOptions(state=StatePolicy.CARRY))
    assert "--state" in (caught.value.cure or "")


@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
@pytest.mark.parametrize("policy", [StatePolicy.CARRY, StatePolicy.EXPLICIT])
def test_state_inside_time_distributed_is_refused(engine: KerasEngine, policy: StatePolicy) -> None:
    """Each outer step has a state of its own there."""
    model = _one_layer(engine, lambda L: L.TimeDistributed(L.LSTM(UNITS)), 0)
    with pytest.raises(UnsupportedModelError, match="TimeDistributed") as caught:
        write(model, engine, ConvertOptions(state=policy))
    assert "--state reset" in (caught.value.cure or "")


def test_the_twins_have_state_indeed() -> None:
    """A twin whose second call equalled its first would prove nothing."""
    tensorflow()
    pair = twins(BOTH[0], False, BATCH)
    same = calls((7,)) * 2
    first, second = pair.expected(same, [])
    assert all(relative_error(first[p], second[p]) > 1e-3 for r in pair.outputs.values() for p in r)
