"""Keras models of every generation: `.keras`, `.h5`, architecture with weights."""
