"""Inputs that count the valid steps of each row, in the calls that verification makes up."""

from __future__ import annotations

import numpy as np
import pytest

from edgelstm.converters.spec import StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.cases import Case, plan
from edgelstm.converters.verify.data import data_cases
from edgelstm.converters.verify.prefix import cut
from edgelstm.errors import DataError

FEATURES = 3


def axes(time_axis: int, rows: int | None = None, steps: int | None = None) -> ModelAxes:
    """A sequence of either layout beside the lengths of its rows."""
    sizes = [steps, rows] if time_axis == 0 else [rows, steps]
    return ModelAxes(
        (
            InputAxes(TensorSpec("x", (*sizes, FEATURES), "float32"), time_axis, None),
            InputAxes(TensorSpec("rows", (rows,), "int32"), None, None, 0, counts_steps=True),
        )
    )


def steps_of(case: Case, time_axis: int) -> int:
    return int(case.calls[0]["x"].shape[time_axis])


@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("steps", [None, 5])
def test_lengths_lie_between_one_and_the_number_of_steps(time_axis: int, steps: int | None) -> None:
    """In every case and call; some row is whole, and where there is room some row is not."""
    short = False
    for case in plan(axes(time_axis, steps=steps), StatePolicy.RESET):
        most = steps_of(case, time_axis)
        for call in case.calls:
            assert call["rows"].dtype == np.int32
            assert call["rows"].shape == (case.batch,)
            assert call["rows"].min() >= 1
            assert call["rows"].max() == most
            short |= bool((call["rows"] < most).any())
    assert short


def test_a_call_that_is_cut_short_has_no_longer_rows() -> None:
    """The search for the first diverging step runs prefixes."""
    model = axes(1)
    (case, *_) = plan(model, StatePolicy.RESET)
    short = cut(case.calls[0], model, 2)
    assert short["x"].shape[1] == 2
    assert (short["rows"] == np.minimum(case.calls[0]["rows"], 2)).all()


def test_lengths_of_the_user_must_fit_the_sequences() -> None:
    """Longer than the sequence, or negative, is told with the range."""
    model = axes(1)
    x = np.zeros((2, 4, FEATURES), np.float32)
    (case,) = data_cases({"x": x, "rows": np.asarray([4, 0])}, model)
    assert case.calls[0]["rows"].tolist() == [4, 0]
    for rows in ([5, 1], [-1, 2]):
        with pytest.raises(DataError, match="lengths reach"):
            data_cases({"x": x, "rows": np.asarray(rows)}, model)
