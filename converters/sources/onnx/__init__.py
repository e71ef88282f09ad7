"""ONNX models as a source: read, written as a TensorFlow graph, compared with ONNX Runtime."""
