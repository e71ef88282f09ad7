"""The bundled model and its held-out images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelstm.converters.spec import Array

MODEL_FILE = "digits.keras"
HELDOUT_FILE = "digits_heldout.npz"
PIXEL_MAX = 16


def model_path() -> Path:
    """The trained Keras 3 model: float32 rows [B, T, 8] in, probabilities [B, 10] out."""
    return Path(__file__).parent / MODEL_FILE


def heldout() -> tuple[Array, Array]:
    """Return images the model was not trained on, float32 [N, 8, 8] in 0..1, and labels [N]."""
    with np.load(Path(__file__).parent / HELDOUT_FILE, allow_pickle=False) as arrays:
        return arrays["images"].astype(np.float32) / PIXEL_MAX, arrays["labels"]
