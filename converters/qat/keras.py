"""Quantization-aware training in Keras 3.

From a trained model to a file in integers:

    model = quantize_aware(keras.models.load_model("float.keras"))
    model.compile(...); model.fit(...)
    model.save("aware.keras")

    edgelstm convert aware.keras -o out.tflite --quantize int8 --ranges from-model \\
        --calibration samples.npz    # for all that is no LSTM; LSTM layers alone need none
"""

from __future__ import annotations

from edgelstm.converters.qat.keras_layer import QuantizedLSTM, QuantizedLSTMCell
from edgelstm.converters.qat.keras_model import from_exchange, quantize_aware

__all__ = ["QuantizedLSTM", "QuantizedLSTMCell", "from_exchange", "quantize_aware"]
