"""Convert the bundled model to the precisions that need no data, verify, measure; the stock converter beside it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import edgelstm
from edgelstm import files
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions, FusePolicy, OverwritePolicy
from edgelstm.converters.report import FUSED_OPS, ConversionReport
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array, Lowering, Precision
from edgelstm.demo import stock
from edgelstm.demo.data import heldout, model_path
from edgelstm.demo.measure import Comparison, compare
from edgelstm.demo.result import DemoResult, DemoRow, Tool
from edgelstm.quiet import quiet
from edgelstm.runtime import Delegate, Session

PRECISIONS = (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC)
INPUT = "rows"

Progress = Callable[[str], None]


def run_demo(work_dir: Path, *, progress: Progress) -> DemoResult:
    """Run the whole way and leave the .tflite files in `work_dir`, which exists already.

    Args:
        progress: called with one line at the start of each stage.

    Raises:
        MissingPackageError: tensorflow or an interpreter is not installed.
        OutputError: a file of the demo exists in `work_dir`, or cannot be written there.
        VerificationFailed: a converted file differs from the bundled model.
        NotFusedError: a layer of the bundled model did not become a fused op.
    """
    start = time.perf_counter()
    for path in output_paths(work_dir):
        pipeline.check_output(path, OverwritePolicy.KEEP)
    progress("starting TensorFlow")
    with quiet():
        tensorflow()
    model = KerasEngine.KERAS3.module.saving.load_model(model_path(), compile=False)
    images, labels = heldout()
    expected = np.asarray(model(images, training=False))
    ours = _convert(work_dir, images, progress)
    theirs = _convert_with_stock(work_dir, model, len(model_layers(model)), progress)
    models = {row.key: row.path for row in (*ours, *theirs) if row.path is not None}
    comparison = compare(models, steps=images.shape[1], progress=progress)
    progress("classifying the held-out images")
    rows = [_completed(row, comparison, images, labels, expected) for row in (*ours, *theirs)]
    return DemoResult(
        tool_version=edgelstm.__version__,
        framework=f"TensorFlow {tensorflow().__version__}, {KerasEngine.KERAS3.title}",
        source=model_path(),
        source_bytes=model_path().stat().st_size,
        source_accuracy=_accuracy(expected, labels),
        images=len(images),
        steps=images.shape[1],
        rows=tuple(rows),
        device=comparison.device,
        interpreter=comparison.interpreter,
        other_processors=comparison.other_processors,
        work_dir=work_dir,
        seconds=time.perf_counter() - start,
    )


def output_paths(work_dir: Path) -> tuple[Path, ...]:
    """Every file that the demo may write."""
    keys = [precision.value for precision in PRECISIONS]
    keys += [f"stock_{attempt.key}" for attempt in stock.ATTEMPTS]
    return tuple(_path(work_dir, key) for key in keys)


def model_layers(model: Any) -> list[Any]:
    """The recurrent layers of the loaded Keras model."""
    return [layer for layer in model.layers if hasattr(layer, "cell")]


def _path(work_dir: Path, key: str) -> Path:
    return work_dir / f"digits_{key}.tflite"


def _convert(work_dir: Path, images: Array, progress: Progress) -> list[DemoRow]:
    rows = []
    for precision in PRECISIONS:
        path = _path(work_dir, precision.value)
        options = ConvertOptions(
            precision=precision,
            fuse=FusePolicy.REQUIRE,
            data={INPUT: images},
        )
        progress(f"converting and verifying: {precision.value}")
        with quiet():
            report = pipeline.convert(model_path(), path, options, progress=lambda line: None)
        rows.append(_our_row(precision, path, report))
    return rows


def _our_row(precision: Precision, path: Path, report: ConversionReport) -> DemoRow:
    return DemoRow(
        key=precision.value,
        tool=Tool.EDGELSTM,
        variant=precision.value,
        sizes="any×any",
        path=path,
        bytes=report.bytes,
        recurrences=count_recurrences(path, report.expected),
        verification=report.verification,
    )


def _convert_with_stock(
    work_dir: Path, model: Any, expected: int, progress: Progress
) -> list[DemoRow]:
    rows = []
    for attempt in stock.ATTEMPTS:
        progress(f"TensorFlow's own converter: {attempt.variant}")
        row = DemoRow(
            key=f"stock_{attempt.key}",
            tool=Tool.STOCK,
            variant=attempt.variant,
            sizes=attempt.sizes,
        )
        try:
            content = stock.convert(attempt, model)
        except stock.StockFailure as failure:
            rows.append(dataclasses.replace(row, problem=f"does not convert: {failure}"))
            continue
        path = _path(work_dir, row.key)
        files.write_atomically(path, content)
        rows.append(
            dataclasses.replace(
                row,
                path=path,
                bytes=len(content),
                recurrences=count_recurrences(path, expected),
            )
        )
    return rows


def count_recurrences(path: Path, expected: int) -> Mapping[Lowering, int]:
    """How the `expected` recurrences stand in the file, counted from its ops."""
    model = Model.read(path.read_bytes(), str(path))
    ops = [op.name for subgraph in model.subgraphs for op in subgraph.ops]
    fused, loops = sum(map(ops.count, FUSED_OPS)), ops.count("WHILE")
    counts = {
        Lowering.FUSED: fused,
        Lowering.LOOP: loops,
        Lowering.UNROLLED: max(0, expected - fused - loops),
    }
    return {lowering: count for lowering, count in counts.items() if count}


def needs_flex(path: Path) -> bool:
    """Whether the file holds ops that only run with TensorFlow linked into the interpreter."""
    model = Model.read(path.read_bytes(), str(path))
    return any(op.custom_code.startswith("Flex") for sub in model.subgraphs for op in sub.ops)


def _completed(
    row: DemoRow, comparison: Comparison, images: Array, labels: Array, expected: Array
) -> DemoRow:
    """The row with what was measured, or with the reason why it was not."""
    if row.path is None:
        return row
    if row.key in comparison.refused:
        reason = comparison.refused[row.key]
        if needs_flex(row.path):
            reason = "converts, but does not run: needs the Flex delegate, that is TensorFlow"
        return dataclasses.replace(row, problem=reason)
    with quiet():
        probabilities = classify(row.path, images)
    return dataclasses.replace(
        row,
        measurement=comparison.measurements[row.key],
        accuracy=_accuracy(probabilities, labels),
        heldout_error=float(np.abs(probabilities - expected).max()),
    )


def classify(path: Path, images: Array) -> Array:
    """Probabilities [N, 10] of images [N, 8, 8], all at once where the file's batch allows it."""
    session = Session(path, delegate=Delegate.XNNPACK)
    (rows,), (digit,) = session.inputs, session.outputs
    size = len(images) if rows.shape[0] is None else rows.shape[0]
    return np.concatenate(
        [
            session.run({rows.name: images[start : start + size]})[digit.name]
            for start in range(0, len(images), size)
        ]
    )


def _accuracy(probabilities: Array, labels: Array) -> float:
    return float(np.mean(probabilities.argmax(-1) == labels))
