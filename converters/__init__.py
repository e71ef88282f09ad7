"""Host side: from a trained model to a TFLite file with fused LSTM ops, proven equal to it."""
