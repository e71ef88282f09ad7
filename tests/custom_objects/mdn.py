# mypy: ignore-errors
"""A mixture-density head, as MDRNN models carry it: means, scales and mixture logits in a row."""

import tensorflow as tf
from tensorflow import keras


@keras.saving.register_keras_serializable(package="keras_mdn_layer")
class MDN(keras.layers.Layer):
    """Concatenates [means, elu(scales) + 1 + eps, logits]."""

    def __init__(self, output_dimension, num_mixtures, **kwargs):
        super().__init__(**kwargs)
        self.output_dim = output_dimension
        self.num_mix = num_mixtures
        width = output_dimension * num_mixtures
        self.mdn_mus = keras.layers.Dense(width, name="mdn_mus")
        self.mdn_sigmas = keras.layers.Dense(
            width, activation=lambda z: tf.nn.elu(z) + 1 + 1e-8, name="mdn_sigmas"
        )
        self.mdn_pi = keras.layers.Dense(num_mixtures, name="mdn_pi")

    def build(self, input_shape):
        for layer in (self.mdn_mus, self.mdn_sigmas, self.mdn_pi):
            layer.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, mask=None):
        parts = [self.mdn_mus(inputs), self.mdn_sigmas(inputs), self.mdn_pi(inputs)]
        return tf.concat(parts, axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], (2 * self.output_dim + 1) * self.num_mix)

    def get_config(self):
        own = {"output_dimension": self.output_dim, "num_mixtures": self.num_mix}
        return {**super().get_config(), **own}
