"""Verification finds what is wrong: for every check there is a model that only it can fail."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from lstm_reference import lstm
from rich.console import Console
from verify_models import (
    DYNAMIC,
    FEATURES,
    UNITS,
    Graph,
    NumpySource,
    integrating_spec,
    lstm_model,
    lstm_source,
    random_spec,
)

from edgelstm.converters.render import print_inspection, print_report, print_verification
from edgelstm.converters.report import (
    ConversionReport,
    RecurrenceReport,
    SignatureReport,
    SourceReport,
)
from edgelstm.converters.spec import (
    Array,
    Layout,
    Lowering,
    LstmSpec,
    Precision,
    StatePair,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify import CaseResult, OutputResult, Verification, verify
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.cases import MASK_PATTERNS, plan
from edgelstm.converters.verify.compare import Scale, difference
from edgelstm.converters.verify.diagnosis import cure
from edgelstm.converters.verify.prefix import shortest_failing
from edgelstm.converters.verify.tolerance import DEFAULTS, tolerance_for
from edgelstm.errors import DataError, OptionError, VerificationFailed

Y_SHAPE = (DYNAMIC, DYNAMIC, UNITS)


def check(
    source: NumpySource,
    model: bytes,
    policy: StatePolicy = StatePolicy.RESET,
    *,
    tolerance: float | None = None,
    data: Mapping[str, Array] | None = None,
) -> Verification:
    """Verifies a float32 model."""
    return verify(
        source,
        model,
        policy=policy,
        precision=Precision.FLOAT32,
        tolerance=tolerance,
        data=data,
    )


def failure(verification: Verification) -> str:
    """The message of a failed verification."""
    with pytest.raises(VerificationFailed) as caught:
        verification.raise_if_failed()
    assert caught.value.exit_code == 1
    return str(caught.value)


def source_of(function: Callable[[Array], Array], **changes: object) -> NumpySource:
    """A stateless source y = function(x)."""
    source = NumpySource(lambda _, inputs: {"y": function(inputs["x"])})
    return dataclasses.replace(source, **changes)  # type: ignore[arg-type]


def no_lstm() -> LstmSpec:
    """For `Graph.finish` of models without an LSTM."""
    return random_spec()


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


class TestCases:
    """What a model is compared on."""

    def axes(self, shape: tuple[int | None, ...], **changes: object) -> ModelAxes:
        spec = TensorSpec("x", shape, str(changes.pop("dtype", "float32")))
        spec = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
        return ModelAxes((InputAxes(spec, time=1, mask=None),))

    def test_the_same_seed_gives_the_same_data(self) -> None:
        """A failure can be repeated."""
        axes = self.axes((None, None, 3))
        one, two = plan(axes, StatePolicy.RESET), plan(axes, StatePolicy.RESET)
        for a, b in zip(one, two, strict=True):
            for call, again in zip(a.calls, b.calls, strict=True):
                np.testing.assert_array_equal(call["x"], again["x"])

    def test_integers_stay_within_the_vocabulary(self) -> None:
        """Every value is in [low, high), and all of a small range is used."""
        cases = plan(self.axes((None, None), dtype="int32", low=2, high=6), StatePolicy.RESET)
        values = np.concatenate([call["x"].ravel() for case in cases for call in case.calls])
        assert set(values.tolist()) == {2, 3, 4, 5}

    def test_indices_that_a_model_takes_as_floats_are_whole_numbers(self) -> None:
        """An embedding behind a float input reads its table all the same."""
        cases = plan(self.axes((None, None), low=0, high=5), StatePolicy.RESET)
        values = np.concatenate([call["x"].ravel() for case in cases for call in case.calls])
        assert values.dtype == np.float32
        assert set(values.tolist()) == {0, 1, 2, 3, 4}

    def test_integers_of_unknown_range_are_zero_and_one(self) -> None:
        """These are in every vocabulary."""
        cases = plan(self.axes((None, None), dtype="int64"), StatePolicy.RESET)
        values = np.concatenate([call["x"].ravel() for case in cases for call in case.calls])
        assert set(values.tolist()) == {0, 1}

    @pytest.mark.parametrize("batch", [None, 1, 2, 8])
    def test_every_mask_pattern_is_met_at_every_batch_size(self, batch: int | None) -> None:
        """Leading, trailing, scattered, every and no step masked, for typical and long ones."""
        spec = TensorSpec("x", (batch, None, 3), "float32")
        axes = ModelAxes((InputAxes(spec, time=1, mask=-1.0),))
        cases = plan(axes, StatePolicy.RESET)
        for steps in (20, 200):
            rows = [(c.rows, c.calls[0]["x"]) for c in cases if c.rows and c.time == steps]
            seen = set()
            for names, array in rows:
                for name, values in zip(names, array, strict=True):
                    seen.add(name)
                    keep = dict(MASK_PATTERNS)[name](steps)
                    np.testing.assert_array_equal((values == -1.0).all(axis=-1), ~keep)
            assert seen == {name for name, _ in MASK_PATTERNS}

    def test_integer_masks_are_exact(self) -> None:
        """A random word never equals the mask value where a step counts."""
        spec = TensorSpec("x", (None, None), "int32", 0, 3)
        cases = plan(ModelAxes((InputAxes(spec, time=1, mask=0.0),)), StatePolicy.RESET)
        typical = cases[0]
        for name, row in zip(typical.rows, typical.calls[0]["x"], strict=True):
            np.testing.assert_array_equal(row != 0, dict(MASK_PATTERNS)[name](20))

    def test_a_source_that_refuses_short_sequences_is_still_compared_on_three_lengths(
        self,
    ) -> None:
        """The lengths left out are told."""

        def at_least_ten(x: Array) -> Array:
            if x.shape[1] < 10:
                raise ValueError("Negative dimension size")
            return x

        graph = Graph()
        y = graph.op("ADD", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        found = check(source_of(at_least_ten), graph.finish(no_lstm(), y=y))
        assert found.passed
        assert {case.time for case in found.cases} == {20, 40, 200}
        assert any("7 steps" in note and "Negative dimension" in note for note in found.notes)

    def test_a_source_that_fails_on_typical_sequences_is_an_error(self) -> None:
        """Then nothing could be compared, and hiding it would be no proof."""

        def broken(x: Array) -> Array:
            raise ValueError("broken")

        graph = Graph()
        y = graph.op("ADD", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        with pytest.raises(ValueError, match="broken"):
            check(source_of(broken), graph.finish(no_lstm(), y=y))


class TestData:
    """The user's own samples."""

    def test_samples_find_what_random_data_do_not_reach(self) -> None:
        """A model that saturates beyond 100 is only wrong on such samples."""
        graph = Graph()
        limit = graph.constant(100.0)
        y = graph.op("MINIMUM", [graph.x, limit], (DYNAMIC, DYNAMIC, FEATURES))
        model = graph.finish(no_lstm(), y=y)
        assert check(source_of(lambda x: x), model).passed
        samples = np.full((40, 3, FEATURES), 200, np.float64)
        found = check(source_of(lambda x: x), model, data={"x": samples})
        assert [c.name for c in found.failures] == [
            *["your data, samples 0 to 31"] * 2,
            *["your data, samples 32 to 39"] * 2,
        ]

    def test_a_fixed_batch_takes_every_sample(self) -> None:
        """The last batch is filled up."""
        spec = random_spec()
        samples = np.random.default_rng(0).standard_normal((5, 6, FEATURES)).astype(np.float32)
        found = check(lstm_source(spec), lstm_model(spec, batch=2), data={"x": samples})
        assert found.passed
        names = [c.name for c in found.cases if c.name.startswith("your")]
        assert names[-1] == "your data, samples 4 to 4"
        assert len(names) == 3 * 2

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({}, "no array for input 'x'"),
            ({"X": np.zeros((1, 2, 3))}, "'X', but the model has no such input"),
            ({"x": np.zeros((2, 3))}, "shape [2, 3], the input takes [N, any, 3]"),
            ({"x": np.zeros((2, 3, 4))}, "shape [2, 3, 4], the input takes [N, any, 3]"),
            ({"x": np.zeros((0, 3, 3))}, "shape [0, 3, 3]"),
            ({"x": np.full((1, 2, 3), np.nan)}, "NaN or infinity"),
            ({"x": np.full((1, 2, 3), "a")}, "is <U1, the input takes float32"),
        ],
    )
    def test_samples_that_do_not_fit_are_refused(
        self, data: Mapping[str, Array], message: str
    ) -> None:
        """The message says what does not fit and what the input takes."""
        spec = random_spec()
        with pytest.raises(DataError) as caught:
            check(lstm_source(spec), lstm_model(spec), data=data)
        assert message in str(caught.value)
        assert caught.value.cure is not None

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (np.asarray([[0, 12]]), "from 0 to 12, the input takes 0 to 9"),
            (np.asarray([[0.5, 1.0]]), "is float64, the input takes int32"),
        ],
    )
    def test_words_outside_the_vocabulary_are_refused(self, words: Array, message: str) -> None:
        """A word that the embedding lacks would read past its table."""
        graph = Graph()
        graph.main.tensor(graph.x).dtype = "int32"
        graph.main.tensor(graph.x).set_shape((DYNAMIC, DYNAMIC))
        y = graph.main.add_tensor("y", (DYNAMIC, DYNAMIC), "int32")
        one = graph.constant(np.asarray(1, np.int32))
        graph.main.add_op("MUL", [graph.x, one], [y])
        source = source_of(lambda x: x, inputs=(TensorSpec("x", (None, None), "int32", 0, 10),))
        model = graph.finish(no_lstm(), y=y)
        assert check(source, model, data={"x": np.asarray([[0, 9]])}).passed
        with pytest.raises(DataError, match=re.escape(message)):
            check(source, model, data={"x": words})


class TestMeasures:
    """The numbers in a result."""

    def test_the_range_of_a_constant_is_a_tenth_of_it(self) -> None:
        """So that no error is divided by zero."""
        assert Scale.of([np.full(3, 5.0)]).range == pytest.approx(0.5)
        assert Scale.of([np.zeros(3)]).range == 1.0
        assert Scale.of([np.asarray([-1.0, np.inf, 2.0, np.nan])]).range == 3.0
        assert Scale.of([np.asarray([np.nan])]).range == 1.0

    def test_errors_are_told_by_step_and_row(self) -> None:
        """Maximum over every other axis."""
        expected = np.zeros((2, 3, 2), np.float32)
        actual = expected.copy()
        actual[1, 2, 0] = 3
        actual[0, 1, 1] = -4
        found = difference(expected, actual, batch_axis=0, time_axis=1)
        assert found.max_error == 4
        assert found.squares == 25
        assert found.values == 12
        assert found.step_errors is not None and found.step_errors.tolist() == [0, 4, 3]
        assert found.row_errors is not None and found.row_errors.tolist() == [4, 3]

    @pytest.mark.parametrize(
        ("expected", "actual", "same"),
        [
            (np.nan, np.nan, True),
            (np.inf, np.inf, True),
            (np.inf, -np.inf, False),
            (np.inf, np.nan, False),
            (1.0, np.nan, False),
            (np.nan, 1.0, False),
            (np.inf, 1.0, False),
        ],
    )
    def test_what_is_not_finite_must_be_the_same(
        self, expected: float, actual: float, same: bool
    ) -> None:
        """Otherwise the error is infinite."""
        found = difference(
            np.asarray([expected]), np.asarray([actual]), batch_axis=0, time_axis=None
        )
        assert found.max_error == (0 if same else np.inf)

    @pytest.mark.parametrize("first", [1, 2, 3, 17, 64, 199, 200])
    def test_the_shortest_failing_prefix_is_exact(self, first: int) -> None:
        """For a failure that stays once it has come."""
        assert shortest_failing(lambda steps: steps >= first, 200) == first

    def test_rms_is_over_all_numbers(self) -> None:
        """Summaries weigh cases by how many numbers they hold."""
        cases = tuple(
            CaseResult("case", "litert", 1, None, (OutputResult("y", e, e, n, 1.0, "first call"),))
            for e, n in ((3.0, 1), (1.0, 3))
        )
        found = Verification(1.0, Precision.FLOAT32, StatePolicy.RESET, cases)
        assert found.outputs[0].rms_error == pytest.approx((12 / 4) ** 0.5)

    def test_nothing_compared_is_not_passed(self) -> None:
        """An empty verification proves nothing."""
        found = Verification(1e-5, Precision.FLOAT32, StatePolicy.RESET, ())
        assert not found.passed
        assert "nothing could be compared" in failure(found)

    @pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_tolerance_must_be_a_positive_number(self, given: float) -> None:
        """Anything else would pass nothing or everything."""
        with pytest.raises(OptionError):
            tolerance_for(Precision.FLOAT32, given)

    def test_every_default_tolerance_has_a_reason(self) -> None:
        """float32 is fixed at 1e-5; coarser precisions are allowed more."""
        assert DEFAULTS[Precision.FLOAT32].relative == 1e-5
        assert all(t.reason for t in DEFAULTS.values())
        order = [DEFAULTS[p].relative for p in DEFAULTS]
        assert order == sorted(order)

    def test_a_fault_of_one_delegate_is_told(self) -> None:
        """The cure then names the runner, not the model."""
        good = OutputResult("y", 0.0, 0.0, 4, 1.0, "first call")
        bad = dataclasses.replace(good, max_error=1.0, failing_calls=("first call",))
        found = Verification(
            1e-5,
            Precision.FLOAT32,
            StatePolicy.RESET,
            (
                CaseResult("case", "litert without delegate", 1, 5, (good,)),
                CaseResult("case", "litert with XNNPACK", 1, 5, (bad,)),
            ),
        )
        assert "only one of the ways to run it" in cure(found)

    def test_a_coarse_precision_suggests_the_tolerance_that_it_needs(self) -> None:
        """Rounded up, so that it holds."""
        bad = OutputResult("y", 0.123, 0.1, 4, 1.0, "first call", failing_calls=("first call",))
        found = Verification(
            5e-2,
            Precision.DYNAMIC,
            StatePolicy.RESET,
            (CaseResult("a", "litert", 1, 5, (bad,)), CaseResult("a", "other", 1, 5, (bad,))),
        )
        assert "--tolerance 2e-01" in cure(found)


class TestReports:
    """JSON and terminal forms."""

    def report(self, verification: Verification | None = None) -> ConversionReport:
        return ConversionReport(
            tool_version="0.1.0",
            source=SourceReport("model.keras", "Keras 3 archive", "keras 3.15.0", "ab" * 32),
            recurrences=(
                RecurrenceReport(
                    "lstm", "LSTM", Lowering.FUSED, "", 4, Precision.FLOAT32, "keras layer lstm"
                ),
                RecurrenceReport(
                    "gru[red]",
                    "GRU",
                    Lowering.LOOP,
                    "no fused op for it",
                    4,
                    Precision.FLOAT32,
                    "keras layer gru",
                ),
            ),
            signatures={
                "serving_default": SignatureReport(
                    (TensorSpec("x", (None, None, 3), "float32"),),
                    (TensorSpec("y", (None, 4), "float32"),),
                )
            },
            ops={"UNIDIRECTIONAL_SEQUENCE_LSTM": 1, "FULLY_CONNECTED": 3},
            bytes=12_345,
            precision=Precision.FLOAT32,
            state_policy=StatePolicy.RESET,
            notes=("the optimizer was left out",),
            verification=verification,
            seconds={"read": 0.5, "verify": 0.25},
        )

    def test_the_report_has_the_documented_shape(self) -> None:
        """What `inspect --json` shares with it, and how many fused ops were expected."""
        found = json.loads(json.dumps(self.report().to_json(), allow_nan=False))
        assert list(found["recurrences"][0]) == [
            "name", "kind", "lowering", "reason", "units", "precision", "source",
        ]  # fmt: skip
        assert found["recurrences"][0]["lowering"] == "fused"
        assert found["fusion"] == {
            "expected": 2,
            "fused": 1,
            "fused_ops_in_file": 1,
            "not_fused": {"gru[red]": "no fused op for it"},
        }
        inputs = found["signatures"]["serving_default"]["inputs"]
        assert inputs == {"x": {"shape": [None, None, 3], "dtype": "float32"}}
        assert found["ops"]["FULLY_CONNECTED"] == 3
        assert found["bytes"] == 12_345

    def test_a_verification_is_json(self) -> None:
        """Every case with its error per step."""
        spec = random_spec()
        found = json.loads(json.dumps(check(lstm_source(spec), lstm_model(spec)).to_json()))
        assert found["passed"] is True
        assert found["tolerance"] == 1e-5
        case = next(c for c in found["cases"] if c["time"] == 200)
        assert len(case["outputs"][0]["step_errors"]) == 200

    def shown(self, draw: Callable[[Console], None]) -> str:
        stream = io.StringIO()
        draw(Console(file=stream, width=120))
        return stream.getvalue()

    def test_the_report_is_shown_with_names_as_they_are(self) -> None:
        """Brackets in a layer's name are no markup."""
        text = self.shown(lambda console: print_report(self.report(), console))
        assert "1 of 2 recurrences fused" in text
        assert "gru[red]" in text and "no fused op for it" in text
        assert "12 kB" in text
        assert "x float32[?, ?, 3] → y float32[?, 4]" in text
        assert "the optimizer was left out" in text

    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        """A name from a file cannot drive the terminal."""
        found = {"recurrences": [{"name": "a\x1b[2Jb", "lowering": "fused", "kind": "LSTM"}]}
        text = self.shown(lambda console: print_inspection(found, console))
        assert "\x1b" not in text and "a�[2Jb" in text

    def test_a_failed_verification_shows_case_curve_and_cure(self) -> None:
        """What failed, from which step on, and what to do."""
        found = check(lstm_source(integrating_spec()), lstm_model(integrating_spec(10.0)))
        text = self.shown(lambda console: print_verification(found, console))
        assert "differs from its source in 2 of 12 runs" in text
        assert "long sequence (batch 3, 200 steps)" in text
        assert re.search(r"step \d+ diverges first ▁+.*█", text)
        assert "cell_clip" in text

    def test_a_passed_verification_is_short(self) -> None:
        """Verdict and one line per output."""
        spec = random_spec()
        found = check(lstm_source(spec), lstm_model(spec))
        text = self.shown(lambda console: print_verification(found, console))
        assert "equal to its source" in text
        assert len(text.strip().splitlines()) <= 6


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
