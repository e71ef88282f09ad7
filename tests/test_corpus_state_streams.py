"""Models of the corpus whose states are variables, inputs or packed tensors, over thousands of
frames against their own framework: in chunks of any size, saved and restored on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import CORPUS

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.converters.verify.compare import Scale
from edgelstm.converters.verify.tolerance import DEFAULTS
from edgelstm.runtime import Delegate, Stream, open_interpreter

tf = pytest.importorskip("tensorflow")

MODELS = CORPUS / "models"
FRAMES, FEW = 10_000, 200
CHUNKS = (7, 64)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the corpus.

    Attributes:
        made: frames [N, ...] from N and a seed, like what the model was trained on.
        own: what its own framework says to these frames, one by one from states of zero [N, ...].
        calls: whether each call is one frame, and there is no time axis.
        own_precision: of a finished file, which keeps it; None where any can be asked for.
    """

    name: str
    path: Path
    made: Callable[[int, int], Array]
    own: Callable[[Path, Array], Array]
    options: ConvertOptions = dataclasses.field(default_factory=ConvertOptions)
    calls: bool = False
    own_precision: Precision | None = None


def tones(frames: int, seed: int) -> Array:
    """Blocks of noisy tones [N, 1, 512]."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames * 512) / 16000
    wave = 0.1 * np.sin(2 * np.pi * 440 * time) + 0.05 * rng.standard_normal(frames * 512)
    return wave.astype(np.float32).reshape(frames, 1, 512)


def letters(frames: int, seed: int) -> Array:
    """One of 34 letters in each frame [N, 34]."""
    return np.eye(34, dtype=np.float32)[np.random.default_rng(seed).integers(0, 34, frames)]


def spectra(frames: int, seed: int) -> Array:
    """Magnitudes [N, 257]."""
    return np.random.default_rng(seed).uniform(0, 2, (frames, 257)).astype(np.float32)


def own_saved_model(path: Path, x: Array) -> Array:
    """TensorFlow keeps the states in variables."""
    model = tf.saved_model.load(str(path))
    step = model.signatures["serving_default"]
    return np.asarray([step(tf.constant(frame))["conv1d_1"].numpy() for frame in x])


def own_checkpoint(path: Path, x: Array) -> Array:
    """A TensorFlow 1 session over all frames at once."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(path), clear_devices=True)
        saver.restore(session, str(path).removesuffix(".meta"))
        feed = {
            "char_rnn_network/xinput:0": x[np.newaxis],
            "char_rnn_network/lstm_init_value:0": np.zeros((1, 512), np.float32),
        }
        return np.asarray(session.run("char_rnn_network/Softmax:0", feed))


def own_tflite(path: Path, x: Array) -> Array:
    """The interpreter, its state fed back by hand."""
    interpreter = open_interpreter(path, delegate=Delegate.CPU)
    interpreter.allocate_tensors()
    frame, state = (d["index"] for d in interpreter.get_input_details())
    output, after = (d["index"] for d in interpreter.get_output_details())
    held, found = np.zeros((1, 2, 128, 2), np.float32), []
    for row in x:
        interpreter.set_tensor(frame, row.reshape(1, 1, -1))
        interpreter.set_tensor(state, held)
        interpreter.invoke()
        held = interpreter.get_tensor(after)
        found.append(interpreter.get_tensor(output)[0, 0])
    return np.asarray(found)


ENTRIES = (
    Entry(
        "saved_dtln", MODELS / "saved_dtln" / "dtln_saved_model", tones, own_saved_model, calls=True
    ),
    Entry(
        "tf1ckpt_charrnn_xasopheno",
        MODELS / "tf1ckpt_charrnn_xasopheno" / "model.ckpt.meta",
        letters,
        own_checkpoint,
        ConvertOptions(
            batch=1, state=StatePolicy.EXPLICIT, outputs=("char_rnn_network/Softmax:0",)
        ),
    ),
    Entry(
        "tflite_dtln_1_f32",
        MODELS / "tflite_dtln_1_f32" / "model_1.tflite",
        spectra,
        own_tflite,
        own_precision=Precision.FLOAT32,
    ),
    Entry(
        "tflite_dtln_1_dynrange",
        MODELS / "tflite_dtln_1_dynrange" / "model_quant_1.tflite",
        spectra,
        own_tflite,
        own_precision=Precision.DYNAMIC,
    ),
)


def pushed(entry: Entry, stream: Stream, x: Array) -> Array:
    """What the stream says to frames [n, ...], one row per frame."""
    if entry.calls:
        return next(iter(stream.push_each(x).values()))
    return next(iter(stream.push(x[np.newaxis]).values())).reshape(len(x), -1)


def streamed(entry: Entry, stream: Stream, x: Array, chunk: int, folder: Path) -> Array:
    """Every frame's output; in the middle another stream takes over from a file."""
    stream.reset()
    found: list[Any] = []
    for start in range(0, len(x), chunk):
        if len(x) // 2 <= start < len(x) // 2 + chunk:
            stream.save(folder / "state")
            pushed(entry, stream, x[:chunk])  # what a spoiled stream would go on from
            stream = stream.fork()
            stream.load_state(folder / "state")
        found.append(pushed(entry, stream, x[start : start + chunk]))
    return np.concatenate(found)


def calibration_of(entry: Entry) -> CalibrationData:
    """Made-up inputs: a recording of frames, or one sequence."""
    sample = entry.made(200, 5)
    if entry.calls:
        rows = list(sample)
        return CalibrationData(
            "made up", lambda: iter([{"input_1": row} for row in rows]), Continuity.STREAM
        )
    whole = {"char_rnn_network/xinput": sample[np.newaxis]}
    return CalibrationData("made up", lambda: iter([whole]))


def check(entry: Entry, frames: int, precision: Precision, folder: Path) -> None:
    """One model in one precision, by every chunk size and delegate."""
    if not entry.path.exists():
        pytest.skip(f"there is no corpus model at {entry.path}")
    options = entry.options
    if entry.own_precision is None:
        options = dataclasses.replace(options, precision=precision)
    if precision in STATIC:
        options = dataclasses.replace(options, calibration=calibration_of(entry))
    path = folder / "model.tflite"
    convert(entry.path, path, options, progress=lambda message: None)
    x = entry.made(frames, 3)
    expected = entry.own(entry.path, x)
    delegates: tuple[Delegate | None, ...] = (None, Delegate.CPU)
    if precision is Precision.INT16:
        delegates = (Delegate.EDGELSTM,)  # no interpreter has the kernel
    elif entry.own_precision is None:
        delegates = (None, Delegate.XNNPACK)
    for delegate in delegates:
        # A finished file computes in the interpreter's own kernels what it did there before;
        # XNNPACK quantizes the activations of int8 products in another way.
        exact = precision is Precision.FLOAT32 or delegate is Delegate.CPU
        whole_range = Scale.of([expected]).range
        stream = Stream(path, delegate=delegate)
        by_one = streamed(entry, stream, x, 1, folder)
        errors = np.abs(by_one.reshape(expected.shape) - expected)
        if exact:
            assert errors.max() <= 1e-5 * whole_range
        else:  # what a precision with rounded weights promises is its rms error
            assert np.sqrt(np.mean(errors**2)) <= DEFAULTS[precision].relative * whole_range
        for chunk in (*CHUNKS, frames):
            other = streamed(entry, stream, x, chunk, folder)
            # Products of other sizes are summed in another order; where a layer stays float32 among
            # integers, that may be rounded to another integer.
            if precision in STATIC:
                off = other.reshape(expected.shape) - expected
                assert np.sqrt(np.mean(off**2)) <= DEFAULTS[precision].relative * whole_range
            else:
                np.testing.assert_allclose(other, by_one, rtol=0, atol=1e-6 * np.ptp(expected))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_some_hundred_frames_are_those_of_the_source(entry: Entry, tmp_path: Path) -> None:
    """In the source's own precision, whatever the chunks, with save and restore in the middle."""
    check(entry, FEW, entry.own_precision or Precision.FLOAT32, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", list(DEFAULTS), ids=lambda precision: precision.value)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_ten_thousand_frames_are_those_of_the_source(
    entry: Entry, precision: Precision, tmp_path: Path
) -> None:
    """In every precision, within what that precision is allowed."""
    if entry.own_precision not in (None, precision):
        pytest.skip("a finished file keeps its own precision")
    check(entry, FRAMES, precision, tmp_path)


@pytest.mark.parametrize("entry", ENTRIES[2:3], ids=lambda entry: entry.name)
def test_a_finished_file_streams_as_it_is_when_its_state_is_told(entry: Entry) -> None:
    """Without a conversion: the pairing is told by name."""
    if not entry.path.exists():
        pytest.skip(f"there is no corpus model at {entry.path}")
    x = spectra(50, 1)
    stream = Stream(entry.path, states={"input_3": "Identity_1"}, delegate=Delegate.CPU)
    found = stream.push(x[np.newaxis])["Identity"][0]
    np.testing.assert_array_equal(found, own_tflite(entry.path, x))
