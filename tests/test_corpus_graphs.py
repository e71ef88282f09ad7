"""Every TensorFlow graph of the corpus converts, fuses what can be fused, and equals its framework.

Outputs and final states are compared with what TensorFlow itself recorded. `pytest
tests/test_corpus_graphs.py` ends with a table, one line per graph:

    fused     fused ops in the file, of the recurrences of the source
    error     largest error of an output, as a fraction of its range
    seconds   of reading, converting and verifying

A sample runs by default; -m slow runs the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from corpus_graphs import (
    TF1,
    Converted,
    Entry,
    converted,
    model_entries,
    tf1_entries,
)
from graph_files import CORPUS, opened

from edgelstm.converters.flatbuffer import Model
from edgelstm.runtime import Session

TOLERANCE = 1e-5
ENTRIES = [*tf1_entries(), *model_entries()] if CORPUS.is_dir() else []
# One of each way to write a recurrence, and the models that differ most.
SAMPLE = {
    "basic-bidi_len", "fused-len", "lstm_full-dynamic_tm", "multi-dynamicV2", "nas-static",
    "glstm-static", "1.4.1 LSTMBlockFusedCell-dynamic", "tf1ckpt_charrnn_xasopheno",
    "tf1pb_dl4j_basiclstm_dynamic_tm", "tf1pb_foolnltk_ner", "tf1pb_kws_lstm_s",
    "saved_iteam1_lstm", "saved_dtln",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not ENTRIES, reason=f"the corpus is not at {CORPUS}")


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in SAMPLE else [pytest.mark.slow]


each_entry = pytest.mark.parametrize(
    "entry", [pytest.param(e, marks=_marks(e.name), id=e.name) for e in ENTRIES]
)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Lines by entry; printed at the end of the run."""
    rows: dict[str, str] = {}
    plugins = request.config.pluginmanager
    if not plugins.has_plugin("graph-table"):
        plugins.register(_Summary(rows), "graph-table")
    yield rows


class _Summary:
    def __init__(self, rows: dict[str, str]) -> None:
        self.rows = rows

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the table."""
        terminalreporter.section("TensorFlow graphs of the corpus")
        terminalreporter.line(f"{'graph':40} {'fused':>6} {'error':>8} {'seconds':>7}")
        for line in self.rows.values():
            terminalreporter.line(line)


def done(entry: Entry) -> Converted:
    """The entry's conversion, made once."""
    return converted(entry.name, entry.path, entry.options)


@each_entry
def test_outputs_and_final_states_are_those_recorded(entry: Entry, table: dict[str, str]) -> None:
    """To 1e-5 of each output's range, in two calls."""
    made = done(entry)
    errors = made.errors(entry)
    table[entry.name] = (
        f"{entry.name:40} {made.report.fused_ops:>3}/{made.report.expected:<2} "
        f"{max(errors.values()):8.1e} {made.seconds:7.1f}"
    )
    assert max(errors.values()) <= TOLERANCE, errors


@each_entry
def test_every_recurrence_that_the_fused_op_can_compute_is_fused(entry: Entry) -> None:
    """One report line per recurrence, proven by the gate; all others are loops with a reason."""
    report = done(entry).report
    assert report.expected == entry.expected
    assert report.fused_ops == report.fused
    assert report.fused == entry.fused, [r.reason for r in report.not_fused]
    for recurrence in report.not_fused:
        assert recurrence.reason


@each_entry
def test_the_file_needs_builtin_operators_only(entry: Entry) -> None:
    """No Flex, no custom operator, no marker left."""
    model = Model.read(done(entry).content)
    assert not [op for subgraph in model.subgraphs for op in subgraph.ops if op.custom_code]


@pytest.mark.skipif(not TF1.is_dir(), reason="needs the corpus")
@pytest.mark.parametrize("name", ["basic-dynamic", "basic-dynamicV2", "block-static",
                                  "fused-plain", "lstm_full-dynamic"])  # fmt: skip
def test_every_form_of_one_cell_gives_the_same_file(name: str) -> None:
    """Frozen, checkpoint and SavedModel, but for what the file says of its source."""
    contents = []
    for form in ("frozen.pb", "model.ckpt", "saved_model"):
        model = Model.read(converted(f"{name} {form}", TF1 / name / form).content)
        model.set_metadata("edgelstm", b"")
        contents.append(model.to_bytes())
    assert contents[0] == contents[1]
    assert contents[0] == contents[2]


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs the corpus")
def test_mobirnn_keeps_its_accuracy_on_labelled_windows() -> None:
    """500 windows of human activity: every prediction is that of the original graph."""
    (entry,) = (e for e in ENTRIES if "mobirnn" in e.name)
    with np.load(entry.path.parent / "har_test500.npz") as archive:
        windows, labels = archive["x"], archive["y"]
    found = Session(done(entry).content).run({"input": windows})["output"].argmax(1)
    graph = opened(entry.path, inputs=entry.options.inputs, outputs=entry.options.outputs)
    wanted = graph.session.run({"input": windows})["output"].argmax(1)
    accuracy = float((found == labels - 1).mean())
    print(f"{accuracy:.1%} of {len(labels)} windows")
    assert (found == wanted).all()
    assert accuracy > 0.9


@pytest.mark.skipif(not CORPUS.is_dir(), reason="needs the corpus")
def test_every_entry_is_here() -> None:
    """86 graphs of 1.15.5, all of 1.4.1, all TensorFlow models."""
    assert len([e for e in ENTRIES if e.path.parent.parent == TF1]) == 86
    models = {d.name for d in (CORPUS / "models").iterdir() if d.name.startswith(("tf1", "saved"))}
    assert models == {e.name for e in ENTRIES} & models
    assert SAMPLE <= {e.name for e in ENTRIES}
