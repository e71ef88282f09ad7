"""Every Keras model of the corpus converts, runs in both interpreters, and equals its framework.

Float32 files are compared with golden.npz, the outputs of the model's own framework: outputs and
the recurrent layers' own outputs ("taps"), with XNNPACK and without, twice in one interpreter.
`pytest tests/test_corpus_keras.py` ends with a table, one line per model and precision:

    fused, loop     recurrences written as the fused op, and as a loop of plain ops
    litert, rt      largest error of an output in LiteRT and in tflite-runtime 2.14
    taps            the same of the recurrent layers' outputs, both interpreters (float32 only)
    source          largest error of the model's own framework, run again, whole and row by row
    allowed         largest error accepted
    bytes, seconds  of the written file; of reading, converting and verifying it

    refused         "yes" where `edgelstm convert` does so unless it is given a --tolerance: the
                    model's outputs on random data lose more than the precision's tolerance

Errors are fractions of the golden output's range. A model that amplifies rounding is held to what
its own framework does when it computes each row alone, or, with smaller weights, when its weights
are rounded to that precision: no other program can be nearer to golden.
tflite-runtime runs in the Python that EDGELSTM_TFLITE_RUNTIME_PYTHON names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from corpus_keras import (
    Converted,
    Entry,
    converted,
    entries,
    error,
    loaded,
    own_spread,
    rounding_loss,
    run_file,
    tapped,
)
from keras_files import CORPUS

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.spec import Lowering, Precision
from edgelstm.converters.verify.tolerance import DEFAULTS

ENTRIES = entries() if CORPUS.is_dir() else []
# int8 and int16 need data of each model's own; they are tested on models that have some.
WITHOUT_DATA = [p for p in DEFAULTS if p not in (Precision.INT8, Precision.INT16)]
INTERPRETERS = ("litert", "tflite_runtime")
# A second summation order is as far from the source's as the source's own two are apart; the
# largest of hundreds of values scatters by about this much.
SPREADS = 4.0

pytestmark = pytest.mark.skipif(not ENTRIES, reason=f"the corpus is not at {CORPUS}")

each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
Row = dict[str, Any]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], Row]]:
    """Results by entry and precision; printed at the end of the run."""
    rows: dict[tuple[str, str], Row] = {}
    plugins = request.config.pluginmanager
    if not plugins.has_plugin("corpus-table"):
        plugins.register(_Summary(rows), "corpus-table")
    yield rows


class _Summary:
    def __init__(self, rows: dict[tuple[str, str], Row]) -> None:
        self.rows = rows

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table."""
        numbers = ("litert", "rt", "taps", "source", "allowed")
        terminalreporter.section("Keras models of the corpus")
        terminalreporter.line(
            f"{'model':34} {'precision':9} {'fused':>5} {'loop':>4} "
            + " ".join(f"{name:>8}" for name in numbers)
            + f" {'bytes':>8} {'seconds':>7} refused"
        )
        for (name, precision), row in sorted(self.rows.items()):
            cells = [f"{row[key]:8.1e}" if key in row else " " * 7 + "-" for key in numbers]
            terminalreporter.line(
                f"{name:34} {precision:9} {row['fused']:5} {row['loop']:4} "
                + " ".join(cells)
                + f" {row['bytes']:8} {row['seconds']:7.1f} {row['refused']}"
            )


def filled(table: dict[tuple[str, str], Row], entry: Entry, precision: Precision) -> Row:
    """The entry's row, made when first asked for."""
    key = (entry.name, precision.value)
    if key not in table:
        done = converted(entry, precision)
        table[key] = {
            "fused": done.report.fused,
            "loop": len(done.report.not_fused),
            "bytes": len(done.content),
            "seconds": done.seconds,
            "refused": "yes" if done.refused else "",
        }
    return table[key]


def gates_of(entry: Entry) -> dict[str, tuple[str, str]]:
    """Activation and gate activation of every LSTM layer of the live model, by layer name."""
    found = {}
    for layer in loaded(entry).model._flatten_layers():
        if type(layer).__name__ in ("LSTM", "CuDNNLSTM"):
            names = (layer.activation.__name__, layer.recurrent_activation.__name__)
            found[layer.name] = names
    return found


def skip_without(interpreter: str) -> None:
    """Skips where the interpreter's Python is not known."""
    if interpreter == "tflite_runtime" and not os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON"):
        pytest.skip("EDGELSTM_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")


@each_entry
def test_lstms_with_sigmoid_gates_fuse_and_all_others_are_loops(entry: Entry) -> None:
    """One report line per LSTM layer and direction, and as many fused ops in the file."""
    report = converted(entry, Precision.FLOAT32).report
    gates = gates_of(entry)
    assert gates
    assert report.expected == len(gates)
    for recurrence in report.recurrences:
        fusable = gates[recurrence.name] in (("tanh", "sigmoid"), ("relu", "sigmoid"))
        wanted = Lowering.FUSED if fusable else Lowering.LOOP
        # A single step needs no loop.
        accepted = {wanted} if fusable else {wanted, Lowering.UNROLLED, Lowering.STEP}
        assert recurrence.lowering in accepted, recurrence
        assert recurrence.reason
    assert report.fused_ops == report.fused


@each_entry
@pytest.mark.parametrize("precision", WITHOUT_DATA, ids=lambda precision: precision.value)
def test_the_file_needs_builtin_operators_only(entry: Entry, precision: Precision) -> None:
    """No Flex, no custom operator, no marker left."""
    model = Model.read(converted(entry, precision).content)
    custom = [op.custom_code for subgraph in model.subgraphs for op in subgraph.ops]
    assert [code for code in custom if code] == []


@each_entry
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_float32_equals_the_source(entry: Entry, interpreter: str, table: Any) -> None:
    """Every output is golden to 1e-5 of its range, in both interpreters, in every call."""
    skip_without(interpreter)
    row = filled(table, entry, Precision.FLOAT32)
    spreads, _ = own_spread(entry)
    row["source"] = max([*spreads, row.get("source", 0.0)])
    row["allowed"] = max([_allowed(spread) for spread in spreads])
    errors = _errors(converted(entry, Precision.FLOAT32), interpreter, entry)
    row["litert" if interpreter == "litert" else "rt"] = max(errors)
    for found, spread in zip(errors, spreads, strict=True):
        assert found <= _allowed(spread)


@each_entry
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_every_recurrent_layer_equals_the_source(
    entry: Entry, interpreter: str, table: Any
) -> None:
    """The layers' own outputs, before heads squash what is wrong."""
    skip_without(interpreter)
    if not entry.taps:
        pytest.skip("golden.npz holds no outputs of recurrent layers")
    marked, content = tapped(entry)
    report = converted(entry, Precision.FLOAT32).report
    # A layer whose output is read at two nodes of the graph is called twice.
    lowered = {re.sub(r"_call\d+$", "", r.name): r.lowering for r in marked.recurrences}
    assert lowered == {r.name: r.lowering for r in report.recurrences}
    row = filled(table, entry, Precision.FLOAT32)
    _, spreads = own_spread(entry)
    for answer in run_file(interpreter, content, entry):
        for got, (name, golden) in zip(answer, entry.taps.items(), strict=True):
            found = error(got, golden)
            row["taps"] = max(found, row.get("taps", 0.0))
            assert found <= _allowed(spreads[name]), name


@each_entry
@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize(
    "precision", [Precision.FLOAT16, Precision.DYNAMIC], ids=lambda precision: precision.value
)
def test_smaller_weights_stay_near_the_source(
    entry: Entry, precision: Precision, interpreter: str, table: Any
) -> None:
    """Within the precision's tolerance, or near what rounding its weights costs the source."""
    skip_without(interpreter)
    row = filled(table, entry, precision)
    done = converted(entry, precision)
    losses = rounding_loss(entry, precision)
    tolerance = DEFAULTS[precision]
    row["source"], row["allowed"] = max(losses), tolerance.largest
    errors = _errors(done, interpreter, entry)
    row["litert" if interpreter == "litert" else "rt"] = max(errors)
    for found, loss in zip(errors, losses, strict=True):
        allowed = max(tolerance.largest, min(SPREADS * loss, 1.0))
        row["allowed"] = max(row["allowed"], allowed)
        assert found <= allowed


@each_entry
def test_float32_is_never_refused(entry: Entry) -> None:
    """Whoever converts a model as it is needs no --tolerance."""
    assert converted(entry, Precision.FLOAT32).refused is None


def test_a_refused_precision_tells_how_to_accept_it() -> None:
    """Models whose outputs lose more than the tolerance; most models do not."""
    refused = [
        converted(entry, precision).refused
        for entry in ENTRIES
        for precision in (Precision.FLOAT16, Precision.DYNAMIC)
    ]
    found = [error for error in refused if error is not None]
    assert len(found) <= len(refused) // 4
    for one in found:
        assert one.cure is not None
        assert "--tolerance" in one.cure


@each_entry
def test_smaller_weights_make_smaller_files(entry: Entry) -> None:
    """Where weights are most of the file, float16 is about half and dynamic about a quarter.

    In float16 biases stay as they are, and each of a matrix's gates takes up to 300 bytes of
    operators and tensors that widen it.
    """
    sizes = {p: len(converted(entry, p).content) for p in WITHOUT_DATA}
    model = loaded(entry).model
    weights = 4 * model.count_params()
    if weights < 0.9 * sizes[Precision.FLOAT32]:
        pytest.skip(f"weights are only {weights} of {sizes[Precision.FLOAT32]} bytes")
    overhead = sizes[Precision.FLOAT32] - weights
    matrices = [w for w in model.weights if len(w.shape) > 1]
    halved = 2 * sum(int(np.prod(w.shape)) for w in matrices)
    assert sizes[Precision.FLOAT16] <= weights - halved + overhead + 300 * 4 * len(matrices)
    assert sizes[Precision.DYNAMIC] <= weights / 4 + 4 * overhead


@pytest.mark.skipif(not ENTRIES, reason="needs the corpus")
def test_all_file_forms_are_among_the_entries() -> None:
    """.keras, .h5, architecture beside weights, and weights alone."""
    assert len(ENTRIES) >= 14
    assert {e.path.suffix for e in ENTRIES} >= {".keras", ".h5", ".hdf5"}
    assert sum(e.architecture is not None for e in ENTRIES) >= 2
    assert sum(e.topology is not None for e in ENTRIES) >= 2


def _allowed(spread: float) -> float:
    return max(DEFAULTS[Precision.FLOAT32].relative, SPREADS * spread)


def _errors(done: Converted, interpreter: str, entry: Entry) -> list[float]:
    """Largest error of each output over all ways and calls."""
    answers = run_file(interpreter, done.content, entry)
    return [
        max(error(answer[k], golden) for answer in answers)
        for k, golden in enumerate(entry.outputs)
    ]
