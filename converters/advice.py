"""What to change in a model so that a recurrence fuses, by the reason why it does not.

The first pattern that is found in the reason counts. A reason that nothing here matches has no
known change: the loop is exact as it is.
"""

from __future__ import annotations

import re

from edgelstm.converters.spec import Lowering

_LSTM = "train an LSTM in its place, if the fused op's speed is what you need"
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"one step\b",
        "nothing, if a step with its states outside is what you need; convert the model of whole "
        "sequences with --state carry for a fused one",
    ),
    (
        r"recurrent_activation|gate is .*logistic sigmoid",
        "use sigmoid gates (recurrent_activation='sigmoid') and train again for a few epochs from "
        "these weights; Keras 1 and early Keras 2 had hard_sigmoid as their default",
    ),
    (
        r"candidate|takes .* of the cell state",
        "use one activation for the candidate and for the output, and train again",
    ),
    (
        r"\bactivation\b",
        "use tanh, relu or relu6 as the activation and train again from these weights",
    ),
    (r"clipped to", "clip symmetrically, to [-k, k] with k above 0"),
    (r"clipped but not projected", "clip the cell state instead of the output (cell_clip)"),
    (r"final state under a mask", "do not return the cell state, or write the model in float32"),
    (r"dense peephole", "use peepholes of one weight per cell (use_peepholes=True)"),
    (r"convolutional|ConvLSTM", "nothing: the fused op has no convolutions"),
    (
        r"\bGRU\b|SimpleRNN|has 1 state\b",
        "nothing, if it has to stay what it is: TFLite has a fused op for LSTM only; else " + _LSTM,
    ),
    (r"has \d+ states", "nothing, if it has to stay what it is; else " + _LSTM),
    (
        r"not affine|layer.?norm|normalis",
        "take the normalisation of the gates or of the cell state out and train again",
    ),
    (
        r"more than one input|given constants|\bconstants\b",
        "join the inputs of the cell into one before the layer",
    ),
    (
        r"read (outside|at every step)",
        "read only the outputs and the final states of the layer, not its gates or cell states",
    ),
    (
        r"left as it is|told apart|counts no steps|no sequence|out of order|unknown way",
        "build the recurrence with keras.layers.LSTM, dynamic_rnn or static_rnn, and one weight "
        "matrix per layer that all steps share",
    ),
)
NO_ADVICE = "nothing is known that keeps its numbers; the loop computes them exactly"


def advice(lowering: Lowering, reason: str) -> str:
    """What to change so that a recurrence fuses; empty where it does."""
    if lowering is Lowering.FUSED:
        return ""
    found = (text for pattern, text in ADVICE if re.search(pattern, reason, re.IGNORECASE))
    return next(found, NO_ADVICE)
