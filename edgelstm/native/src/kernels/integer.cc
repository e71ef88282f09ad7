#include "kernels/integer.h"

#include <cmath>
#include <initializer_list>

namespace edgelstm {
namespace {

constexpr float kGateScale = 1.0f / 4096;

// Wraps as the stock kernel's int32 does.
int32_t Wrapped(int64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }

int32_t RowSum(const EdgeLstmWeight& weight, int64_t row, int64_t columns) {
  int64_t sum = 0;
  for (int64_t k = 0; k < columns; ++k) sum += IntegerAt(weight, row * columns + k);
  return Wrapped(sum);
}

// Rounded half away from zero, (-2^31)^2 apart.
int32_t HighProduct(int32_t a, int32_t b) {
  if (a == INT32_MIN && b == INT32_MIN) return INT32_MAX;
  return static_cast<int32_t>((int64_t{a} * b + (int64_t{1} << 30)) >> 31);
}

int32_t ShiftedLeft(int32_t value, int bits) {
  const int64_t wide = int64_t{value} * (int64_t{1} << bits);
  return wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : static_cast<int32_t>(wide);
}

// Values that the stock kernel would shift out of its 32 bits.
bool TooLarge(const Multiplier& multiplier) { return multiplier.shift > 18; }

bool Positive(float scale) { return scale > 0 && scale < INFINITY; }

// A clip in units of `scale`, as an integer between the limits; 0 for none.
int32_t ClipOf(float clip, float scale, float low, float high) {
  if (!(clip > 0)) return 0;
  const float scaled = clip / scale;
  return static_cast<int32_t>(scaled < low ? low : scaled > high ? high : scaled);
}

}  // namespace

Multiplier MultiplierOf(double value) {
  if (value == 0) return {0, 0};
  int shift = 0;
  const double fraction = std::frexp(value, &shift);
  auto factor = static_cast<int64_t>(std::round(fraction * 2147483648.0));
  if (factor == int64_t{1} << 31) {
    factor /= 2;
    ++shift;
  }
  if (shift < -31) return {0, 0};
  return {static_cast<int32_t>(factor), shift};
}

bool ShiftsRight(const Multiplier& multiplier) { return multiplier.shift < 0; }

const char* DeriveScales(const EdgeLstmLayer& layer, IntegerScales* scales) {
  const bool norm = HasLayerNorm(layer);
  const float x = layer.input_quantization.scale, h = layer.h_quantization.scale;
  const float m = layer.hidden_quantization.scale;
  int exponent = 0;
  const float c = layer.c_quantization.scale;
  if (!Positive(c) || std::frexp(c, &exponent) != 0.5f || exponent < -14 || exponent > -8 ||
      layer.c_quantization.zero_point != 0) {
    return "the scale of c is not a power of two from 2^-15 to 2^-9";
  }
  const int c_exponent = exponent - 1;
  if (!Positive(x) || !Positive(h) || !Positive(m) || !Positive(layer.output_quantization.scale)) {
    return "a scale of the input, the output, h or the hidden intermediate is missing";
  }
  for (const EdgeLstmQuantization* q : {&layer.input_quantization, &layer.output_quantization,
                                        &layer.h_quantization, &layer.hidden_quantization}) {
    if (q->zero_point < -128 || q->zero_point > 127) return "a zero point is not an int8";
  }
  *scales = IntegerScales();
  for (int gate = Coupled(layer) ? 1 : 0; gate < 4; ++gate) {
    const float sum = norm ? layer.gate_scale[gate] : kGateScale;
    const float kernel = layer.kernel[gate].scale, recurrent = layer.recurrent[gate].scale;
    if (!Positive(sum)) return "a scale of the gate sums before layer norm is missing";
    if (!Positive(kernel) || !Positive(recurrent)) return "a scale of a matrix is missing";
    scales->kernel[gate] = MultiplierOf(double{kernel * x / sum});
    scales->recurrent[gate] = MultiplierOf(double{recurrent * h / sum});
    if (layer.peephole[gate].data != nullptr) {
      const float scale = layer.peephole[gate].scale;
      if (!Positive(scale)) return "a scale of the peephole is missing";
      scales->peephole[gate] = MultiplierOf(
          double{static_cast<float>(std::ldexp(1.0, c_exponent) * scale / double{sum})});
    }
    if (norm) {
      const float scale = layer.layer_norm[gate].scale;
      if (!Positive(scale)) return "a scale of the layer norm is missing";
      scales->layer_norm[gate] = MultiplierOf(double{scale});
      const float guard = 10000.0f * scale;
      scales->variance_guard[gate] =
          guard > 1 ? static_cast<int32_t>(guard < 2147483520.0f ? guard : 2147483520.0f) : 1;
    }
  }
  const double half = std::ldexp(1.0, -15);
  scales->hidden = MultiplierOf(double{static_cast<float>(half / double{m} * half)});
  scales->c_bits = 15 + c_exponent;
  scales->input_zero = layer.input_quantization.zero_point;
  scales->h_zero = layer.h_quantization.zero_point;
  scales->hidden_offset = layer.hidden_quantization.zero_point;
  if (HasProjection(layer)) {
    if (!Positive(layer.projection.scale)) return "the scale of the projection is missing";
    scales->projection = MultiplierOf(double{layer.projection.scale * m / h});
    scales->hidden_offset = -layer.hidden_quantization.zero_point;
    scales->projected_zero = layer.hidden_quantization.zero_point;
  }
  bool too_large = TooLarge(scales->hidden) || TooLarge(scales->projection);
  for (int gate = 0; gate < 4; ++gate) {
    too_large = too_large || TooLarge(scales->kernel[gate]) || TooLarge(scales->recurrent[gate]) ||
                TooLarge(scales->peephole[gate]) || TooLarge(scales->layer_norm[gate]);
  }
  if (too_large) return "its scales differ by more than integer arithmetic can hold";
  scales->cell_clip = ClipOf(layer.cell_clip, c, INT16_MIN, INT16_MAX);
  scales->projection_clip =
      ClipOf(layer.projection_clip, layer.output_quantization.scale, INT8_MIN, INT8_MAX);
  return nullptr;
}

int32_t KernelOffset(const EdgeLstmLayer& layer, const IntegerScales& scales, int gate,
                     int64_t unit) {
  const int64_t sum = RowSum(layer.kernel[gate], unit, layer.inputs);
  const int64_t bias = HasLayerNorm(layer) ? 0 : IntegerAt(layer.bias[gate], unit);
  return Wrapped(bias - scales.input_zero * sum);
}

int32_t RecurrentOffset(const EdgeLstmLayer& layer, const IntegerScales& scales, int gate,
                        int64_t unit) {
  const int64_t sum = RowSum(layer.recurrent[gate], unit, layer.outputs);
  return Wrapped(-scales.h_zero * sum);
}

int32_t ProjectionOffset(const EdgeLstmLayer& layer, const IntegerScales& scales,
                         int64_t output) {
  const int64_t sum = RowSum(layer.projection, output, layer.units);
  return Wrapped(IntegerAt(layer.projection_bias, output) + scales.projected_zero * sum);
}

namespace {

// Of a row's offset and products with int8.
int64_t LargestSum(const EdgeLstmWeight& weight, int64_t row, int64_t columns, int32_t offset) {
  int64_t sum = offset < 0 ? -int64_t{offset} : offset;
  for (int64_t k = 0; k < columns; ++k) {
    const int32_t value = IntegerAt(weight, row * columns + k);
    sum += 128 * (value < 0 ? -value : value);
  }
  return sum;
}

}  // namespace

SumBounds BoundSums(const EdgeLstmLayer& layer, const IntegerScales& scales) {
  constexpr int64_t kSmall = (int64_t{1} << 30) - 1;
  int64_t kernel = 0;
  SumBounds bounds = {true, true, true};
  for (int gate = Coupled(layer) ? 1 : 0; gate < 4; ++gate) {
    int64_t recurrent = 0;
    for (int64_t unit = 0; unit < layer.units; ++unit) {
      const int64_t one = LargestSum(layer.kernel[gate], unit, layer.inputs,
                                     KernelOffset(layer, scales, gate, unit));
      const int64_t other = LargestSum(layer.recurrent[gate], unit, layer.outputs,
                                       RecurrentOffset(layer, scales, gate, unit));
      kernel = one > kernel ? one : kernel;
      recurrent = other > recurrent ? other : recurrent;
    }
    const Multiplier& by = scales.recurrent[gate];
    bounds.small_recurrent = bounds.small_recurrent && recurrent <= kSmall;
    // Rounding adds at most one.
    bounds.recurrent_fits_words =
        bounds.recurrent_fits_words &&
        std::ldexp(static_cast<double>(recurrent) * by.factor, by.shift - 31) < INT16_MAX - 1;
  }
  bounds.small_kernel = kernel <= kSmall;
  return bounds;
}

Multiplier InverseRoot(int32_t variance) {
  if (variance <= 1) return {INT32_MAX, 0};
  int right = 11;
  while (variance >= 1 << 29) {
    variance /= 4;
    ++right;
  }
  const int pairs = (__builtin_clz(static_cast<unsigned>(variance)) - 1) / 2 - 1;
  right -= pairs;
  variance <<= 2 * pairs;
  // With three bits before the binary point.
  const int32_t input = variance >> 1;
  const int32_t half_input = (input >> 1) + (input & 1);
  constexpr int32_t kThreeHalves = (1 << 28) + (1 << 27);
  constexpr int32_t kHalfRootOfTwo = 1518500250;
  int32_t x = 1 << 28;
  for (int i = 0; i < 5; ++i) {
    const int32_t cube = ShiftedLeft(HighProduct(HighProduct(x, x), x), 6);
    x = ShiftedLeft(HighProduct(kThreeHalves, x) - HighProduct(half_input, cube), 3);
  }
  x = HighProduct(x, kHalfRootOfTwo);
  if (right < 0) {
    x = Wrapped(int64_t{x} << -right);
    right = 0;
  }
  return {x, -right};
}

Moments MomentsOf(int64_t sum, int64_t sum_of_squares, int32_t units, int32_t guard) {
  constexpr int64_t kOne = 1 << 20;
  const auto mean = static_cast<int32_t>(sum * 1024 / units);
  const int64_t wide = sum_of_squares * (kOne / units) - int64_t{mean} * mean;
  auto variance = static_cast<int32_t>(wide / kOne);
  if (variance < 1) variance = guard;
  return {mean, InverseRoot(variance)};
}

}  // namespace edgelstm
