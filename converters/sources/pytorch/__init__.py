"""PyTorch models: exported to ONNX by PyTorch itself, and held to what PyTorch computes."""
