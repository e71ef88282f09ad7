"""The marker: a placeholder for one recurrence while the stock converter does all the rest.

A `tf.function` with `experimental_implements` and `tfl_fusable_op` arrives in the flatbuffer as
one CUSTOM op (TFLite composite functions, prepare_composite_functions_tf.cc). Its weights do not
travel through the converter: they stay in the `LstmSpec` that the marker's `id` points to, which
spares the converter their copies and keeps its quantizer away from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.fused import MARKER_CODE
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.spec import Layout, LstmSpec


def emit_marker(
    marker_id: int,
    spec: LstmSpec,
    x: Any,
    initial_state: Sequence[Any],
    *,
    rows: Rows,
    outputs: int,
) -> tuple[Any, ...]:
    """Put the marker of recurrence `marker_id` into the graph being traced.

    Args:
        x: float32 tensor [B, T, F], or [T, B, F] where the spec is time-major.
        initial_state: empty (the recurrence starts from zero) or (h0 [B, O], c0 [B, U]).
        rows: how the batch of x follows from the model's inputs.
        outputs: 1 for (sequence,), 2 for (sequence, final c).

    Returns:
        sequence [B, T, O] (axes as in x) and, if asked for, final c [B, U].
    """
    tf = tensorflow()
    implements = (
        f'name: "{MARKER_CODE}" '
        'attr { key: "tfl_fusable_op" value { b: true } } '
        + " ".join(
            f'attr {{ key: "{name}" value {{ i: {value} }} }}'
            for name, value in {"id": marker_id, **rows.attributes()}.items()
        )
    )
    batch_axis = 0 if spec.layout is Layout.BATCH_MAJOR else 1

    def body(x: Any, *_states: Any) -> tuple[Any, ...]:
        # Discarded by the converter, which keeps only the call; shapes and dtypes are what counts.
        shape = tf.shape(x)
        sequence = tf.zeros([shape[0], shape[1], spec.output_size], tf.float32)
        sequence.set_shape([x.shape[0], x.shape[1], spec.output_size])
        cell = tf.zeros([shape[batch_axis], spec.units], tf.float32)
        cell.set_shape([x.shape[batch_axis], spec.units])
        return (sequence, cell)[:outputs]

    function = tf.function(body, autograph=False, experimental_implements=implements)
    result = function(x, *initial_state)
    return tuple(result)
