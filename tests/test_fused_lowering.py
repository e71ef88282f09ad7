"""Marker models become fused operators that equal the LSTM's equations in every interpreter."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from fused_models import WAYS, add_marker, job, marker_model, random_spec, run
from lstm_reference import lstm

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.bind_state import StatePair, bind_states
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.spec import Activation, Array, Layout, LstmSpec, StatePolicy
from edgelstm.errors import UnsupportedModelError

INTERPRETERS = ["litert", "tflite_runtime", pytest.param("tensorflow", marks=pytest.mark.slow)]
TOLERANCE = 2e-6


def lowered(model: Model, *specs: LstmSpec, policy: StatePolicy = StatePolicy.RESET) -> bytes:
    lower_markers(model, dict(enumerate(specs)), policy=policy)
    return model.to_bytes()


def inputs_for(spec: LstmSpec, batch: int, time: int, seed: int, *, initial: bool) -> list[Array]:
    rng = np.random.default_rng(seed)
    shape = (batch, time) if spec.layout is Layout.BATCH_MAJOR else (time, batch)
    shapes: list[tuple[int, ...]] = [(*shape, spec.input_size)]
    if initial:
        shapes += [(batch, spec.output_size), (batch, spec.units)]
    return [rng.standard_normal(one).astype(np.float32) for one in shapes]


def configurations() -> list[LstmSpec]:
    """Every combination of the equations' parts that the operator accepts."""
    found: list[LstmSpec] = []
    for peephole, projection, coupled, layer_norm, diagonal in itertools.product(
        (False, True),
        ("none", "plain", "bias", "same"),
        (False, True),
        (False, True),
        (False, True),
    ):
        if diagonal and projection in ("plain", "bias"):
            continue  # a diagonal recurrent kernel needs O = U
        number = len(found)
        found.append(
            random_spec(
                number,
                outputs={"none": None, "same": 5}.get(projection, 4),
                projection_bias=projection == "bias",
                coupled=coupled,
                peephole=peephole,
                layer_norm=layer_norm,
                diagonal=diagonal,
                activation=list(Activation)[number % 4],
                cell_clip=(0.0, 0.4)[number // 2 % 2],
                projection_clip=(0.0, 0.3)[number // 4 % 2],
                layout=list(Layout)[number % 2],
            )
        )
        found.append(
            random_spec(
                number,
                outputs={"none": None, "same": 5}.get(projection, 4),
                coupled=coupled,
                peephole=peephole,
                layer_norm=layer_norm,
                diagonal=diagonal,
                layout=list(Layout)[number // 2 % 2],
            )
        )
    return found


def configuration_jobs(
    initial: bool,
) -> tuple[list[dict[str, Array]], list[list[tuple[Array, Array, Array]]]]:
    """Jobs of every configuration, and for each of their calls what `lstm` says."""
    jobs, expected = [], []
    for number, spec in enumerate(configurations()):
        static = number % 3 == 0
        batch, time = (2, 4) if static else (-1, -1)
        model = marker_model(spec, batch=batch, time=time, initial=initial, final_c=True)
        sizes = [(2, 4), (2, 4)] if static else [(1, 3), (1, 3), (3, 5), (2, 1), (2, 1)]
        calls = [
            inputs_for(spec, *size, seed=7 * number + i, initial=initial)
            for i, size in enumerate(sizes)
        ]
        jobs.append(job(lowered(model, spec), calls, WAYS[number % 4]))
        expected.append([lstm(spec, *call) for call in calls])
    return jobs, expected


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("initial", [False, True], ids=["zero", "given"])
def test_every_configuration_equals_the_equations(
    interpreter: str, initial: bool, tmp_path: Path
) -> None:
    """Dynamic and static sizes, changing shapes, two calls each, with the final c read out."""
    jobs, expected = configuration_jobs(initial)
    for answer, wanted in zip(run(interpreter, jobs, tmp_path), expected, strict=True):
        for call, (sequence, _, c) in enumerate(wanted):
            np.testing.assert_allclose(answer[f"out{call}_0"], sequence, atol=TOLERANCE)
            np.testing.assert_allclose(answer[f"out{call}_1"], c, atol=TOLERANCE)


def dense(model: Model, x: int, weights: Array, name: str) -> int:
    """FULLY_CONNECTED over the last axis: an operator that XNNPACK takes."""
    main = model.main
    shape = (*main.tensor(x).signature[:-1], weights.shape[0])
    out = main.add_tensor(name, shape)
    bias = np.zeros(weights.shape[0], np.float32)
    constants = [main.add_constant(f"{name}_w", weights), main.add_constant(f"{name}_b", bias)]
    main.add_op("FULLY_CONNECTED", [x, *constants], [out], options={"keep_num_dims": True})
    return out


def chain_model(first: LstmSpec, second: LstmSpec, batch: int, weights: Array) -> Model:
    """x -> dense -> LSTM from computed states; ADD, MUL, dense and an LSTM read its c."""
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (batch, -1 if batch < 0 else 4, first.input_size))
    start = main.add_tensor("start", (batch, first.units))
    one = main.add_constant("one", np.ones((1, first.units), np.float32))
    c0 = main.add_tensor("c0", (batch, first.units))
    main.add_op("ADD", [start, one], [c0])
    mixed = dense(model, x, weights, "mixed")
    sequence, c = add_marker(main, 0, [mixed, start, c0], first, final_c=True)
    outputs = [sequence, c]
    for op in ("ADD", "MUL"):
        outputs.append(main.add_tensor(op.lower(), (batch, first.units)))
        main.add_op(op, [c, start], [outputs[-1]])
    outputs.append(dense(model, c, np.eye(first.units, dtype=np.float32) * 2, "dense_c"))
    outputs += add_marker(main, 1, [sequence, start, c], second, final_c=True)
    main.inputs, main.outputs = [x, start], outputs
    return model


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("batch", [-1, 2], ids=["dynamic", "static"])
def test_the_final_c_is_right_whatever_reads_it(
    interpreter: str, batch: int, tmp_path: Path
) -> None:
    """Delegates may not read c before the LSTM has run, be it ADD, MUL, dense or another LSTM."""
    first, second = random_spec(1, units=5), random_spec(2, units=5, features=5)
    weights = np.random.default_rng(3).standard_normal((3, 3)).astype(np.float32)
    data = lowered(chain_model(first, second, batch, weights), first, second)
    sizes = [(2, 4), (2, 4)] if batch > 0 else [(2, 4), (2, 4), (3, 1), (3, 1), (1, 6)]
    rng = np.random.default_rng(4)
    calls = [
        [
            rng.standard_normal((b, t, 3)).astype(np.float32),
            rng.standard_normal((b, 5)).astype(np.float32),
        ]
        for b, t in sizes
    ]
    answers = run(interpreter, [job(data, calls, way) for way in WAYS], tmp_path)
    for call, (x, start) in enumerate(calls):
        sequence, _, c = lstm(first, x @ weights.T, start, start + 1)
        sequence_2, _, c_2 = lstm(second, sequence, start, c)
        wanted = [sequence, c, c + start, c * start, c * 2, sequence_2, c_2]
        for answer in answers:
            for k, value in enumerate(wanted):
                np.testing.assert_allclose(answer[f"out{call}_{k}"], value, atol=5e-6)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_a_constant_initial_state_starts_every_call(interpreter: str, tmp_path: Path) -> None:
    """Interpreters evaluate some copies of constants only once; the state must be set each call."""
    spec = random_spec(5)
    model = marker_model(spec, batch=2, initial=True)
    main = model.main
    h0, c0 = inputs_for(spec, 2, 1, 6, initial=True)[1:]
    main.tensor(main.inputs[1]).set_data(h0)
    main.tensor(main.inputs[2]).set_data(c0)
    main.inputs = main.inputs[:1]
    model.set_signature("serving_default", inputs={"x": 0}, outputs={"y": main.outputs[0]})
    calls = [inputs_for(spec, 2, 4, seed, initial=False) for seed in range(2)]
    data = lowered(model, spec)
    for answer in run(interpreter, [job(data, calls, way) for way in WAYS], tmp_path):
        for call, (x,) in enumerate(calls):
            wanted = lstm(spec, x, h0, c0)[0]
            np.testing.assert_allclose(answer[f"out{call}_0"], wanted, atol=TOLERANCE)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_carried_state_continues_until_reset(interpreter: str, tmp_path: Path) -> None:
    """Two calls equal one long sequence; after a reset the state is zero again."""
    spec = random_spec(7)
    data = lowered(marker_model(spec, batch=2, time=3), spec, policy=StatePolicy.CARRY)
    calls = [inputs_for(spec, 2, 3, seed, initial=False) for seed in range(4)]
    jobs = [job(data, calls, way, resets=[2]) for way in WAYS]
    for answer in run(interpreter, jobs, tmp_path):
        for begin in (0, 2):
            long = lstm(spec, np.concatenate([calls[begin][0], calls[begin + 1][0]], axis=1))[0]
            found = [answer[f"out{begin}_0"], answer[f"out{begin + 1}_0"]]
            np.testing.assert_allclose(np.concatenate(found, axis=1), long, atol=TOLERANCE)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_zeroed_state_survives_a_reset_of_variables(interpreter: str, tmp_path: Path) -> None:
    """The state tensors stay persistent with dynamic batch, so resetting does not fail."""
    spec = random_spec(8)
    data = lowered(marker_model(spec), spec)
    calls = [inputs_for(spec, batch, 3, batch, initial=False) for batch in (1, 3, 3)]
    for answer in run(interpreter, [job(data, calls, resets=[1, 2])], tmp_path):
        for call, (x,) in enumerate(calls):
            wanted = lstm(spec, x)[0]
            np.testing.assert_allclose(answer[f"out{call}_0"], wanted, atol=TOLERANCE)


def loop_state_model() -> Model:
    """a' = 2 a + x (dense), b' = a (a shift register), y = a + b + x, late = (y * a) after both."""
    model = Model()
    main = model.add_subgraph("main")
    x, a, b = (main.add_tensor(name, (2, 3)) for name in ("x", "a_in", "b_in"))
    twice = dense(model, a, np.eye(3, dtype=np.float32) * 2, "twice")
    a_out, part, y, summed, late = (
        main.add_tensor(name, (2, 3)) for name in ("a_out", "part", "y", "summed", "late")
    )
    main.add_op("ADD", [twice, x], [a_out])
    main.add_op("ADD", [a, b], [part])
    main.add_op("ADD", [part, x], [y])
    axis = main.add_constant("axis", np.asarray(1, np.int32))
    main.add_op("CUMSUM", [y, axis], [summed])
    main.add_op("MUL", [summed, a], [late])
    main.inputs, main.outputs = [x, a, b], [y, late, a_out, a]
    model.set_signature(
        "serving_default",
        inputs={"x": x, "a": a, "b": b},
        outputs={"y": y, "late": late, "a_out": a_out, "b_out": a},
    )
    return model


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_bound_states_persist_and_reset(interpreter: str, tmp_path: Path) -> None:
    """No reader sees the new state early, a state may feed another, and a reset zeroes both."""
    model = loop_state_model()
    main = model.main
    x, a, b = main.inputs
    names = bind_states(model, [StatePair("a", a, main.outputs[2]), StatePair("b", b, a)])
    assert names == ["a_in", "b_in"]
    signature = model.signatures[0]
    assert (list(signature.inputs), list(signature.outputs)) == (["x"], ["y", "late"])
    rng = np.random.default_rng(9)
    calls = [[rng.standard_normal((2, 3)).astype(np.float32)] for _ in range(6)]
    jobs = [job(model.to_bytes(), calls, way, resets=[3]) for way in WAYS]
    for answer in run(interpreter, jobs, tmp_path):
        state_a, state_b = np.zeros((2, 3)), np.zeros((2, 3))
        for call, (value,) in enumerate(calls):
            if call == 3:
                state_a, state_b = np.zeros((2, 3)), np.zeros((2, 3))
            y = state_a + state_b + value
            late = np.cumsum(y, axis=1) * state_a
            np.testing.assert_allclose(answer[f"out{call}_0"], y, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(answer[f"out{call}_1"], late, rtol=1e-4, atol=1e-5)
            state_a, state_b = 2 * state_a + value, state_a


def test_an_output_that_is_also_a_state_stays_an_output(tmp_path: Path) -> None:
    """Only the state's own signature entry leaves when a plain output is the same tensor."""
    model = loop_state_model()
    main = model.main
    _, a, b = main.inputs
    a_out = main.outputs[2]
    model.set_signature(
        "serving_default",
        inputs=model.signatures[0].inputs,
        outputs={**model.signatures[0].outputs, "plain": a_out},
    )
    bind_states(model, [StatePair("a", a, a_out, "a_out"), StatePair("b", b, a, "b_out")])
    assert list(model.signatures[0].outputs) == ["y", "late", "plain"]
    assert len(model.main.outputs) == 3
    calls = [[np.ones((2, 3), np.float32)] for _ in range(3)]
    (answer,) = run("litert", [job(model.to_bytes(), calls)], tmp_path)
    assert [float(answer[f"out{call}_2"][0, 0]) for call in range(3)] == [1, 3, 7]


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [((-1, 3), "float32", "fixed shape"), ((2, 3), "int32", "float32"), ((2, 4), "float32", "one")],
)
def test_states_that_cannot_be_bound_are_refused(
    shape: tuple[int, ...], dtype: str, words: str
) -> None:
    """Dynamic shapes, other types and unequal sides have no persistent form."""
    model = Model()
    main = model.add_subgraph("main")
    main.inputs = [main.add_tensor("in", shape, dtype)]
    main.outputs = [main.add_tensor("out", (2, 3), dtype)]
    with pytest.raises(UnsupportedModelError, match=words):
        bind_states(model, [StatePair("s", main.inputs[0], main.outputs[0])])


def options(op: Op) -> dict[str, object]:
    fields = "fused_activation_function cell_clip proj_clip time_major diagonal_recurrent_tensors"
    return {field: op.option(field) for field in fields.split()}


def test_the_fused_operator_is_written_as_the_schema_wants() -> None:
    """24 inputs, biases present, clips of the source only, states of its own, no unused code."""
    specs = [random_spec(number, name=f"lstm_{number}", units=5, features=5) for number in (1, 1)]
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (-1, -1, 5))
    (first,) = add_marker(main, 0, [x], specs[0])
    (second,) = add_marker(main, 1, [first], specs[1])
    main.inputs, main.outputs = [x], [second]
    fused = lower_markers(model, dict(enumerate(specs)), policy=StatePolicy.RESET)
    assert [(one.id, one.name, one.units) for one in fused] == [(0, "lstm_1", 5), (1, "lstm_1", 5)]
    model = Model.read(model.to_bytes())
    ops = model.main.find(FUSED_OP)
    assert [one.output for one in fused] == [op.output(0).name for op in ops]
    everything: list[int] = []
    for op, one in zip(ops, fused, strict=True):
        assert len(op.inputs) == 24
        assert [i for i, index in enumerate(op.inputs) if index == -1] == [
            *range(9, 12), *range(16, 18), *range(20, 24),
        ]  # fmt: skip
        assert options(op) == {
            "fused_activation_function": 4,
            "cell_clip": 0,
            "proj_clip": 0,
            "time_major": False,
            "diagonal_recurrent_tensors": False,
        }
        states = [op.input(18), op.input(19)]
        assert [state.name for state in states if state] == [one.h_state, one.c_state]
        assert all(state is not None and state.is_variable for state in states)
        everything += [index for index in op.inputs[1:] if index != -1]
    assert len(everything) == len(set(everything)), "the two operators share a tensor"
    names = [code.builtinCode for code in model._raw.operatorCodes]
    assert len(names) == len(set(names)) == len({op.name for op in model.main.ops})


def test_an_unread_final_c_writes_nothing() -> None:
    """Reading c out costs operators, so it is left away where nobody reads it."""
    spec = random_spec()
    model = marker_model(spec, final_c=True)
    model.main.outputs = model.main.outputs[:1]
    model.set_signature("serving_default", inputs={"x": 0}, outputs={"y": model.main.outputs[0]})
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    assert not model.main.find("BROADCAST_TO")


def test_static_batch_needs_no_shape_operators() -> None:
    """With a fixed batch the zeros have a constant size."""
    spec = random_spec()
    model = marker_model(spec, batch=2, time=3)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    assert [op.name for op in model.main.ops] == ["FILL", "FILL", FUSED_OP]


def test_what_cannot_be_lowered_is_refused_by_name() -> None:
    """Carried state with dynamic batch, unknown ids, wrong widths, and markers in loops."""
    spec = random_spec(name="my_layer")
    with pytest.raises(UnsupportedModelError, match="--batch") as caught:
        lower_markers(marker_model(spec), {0: spec}, policy=StatePolicy.CARRY)
    assert caught.value.where == "my_layer"
    with pytest.raises(UnsupportedModelError, match="unknown id 0"):
        lower_markers(marker_model(spec), {3: spec}, policy=StatePolicy.RESET)
    wide = random_spec(name="wide", features=9)
    with pytest.raises(UnsupportedModelError, match="last of 9"):
        lower_markers(marker_model(spec), {0: wide}, policy=StatePolicy.RESET)
    model = marker_model(spec)
    body = model.add_subgraph("body")
    body.inputs = [body.add_tensor("x", (1, 2, 3))]
    body.outputs = add_marker(body, 0, body.inputs, spec)
    with pytest.raises(UnsupportedModelError, match="inside a loop"):
        lower_markers(model, {0: spec}, policy=StatePolicy.RESET)


def test_given_states_of_a_wrong_width_are_refused() -> None:
    """The state's width is the layer's, else the kernel would read past it."""
    spec = random_spec(units=5)
    model = marker_model(spec, initial=True)
    model.main.tensor(model.main.inputs[2]).set_shape((-1, 4))
    with pytest.raises(UnsupportedModelError, match="initial c"):
        lower_markers(model, {0: spec}, policy=StatePolicy.RESET)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("initial", [False, True], ids=["zero", "given"])
def test_an_input_whose_shape_is_known_only_in_the_call_works(
    interpreter: str, initial: bool, tmp_path: Path
) -> None:
    """Operators before the LSTM may give it a shape computed from data: its state must fit."""
    spec = random_spec(10, units=32)
    model = Model()
    main = model.add_subgraph("main")
    flat, dims = main.add_tensor("flat", (-1,)), main.add_tensor("dims", (3,), "int32")
    x, start = main.add_tensor("x", (-1, -1, 3)), main.add_tensor("start", (-1, 32))
    main.add_op("RESHAPE", [flat, dims], [x])
    inputs = [x, start, start] if initial else [x]
    sequence, c = add_marker(main, 0, inputs, spec, final_c=True, rows=Rows(None))
    doubled = main.add_tensor("doubled", (-1, 32))
    main.add_op("ADD", [c, c], [doubled])
    main.inputs, main.outputs = [flat, dims, start], [sequence, doubled]
    rng = np.random.default_rng(11)
    calls, expected = [], []
    for batch, time in [(1, 4), (1, 4), (30, 2), (2, 3), (2, 3)]:
        value = rng.standard_normal((batch, time, 3)).astype(np.float32)
        state = rng.standard_normal((batch, 32)).astype(np.float32)
        calls.append([value.reshape(-1), np.asarray(value.shape, np.int32), state])
        expected.append(lstm(spec, value, *[state] * 2 if initial else []))
    jobs = [job(lowered(model, spec), calls, way) for way in WAYS]
    for answer in run(interpreter, jobs, tmp_path):
        for call, (wanted, _, final) in enumerate(expected):
            np.testing.assert_allclose(answer[f"out{call}_0"], wanted, atol=TOLERANCE)
            np.testing.assert_allclose(answer[f"out{call}_1"], 2 * final, atol=2 * TOLERANCE)
