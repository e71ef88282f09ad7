"""The calls that verification makes up, and those of the user's own data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np
import pytest
from verify_models import (
    DYNAMIC,
    FEATURES,
    Graph,
    check,
    lstm_model,
    lstm_source,
    no_lstm,
    random_spec,
    source_of,
)

from edgelstm.converters.spec import (
    Array,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.cases import MASK_PATTERNS, PAD_PATTERNS, plan
from edgelstm.errors import DataError, UnsupportedModelError


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

    @pytest.mark.parametrize("batch", [None, 1, 2, 8])
    @pytest.mark.parametrize("dtype", ["float32", "int32"])
    def test_every_padding_is_met_at_every_batch_size(self, batch: int | None, dtype: str) -> None:
        """A padded step is zero, no other is; nothing is padded in the other cases."""
        features = (3,) if dtype == "float32" else ()
        spec = TensorSpec("x", (batch, None, *features), dtype, 0, None if features else 4)
        axes = ModelAxes((InputAxes(spec, time=1, mask=None, padding=0.0),))
        cases = plan(axes, StatePolicy.RESET)
        seen = set()
        for case in (case for case in cases if "padded" in case.name):
            assert case.optional and case.time == 20
            for call in case.calls:
                for name, row in zip(case.rows, call["x"], strict=True):
                    seen.add(name)
                    valid = row.reshape(20, -1).any(axis=1)
                    np.testing.assert_array_equal(valid, dict(PAD_PATTERNS)[name](20))
        assert seen == {name for name, _ in PAD_PATTERNS}
        assert not any(case.rows for case in cases if "padded" not in case.name)

    @pytest.mark.parametrize("kind", [ValueError, UnsupportedModelError])
    def test_a_source_that_refuses_short_sequences_is_still_compared_on_three_lengths(
        self, kind: type[Exception]
    ) -> None:
        """The lengths left out are told, whether its framework refuses them or its reader."""

        def at_least_ten(x: Array) -> Array:
            if x.shape[1] < 10:
                raise kind("Negative dimension size")
            return x

        graph = Graph()
        y = graph.op("ADD", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        found = check(source_of(at_least_ten), graph.finish(no_lstm(), y=y))
        assert found.passed
        assert {case.time for case in found.cases} == {20, 40, 200}
        assert any("7 steps" in note and "Negative dimension" in note for note in found.notes)

    @pytest.mark.parametrize("kind", [ValueError, UnsupportedModelError])
    def test_a_source_that_fails_on_typical_sequences_is_an_error(
        self, kind: type[Exception]
    ) -> None:
        """Then nothing could be compared, and hiding it would be no proof."""

        def broken(x: Array) -> Array:
            raise kind("broken")

        graph = Graph()
        y = graph.op("ADD", [graph.x, graph.constant(0.0)], (DYNAMIC, DYNAMIC, FEATURES))
        with pytest.raises(kind, match="broken"):
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
