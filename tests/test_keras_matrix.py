"""Every combination of Keras layer options, converted, equals the live layer in either Keras.

The expected numbers come from the live model, run eagerly by its own Keras; the actual ones from
the written file, in each interpreter, with and without its default delegate.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fused_models import Way
from keras_cases import SIDE_BY_SIDE, all_groups
from keras_models import Group, Outcome, evaluate, operators, relative_error

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.sources.keras.engine import KerasEngine

TOLERANCE = 1e-5
INTERPRETERS = ("litert", "tflite_runtime")
GROUPS = {group.name: group for group in all_groups()}


def conversions() -> Iterator[tuple[Group, KerasEngine]]:
    for group in GROUPS.values():
        for engine in group.engines:
            yield group, engine


def marks(group: Group, engine: KerasEngine) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if engine in group.slow else []


def converted() -> list[object]:
    """Every conversion as a parameter."""
    return [
        pytest.param(
            group.name, engine, id=f"{engine.value}-{group.name}", marks=marks(group, engine)
        )
        for group, engine in conversions()
    ]


def combinations() -> list[object]:
    """Every combination as a parameter, those of one conversion in a row."""
    return [
        pytest.param(
            group.name,
            engine,
            interpreter,
            case.name,
            id=f"{engine.value}-{group.name}-{case.name}-{interpreter}",
            # The older interpreter by default only where the two Kerases are, too.
            marks=marks(group, engine)
            if interpreter == "litert" or group.name in SIDE_BY_SIDE
            else [pytest.mark.slow],
        )
        for group, engine in conversions()
        for interpreter in INTERPRETERS
        for case in group.cases
    ]


@functools.cache
def outcome(name: str, engine: KerasEngine) -> Outcome:
    return evaluate(GROUPS[name], engine)


@functools.cache
def errors(name: str, engine: KerasEngine, interpreter: str) -> dict[str, float]:
    """Largest error of each case, with and without the default delegate."""
    with tempfile.TemporaryDirectory() as folder:
        ways = [Way(1, xnnpack) for xnnpack in (1, 0)]
        return outcome(name, engine).errors(interpreter, ways, Path(folder))


@pytest.mark.parametrize(("group", "engine", "interpreter", "case"), combinations())
def test_a_combination_equals_its_live_layer(
    group: str, engine: KerasEngine, interpreter: str, case: str
) -> None:
    """Every output, at every batch and time, in two calls each: a state left over would show."""
    assert errors(group, engine, interpreter)[case] <= TOLERANCE


@pytest.mark.parametrize(("group", "engine"), converted())
def test_every_recurrence_is_lowered_as_it_must(group: str, engine: KerasEngine) -> None:
    """What the fused op expresses is fused; all else is a loop, and says why."""
    made = outcome(group, engine)
    expected = {case.name: tuple(sorted(case.lowering)) for case in GROUPS[group].cases}
    assert made.lowering == expected
    assert all(recurrence.reason for recurrence in made.recurrences)


@pytest.mark.parametrize(("group", "engine"), converted())
def test_only_builtin_operators_are_written(group: str, engine: KerasEngine) -> None:
    """No Flex operator and no marker is left; one fused operator stands for each fused layer."""
    made = outcome(group, engine)
    found = operators(made.flatbuffer)
    assert not [name for name in found if name == "CUSTOM" or name.startswith("UNKNOWN")]
    fused = sum(lowering.count("fused") for lowering in made.lowering.values())
    assert found.get("UNIDIRECTIONAL_SEQUENCE_LSTM", 0) == fused


@pytest.mark.parametrize(("group", "engine"), converted())
def test_what_is_dynamic_in_the_source_is_dynamic_in_the_file(
    group: str, engine: KerasEngine
) -> None:
    """The signature's inputs have the source's names and its varying sizes."""
    made = outcome(group, engine)
    model = Model.read(made.flatbuffer)
    (signature,) = model.signatures
    shapes = {
        name: tuple(model.main.tensor(index).signature) for name, index in signature.inputs.items()
    }
    assert shapes == {
        spec.name: tuple(-1 if size is None else size for size in spec.shape)
        for spec in made.inputs
    }
    assert all(shape[0] == -1 for shape in shapes.values())


def test_the_matrix_holds_more_than_150_combinations_by_default() -> None:
    """The default run may not shrink unnoticed."""
    default = sum(len(g.cases) for g, engine in conversions() if engine not in g.slow)
    assert default >= 150


def test_an_error_of_a_hundredth_is_an_error() -> None:
    """The comparison sees wrong values, wrong shapes and NaN."""
    import numpy as np

    right = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert relative_error(right, right) == 0
    assert relative_error(right, right * 1.01) > TOLERANCE
    assert relative_error(right, right[:2]) == float("inf")
    assert relative_error(right, np.where(right > 0.9, np.nan, right)) == float("inf")
