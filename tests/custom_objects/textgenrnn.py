# mypy: ignore-errors
"""Attention over time: a softmax of one learned score per step weighs the steps' features."""

import keras
from keras import layers


class AttentionWeightedAverage(layers.Layer):
    """Averages [B, T, F] over T with learned weights; masked steps weigh nothing."""

    def __init__(self, return_attention=False, **kwargs):
        self.return_attention = return_attention
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.W = self.add_weight(
            shape=(int(input_shape[-1]), 1), initializer="uniform", name=f"{self.name}_W"
        )
        super().build(input_shape)

    def call(self, inputs, mask=None):
        import tensorflow as tf

        scores = tf.squeeze(tf.matmul(inputs, tf.convert_to_tensor(self.W)), axis=-1)
        if mask is not None:
            scores = tf.where(mask, scores, -1e9)
        weights = tf.nn.softmax(scores, axis=-1)
        average = tf.reduce_sum(inputs * tf.expand_dims(weights, -1), axis=1)
        return [average, weights] if self.return_attention else average

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def compute_mask(self, inputs, mask=None):
        return None

    def get_config(self):
        return {**super().get_config(), "return_attention": self.return_attention}


assert hasattr(keras, "layers")
