"""Our quantized files beside those of TensorFlow's own quantizers, on the same weights and data.

    python -m edgelstm.converters.quantize.compare [MODEL DATA.npz]... [--inputs T] [--outputs T]
    python -m edgelstm.converters.quantize.compare --corpus FOLDER | --speed

Without arguments: one layer, two stacked layers and a bidirectional one with random weights and
data. MODEL is any source with one input. --corpus takes every model of a folder that `recorded.py`
can read. Half of the data calibrates, the other half is measured.
The stock files of Keras models are made as users must make them: the layers in tf_keras, batch 1,
fixed time; once by TFLiteConverter's int8 path and once by the flatbuffer calibrator. rms errors
are against float32; "int16 activations" against float32 layers with the int16 file's own weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm import arguments
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE
from edgelstm.converters.options import ConvertOptions, OverwritePolicy
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.recorded import Call, recorded_models
from edgelstm.converters.quantize.stock import run_stock, stock_files
from edgelstm.converters.spec import Array, Precision
from edgelstm.errors import EdgeLstmError
from edgelstm.quiet import quiet
from edgelstm.runtime import Delegate, Session

_ANY = 100.0  # a tolerance that every finite output meets: this measures, it does not judge
_SPEED_UNITS, _SPEED_ROWS, _SPEED_STEPS = 256, 1000, 100


def compare(
    path: Path, calls: list[Call], options: ConvertOptions | None = None
) -> dict[str, float]:
    """rms error of every way, and sizes in bytes under `float32 bytes` and `int8 bytes`.

    Args:
        calls: inputs by name, or under an empty name for a model of one input; the first half
            calibrates. Each starts from zero states.
        options: how to convert; precision and calibration in it do not count.
    """
    half = len(calls) // 2
    calibration, fresh = calls[:half], calls[half:]
    options = options or ConvertOptions()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:

        def ours(precision: Precision, observer: ObserverKind = ObserverKind.AUTO) -> bytes:
            return _ours(path, Path(folder), precision, calibration, observer, options)

        plain = ours(Precision.FLOAT32)
        expected = _run(Session(plain), fresh)
        found["signal"] = float(expected.std())
        found["float32 bytes"] = len(plain)
        for precision in (Precision.FLOAT16, Precision.DYNAMIC):
            found[precision.value] = _rms(_run(_session(ours(precision)), fresh), expected)
        for observer in ObserverKind:
            content = ours(Precision.INT8, observer)
            found[f"int8 {observer.value}"] = _rms(_run(_session(content), fresh), expected)
            found["int8 bytes"] = len(content)
        content = ours(Precision.INT16)
        wide = _run(EmulatedSession(content), fresh)
        found["int16"] = _rms(wide, expected)
        exact = _session(_with_weights_of(plain, content))
        found["int16 activations"] = _rms(wide, _run(exact, fresh))
    if path.suffix in (".keras", ".h5") and len(calls[0]) == 1:
        try:
            for title, made in stock_files(path, _rows(calibration)):
                found[title] = _rms(run_stock(made, _rows(fresh)), expected)
        except Exception as error:  # whatever a model that tf_keras cannot rebuild leads to
            print(f"  no stock file: {str(error).splitlines()[0][:100]}")
    return found


def _rows(calls: list[Call]) -> Array:
    return np.concatenate([array for call in calls for array in call.values()])


def _session(content: bytes) -> Session:
    return Session(content, delegate=Delegate.CPU)


def _run(session: Session | EmulatedSession, calls: list[Call]) -> Array:
    """All outputs of all calls, one after another; of a single output in its own shape."""
    outputs: list[list[Array]] = []
    for call in calls:
        session.reset()
        given = {name or session.inputs[0].name: array for name, array in call.items()}
        outputs.append(list(session.run(given).values()))
    if len(outputs[0]) == 1:
        return np.concatenate([one for (one,) in outputs])
    return np.concatenate([array.reshape(-1) for call in outputs for array in call])


def _with_weights_of(plain: bytes, wide: bytes) -> bytes:
    """The float32 file, its fused ops with the numbers that the other file's weights stand for."""
    model, other = Model.read(plain), Model.read(wide)
    for op, integer in zip(model.main.find(FUSED_OP), other.main.find(FUSED_OP), strict=True):
        for position in (*range(1, H_STATE), *range(C_STATE + 1, len(op.inputs))):
            stored, tensor = integer.input(position), op.input(position)
            if stored is None or tensor is None or stored.quantization is None:
                continue
            numbers = (stored.data() * stored.quantization.scale[0]).astype(np.float32)
            op.inputs[position] = model.main.add_constant(f"{tensor.name}_rounded", numbers)
    return model.to_bytes()


def _ours(
    path: Path,
    folder: Path,
    precision: Precision,
    calibration: list[Call],
    observer: ObserverKind,
    options: ConvertOptions,
) -> bytes:
    data = CalibrationData("the data", lambda: iter(calibration))
    options = dataclasses.replace(
        options,
        precision=precision,
        calibration=data,
        observer=observer,
        tolerance=_ANY,
        overwrite=OverwritePolicy.REPLACE,
    )
    out = folder / "out.tflite"
    with quiet():
        pipeline.convert(path, out, options, progress=lambda line: None)
    return out.read_bytes()


def _rms(actual: Array, expected: Array) -> float:
    return float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))


def _generated(folder: Path) -> Iterator[tuple[str, Path, Array]]:
    tensorflow()
    import keras

    def lstm(units: int, **keywords: Any) -> Any:
        return keras.layers.LSTM(units, **keywords)

    makers: dict[str, Callable[[], list[Any]]] = {
        "single": lambda: [lstm(64)],
        "stacked": lambda: [lstm(64, return_sequences=True), lstm(64)],
        "bidirectional": lambda: [keras.layers.Bidirectional(lstm(32, return_sequences=True))],
    }
    for number, (title, layers) in enumerate(makers.items()):
        keras.utils.set_random_seed(number)
        path = folder / f"{title}.keras"
        keras.Sequential([keras.Input((None, 16)), *layers()]).save(path)
        data = np.random.default_rng(number).standard_normal((160, 30, 16)).astype(np.float32)
        yield title, path, data


def speed() -> tuple[float, float]:
    """Seconds of the whole conversion, and of calibration and quantization in it."""
    tensorflow()
    import keras

    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:
        path = Path(folder) / "m.keras"
        keras.Sequential(
            [
                keras.Input((None, 64)),
                keras.layers.LSTM(_SPEED_UNITS, return_sequences=True),
                keras.layers.LSTM(_SPEED_UNITS),
            ]
        ).save(path)
        rng = np.random.default_rng(0)
        data = rng.standard_normal((_SPEED_ROWS, _SPEED_STEPS, 64)).astype(np.float32)
        options = ConvertOptions(
            precision=Precision.INT8,
            calibration=CalibrationData("data", lambda: iter([{"": data}])),
        )
        started = time.perf_counter()
        with quiet():
            report = pipeline.convert(
                path, Path(folder) / "m.tflite", options, progress=lambda _: None
            )
        return time.perf_counter() - started, report.seconds["quantize"]


def main() -> None:
    """Prints one block per model."""
    parser = argparse.ArgumentParser(prog="python -m edgelstm.converters.quantize.compare")
    parser.add_argument("files", nargs="*", type=Path, help="MODEL DATA.npz, in pairs")
    parser.add_argument("--inputs", help="tensors of the graphs, as edgelstm convert takes them")
    parser.add_argument("--outputs", help="the same of outputs")
    parser.add_argument("--corpus", type=Path, help="a folder of models with recorded inputs")
    parser.add_argument("--speed", action="store_true", help="how long 2 x LSTM(256) takes")
    given = parser.parse_args()
    if len(given.files) % 2:
        parser.error("give a data file behind each model")
    if given.speed:
        whole, part = speed()
        print(
            f"2 x LSTM({_SPEED_UNITS}), {_SPEED_ROWS} sequences of {_SPEED_STEPS} steps: "
            f"{part:.1f} s calibrating and quantizing, {whole:.1f} s in all"
        )
    elif given.corpus is not None:
        _print_corpus(given.corpus)
    else:
        _print_pairs(given.files, given.inputs, given.outputs)


def _print_corpus(folder: Path) -> None:
    for model in recorded_models(folder):
        if isinstance(model, str):
            print(f"\n{model}: left out", flush=True)
            continue
        print(f"\n{model.name} ({model.data})", flush=True)
        reasons = []
        for options in model.options:
            try:
                _print(compare(model.path, model.calls, options))
                break
            except EdgeLstmError as error:
                reasons.append(error.what)
        else:
            print(f"  left out: {reasons[0].splitlines()[0][:120]}", flush=True)


def _print_pairs(files: list[Path], inputs: str | None, outputs: str | None) -> None:
    options = ConvertOptions(
        inputs=arguments.tensors("--inputs", inputs),
        outputs=tuple(one.name for one in arguments.tensors("--outputs", outputs)),
    )
    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:
        models: list[tuple[str, Path, Array]] = [
            (str(model), model, next(iter(np.load(data).values())))
            for model, data in zip(files[::2], files[1::2], strict=True)
        ] or list(_generated(Path(folder)))
        for title, path, data in models:
            print(f"\n{title}", flush=True)
            half = len(data) // 2
            _print(compare(path, [{"": data[:half]}, {"": data[half:]}], options))


def _print(found: dict[str, float]) -> None:
    stock = [v for k, v in found.items() if k.startswith("stock")]
    for name, value in found.items():
        print(f"  {name:18} {value:.4g}")
    if stock:
        print(f"  int8 auto over the better stock one: {found['int8 auto'] / min(stock):.2f}")
    for wide in ("int16", "int16 activations"):
        print(f"  {wide} over int8 auto: {found[wide] / (found['int8 auto'] or 1.0):.3f}")
    print(
        f"  int8 bytes over float32: {found['int8 bytes'] / found['float32 bytes']:.3f}", flush=True
    )


if __name__ == "__main__":
    main()
