"""What a conversion costs beside a bare TFLiteConverter call: `python -m edgelstm.converters.cost`.

Each run is a fresh process from start to written file, since that is what a user waits for:
interpreter start, imports, loading, conversion, and for us verification too. The rival loads the
same layers with the batch fixed at 1, without which the stock converter fails, and converts.
Runs are interleaved; ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from edgelstm.converters.frameworks import tensorflow

_BARE = """
import sys
from {keras} import models
import tensorflow as tf
model = models.load_model(sys.argv[1], compile=False)
open(sys.argv[2], "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
"""
_RIVALS = {"keras": "stock, Keras 3", "tf_keras": "stock, tf_keras"}


def measure(units: int, runs: int) -> dict[str, dict[str, list[float]]]:
    """Wall seconds and peak resident megabytes of each contestant, run by run.

    Args:
        units: of each of the two LSTM layers.
    """
    samples: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="edgelstm-cost-") as name:
        folder = Path(name)
        _write_models(folder, units)
        contestants = {"edgelstm": _ours(folder)}
        contestants |= {title: _bare(folder, keras) for keras, title in _RIVALS.items()}
        for _ in range(runs):
            for title, command in contestants.items():
                seconds, megabytes = _run(command)
                figures = samples.setdefault(title, {"seconds": [], "peak_mb": []})
                figures["seconds"].append(seconds)
                figures["peak_mb"].append(megabytes)
    return samples


def _write_models(folder: Path, units: int) -> None:
    tensorflow()
    import keras
    import tf_keras

    for module, batch, file in (
        (keras, None, "edgelstm.keras"),
        (keras, 1, "keras.keras"),
        (tf_keras, 1, "tf_keras.keras"),
    ):
        x = start = module.Input((100, 64), batch_size=batch)
        x = module.layers.LSTM(units, return_sequences=True)(x)
        x = module.layers.LSTM(units)(x)
        module.Model(start, module.layers.Dense(10)(x)).save(folder / file)


def _ours(folder: Path) -> list[str]:
    source, output = str(folder / "edgelstm.keras"), str(folder / "edgelstm.tflite")
    return [sys.executable, "-m", "edgelstm", "convert", source, "-o", output, "--overwrite"]


def _bare(folder: Path, keras: str) -> list[str]:
    source, output = str(folder / f"{keras}.keras"), str(folder / f"{keras}.tflite")
    return [sys.executable, "-c", _BARE.format(keras=keras), source, output]


def _run(command: list[str]) -> tuple[float, float]:
    import time

    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command[:5])} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Prints medians and ratios, and every sample with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=128, help="units of each LSTM layer")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs of each")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    arguments = parser.parse_args()
    samples = measure(arguments.units, arguments.runs)
    if arguments.json:
        arguments.json.write_text(json.dumps(samples, indent=1))
    ours = samples.pop("edgelstm")
    for figure in ("seconds", "peak_mb"):
        own = statistics.median(ours[figure])
        print(f"{figure:8}  edgelstm {own:.1f}")
        for title, figures in samples.items():
            other = statistics.median(figures[figure])
            print(f"{'':8}  {title} {other:.1f}, ratio {own / other:.2f}")


if __name__ == "__main__":
    main()
