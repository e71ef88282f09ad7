"""Our quantized files beside those of TensorFlow's own quantizers, on the same weights and data.

    python -m edgelstm.converters.quantize.compare [MODEL DATA.npz]... [--speed]

Without arguments: one layer, two stacked layers and a bidirectional one with random weights and
data. MODEL is any source with one input. Half of the data calibrates, the other half is measured.
The stock files of Keras models are made as users must make them: the layers in tf_keras, batch 1,
fixed time; once by TFLiteConverter's int8 path and once by the flatbuffer calibrator. rms errors
are against float32; "int16 activations" against float32 layers with the int16 file's own weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE
from edgelstm.converters.options import ConvertOptions, OverwritePolicy
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.spec import Array, Precision
from edgelstm.quiet import quiet
from edgelstm.runtime import Delegate, Session

_ANY = 100.0  # a tolerance that every finite output meets: this measures, it does not judge
_KEPT = frozenset(
    "name units activation recurrent_activation use_bias return_sequences go_backwards filters "
    "kernel_size padding strides rate epsilon input_dim output_dim merge_mode".split()
)
_SPEED_UNITS, _SPEED_ROWS, _SPEED_STEPS = 256, 1000, 100


def compare(path: Path, data: Array) -> dict[str, float]:
    """rms error of every way, and sizes in bytes under `float32 bytes` and `int8 bytes`.

    Args:
        path: a model with one input and one output.
        data: [N, T, F] or [N, T].
    """
    half = len(data) // 2
    calibration, fresh = data[:half], data[half:]
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:
        plain = _ours(path, Path(folder), Precision.FLOAT32, calibration)
        (name,) = [info.name for info in Session(plain).inputs]
        expected = _only(Session(plain).run({name: fresh}))
        found["signal"] = float(expected.std())
        found["float32 bytes"] = len(plain)
        for precision in (Precision.FLOAT16, Precision.DYNAMIC):
            content = _ours(path, Path(folder), precision, calibration)
            session = Session(content, delegate=Delegate.CPU)
            found[precision.value] = _rms(_only(session.run({name: fresh})), expected)
        for observer in ObserverKind:
            content = _ours(path, Path(folder), Precision.INT8, calibration, observer)
            session = Session(content, delegate=Delegate.CPU)
            found[f"int8 {observer.value}"] = _rms(_only(session.run({name: fresh})), expected)
            found["int8 bytes"] = len(content)
        content = _ours(path, Path(folder), Precision.INT16, calibration)
        wide = _only(EmulatedSession(content).run({name: fresh}))
        found["int16"] = _rms(wide, expected)
        exact = Session(_with_weights_of(plain, content), delegate=Delegate.CPU)
        found["int16 activations"] = _rms(wide, _only(exact.run({name: fresh})))
    if path.suffix in (".keras", ".h5"):
        for title, made in _stock(path, calibration):
            found[title] = _rms(_run_stock(made, fresh), expected)
    return found


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
    calibration: Array,
    observer: ObserverKind = ObserverKind.AUTO,
) -> bytes:
    data = CalibrationData("the data", lambda: iter([{"": calibration}]))
    options = ConvertOptions(
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


def _only(outputs: dict[str, Array]) -> Array:
    (array,) = outputs.values()
    return array


def _rms(actual: Array, expected: Array) -> float:
    return float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))


def _stock(path: Path, calibration: Array) -> Iterator[tuple[str, bytes]]:
    """Files of the stock quantizers; nothing for layers that tf_keras cannot rebuild."""
    tf = tensorflow()
    from tensorflow.lite.python.optimize import calibrator

    model = _in_tf_keras(path, calibration)

    def samples() -> Iterator[list[Array]]:
        for row in calibration:
            yield [row[None]]

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        yield "stock converter", converter.convert()
        plain = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        prepared = calibrator.add_intermediate_tensors(plain)
        made = calibrator.Calibrator(prepared).calibrate_and_quantize(
            samples, tf.float32, tf.float32, allow_float=False, activations_type=tf.int8
        )
        yield "stock calibrator", bytes(made)


def _in_tf_keras(path: Path, calibration: Array) -> Any:
    """The same layers and weights, one after another, for a batch of 1 and fixed time."""
    tensorflow()
    import keras
    import tf_keras

    source = keras.models.load_model(path, compile=False)
    x = tf_keras.Input(batch_shape=(1, *calibration.shape[1:]), dtype=calibration.dtype.name)
    y = x
    for layer in source.layers:
        if type(layer).__name__ != "InputLayer":
            y = _same_layer(tf_keras, layer)(y)
    model = tf_keras.Model(x, y)
    model.set_weights(source.get_weights())
    return model


def _same_layer(tf_keras: Any, layer: Any) -> Any:
    made = getattr(tf_keras.layers, type(layer).__name__)
    config = {k: v for k, v in layer.get_config().items() if k in _KEPT}
    if hasattr(layer, "forward_layer"):
        return made(_same_layer(tf_keras, layer.forward_layer), **config)
    return made(**config)


def _run_stock(content: bytes, rows: Array) -> Array:
    from edgelstm.runtime.interpreters import open_interpreter

    interpreter = open_interpreter(content)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for row in rows:
        interpreter.reset_all_variables()
        interpreter.set_tensor(x["index"], row[None])
        interpreter.invoke()
        outputs.append(np.array(interpreter.get_tensor(y["index"])))
    return np.concatenate(outputs)


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
    parser.add_argument("--speed", action="store_true", help="how long 2 x LSTM(256) takes")
    given = parser.parse_args()
    if given.speed:
        whole, part = speed()
        print(
            f"2 x LSTM({_SPEED_UNITS}), {_SPEED_ROWS} sequences of {_SPEED_STEPS} steps: "
            f"{part:.1f} s calibrating and quantizing, {whole:.1f} s in all"
        )
        return
    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:
        models: list[tuple[str, Path, Array]] = [
            (str(model), model, next(iter(np.load(data).values())))
            for model, data in zip(given.files[::2], given.files[1::2], strict=True)
        ] or list(_generated(Path(folder)))
        for title, path, data in models:
            print(f"\n{title}")
            found = compare(path, data)
            stock = [v for k, v in found.items() if k.startswith("stock")]
            for name, value in found.items():
                print(f"  {name:18} {value:.4g}")
            if stock:
                print(
                    f"  int8 auto over the better stock one: {found['int8 auto'] / min(stock):.2f}"
                )
            for wide in ("int16", "int16 activations"):
                print(f"  {wide} over int8 auto: {found[wide] / found['int8 auto']:.3f}")
            print(f"  int8 bytes over float32: {found['int8 bytes'] / found['float32 bytes']:.3f}")


if __name__ == "__main__":
    main()
