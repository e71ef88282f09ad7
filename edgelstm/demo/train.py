"""Train the bundled model: `python -m edgelstm.demo.train` (needs scikit-learn and tensorflow).

The data are scikit-learn's `digits`: 1797 handwritten digits of 8 x 8 pixels with values 0 to 16,
from the UCI set Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, CC BY 4.0).
Each image is a sequence of T=8 rows with F=8 pixels. Writes `digits.keras` and
`digits_heldout.npz` beside this file. The sizes below were chosen on a quarter of the training
images, never on the held-out ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.demo.data import HELDOUT_FILE, MODEL_FILE, PIXEL_MAX

SEED = 20
HELDOUT_FRACTION = 0.25
UNITS = 32
DROPOUT = 0.3
SHIFTED_COPIES = 3
EPOCHS = 40
BATCH_SIZE = 64
LEARNING_RATE = 1e-2
# Large weights and near-certain answers lose most in int8: without these two the dynamic file was
# off by up to 0.11 of the output's range.
WEIGHT_DECAY = 0.2
LABEL_SMOOTHING = 0.1


@dataclasses.dataclass(frozen=True)
class Split:
    """Images uint8 [N, 8, 8] with values 0 to 16; labels uint8 [N] with values 0 to 9."""

    train_images: Array
    train_labels: Array
    heldout_images: Array
    heldout_labels: Array


def split_digits() -> Split:
    """Return the digits split into training and held-out images, each digit alike in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    train_images, heldout_images, train_labels, heldout_labels = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.uint8),
        test_size=HELDOUT_FRACTION,
        random_state=SEED,
        stratify=digits.target,
    )
    return Split(train_images, train_labels, heldout_images, heldout_labels)


def shifted(images: Array, generator: np.random.Generator) -> Array:
    """Return the images [N, 8, 8] moved by up to one pixel along both axes, zeros moved in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    starts = generator.integers(0, 3, (len(images), 2))
    return np.stack([p[y : y + 8, x : x + 8] for p, (y, x) in zip(padded, starts, strict=True)])


def build() -> Any:
    """Return the untrained Keras model: rows [B, T, 8] in, probabilities [B, 10] out."""
    import keras

    return keras.Sequential(
        [
            keras.Input((None, 8), name="rows"),
            keras.layers.LSTM(UNITS, return_sequences=True, name="lower"),
            keras.layers.Dropout(DROPOUT, name="lower_dropout"),
            keras.layers.LSTM(UNITS, name="upper"),
            keras.layers.Dropout(DROPOUT, name="upper_dropout"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )


def train(split: Split) -> Any:
    """Return the trained Keras model, without its optimizer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    generator = np.random.default_rng(SEED)
    copies = [shifted(split.train_images, generator) for _ in range(SHIFTED_COPIES)]
    images = np.concatenate([split.train_images, *copies]).astype(np.float32) / PIXEL_MAX
    labels = np.eye(10, dtype=np.float32)[np.tile(split.train_labels, SHIFTED_COPIES + 1)]
    model = build()
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
    )
    model.fit(images, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    plain = build()
    plain.set_weights(model.get_weights())
    return plain


def main() -> None:
    """Train, print the accuracy on the held-out images, write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    out: Path = parser.parse_args().out
    split = split_digits()
    model = train(split)
    probabilities = model.predict(split.heldout_images / np.float32(PIXEL_MAX), verbose=0)
    accuracy = np.mean(probabilities.argmax(-1) == split.heldout_labels)
    model.save(out / MODEL_FILE)
    np.savez_compressed(
        out / HELDOUT_FILE, images=split.heldout_images, labels=split.heldout_labels
    )
    print(f"accuracy on {len(split.heldout_labels)} held-out images: {accuracy:.4f}")


if __name__ == "__main__":
    main()
