"""Our quantized files beside those of TensorFlow's own quantizers, on the same weights and data.

    python -m edgelstm.converters.quantize.compare [MODEL DATA.npz]... [--inputs T] [--outputs T]
    python -m edgelstm.converters.quantize.compare --corpus FOLDER [--only PATTERN] [--beside FOLDER]
    python -m edgelstm.converters.quantize.compare --speed [--rounding learned]

Without arguments: one layer, two stacked layers and a bidirectional one with random weights and
data. Half of the data calibrates, the other half is measured. rms errors are against float32.

| module | what |
|---|---|
| `recorded.py` | models in folders, with recorded inputs |
| `measure.py` | one model in stages: float32, the precisions, the stock quantizers |
| `stock.py` | TensorFlow's two quantizers on the same weights |
| `isolated.py` | a process per model: interpreters and converters abort it at times |
| `table.py` | the figures as text |
| `speed.py` | how long quantizing takes |
"""
