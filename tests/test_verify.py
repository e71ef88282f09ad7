"""Verification finds what is wrong: for every check there is a model that only it can fail."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping

import numpy as np
import pytest
from lstm_reference import lstm
from verify_models import (
    DYNAMIC,
    FEATURES,
    UNITS,
    Y_SHAPE,
    Graph,
    NumpySource,
    check,
    failure,
    integrating_spec,
    lstm_model,
    lstm_source,
    no_lstm,
    random_spec,
    source_of,
)

from edgelstm.converters.spec import (
    Array,
    Layout,
    LstmSpec,
    StatePair,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.cases import MASK_PATTERNS


class TestRightModels:
    """A model that equals its source passes in every form."""

    def test_an_lstm_with_open_batch_and_time_passes(self) -> None:
        """Errors stay far below the tolerance on every case and every runner."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec))
        assert found.passed
        assert 0 < found.outputs[0].relative_error < 2e-6
        assert {case.time for case in found.cases} == {1, 7, 20, 200}
        assert {case.batch for case in found.cases} == {1, 3}
        assert len({case.runner for case in found.cases}) == 2
        found.raise_if_failed()

    def test_a_time_major_lstm_passes(self) -> None:
        """Rows are then taken from axis 1."""
        spec = dataclasses.replace(random_spec(), layout=Layout.TIME_MAJOR)
        model = lstm_model(spec, layout=Layout.TIME_MAJOR)
        found = check(lstm_source(spec, time_major=True), model)
        assert found.passed
        assert {case.batch for case in found.cases} == {1, 3}

    @pytest.mark.parametrize(("batch", "time"), [(2, DYNAMIC), (DYNAMIC, 5), (1, 5)])
    def test_fixed_sizes_stay_fixed(self, batch: int, time: int) -> None:
        """Sizes that the file fixes are kept, though the source leaves them open."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec, batch=batch, time=time))
        assert found.passed
        assert {case.batch for case in found.cases} == ({1, 3} if batch == DYNAMIC else {batch})
        assert {case.time for case in found.cases} == ({1, 7, 20, 200} if time < 0 else {time})

    def test_a_carried_state_passes(self) -> None:
        """A fixed length reaches ten times its steps by ten consecutive calls."""
        spec = random_spec()
        model = lstm_model(spec, policy=StatePolicy.CARRY, batch=2, time=5)
        found = check(lstm_source(spec), model, StatePolicy.CARRY)
        assert found.passed
        ten_calls_and_reset_and_reverse = 12 * 2 * 5 * UNITS
        assert found.cases[0].outputs[0].values == ten_calls_and_reset_and_reverse

    def test_rows_that_the_source_itself_couples_pass(self) -> None:
        """A row alone is then compared with the source's row alone."""
        graph = Graph()
        axis = graph.constant(np.asarray(0, np.int32))
        y = graph.op("CUMSUM", [graph.x, axis], (DYNAMIC, DYNAMIC, FEATURES))
        model = graph.finish(no_lstm(), y=y)
        assert check(source_of(lambda x: np.cumsum(x, axis=0)), model).passed

    def test_nan_on_both_sides_passes(self) -> None:
        """The square root of a negative number is NaN in the source too."""
        graph = Graph()
        y = graph.op("SQRT", [graph.x], (DYNAMIC, DYNAMIC, FEATURES))

        def root(x: Array) -> Array:
            with np.errstate(invalid="ignore"):
                return np.asarray(np.sqrt(x))

        assert check(source_of(root), graph.finish(no_lstm(), y=y)).passed

    def test_a_constant_output_passes(self) -> None:
        """An output of zeros has no range, and no error either."""
        graph = Graph()
        y = graph.op("MUL", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        found = check(source_of(np.zeros_like), graph.finish(no_lstm(), y=y))
        assert found.passed
        assert found.outputs[0].relative_error == 0


class TestWrongModels:
    """A wrong model fails, and the message says what is wrong with it."""

    def test_one_wrong_weight_is_found(self) -> None:
        """A thousandth on one recurrent weight shows; step, case and output are named."""
        spec = random_spec()
        recurrent = spec.recurrent.f.copy()
        recurrent[1, 2] += 1e-3
        wrong = dataclasses.replace(
            spec, recurrent=dataclasses.replace(spec.recurrent, f=recurrent)
        )
        found = check(lstm_source(spec), lstm_model(wrong))
        assert not found.passed
        message = failure(found)
        assert "output 'y' differs from its source by" in message
        assert "1e-05 is allowed" in message
        assert "first diverging step" in message
        # h and c are zero at step 0, so the weight cannot show there in a first call.
        assert found.worst is not None
        first_steps = [case.outputs[0].first_diverging_step for case in found.failures]
        assert first_steps and min(s for s in first_steps if s is not None) >= 1

    def test_a_state_that_is_not_reset_is_found(self) -> None:
        """Only the second call is wrong, and the cure names the state policy."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec, policy=StatePolicy.CARRY, batch=2))
        calls = {c for case in found.cases for o in case.outputs for c in o.failing_calls}
        assert calls == {"second call"}
        assert "keeps its state between calls" in failure(found)

    def test_a_state_that_is_reset_is_found(self) -> None:
        """A file that starts each call from zero is wrong where the source carries."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec, batch=2), StatePolicy.CARRY)
        assert "not carried on" in failure(found)

    def test_a_dropped_mask_is_found(self) -> None:
        """Rows with masked steps differ, the row without does not."""
        spec = random_spec()

        def masked(x: Array) -> Array:
            return np.stack([_keras_masked(spec, row) for row in x]).astype(np.float32)

        source = source_of(masked, mask_values={"x": -7.0}, outputs=lstm_source(spec).outputs)
        found = check(source, lstm_model(spec))
        assert "ignores the mask" in failure(found)
        typical = next(c for c in found.failures if c.name == "typical sequence")
        assert typical.outputs[0].failing_rows == (1, 2, 3, 4)
        assert typical.rows == tuple(name for name, _ in MASK_PATTERNS)

    def test_steps_that_the_file_does_not_count_are_found(self) -> None:
        """Random rows are whole, and rows of nothing but zeros look alike to both."""

        def counting(x: Array) -> Array:
            steps = x.any(axis=2).sum(axis=1)
            return np.asarray(x + (steps % x.shape[1]).reshape(-1, 1, 1).astype(np.float32))

        graph = Graph()
        y = graph.op("ADD", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        model = graph.finish(no_lstm(), y=y)
        assert check(source_of(counting), model).passed
        found = check(source_of(counting, padded=frozenset({"x"})), model)
        assert {case.name for case in found.failures} == {"padded rows"}
        assert found.failures[0].outputs[0].failing_rows == (0, 1)

    def test_a_model_right_in_row_0_only_is_found(self) -> None:
        """Every row of a batch is compared, and alone it would be right."""
        spec = random_spec()
        graph = Graph()
        axis = graph.constant(np.asarray(0, np.int32))
        y = graph.op("CUMSUM", [graph.lstm(spec), axis], Y_SHAPE)
        found = check(lstm_source(spec), graph.finish(spec, y=y))
        message = failure(found)
        assert "row 0 is right" in message
        assert {o.failing_rows for c in found.failures for o in c.outputs} == {(1, 2)}

    def test_a_model_wrong_for_single_rows_of_a_right_batch_is_found(self) -> None:
        """Rows one by one are compared even where batches agree and no case has batch 1."""
        spec = random_spec()
        steps = 5
        graph = Graph(time=steps)
        # Adds the row of the batch's last element to the first one of a batch: none for three.
        sequence = graph.lstm(spec)
        shape = graph.main.add_tensor("shape", (3,), "int32")
        graph.main.add_op("SHAPE", [sequence], [shape], options={"out_type": 2})
        size = graph.main.add_tensor("size", (1,), "int32")
        bounds = [graph.constant(np.asarray([v], np.int32)) for v in (0, 1, 1)]
        graph.main.add_op("STRIDED_SLICE", [shape, *bounds], [size])
        count = graph.op("CAST", [size], (1,), in_data_type=2, out_data_type=0)
        off = graph.op("SUB", [count, graph.constant(np.asarray([3.0], np.float32))], (1,))
        y = graph.op("ADD", [sequence, off], (DYNAMIC, steps, UNITS))
        found = check(lstm_source(spec), graph.finish(spec, y=y))
        batched = [c for c in found.failures if c.batch == 3]
        assert [c.name for c in batched] == ["typical sequence"] * 2
        calls = {c for case in batched for o in case.outputs for c in o.failing_calls}
        assert calls == {"row 0 alone", "row 1 alone", "row 2 alone"}

    def test_nan_on_one_side_is_found(self) -> None:
        """NaN is never within tolerance, however large that is."""
        spec = random_spec()
        graph = Graph()
        y = graph.op("SQRT", [graph.lstm(spec)], Y_SHAPE)
        found = check(lstm_source(spec), graph.finish(spec, y=y), tolerance=1e6)
        assert "NaN or infinite" in failure(found)
        assert json.dumps(found.to_json(), allow_nan=False)

    def test_swapped_outputs_are_found(self) -> None:
        """Both outputs fail where one has the other's values."""
        spec = random_spec()
        source = NumpySource(
            lambda reference, inputs: {
                "a": reference.lstm(spec, inputs)["y"],
                "b": -reference.lstm(spec, inputs)["y"],
            },
            output_time_axes={"a": 1, "b": 1},
        )
        graph = Graph()
        sequence = graph.lstm(spec)
        negative = graph.op("NEG", [sequence], Y_SHAPE)
        assert check(source, graph.finish(spec, a=sequence, b=negative)).passed
        graph = Graph()
        sequence = graph.lstm(spec)
        negative = graph.op("NEG", [sequence], Y_SHAPE)
        found = check(source, graph.finish(spec, a=negative, b=sequence))
        assert [output.passed for output in found.outputs] == [False, False]

    def test_a_clipped_cell_is_found_by_long_sequences_only(self) -> None:
        """cell_clip 10 shows once the cell has been beyond 10; the error curve starts there."""
        assert check(lstm_source(integrating_spec()), lstm_model(integrating_spec())).passed
        found = check(lstm_source(integrating_spec()), lstm_model(integrating_spec(10.0)))
        assert {case.name for case in found.failures} == {"long sequence"}
        message = failure(found)
        assert "cell_clip" in message
        assert re.search(r"first diverging step \d+", message)
        output = found.failures[0].outputs[0]
        assert output.first_diverging_step is not None
        assert 10 <= output.first_diverging_step < 100
        before = output.step_errors[: output.first_diverging_step]
        assert max(before) <= found.tolerance < output.step_errors[output.first_diverging_step]

    def test_the_first_diverging_step_is_found_without_a_time_axis(self) -> None:
        """Where only the last output is given, prefixes of the sequence tell the step."""

        def last(spec: LstmSpec) -> bytes:
            graph = Graph()
            axis = graph.constant(np.asarray([1], np.int32))
            sequence = graph.lstm(spec)
            return graph.finish(spec, y=graph.op("SUM", [sequence, axis], (DYNAMIC, UNITS)))

        spec = integrating_spec()
        source = source_of(
            lambda x: lstm(spec, x)[0].sum(axis=1).astype(np.float32),
            outputs=(TensorSpec("y", (None, UNITS), "float32"),),
            output_time_axes={},
        )
        found = check(source, last(integrating_spec(10.0)))
        assert {case.name for case in found.failures} == {"long sequence"}
        assert "first diverging step" in failure(found)
        step = found.failures[0].outputs[0].first_diverging_step
        sequence = check(lstm_source(spec), lstm_model(integrating_spec(10.0)))
        in_sequence = sequence.failures[0].outputs[0].first_diverging_step
        assert step is not None and in_sequence is not None
        # A sum over time has a larger range, so the same error shows a little later.
        assert in_sequence <= step <= in_sequence + 5

    def test_an_explicit_state_that_is_ignored_is_found(self) -> None:
        """States are fed back by name; a model that starts from zero fails in the second call."""
        source = NumpySource(_adder, states=(StatePair("sum", "h", "h_out"),), output_time_axes={})
        assert check(source, _adder_model(ignore=False), StatePolicy.EXPLICIT).passed
        found = check(source, _adder_model(ignore=True), StatePolicy.EXPLICIT)
        assert {o.name for c in found.failures for o in c.outputs if not o.passed} == {
            "y",
            "h_out",
        }
        assert "first call is right" in failure(found)

    def test_integers_must_agree_exactly(self) -> None:
        """A class that is off by one is wrong at any tolerance."""

        def model(name: str) -> bytes:
            graph = Graph()
            y = graph.main.add_tensor("class", (DYNAMIC, DYNAMIC), "int64")
            axis = graph.constant(np.asarray(2, np.int32))
            graph.main.add_op(name, [graph.x, axis], [y], options={"output_type": 4})
            return graph.finish(no_lstm(), y=y)

        source = source_of(lambda x: np.argmax(x, axis=2))
        assert check(source, model("ARG_MAX")).passed
        found = check(source, model("ARG_MIN"), tolerance=1e9)
        assert not found.passed
        assert found.failures[0].outputs[0].first_diverging_step == 0

    def test_a_wrong_constant_is_found(self) -> None:
        """Against an output of zeros the tolerance is absolute."""
        graph = Graph()
        zero = graph.op("MUL", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        y = graph.op("ADD", [zero, graph.constant(1e-3)], (DYNAMIC, DYNAMIC, FEATURES))
        found = check(source_of(np.zeros_like), graph.finish(no_lstm(), y=y))
        assert found.outputs[0].relative_error == pytest.approx(1e-3)
        assert not found.passed


class TestInterface:
    """Names, shapes and dtypes must agree too."""

    def test_a_renamed_output_is_found(self) -> None:
        """The message names both sides."""
        spec = random_spec()
        graph = Graph()
        found = check(lstm_source(spec), graph.finish(spec, z=graph.lstm(spec)))
        message = failure(found)
        assert "no output 'y'" in message or "output 'z'" in message

    def test_a_renamed_input_is_found(self) -> None:
        """Nothing is run then."""
        spec = random_spec()
        source = dataclasses.replace(
            lstm_source(spec), inputs=(TensorSpec("words", (None, None, FEATURES), "float32"),)
        )
        found = check(source, lstm_model(spec))
        assert "no input 'words'" in failure(found)
        assert all(not case.outputs for case in found.cases)

    def test_an_input_of_another_size_is_found(self) -> None:
        """The message gives both shapes."""
        spec = random_spec()
        source = dataclasses.replace(
            lstm_source(spec), inputs=(TensorSpec("x", (None, 9, FEATURES), "float32"),)
        )
        message = failure(check(source, lstm_model(spec, time=5)))
        assert "[?, 5, 3]" in message and "[?, 9, 3]" in message

    def test_a_transposed_output_is_found(self) -> None:
        """Shapes are compared before numbers."""
        spec = random_spec()
        graph = Graph()
        order = graph.constant(np.asarray([1, 0, 2], np.int32))
        y = graph.op("TRANSPOSE", [graph.lstm(spec), order], Y_SHAPE)
        found = check(lstm_source(spec), graph.finish(spec, y=y))
        assert "has shape [20, 3, 4], the source gives [3, 20, 4]" in failure(found)

    def test_another_dtype_is_found(self) -> None:
        """Equal numbers of another type are no equal output."""
        source = source_of(lambda x: np.argmax(x, axis=2).astype(np.int32))
        graph = Graph()
        y = graph.main.add_tensor("class", (DYNAMIC, DYNAMIC), "int64")
        axis = graph.constant(np.asarray(2, np.int32))
        graph.main.add_op("ARG_MAX", [graph.x, axis], [y], options={"output_type": 4})
        message = failure(check(source, graph.finish(no_lstm(), y=y)))
        assert "is int64, the source gives int32" in message

    def test_a_size_that_the_file_cannot_run_is_found(self) -> None:
        """A file that fails at some length fails verification, not the program."""
        graph = Graph(batch=1)
        shape = graph.constant(np.asarray([1, 20, FEATURES], np.int32))
        y = graph.op("RESHAPE", [graph.x, shape], (1, 20, FEATURES))
        found = check(source_of(lambda x: x), graph.finish(no_lstm(), y=y))
        assert "does not run" in failure(found)


def _keras_masked(spec: LstmSpec, row: Array) -> Array:
    """One sequence as Keras runs it: a masked step repeats output and state."""
    keep = (row != -7.0).any(axis=-1)
    sequence = np.zeros((len(row), UNITS))
    if keep.any():
        kept = lstm(spec, row[keep][None])[0][0]
        done = np.cumsum(keep)
        sequence[done > 0] = kept[done[done > 0] - 1]
    return sequence


def _adder(_: object, inputs: Mapping[str, Array]) -> dict[str, Array]:
    total = inputs["h"] + inputs["x"].sum(axis=1)
    return {"y": total, "h_out": total.copy()}


def _adder_model(*, ignore: bool) -> bytes:
    """y = h_out = h + sum of x over time, or without h."""
    graph = Graph()
    shape = (DYNAMIC, FEATURES)
    h = graph.main.add_tensor("h", shape)
    graph.main.inputs = [graph.x, h]
    total = graph.op("SUM", [graph.x, graph.constant(np.asarray([1], np.int32))], shape)
    factor = graph.op("MUL", [h, graph.constant(0.0 if ignore else 1.0)], shape)
    state = graph.op("ADD", [total, factor], shape)
    y = graph.op("ADD", [state, graph.constant(0.0)], shape)
    return graph.finish(no_lstm(), inputs={"h": h}, y=y, h_out=state)


def test_the_integrating_cell_goes_far_beyond_the_clip() -> None:
    """Otherwise the tests of a clipped cell would show nothing."""
    _, _, c = lstm(integrating_spec(), np.ones((1, 50, FEATURES)))
    assert float(c.min()) > 40
