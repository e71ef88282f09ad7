"""edgelstm doctor: what each recurrence would become, without converting; errors explained."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from graph_files import sequence_model, write
from keras_files import randomise

from edgelstm import cli
from edgelstm.converters.advice import ADVICE, NO_ADVICE, advice
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Lowering
from edgelstm.known_errors import KNOWN_ERRORS, explain

# Messages as people pasted them in public threads, and the title that explains each.
PASTED = {
    "error: 'tf.TensorListReserve' op requires element_shape to be static during TF Lite "
    "transformation pass": "TensorListReserve needs a static element_shape",
    "We cannot duplicate the value since it's not constant. Failed to duplicate values for the "
    "stateful op": "a stateful op's value cannot be duplicated",
    "Max and min for dynamic tensors should be recorded during calibration: Failed for tensor "
    "arg1": "max and min were not recorded during calibration",
    "Quantization not yet supported for op: UNIDIRECTIONAL_SEQUENCE_LSTM":
        "quantization of the LSTM is not supported",
    "tensorflow/lite/kernels/unidirectional_sequence_lstm.cc:938 num_intermediate_tensors == 5 "
    "was not true.": "the LSTM lacks its five intermediate tensors",
    "tensorflow/lite/kernels/concatenation.cc:80 t->dims->data[d] != t0->dims->data[d] (13 != 1)\n"
    "Node number 22 (WHILE) failed to invoke.": "sizes differ within a loop",
    "Select TensorFlow op(s), included in the given model, is(are) not supported by this "
    "interpreter. Node number 3 (FlexTensorListReserve) failed to prepare.":
        "Select TensorFlow ops are missing in the interpreter",
    "UNIDIRECTIONAL_SEQUENCE_LSTM: Operation is not supported.":
        "the GPU delegate refuses the LSTM",
    "Attempting to use a delegate that only supports static-sized tensors with a graph that has "
    "dynamic-sized tensors.": "a delegate demands static sizes",
    "Failed to get registration from op code CUSTOM":
        "the microcontroller's resolver lacks an operation",
    "Only 1 subgraph is currently supported.": "the microcontroller's resolver lacks an operation",
    "AttributeError: 'Sequential' object has no attribute '_get_save_spec'":
        "Keras 3 and TensorFlow's converter do not fit",
    "Here is a list of operators for which you will need custom implementations: CudnnRNN.":
        "cuDNN operations cannot be converted",
    "Some ops are not supported by the native TFLite runtime: EmptyTensorList, "
    "TensorListFromTensor, TensorListReserve, TensorListStack, While":
        "operations of tensor lists and loops are not supported",
    "Converting unsupported operation: Enter\nConverting unsupported operation: LoopCond":
        "control flow of TensorFlow 1 is not supported",
    "Unsupported function types ['lstm.input']": "the peer TVM does not know the layer",
    "Layer gru:<class> is not supported. You can quantize this layer by passing a "
    "`tfmot.quantization.keras.QuantizeConfig` instance":
        "the layer cannot be trained with quantization",
    "Invalid value/s in sequence_lens. All values must be > 0 and < seq_length.":
        "lengths are refused by ONNX Runtime",
}  # fmt: skip


@pytest.mark.parametrize("text", PASTED)
def test_a_pasted_error_is_explained(text: str) -> None:
    """The first explanation is the one for it."""
    assert explain(text)[0].title == PASTED[text]


def test_an_unknown_text_is_no_known_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is made up."""
    assert cli.run(["doctor", "--explain", "segmentation fault"]) == 2
    assert "none of the errors" in capsys.readouterr().err


def test_every_known_error_has_a_message_that_shows_it() -> None:
    """All but the one of newer files, whose versions vary."""
    shown = {explain(text)[0].title for text in PASTED}
    assert {k.title for k in KNOWN_ERRORS} - shown == {"the file is newer than the interpreter"}


def test_a_text_may_come_from_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--explain -` reads it whole."""
    monkeypatch.setattr("sys.stdin", io.StringIO("first line\n(WHILE)\nLoopCond\n"))
    assert cli.run(["doctor", "--explain", "-", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["explanations"]
    assert found[0]["title"] == "control flow of TensorFlow 1 is not supported"


@pytest.mark.parametrize("arguments", [[], ["model.keras", "--explain", "text"]])
def test_it_takes_a_model_or_a_text(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not both and not neither."""
    assert cli.run(["doctor", *arguments]) == 2
    assert "one of both" in capsys.readouterr().err


def _keras(path: Path, **layer: Any) -> Path:
    keras = KerasEngine.KERAS3.module
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.LSTM(5, **layer)])
    randomise(model, 1)
    model.save(path)
    return path


def test_a_layer_that_cannot_fuse_is_told_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason of the conversion itself, and a change; nothing is written."""
    path = _keras(tmp_path / "m.keras", recurrent_activation="hard_sigmoid")
    assert cli.run(["doctor", str(path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["recurrences"]
    assert found["lowering"] == "loop"
    assert "hard_sigmoid" in found["reason"]
    assert "recurrent_activation='sigmoid'" in found["advice"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_graph_is_looked_at_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs, outputs and the fused recurrence, for people."""
    path = write(tmp_path / "g.pb", sequence_model)
    assert cli.run(["doctor", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "1 of 1 recurrence will be fused" in shown
    assert "x [?, ?, 3] float32" in shown
    assert "change:" not in shown
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As convert does."""
    path = write(tmp_path / "g.pb", sequence_model)
    path.write_bytes(path.read_bytes()[:-20])
    assert cli.run(["doctor", str(path)]) == 2
    assert "truncated" in capsys.readouterr().err


def test_advice_is_given_for_loops_only() -> None:
    """A reason without a known change says so."""
    assert advice(Lowering.FUSED, "every gate as the fused op has it") == ""
    assert advice(Lowering.LOOP, "the moon is full") == NO_ADVICE
    assert all(advice(Lowering.LOOP, "?") != text for _, text in ADVICE)
