// LSTM layers of random numbers, and calls whose arrays stand between guards.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "edgelstm/edgelstm.h"

namespace edgelstm_test {

struct Shape {
  int32_t inputs, units, outputs;  // outputs 0: no projection
  bool coupled, peephole, layer_norm, diagonal;
};

// A layer and the memory that its weights stand in, at odd addresses.
class RandomLayer {
 public:
  RandomLayer(unsigned seed, int32_t arithmetic, bool half, const Shape& shape)
      : random_(seed), half_(half) {
    layer_ = EdgeLstmLayer();
    layer_.inputs = shape.inputs;
    layer_.units = shape.units;
    layer_.outputs = shape.outputs ? shape.outputs : shape.units;
    layer_.activation = EDGELSTM_TANH;
    layer_.arithmetic = arithmetic;
    layer_.diagonal = shape.diagonal ? 1 : 0;
    layer_.cell_clip = seed % 3 == 0 ? 0.7f : 0.0f;
    layer_.projection_clip = seed % 4 == 0 ? 0.5f : 0.0f;
    const float recurrent = 1.0f / static_cast<float>(1 + layer_.outputs);
    for (int gate = shape.coupled ? 1 : 0; gate < 4; ++gate) {
      layer_.kernel[gate] = Matrix(layer_.units * layer_.inputs, 1.0f / (1 + layer_.inputs));
      layer_.recurrent[gate] = shape.diagonal ? Vector(layer_.units, 0.5f, false)
                                              : Matrix(layer_.units * layer_.outputs, recurrent);
      layer_.bias[gate] = Bias(layer_.units, gate);
      if (shape.peephole && gate != 2) layer_.peephole[gate] = Vector(layer_.units, 0.5f, true);
      if (shape.layer_norm) layer_.layer_norm[gate] = Vector(layer_.units, 1.0f, true);
    }
    if (shape.outputs) {
      layer_.projection = Matrix(layer_.outputs * layer_.units, 2.0f / (1 + layer_.units));
      layer_.projection_bias = Bias(layer_.outputs, 0);
    }
    if (Integer()) {
      layer_.input_quantization = {Wide() ? 0.0001f : 0.03f, static_cast<int32_t>(seed % 200) - 100};
      layer_.h_quantization = layer_.output_quantization = {1.0f / (Wide() ? 32768 : 128), 7};
      layer_.c_quantization = {1.0f / static_cast<float>(1 << (9 + seed % 7)), 0};
      layer_.hidden_quantization = {1.0f / 120, -3};
      for (float& scale : layer_.gate_scale) scale = 1.0f / 4096;
    }
  }

  const EdgeLstmLayer& layer() const { return layer_; }
  bool Wide() const { return layer_.arithmetic == EDGELSTM_INTEGER_WIDE; }
  bool Integer() const { return layer_.arithmetic == EDGELSTM_INTEGER || Wide(); }
  std::mt19937& random() { return random_; }

 private:
  bool Int8() const { return layer_.arithmetic != EDGELSTM_FLOAT; }

  void* Keep(const void* data, size_t bytes) {
    kept_.emplace_back(bytes + 1);
    std::memcpy(kept_.back().data() + 1, data, bytes);
    return kept_.back().data() + 1;
  }

  EdgeLstmWeight Matrix(int64_t count, float size) {
    if (Int8()) {
      std::vector<int8_t> values(static_cast<size_t>(count));
      for (int8_t& value : values) value = static_cast<int8_t>(Between(-127, 127));
      return {Keep(values.data(), values.size()), EDGELSTM_INT8, 4 * size / 127};
    }
    if (half_) {
      // 1 to 2, either sign: every float16 there is normal.
      std::vector<uint16_t> values(static_cast<size_t>(count));
      for (uint16_t& value : values) {
        value = static_cast<uint16_t>(0x3400 - (size < 0.1f ? 0x1400 : 0) + Between(0, 1023) +
                                      0x8000 * Between(0, 1));
      }
      return {Keep(values.data(), 2 * values.size()), EDGELSTM_FLOAT16, 1};
    }
    return Floats(count, 4 * size);
  }

  EdgeLstmWeight Vector(int64_t count, float size, bool may_be_integer) {
    if (Integer() && may_be_integer) {
      std::vector<int16_t> values(static_cast<size_t>(count));
      for (int16_t& value : values) value = static_cast<int16_t>(Between(-32767, 32767));
      return {Keep(values.data(), 2 * values.size()), EDGELSTM_INT16, size / 32767};
    }
    return Floats(count, size);
  }

  EdgeLstmWeight Bias(int64_t count, int) {
    if (!Integer()) return Floats(count, 0.5f);
    if (Wide()) {
      std::vector<int64_t> values(static_cast<size_t>(count));
      for (int64_t& value : values) value = int64_t{Between(-40000, 40000)} * 300;
      return {Keep(values.data(), 8 * values.size()), EDGELSTM_INT64, 1};
    }
    std::vector<int32_t> values(static_cast<size_t>(count));
    for (int32_t& value : values) value = Between(-40000, 40000);
    return {Keep(values.data(), 4 * values.size()), EDGELSTM_INT32, 1};
  }

  EdgeLstmWeight Floats(int64_t count, float size) {
    std::uniform_real_distribution<float> spread(-size, size);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = spread(random_);
    return {Keep(values.data(), 4 * values.size()), EDGELSTM_FLOAT32, 1};
  }

  int32_t Between(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  std::mt19937 random_;
  bool half_;
  EdgeLstmLayer layer_;
  std::vector<std::vector<char>> kept_;
};

// Input, states and output of a call, each in memory of exactly its size, so that a sanitizer sees
// every access outside.
class RandomCall {
 public:
  RandomCall(RandomLayer& of, int32_t batch, int32_t steps, bool time_major)
      : integer_(of.Integer()), width_(of.Wide() ? 2 : of.Integer() ? 1 : 4) {
    const EdgeLstmLayer& layer = of.layer();
    const auto rows = static_cast<size_t>(batch) * static_cast<size_t>(steps);
    Fill(of, &input_, rows * static_cast<size_t>(layer.inputs), false);
    Fill(of, &h_, static_cast<size_t>(batch * layer.outputs), false);
    Fill(of, &c_, static_cast<size_t>(batch * layer.units), true);
    output_.resize(rows * static_cast<size_t>(layer.outputs) * width_);
    call_ = {input_.data(), output_.data(), h_.data(), c_.data(), 0, 0, 0, 0, batch, steps};
    const int64_t in = layer.inputs, out = layer.outputs;
    call_.input_row = time_major ? in : in * steps;
    call_.input_step = time_major ? in * batch : in;
    call_.output_row = time_major ? out : out * steps;
    call_.output_step = time_major ? out * batch : out;
  }
  RandomCall(const RandomCall& other) { *this = other; }
  RandomCall& operator=(const RandomCall& other) {
    integer_ = other.integer_;
    width_ = other.width_;
    input_ = other.input_;
    output_ = other.output_;
    h_ = other.h_;
    c_ = other.c_;
    call_ = other.call_;
    call_.input = input_.data();
    call_.output = output_.data();
    call_.h = h_.data();
    call_.c = c_.data();
    return *this;
  }

  const EdgeLstmCall& call() const { return call_; }

  // The largest difference of outputs and states, relative where they are above 1.
  double Difference(const RandomCall& other) const {
    double largest = Between(output_, other.output_, width_);
    for (double each : {Between(h_, other.h_, width_),
                        Between(c_, other.c_, integer_ ? 2 : 4)}) {
      if (!(each <= largest)) largest = each;
    }
    return largest;
  }

 private:
  void Fill(RandomLayer& of, std::vector<char>* to, size_t count, bool cell) {
    std::normal_distribution<float> normal(0.0f, 1.0f);
    const bool words = integer_ && (cell || width_ == 2);
    to->resize(count * (words ? 2 : width_));
    for (size_t i = 0; i < count; ++i) {
      const float value = normal(of.random());
      if (!integer_) {
        std::memcpy(to->data() + 4 * i, &value, 4);
      } else if (words) {
        const auto word = static_cast<int16_t>(value * 8000);
        std::memcpy(to->data() + 2 * i, &word, 2);
      } else {
        const float byte = value * 60;
        (*to)[i] = static_cast<char>(static_cast<int8_t>(byte > 127    ? 127
                                                         : byte < -128 ? -128
                                                                       : byte));
      }
    }
  }

  static double Value(const std::vector<char>& from, size_t at, size_t width) {
    if (width == 4) {
      float value;
      std::memcpy(&value, from.data() + at, 4);
      return value;
    }
    if (width == 2) {
      int16_t value;
      std::memcpy(&value, from.data() + at, 2);
      return value;
    }
    return static_cast<int8_t>(from[at]);
  }

  static double Between(const std::vector<char>& a, const std::vector<char>& b, size_t width) {
    double largest = 0;
    for (size_t i = 0; i < a.size(); i += width) {
      const double x = Value(a, i, width), y = Value(b, i, width);
      const double size = y > 1 ? y : y < -1 ? -y : 1;
      const double difference = (x > y ? x - y : y - x) / (width == 4 ? size : 1);
      if (!(difference <= largest)) largest = difference;
    }
    return largest;
  }

  bool integer_;
  size_t width_ = 0;  // bytes of an element of input, output and h
  std::vector<char> input_, output_, h_, c_;
  EdgeLstmCall call_;
};

}  // namespace edgelstm_test
