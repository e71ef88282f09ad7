"""The demo: bundled model, its data, every row of its result."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgelstm.converters.spec import Lowering
from edgelstm.demo import measure, run, stock
from edgelstm.demo.data import HELDOUT_FILE, PIXEL_MAX, heldout, model_path
from edgelstm.demo.render import print_demo
from edgelstm.demo.result import DemoResult, Tool
from edgelstm.errors import MissingPackageError, OutputError
from edgelstm.profiles.settings import RunBounds

OURS = [precision.value for precision in run.PRECISIONS]
STOCK = [f"stock_{attempt.key}" for attempt in stock.ATTEMPTS]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoResult]:
    """One run of the whole demo, measured too shortly to tell a latency."""
    pytest.importorskip("tensorflow")
    short = RunBounds(min_seconds=0.02, max_seconds=0.05, min_runs=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "BOUNDS", short)
        yield run.run_demo(tmp_path_factory.mktemp("demo"), progress=lambda line: None)


def test_bundled_files_are_small() -> None:
    """A package that everybody installs carries little for the demo."""
    assert model_path().stat().st_size < 300_000
    assert model_path().with_name(HELDOUT_FILE).stat().st_size < 50_000


def test_training_script_reproduces_the_split() -> None:
    """The committed held-out images are those that the script kept from training."""
    pytest.importorskip("sklearn")
    from edgelstm.demo.train import split_digits

    split = split_digits()
    images, labels = heldout()
    np.testing.assert_array_equal(images * PIXEL_MAX, split.heldout_images)
    np.testing.assert_array_equal(labels, split.heldout_labels)
    seen = {image.tobytes() for image in split.train_images}
    assert not seen & {image.tobytes() for image in split.heldout_images}
    counts = np.bincount(labels, minlength=10)
    assert counts.min() >= 40 and counts.max() <= 50


def test_bundled_model_reads_digits_in_keras(result: DemoResult) -> None:
    """Accuracy as the framework itself computes it."""
    assert result.source_accuracy >= 0.97


@pytest.mark.parametrize("key", OURS)
def test_every_precision_fuses_and_keeps_the_accuracy(result: DemoResult, key: str) -> None:
    """Both layers are fused ops, and no more than 0.3 points of accuracy are lost or won."""
    (row,) = (row for row in result.rows if row.key == key)
    assert row.recurrences == {Lowering.FUSED: 2}
    assert row.accuracy == pytest.approx(result.source_accuracy, abs=0.003)
    assert row.verification is not None and row.verification.passed


def test_smaller_precisions_make_smaller_files(result: DemoResult) -> None:
    """float16 saves at least a third of the float32 file and dynamic more than float16."""
    sizes = {row.key: row.bytes or 0 for row in result.of(Tool.EDGELSTM)}
    assert sizes["float16"] < sizes["float32"] * 2 / 3
    assert sizes["dynamic"] < sizes["float16"]


def test_stock_files_hold_no_fused_op(result: DemoResult) -> None:
    """What the stock converter writes of a Keras 3 model are loops, or steps when unrolled."""
    found = {row.key: dict(row.recurrences) for row in result.of(Tool.STOCK) if row.path}
    assert found["stock_batch1"] == {Lowering.LOOP: 2}
    assert found["stock_batch1_dynamic"] == {Lowering.LOOP: 2}
    assert found["stock_unrolled"] == {Lowering.UNROLLED: 2}


def test_stock_failures_say_why(result: DemoResult) -> None:
    """The model as it is does not convert, and with Select TF ops it needs the Flex delegate."""
    problems = {row.key: row.problem for row in result.rows if row.problem}
    assert set(problems) == {"stock_unchanged", "stock_select_ops"}
    assert "TensorListReserve" in str(problems["stock_unchanged"])
    assert "Flex" in str(problems["stock_select_ops"])


def test_json_has_every_row(result: DemoResult) -> None:
    """The document can be written, and every row that runs has every figure."""
    document: dict[str, Any] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [row["key"] for row in document["rows"]] == OURS + STOCK
    for row in document["rows"]:
        if row["problem"] is not None:
            continue
        figures = ("bytes", "accuracy", "p50_ms", "peak_memory_bytes", "heldout_max_error")
        assert all(row[name] is not None for name in figures), row
        assert (row["worst_relative_error"] is not None) == (row["tool"] == "edgelstm")
        assert (result.work_dir / row["file"]).stat().st_size == row["bytes"]


def test_table_fits_an_ordinary_terminal(result: DemoResult) -> None:
    """At 80 columns every variant is shown and nothing is cut off."""
    text = io.StringIO()
    print_demo(result, Console(file=text, width=80))
    shown = text.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for row in result.rows:
        assert f"\n{row.variant} " in shown
    assert result.work_dir.name in shown.replace("\n", "")


def test_files_that_are_gone_are_not_pointed_at(result: DemoResult, tmp_path: Path) -> None:
    """Where the caller's folder vanished, the text says how to keep the files."""
    text = io.StringIO()
    moved = dataclasses.replace(result, work_dir=tmp_path / "vanished")
    print_demo(moved, Console(file=text, width=80))
    assert "vanished" not in text.getvalue()
    assert "--keep" in text.getvalue()


def test_existing_files_are_kept(tmp_path: Path) -> None:
    """A file in the way is found before any work, and stays as it is."""
    kept = run.output_paths(tmp_path)[-1]
    kept.write_bytes(b"mine")
    stages: list[str] = []
    with pytest.raises(OutputError):
        run.run_demo(tmp_path, progress=stages.append)
    assert stages == []
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


def test_without_tensorflow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo converts, so it needs the extra that brings TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingPackageError, match=r"edgelstm\[convert\]"):
        run.run_demo(tmp_path, progress=lambda line: None)
