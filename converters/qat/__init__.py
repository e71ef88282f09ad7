"""Quantization-aware training: LSTM layers that compute as the integer fused operator will.

`keras.py` and `torch.py` are what users import; each needs its framework. `step.py` is what both
compute.
"""
