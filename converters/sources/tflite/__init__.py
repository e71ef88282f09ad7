"""Finished .tflite files as sources: re-fused in place, or through the graph that they hold."""
