"""Models of the corpus that are meant for streams, frame by frame against their own framework."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import corpus_keras
import numpy as np
import pytest
from corpus_keras import Entry, loaded
from keras_files import CORPUS

from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.sources.keras.engine import active_engine
from edgelstm.converters.spec import Precision
from edgelstm.converters.verify.compare import Scale
from edgelstm.converters.verify.tolerance import DEFAULTS
from edgelstm.runtime import Delegate, Stream, read_metadata

pytest.importorskip("tensorflow")

FRAMES, FEW = 10_000, 1_000
CHUNKS = (1, 7, 64)
Floats = np.ndarray[Any, np.dtype[np.float32]]


def entries() -> list[Entry]:
    """The models whose states are inputs and outputs of their own."""
    return [entry for entry in corpus_keras.entries() if "impsy" in entry.name]


def own_framework(entry: Entry, x: Floats) -> Floats:
    """The first output at every frame of x [T, F], states fed back: [T, ...]."""
    import tensorflow as tf

    model = loaded(entry)
    with active_engine(model.engine):
        step = tf.function(lambda tensors: model.model(tensors, training=False))
        states = [tf.zeros([1, tensor.shape[-1]]) for tensor in model.model.inputs[1:]]
        found = []
        for frame in x:
            output, *states = step([tf.constant(frame[np.newaxis, np.newaxis]), *states])
            found.append(np.asarray(output)[0])
    return np.asarray(found)


def calls_of(entry: Entry, features: int) -> CalibrationData:
    """What the model is given in each of some hundred frames, its own states among it."""
    import tensorflow as tf

    model = loaded(entry)
    names = [tensor.name for tensor in model.model.inputs]
    states = [np.zeros((1, tensor.shape[-1]), np.float32) for tensor in model.model.inputs[1:]]
    pieces = []
    with active_engine(model.engine):
        for frame in np.random.default_rng(5).standard_normal((200, 1, 1, features)):
            given = [frame.astype(np.float32), *states]
            pieces.append(dict(zip(names, given, strict=True)))
            _, *states = (np.asarray(t) for t in model.model([tf.constant(g) for g in given]))
    return CalibrationData("made up", lambda: iter(pieces))


def streamed(stream: Stream, x: Floats, chunk: int, folder: Path) -> Floats:
    """The output after every chunk; in the middle another stream takes over from a file."""
    stream.reset()
    found: list[Any] = []
    for start in range(0, len(x), chunk):
        if len(x) // 2 <= start < len(x) // 2 + chunk:
            stream.save(folder / "state")
            stream.push(x[np.newaxis, :chunk])  # what a spoiled stream would go on from
            stream = stream.fork()
            stream.load_state(folder / "state")
        out = stream.push(x[np.newaxis, start : start + chunk])
        found.append(next(iter(out.values()))[0])
    return np.asarray(found)


def check(entry: Entry, frames: int, precision: Precision, folder: Path, allowed: float) -> None:
    """One model in one precision, by every chunk size and delegate."""
    path = folder / "model.tflite"
    options = entry.options(precision)
    features = loaded(entry).model.inputs[0].shape[-1]
    if precision in STATIC:
        options = dataclasses.replace(options, calibration=calls_of(entry, features))
    convert(entry.path, path, options, progress=lambda message: None)
    told = read_metadata(path)
    assert told is not None and len(told["states"]) == 4
    x = np.random.default_rng(3).standard_normal((frames, features)).astype(np.float32)
    expected = own_framework(entry, x)
    limit = allowed * Scale.of([expected]).range
    # No interpreter has a kernel for 16 bits.
    others = () if precision is Precision.INT16 else (Delegate.XNNPACK,)
    for delegate in (None, *others):
        stream = Stream(path, delegate=delegate)
        by_one = streamed(stream, x, 1, folder)
        assert np.abs(by_one - expected).max() <= limit
        for chunk in (*CHUNKS[1:], frames):
            last = [min(start + chunk, frames) - 1 for start in range(0, frames, chunk)]
            np.testing.assert_array_equal(streamed(stream, x, chunk, folder), by_one[last])


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_thousand_frames_are_those_of_the_source(entry: Entry, tmp_path: Path) -> None:
    """In float32, whatever the chunks, with save and restore in the middle."""
    check(entry, FEW, Precision.FLOAT32, tmp_path, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", list(DEFAULTS), ids=lambda precision: precision.value)
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_ten_thousand_frames_are_those_of_the_source(
    entry: Entry, precision: Precision, tmp_path: Path
) -> None:
    """In every precision, within what that precision is allowed."""
    check(entry, FRAMES, precision, tmp_path, max(1e-5, DEFAULTS[precision].largest))


def test_the_corpus_is_there_or_skipped() -> None:
    """No entry is lost without a word."""
    if not CORPUS.exists():
        pytest.skip(f"there is no corpus at {CORPUS}")
    assert len(entries()) == 2
