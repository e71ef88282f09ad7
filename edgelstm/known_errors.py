"""Errors of converters and interpreters that people paste, and what they mean.

Each entry was met in public issue threads. Patterns are searched for in the pasted text without
regard to case; the more of an entry's patterns are found, the better it fits.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class KnownError:
    """One error.

    Attributes:
        patterns: regular expressions, each a telling part of the message.
        cause: what really happened.
        cure: what to do.
    """

    title: str
    patterns: tuple[str, ...]
    cause: str
    cure: str

    def matches(self, text: str) -> int:
        """How many of the patterns are in the text."""
        return sum(re.search(p, text, re.IGNORECASE | re.DOTALL) is not None for p in self.patterns)


_CONVERT = "convert the source with edgelstm convert, which never needs these operations"
KNOWN_ERRORS: tuple[KnownError, ...] = (
    KnownError(
        "TensorListReserve needs a static element_shape",
        (r"TensorListReserve.{0,80}element_shape", r"Lowering tensor list ops is failed"),
        "The recurrence was left as a loop over tensor lists, and its batch size is not known.",
        _CONVERT + "; with TensorFlow's own converter, fix the batch size to 1",
    ),
    KnownError(
        "a stateful op's value cannot be duplicated",
        (r"cannot duplicate the value since it's not constant",
         r"Failed to duplicate values for the stateful op"),
        "The fused op's initial state is no constant: the batch is dynamic, or the state is fed.",
        "edgelstm convert --state explicit, or --batch N",
    ),
    KnownError(
        "max and min were not recorded during calibration",
        (r"Max and min for dynamic tensors should be recorded", r"Failed for tensor arg"),
        "The quantizer met the body of a loop, or a 16x8 LSTM, which its calibrator does not see.",
        "edgelstm convert --quantize int8 --calibration DATA.npz",
    ),
    KnownError(
        "quantization of the LSTM is not supported",
        (r"Quantization not yet supported for op:? ?'?UNIDIRECTIONAL_SEQUENCE_LSTM",),
        "The converter is older than the integer kernel of the op.",
        "edgelstm convert --quantize int8 --calibration DATA.npz",
    ),
    KnownError(
        "the LSTM lacks its five intermediate tensors",
        (r"num_intermediate_tensors == 5",),
        "The op is int8 without the scales of its gates, or the interpreter is older than the file.",
        "write it anew with edgelstm convert --quantize int8, or update the interpreter",
    ),
    KnownError(
        "sizes differ within a loop",
        (r"concatenation\.cc", r"\(\d+ != \d+\).{0,200}WHILE|WHILE.{0,200}failed to invoke"),
        "The batch size was baked into the body of a loop when the model was converted.",
        "convert with the batch size that you run with (--batch N), or with --batch dynamic",
    ),
    KnownError(
        "Select TensorFlow ops are missing in the interpreter",
        (r"Select TensorFlow op", r"Flex\w+\)? failed to prepare", r"Flex delegate",
         r"not supported by this interpreter"),
        "The file holds operations of TensorFlow itself (Flex), which the app does not bring.",
        _CONVERT,
    ),
    KnownError(
        "the GPU delegate refuses the LSTM",
        (r"UNIDIRECTIONAL_SEQUENCE_LSTM:? ?Operation is not supported",
         r"Following operations are not supported by GPU delegate.{0,400}LSTM"),
        "The GPU delegate has no kernel for the sequence op; it runs single LSTM steps only.",
        "run the recurrence on the CPU (edgelstm profile --delegate edgelstm)",
    ),
    KnownError(
        "a delegate demands static sizes",
        (r"delegate that only supports static-sized tensors",),
        "A tensor's size changes from call to call, in a loop or with the input's shape.",
        "convert with --batch N and --time N",
    ),
    KnownError(
        "the microcontroller's resolver lacks an operation",
        (r"Didn't find op for builtin opcode", r"Failed to get registration from op code",
         r"Only 1 subgraph is currently supported"),
        "The program registers fewer operations than the model uses, or the model holds a loop, "
        "Flex or custom operations.",
        "look at edgelstm inspect MODEL and register those operations; convert so that every "
        "recurrence is fused",
    ),
    KnownError(
        "Keras 3 and TensorFlow's converter do not fit",
        (r"_get_save_spec", r"Failed to infer result type"),
        "TFLiteConverter.from_keras_model of TensorFlow 2.16 does not know Keras 3's models.",
        "save the model as .keras and use edgelstm convert",
    ),
    KnownError(
        "cuDNN operations cannot be converted",
        (r"CudnnRNN",),
        "The graph was exported on a machine with a GPU.",
        "edgelstm convert takes graphs with CudnnRNN; it writes the fused op",
    ),
    KnownError(
        "operations of tensor lists and loops are not supported",
        (r"EmptyTensorList", r"TensorListFromTensor", r"TensorListStack",
         r"Some ops are not supported by the native TFLite runtime.{0,400}TensorList"),
        "The recurrence was left as a loop over tensor lists.",
        _CONVERT,
    ),
    KnownError(
        "control flow of TensorFlow 1 is not supported",
        (r"unsupported operation:? ?(Enter|LoopCond|TensorArrayV3|Exit|NextIteration)",
         r"LoopCond", r"TensorArray\w*V3", r"Merge of two inputs that differ on more than one"
         r" predicate", r"functionalize Control Flow V1"),
        "The graph has the loops of TensorFlow 1 (dynamic_rnn), which no converter of today takes.",
        "edgelstm convert takes frozen graphs, checkpoints and SavedModels of TensorFlow 1",
    ),
    KnownError(
        "the peer TVM does not know the layer",
        (r"Unsupported function types \['lstm\.input'\]",),
        "TVM's PyTorch frontend has no rule for this LSTM.",
        "convert the model from Keras or TensorFlow with edgelstm convert",
    ),
    KnownError(
        "the layer cannot be trained with quantization",
        (r"QuantizeConfig", r"Layer \w+.{0,80}is not supported\. You can quantize this layer"),
        "tensorflow_model_optimization has no quantization-aware training for recurrent layers.",
        "quantize after training: edgelstm convert --quantize int8 --calibration DATA.npz",
    ),
    KnownError(
        "lengths are refused by ONNX Runtime",
        (r"Invalid value/s in sequence_lens",),
        "A length is 0 or above the number of steps.",
        "give every row a length from 1 to the number of steps",
    ),
    KnownError(
        "the file is newer than the interpreter",
        (r"Didn't find op for builtin opcode '\w+' version '\d+'",
         r"An older version of this builtin might be supported"),
        "An operation has a version that this interpreter does not have.",
        "update the interpreter, or write the file anew with edgelstm convert, which keeps to "
        "versions that tflite-runtime 2.14 has",
    ),
)  # fmt: skip


def explain(text: str) -> tuple[KnownError, ...]:
    """The known errors that a pasted text may be, the best first; empty if none is known."""
    scored = [(known.matches(text), known) for known in KNOWN_ERRORS]
    found = [(score, known) for score, known in scored if score]
    return tuple(known for _, known in sorted(found, key=lambda item: -item[0]))
