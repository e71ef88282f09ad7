"""What re-fusing a finished file changes: `python -m edgelstm.converters.cost_refuse`.

For models of every form the same Keras 3 model goes two ways: through TensorFlow's own converter
and then through the re-fuser, and straight through `edgelstm convert`. Printed are the sizes, the
time of one call, and how far the two results are apart. Calls of the files are interleaved; times
are medians, in LiteRT with XNNPACK, one thread, and for the re-fused file in the native delegate
too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.spec import Array
from edgelstm.errors import EdgeLstmError
from edgelstm.quiet import quiet
from edgelstm.runtime import Delegate, Session

_FEATURES = 32
_ROUNDS = 60
Build = Callable[[Any, Any, int], Any]

FORMS: dict[str, Build] = {
    "single": lambda k, x, u: k.LSTM(u)(x),
    "stacked": lambda k, x, u: k.LSTM(u)(k.LSTM(u, return_sequences=True)(x)),
    "bidirectional": lambda k, x, u: k.Bidirectional(k.LSTM(u))(
        k.Bidirectional(k.LSTM(u, return_sequences=True))(x)
    ),
    "return_state": lambda k, x, u: k.LSTM(u, return_sequences=True, return_state=True)(x),
    "unrolled": lambda k, x, u: k.LSTM(u, unroll=True)(x),
}


def measure(form: str, units: int, steps: int, folder: Path) -> dict[str, Any]:
    """Sizes in bytes, microseconds per call, and the largest difference, for one form."""
    tf = tensorflow()
    import keras

    x = keras.Input(batch_shape=(1, steps, _FEATURES))
    model = keras.Model(x, FORMS[form](keras.layers, x, units))
    paths = {name: folder / f"{form}.{name}.tflite" for name in ("stock", "refused", "direct")}
    saved = folder / f"{form}.keras"
    model.save(saved)
    paths["stock"].write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    report = _convert(paths["stock"], paths["refused"])
    direct = _convert(saved, paths["direct"])
    sessions = {name: Session(path, delegate=Delegate.XNNPACK) for name, path in paths.items()}
    try:
        sessions["native"] = Session(paths["refused"], delegate=Delegate.EDGELSTM)
    except EdgeLstmError:  # not built here
        pass
    given = np.random.default_rng(0).standard_normal((1, steps, _FEATURES)).astype(np.float32)
    results, times = _timed(sessions, given)
    return {
        "fused": f"{report.fused}/{report.expected}",
        "same_ops": report.fused_ops == direct.fused_ops,
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
        "us": times,
        "difference": _apart(results["refused"], results["direct"]),
    }


def _convert(source: Path, output: Path) -> Any:
    return pipeline.convert(source, output, ConvertOptions(), progress=lambda _: None)


def _timed(
    sessions: dict[str, Session], x: Array
) -> tuple[dict[str, list[Array]], dict[str, float]]:
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    results = {}
    for _ in range(_ROUNDS):
        for name, session in sessions.items():
            inputs = {session.inputs[0].name: x}
            start = time.perf_counter()
            outputs = session.run(inputs)
            samples[name].append(1e6 * (time.perf_counter() - start))
            results[name] = list(outputs.values())
    return results, {name: statistics.median(values) for name, values in samples.items()}


def _apart(first: list[Array], second: list[Array]) -> float:
    """The largest difference between outputs of one shape, whatever their order."""
    worst = 0.0
    for array in first:
        same = [other for other in second if other.shape == array.shape]
        worst = max(worst, min(float(np.abs(array - other).max()) for other in same))
    return worst


def main() -> None:
    """Measure every form and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    print(f"{given.units} units, {given.steps} steps, {_FEATURES} features, batch 1, float32")
    print(
        f"{'model':14} {'fused':>5} {'bytes before':>12} {'after':>8} {'direct':>8} "
        f"{'us before':>10} {'after':>8} {'direct':>8} {'native':>8} {'apart':>8}"
    )
    with tempfile.TemporaryDirectory(prefix="edgelstm-refuse-") as folder:
        for form in FORMS:
            with quiet():
                row = measure(form, given.units, given.steps, Path(folder))
            sizes, times = row["bytes"], row["us"]
            native = f"{times['native']:8.0f}" if "native" in times else f"{'-':>8}"
            print(
                f"{form:14} {row['fused']:>5} {sizes['stock']:12} {sizes['refused']:8} "
                f"{sizes['direct']:8} {times['stock']:10.0f} {times['refused']:8.0f} "
                f"{times['direct']:8.0f} {native} {row['difference']:8.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
