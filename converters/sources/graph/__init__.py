"""TensorFlow graphs as sources: frozen graphs, SavedModels, checkpoints; TensorFlow 1.0 to 2.x."""
