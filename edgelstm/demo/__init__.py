"""The whole way on a bundled real model: handwritten digits read row by row by two LSTM layers."""
