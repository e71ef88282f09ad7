"""LSTM models into fused TFLite, proven equal to their source, measured on the device, embedded."""

__version__ = "0.1.0"
