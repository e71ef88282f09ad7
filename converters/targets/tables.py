"""Which operators the runtimes take. Data; read from their sources."""

from __future__ import annotations

GPU_OPS: dict[str, int | None] = {
    **dict.fromkeys(
        "ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL BITCAST CONCATENATION CONV_2D CUMSUM DEPTH_TO_SPACE "
        "DEPTHWISE_CONV_2D DEQUANTIZE DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP FULLY_CONNECTED GATHER "
        "MAX_POOL_2D MEAN MIRROR_PAD ONE_HOT PACK PAD PADV2 QUANTIZE REDUCE_ALL REDUCE_ANY "
        "REDUCE_MAX REDUCE_MIN REDUCE_PROD RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR "
        "REVERSE_V2 SELECT SELECT_V2 SLICE SPACE_TO_DEPTH SPLIT SPLIT_V STRIDED_SLICE SUM TILE "
        "TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK".split()
    ),
    **dict.fromkeys("HARD_SWISH PRELU RIGHT_SHIFT".split(), 1),
    **dict.fromkeys(
        "ATAN2 BITWISE_XOR CEIL COS DIV ELU EQUAL EXP FLOOR FLOOR_MOD GREATER GREATER_EQUAL "
        "LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC NEG NOT_EQUAL "
        "POW RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIGN SIN SQRT SQUARE SQUARED_DIFFERENCE "
        "TANH".split(),
        2,
    ),
    **dict.fromkeys("FLOOR_DIV GELU SUB".split(), 3),
    **dict.fromkeys("MAXIMUM MINIMUM SOFTMAX".split(), 4),
    "ABS": 5,
    "ADD": 6,
    "CAST": 7,
    "MUL": 8,
}
"""Operator -> its newest version that LiteRT's GPU accelerator takes; None where it does not look.

ml_drift_delegate/tflite/support/support.cc at 0be9b89d. The basic LSTM operator is switched off
there. An operator may still be refused for its shapes or types.
"""

GPU_FLOAT_OPS = frozenset({"CUMSUM", "TOPK_V2"})
"""Operators that the GPU accelerator takes for float32 alone: seen in ai-edge-litert 2.3."""

MICRO_OPS = frozenset(
    "ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_TO_SPACE_ND "
    "BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM "
    "DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL FLOOR "
    "FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF "
    "L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT "
    "LOGICAL_OR LOGISTIC LOG_SOFTMAX MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG "
    "NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX RELU RELU6 RESHAPE "
    "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX "
    "SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE "
    "STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK "
    "VAR_HANDLE WHILE ZEROS_LIKE".split()
)
"""Operators with a kernel in TensorFlow Lite Micro: python/tflite_micro/python_ops_resolver.cc at
03e16b29, its own custom operators left out."""

MICRO_LSTM_LACKS: dict[str, tuple[int, ...]] = {
    "peepholes": (9, 10, 11),
    "projection": (16, 17),
    "layer normalisation": (20, 21, 22, 23),
}
"""What Micro's LSTM kernel has not -> the operator's inputs that bring it. Nor does it couple
gates, or know other activations than tanh; its Prepare refuses the former, the latter it would
compute wrong (kernels/unidirectional_sequence_lstm.cc)."""
