"""Bit-exact numpy reference of the integer LSTM kernels; imports no framework."""

from __future__ import annotations

from edgelstm.converters.quantize.integer.micro import MicroLstm, micro_refuses
from edgelstm.converters.quantize.integer.parameters import Affine, IntegerLstm, Stored
from edgelstm.converters.quantize.integer.state import IntegerState
from edgelstm.converters.quantize.integer.tflite import TfliteLstm

__all__ = [
    "Affine",
    "IntegerLstm",
    "IntegerState",
    "MicroLstm",
    "Stored",
    "TfliteLstm",
    "micro_refuses",
]
