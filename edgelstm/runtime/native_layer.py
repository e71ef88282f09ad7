"""The structures of `edgelstm.h` that describe a layer and a call of it."""

from __future__ import annotations

import ctypes

import numpy as np

from edgelstm.runtime import native

FLOAT32, FLOAT16, INT16, INT8, INT32 = range(5)
FLOAT, HYBRID, INTEGER, HYBRID_ASYMMETRIC = range(4)
TANH = 3


class Weight(ctypes.Structure):
    """EdgeLstmWeight."""

    _fields_ = (("data", ctypes.c_void_p), ("type", ctypes.c_int32), ("scale", ctypes.c_float))


def weight(values: np.ndarray, kind: int, kept: list[np.ndarray], scale: float = 1.0) -> Weight:
    """Of an array, which `kept` keeps as long as the weight points into it."""
    kept.append(np.ascontiguousarray(values))
    return Weight(kept[-1].ctypes.data, kind, scale)


class Affine(ctypes.Structure):
    """EdgeLstmQuantization."""

    _fields_ = (("scale", ctypes.c_float), ("zero_point", ctypes.c_int32))


class Layer(ctypes.Structure):
    """EdgeLstmLayer."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("inputs", "units", "outputs")],
        *[(name, ctypes.c_int32) for name in ("activation", "arithmetic", "diagonal")],
        *[(name, ctypes.c_float) for name in ("cell_clip", "projection_clip")],
        *[(name, Weight * 4) for name in ("kernel", "recurrent", "peephole", "bias", "layer_norm")],
        *[(name, Weight) for name in ("projection", "projection_bias")],
        *[(f"{name}_quantization", Affine) for name in ("input", "output", "h", "c", "hidden")],
        ("gate_scale", ctypes.c_float * 4),
    )


class Call(ctypes.Structure):
    """EdgeLstmCall."""

    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("input", "output", "h", "c")],
        *[
            (name, ctypes.c_int64)
            for name in ("input_row", "input_step", "output_row", "output_step")
        ],
        *[(name, ctypes.c_int32) for name in ("batch", "steps")],
    )


def library() -> ctypes.CDLL:
    """The native library with the signatures of the functions of a layer.

    Raises:
        MissingPackageError: there is no native library.
    """
    loaded, _ = native.load()
    loaded.edgelstm_create.restype = ctypes.c_void_p
    loaded.edgelstm_create.argtypes = [ctypes.POINTER(Layer), ctypes.c_char_p]
    loaded.edgelstm_create_threaded.restype = ctypes.c_void_p
    loaded.edgelstm_create_threaded.argtypes = [
        ctypes.POINTER(Layer),
        ctypes.c_char_p,
        ctypes.c_int32,
    ]
    loaded.edgelstm_delete.argtypes = [ctypes.c_void_p]
    loaded.edgelstm_delete.restype = None
    loaded.edgelstm_run.argtypes = [ctypes.c_void_p, ctypes.POINTER(Call)]
    loaded.edgelstm_run.restype = None
    loaded.edgelstm_time.argtypes = [ctypes.c_void_p, ctypes.POINTER(Call), ctypes.c_int64]
    loaded.edgelstm_time.restype = ctypes.c_int64
    loaded.edgelstm_bytes.argtypes = [ctypes.c_void_p]
    loaded.edgelstm_bytes.restype = ctypes.c_size_t
    loaded.edgelstm_activate.argtypes = [
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
    ]
    return loaded
