"""Measuring: latency and memory of a TFLite model on the machine where it will run."""
