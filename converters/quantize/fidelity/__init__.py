"""What quantization costs: a quantized model beside its float32 form, per layer, gate and step."""

from __future__ import annotations

from edgelstm.converters.quantize.fidelity.measure import Pair, measure
from edgelstm.converters.quantize.fidelity.report import QuantizationReport

__all__ = ["Pair", "QuantizationReport", "measure"]
