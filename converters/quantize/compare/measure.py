"""One model, stage by stage: float32, our precisions, the stock quantizers.

What a stage finds is on disk before the next one starts, so that a process which an interpreter
aborts loses one stage and the next process goes on behind it (`isolated.py`).
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm import files
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import (
    BIAS,
    C_STATE,
    FUSED_OP,
    H_STATE,
    PROJECTION_BIAS,
)
from edgelstm.converters.options import ConvertOptions, OverwritePolicy, TensorChoice
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.compare.recorded import Call, RecordedModel, Recording
from edgelstm.converters.quantize.compare.stock import StockQuantizer, from_float32, from_keras
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.integer import IntegerLstm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.sources.keras.load import KERAS_KINDS
from edgelstm.converters.sources.sniff import sniff
from edgelstm.converters.spec import Array, Precision
from edgelstm.errors import EdgeLstmError, UnsupportedModelError
from edgelstm.quiet import quiet
from edgelstm.runtime import Delegate, Session

Figures = dict[str, Any]
Runner = Session | EmulatedSession

MODEL, STAGES, FOUND, DOING = "model.pickle", "stages.json", "found.json", "doing"
FLOAT32, INT8, INT16 = "float32", "int8", "int16"
TF_KERAS, OWN_FLOAT32 = "tf_keras", "our float32 file"
_ANY = 100.0  # a tolerance that every finite output meets: this measures, it does not judge
_PLAIN, _EXPECTED, _WAY = "float32.tflite", "expected.npy", "way"


class Depth(enum.Enum):
    """How much is measured of a model."""

    TABLE = "table"  # what the table of all models shows
    ALL = "all"  # the float precisions and every way of choosing ranges too


def stages(depth: Depth) -> list[str]:
    """Names, in the order in which they are done."""
    stock = [f"{q.value}, {way}" for q in StockQuantizer for way in (TF_KERAS, OWN_FLOAT32)]
    clipped = [f"int8 {o.value}" for o in ObserverKind if o is not ObserverKind.AUTO]
    more = ["float16", "dynamic", *clipped] if depth is Depth.ALL else []
    # The stock ones last: what they damage in memory would fall on our stages.
    return [FLOAT32, INT8, INT16, *more, *stock]


def found_in(home: Path) -> dict[str, Figures]:
    """Figures by stage, of those that are done; a failed one has its reason under `failed`."""
    path = home / FOUND
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def note(home: Path, stage: str, figures: Figures) -> None:
    """Puts a stage's figures on disk."""
    found = {**found_in(home), stage: figures}
    files.write_atomically(home / FOUND, json.dumps(found).encode())


def measure(home: Path) -> None:
    """Does every stage that is not done yet; a stage that raises is one with a reason.

    Args:
        home: a folder with the model under `MODEL` and names of stages under `STAGES`; the one
            under way is in `DOING`.
    """
    bench = _Bench(pickle.loads((home / MODEL).read_bytes()), home)  # noqa: S301 written by us
    for stage in json.loads((home / STAGES).read_text()):
        done = found_in(home)
        if stage in done or "failed" in done.get(FLOAT32, {}):
            continue
        (home / DOING).write_text(stage)
        started = time.perf_counter()
        try:
            figures = bench.do(stage, done)
        except Exception as error:  # whatever a converter not of ours leads to
            figures = {"failed": _reason(error)}
        if figures is not None:
            note(home, stage, {**figures, "seconds": round(time.perf_counter() - started, 1)})


def _reason(error: Exception) -> str:
    text = error.what if isinstance(error, EdgeLstmError) else str(error) or type(error).__name__
    return text.strip().splitlines()[0][:160]


@dataclasses.dataclass
class _Bench:
    model: RecordedModel
    home: Path

    def do(self, stage: str, done: Mapping[str, Figures]) -> Figures | None:
        """Figures of one stage; None where it does not apply."""
        if stage == FLOAT32:
            return self._float32()
        if stage.startswith("stock"):
            title, _, way = stage.partition(", ")
            first = f"{title}, {TF_KERAS}"
            if way == TF_KERAS and (self.model.streams or not _is_keras(self.model.path)):
                return None
            if way == OWN_FLOAT32 and "rms" in done.get(first, {}):
                return None
            return self._stock(StockQuantizer(title), way)
        precision, _, observer = stage.partition(" ")
        content = self._ours(Precision(precision), ObserverKind(observer or "auto"))
        if stage == INT16:
            return self._wide(content)
        return self._figures(_session(content), content)

    def _float32(self) -> Figures:
        reasons = []
        for way, options in enumerate(self.model.options):
            (self.home / _WAY).write_text(str(way))
            try:
                plain = self._written(options, Precision.FLOAT32)
                expected = _run(_session(plain), self._named(plain, self._fresh), self._states)
            except EdgeLstmError as error:
                reasons.append(error)
                continue
            np.save(self.home / _EXPECTED, expected)
            (self.home / _PLAIN).write_bytes(plain)
            figures = {"bytes": len(plain), "signal": float(expected.std())}
            return {**figures, **self._accuracy(expected)}
        raise reasons[0]

    def _wide(self, content: bytes) -> Figures:
        session: Runner
        try:
            session = EmulatedSession(content)
        except UnsupportedModelError:  # states between operators: the native delegate has them
            session = Session(content, delegate=Delegate.EDGELSTM)
        found = self._outputs(session, content)
        exact = _session(_with_weights_of(self._plain, content))
        activations = _rms(found, self._outputs(exact, self._plain))
        figures = {"bytes": len(content), "rms": _rms(found, self._expected)}
        return {**figures, "activations_rms": activations, **self._accuracy(found)}

    def _stock(self, quantizer: StockQuantizer, way: str) -> Figures:
        calibration = self.model.recordings[: self._half]
        if way == TF_KERAS:
            content = from_keras(
                quantizer, self.model.path, self._options, list(_rows(calibration))
            )
            session = _session(content)
            fresh = [[row] for row in _rows(self._fresh)]
            found = _run(session, _in_order(session, fresh), {})
        else:
            plain = self._with_fixed_sizes()
            session = Session(plain, delegate=Delegate.CPU)
            names = [i.name for i in session.inputs]
            calls = list(_with_states(session, self._named(plain, calibration), self._states))
            order = _graph_order(plain, names)
            content = from_float32(quantizer, plain, lambda: ([c[n] for n in order] for c in calls))
            session = _session(content)
            found = _run(session, self._named(plain, self._fresh), self._states)
        expected = self._expected
        if found.shape != expected.shape:
            raise ValueError(f"outputs of shape {found.shape} where {expected.shape} are expected")
        return {"bytes": len(content), "rms": _rms(found, expected), **self._accuracy(found)}

    def _with_fixed_sizes(self) -> bytes:
        call = next(iter(self._named(self._plain, self._fresh)))[0]
        fixed = tuple(TensorChoice(n, a.shape) for n, a in call.items())
        first = next(iter(call.values()))
        ways: list[dict[str, Any]] = [
            {"batch": first.shape[0], "time": first.shape[1] if first.ndim > 1 else 1},
            {"batch": first.shape[0]},
            {"inputs": fixed},
            {},
        ]
        for way in ways if _is_keras(self.model.path) else ways[2:]:
            try:
                options = dataclasses.replace(self._options, **way)
                return self._written(options, Precision.FLOAT32)
            except EdgeLstmError as error:
                reason = error
        raise reason

    def _figures(self, session: Runner, content: bytes) -> Figures:
        found = self._outputs(session, content)
        figures = {"bytes": len(content), "rms": _rms(found, self._expected)}
        return {**figures, **self._accuracy(found)}

    def _outputs(self, session: Runner, content: bytes) -> Array:
        return _run(session, self._named(content, self._fresh), self._states)

    def _accuracy(self, outputs: Array) -> Figures:
        """The share of right answers among the measured rows."""
        if self.model.labels is None:
            return {}
        labels = np.concatenate(self.model.labels)
        classes = outputs.shape[-1]
        labels = labels - (1 if labels.min() >= 1 and labels.max() == classes else 0)
        fresh = np.concatenate(self.model.labels[self._half :])
        wanted = labels[len(labels) - len(fresh) :]
        if outputs.ndim != 2 or len(outputs) != len(wanted) or labels.max() >= classes:
            return {}
        right = outputs.argmax(-1) == wanted
        return {"accuracy": float(right.mean()), "answers": len(wanted)}

    @property
    def _half(self) -> int:
        return len(self.model.recordings) // 2

    @property
    def _fresh(self) -> list[Recording]:
        return self.model.recordings[self._half :]

    @property
    def _options(self) -> ConvertOptions:
        return self.model.options[int((self.home / _WAY).read_text())]

    @property
    def _states(self) -> Mapping[str, str]:
        return self.model.states

    @property
    def _plain(self) -> bytes:
        return (self.home / _PLAIN).read_bytes()

    @property
    def _expected(self) -> Array:
        return np.asarray(np.load(self.home / _EXPECTED))

    def _named(self, content: bytes, recordings: Sequence[Recording]) -> list[Recording]:
        """Inputs by the file's own names."""
        return _in_order(Session(content, delegate=Delegate.CPU), recordings, self._states)

    def _ours(self, precision: Precision, observer: ObserverKind) -> bytes:
        calibration = self._named(self._plain, self.model.recordings[: self._half])
        data = CalibrationData(
            "the data",
            lambda: itertools.chain.from_iterable(calibration),
            Continuity.STREAM if self.model.streams else Continuity.SAMPLES,
        )
        options = dataclasses.replace(self._options, calibration=data, observer=observer)
        return self._written(options, precision)

    def _written(self, options: ConvertOptions, precision: Precision) -> bytes:
        out = self.home / "out.tflite"
        options = dataclasses.replace(
            options, precision=precision, tolerance=_ANY, overwrite=OverwritePolicy.REPLACE
        )
        with quiet():
            pipeline.convert(self.model.path, out, options, progress=lambda line: None)
        return out.read_bytes()


def _is_keras(path: Path) -> bool:
    return path.exists() and sniff(path) in KERAS_KINDS


def _session(content: bytes) -> Session:
    return Session(content, delegate=Delegate.CPU)


def _rows(recordings: Sequence[Recording]) -> Iterator[Call]:
    """Every row alone."""
    for call in itertools.chain.from_iterable(recordings):
        for row in range(len(next(iter(call.values())))):
            yield {name: array[row : row + 1] for name, array in call.items()}


def _in_order(
    session: Session, recordings: Sequence[Recording], states: Mapping[str, str] = {}
) -> list[Recording]:
    """Recordings under the session's names of its inputs, in their dtypes."""
    inputs = {i.name: i for i in session.inputs if i.name not in states}
    given = recordings[0][0]
    if len(given) == 1 and len(inputs) > 1:
        # States that the recordings leave to the caller, under names that only the file knows.
        raise ValueError(f"the file takes {', '.join(inputs)}, the recordings give one input")
    names = dict(zip(given, given, strict=True))
    if not set(given) <= set(inputs):
        names = dict(zip(given, inputs, strict=True))
    return [
        [{names[n]: a.astype(inputs[names[n]].dtype) for n, a in call.items()} for call in one]
        for one in recordings
    ]


def _with_states(
    session: Session, recordings: Sequence[Recording], states: Mapping[str, str]
) -> Iterator[Call]:
    """Every call, with the states that the session gave in the one before."""
    for recording in recordings:
        carried = _zeros(session, states)
        session.reset()
        for call in recording:
            yield {**call, **carried}
            if states:
                made = session.run({**call, **carried})
                carried = {name: made[output] for name, output in states.items()}


def _zeros(session: Runner, states: Mapping[str, str]) -> Call:
    return {
        i.name: np.zeros([1 if n is None else n for n in i.shape], i.dtype)
        for i in session.inputs
        if i.name in states
    }


def _graph_order(content: bytes, names: Sequence[str]) -> list[str]:
    """The signature's input names in the order of the graph's inputs."""
    model = Model.read(content)
    tensors = model.signatures[0].inputs if model.signatures else {}
    by_tensor = {tensor: name for name, tensor in tensors.items()}
    return [by_tensor.get(index, names[k]) for k, index in enumerate(model.main.inputs)]


def _run(session: Runner, recordings: Sequence[Recording], states: Mapping[str, str]) -> Array:
    """All outputs but states, one call after another; of a single output in its own shape."""
    outputs: list[list[Array]] = []
    for recording in recordings:
        session.reset()
        carried = _zeros(session, states)
        for call in recording:
            made = session.run({**call, **carried})
            carried = {name: made[output] for name, output in states.items()}
            outputs.append([a for name, a in made.items() if name not in states.values()])
    if len(outputs[0]) == 1 and outputs[0][0].ndim:
        return np.concatenate([one for (one,) in outputs])
    return np.concatenate([array.reshape(-1) for call in outputs for array in call])


def _with_weights_of(plain: bytes, wide: bytes) -> bytes:
    """The float32 file, its fused ops with the numbers that the other file's weights stand for."""
    model, other = Model.read(plain), Model.read(wide)
    for op, integer in zip(model.main.find(FUSED_OP), other.main.find(FUSED_OP), strict=True):
        x = integer.input(0)
        if x is None or x.dtype != "int16":  # a layer that stays float32
            continue
        lstm = IntegerLstm.of(integer)
        # The operator derives the scales of its biases.
        biases = {BIAS + gate: bias for gate, bias in enumerate(lstm.bias)}
        biases[PROJECTION_BIAS] = lstm.projection_bias
        for position in (*range(1, H_STATE), *range(C_STATE + 1, len(op.inputs))):
            stored, tensor = integer.input(position), op.input(position)
            if stored is None or tensor is None:
                continue
            if bias := biases.get(position):
                scale = bias.scale
            else:
                assert stored.quantization is not None
                scale = stored.quantization.scale[0]
            numbers = (stored.data() * scale).astype(np.float32)
            op.inputs[position] = model.main.add_constant(f"{tensor.name}_rounded", numbers)
    return model.to_bytes()


def _rms(actual: Array, expected: Array) -> float:
    return float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))


def main() -> None:
    """The process of one model: `python -m edgelstm.converters.quantize.compare.measure HOME`."""
    measure(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
