// The reference: the operator's equations in plain loops, sums and functions in double. What other
// kernels are held to; it shares no code with them.
#include <cmath>
#include <cstdint>

#include "kernels/integer.h"
#include "kernels/lstm.h"
#include "kernels/wide.h"

namespace edgelstm {
namespace {

constexpr double kLayerNormEpsilon = 1e-8;
constexpr int kGates = 4;

// Weights stand in the operator's own layout, as floats; int8 ones without their scales.
struct Parts {
  explicit Parts(const EdgeLstmLayer& layer)
      : inputs(layer.inputs), units(layer.units), outputs(layer.outputs) {
    int64_t end = 0;
    const auto place = [&end](int64_t count) {
      const int64_t offset = end;
      end += count;
      return offset;
    };
    kernel = place(kGates * units * inputs);
    recurrent = place(kGates * units * (layer.diagonal ? 1 : outputs));
    peephole = place(kGates * units);
    bias = place(kGates * units);
    layer_norm = place(kGates * units);
    projection = place(HasProjection(layer) ? outputs * units : 0);
    projection_bias = place(outputs);
    scales = place(2 * kGates + 1);
    count = end;
  }
  int64_t inputs, units, outputs;
  int64_t kernel, recurrent, peephole, bias, layer_norm, projection, projection_bias, scales;
  int64_t count;
};

size_t PackedBytes(const EdgeLstmLayer& layer) {
  return static_cast<size_t>(Parts(layer).count) * sizeof(float);
}

void PackOne(const EdgeLstmWeight& weight, int64_t count, bool stored, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = stored ? Int8At(weight, i) : WeightAt(weight, i);
}

void Pack(const EdgeLstmLayer& layer, int, void* packed) {
  const Parts parts(layer);
  float* to = static_cast<float*>(packed);
  const int64_t recurrent = layer.diagonal ? parts.units : parts.units * parts.outputs;
  for (int g = 0; g < kGates; ++g) {
    PackOne(layer.kernel[g], parts.units * parts.inputs, Hybrid(layer),
            to + parts.kernel + g * parts.units * parts.inputs);
    PackOne(layer.recurrent[g], recurrent, Hybrid(layer) && !layer.diagonal,
            to + parts.recurrent + g * recurrent);
    PackOne(layer.peephole[g], parts.units, false, to + parts.peephole + g * parts.units);
    PackOne(layer.bias[g], parts.units, false, to + parts.bias + g * parts.units);
    PackOne(layer.layer_norm[g], parts.units, false, to + parts.layer_norm + g * parts.units);
    to[parts.scales + g] = layer.kernel[g].scale;
    to[parts.scales + kGates + g] = layer.recurrent[g].scale;
  }
  if (HasProjection(layer)) {
    PackOne(layer.projection, parts.outputs * parts.units, Hybrid(layer), to + parts.projection);
    PackOne(layer.projection_bias, parts.outputs, false, to + parts.projection_bias);
  }
  to[parts.scales + 2 * kGates] = layer.projection.scale;
}

// In doubles: h, c, four gates, and a vector that a matrix multiplies.
size_t ScratchBytes(const EdgeLstmLayer& layer) {
  const int64_t longest =
      layer.inputs > layer.units
          ? (layer.inputs > layer.outputs ? layer.inputs : layer.outputs)
          : (layer.units > layer.outputs ? layer.units : layer.outputs);
  const int64_t count = layer.outputs + (2 + kGates) * int64_t{layer.units} + longest;
  return static_cast<size_t>(count) * sizeof(double);
}

double Clipped(double x, double limit) {
  if (limit > 0 && x > limit) return limit;
  if (limit > 0 && x < -limit) return -limit;
  return x;
}

double Activated(int32_t activation, double x) {
  switch (activation) {
    case EDGELSTM_RELU:
      return x < 0 ? 0 : x;
    case EDGELSTM_RELU_N1_TO_1:
      return Clipped(x, 1);
    case EDGELSTM_RELU6:
      return x < 0 ? 0 : x > 6 ? 6 : x;
    default:
      return std::tanh(x);
  }
}

// By expm1: exp needs a newer C library.
double SigmoidOf(double x) { return 1 / (2 + std::expm1(-x)); }

class Sequence {
 public:
  Sequence(const EdgeLstmLayer& layer, const float* packed, const EdgeLstmCall& call,
           double* scratch)
      : layer_(layer), parts_(layer), packed_(packed), call_(call) {
    h_ = scratch;
    c_ = h_ + parts_.outputs;
    hidden_ = c_ + parts_.units;
    z_ = hidden_ + parts_.units;
    vector_ = z_ + kGates * parts_.units;
  }

  void Run(int64_t row) {
    float* h = static_cast<float*>(call_.h) + row * parts_.outputs;
    float* c = static_cast<float*>(call_.c) + row * parts_.units;
    for (int64_t i = 0; i < parts_.outputs; ++i) h_[i] = h[i];
    for (int64_t i = 0; i < parts_.units; ++i) c_[i] = c[i];
    for (int64_t step = 0; step < call_.steps; ++step) {
      Step(static_cast<const float*>(call_.input) + row * call_.input_row +
           step * call_.input_step);
      float* to = static_cast<float*>(call_.output) + row * call_.output_row + step * call_.output_step;
      for (int64_t i = 0; i < parts_.outputs; ++i) to[i] = static_cast<float>(h_[i]);
    }
    for (int64_t i = 0; i < parts_.outputs; ++i) h[i] = static_cast<float>(h_[i]);
    for (int64_t i = 0; i < parts_.units; ++i) c[i] = static_cast<float>(c_[i]);
  }

 private:
  void Step(const float* x) {
    const int first = Coupled(layer_) ? 1 : 0;
    const int64_t units = parts_.units;
    for (int64_t i = 0; i < kGates * units; ++i) z_[i] = 0;
    const double x_scale = Load(x, parts_.inputs);
    for (int g = first; g < kGates; ++g) {
      Multiply(parts_.kernel + g * units * parts_.inputs, units, parts_.inputs,
               x_scale * Scale(g), z_ + g * units);
    }
    if (layer_.diagonal) {
      for (int64_t i = first * units; i < kGates * units; ++i) {
        z_[i] += packed_[parts_.recurrent + i] * h_[i % units];
      }
    } else {
      const double h_scale = Load(h_, parts_.outputs);
      for (int g = first; g < kGates; ++g) {
        Multiply(parts_.recurrent + g * units * parts_.outputs, units, parts_.outputs,
                 h_scale * Scale(kGates + g), z_ + g * units);
      }
    }
    for (int g = first; g < 3; ++g) Finish(g);
    for (int64_t i = 0; i < units; ++i) {
      const double f = SigmoidOf(z_[units + i]);
      const double input = first ? 1 - f : SigmoidOf(z_[i]);
      c_[i] = Clipped(f * c_[i] + input * Activated(layer_.activation, z_[2 * units + i]),
                      layer_.cell_clip);
    }
    Finish(3);
    for (int64_t i = 0; i < units; ++i) {
      hidden_[i] = SigmoidOf(z_[3 * units + i]) * Activated(layer_.activation, c_[i]);
    }
    if (!HasProjection(layer_)) {
      for (int64_t i = 0; i < units; ++i) h_[i] = hidden_[i];
      return;
    }
    const double scale = Load(hidden_, units);
    for (int64_t o = 0; o < parts_.outputs; ++o) h_[o] = packed_[parts_.projection_bias + o];
    Multiply(parts_.projection, parts_.outputs, units, scale * Scale(2 * kGates), h_);
    for (int64_t o = 0; o < parts_.outputs; ++o) h_[o] = Clipped(h_[o], layer_.projection_clip);
  }

  float Scale(int index) const {
    return Hybrid(layer_) ? packed_[parts_.scales + index] : 1.0f;
  }

  // Peephole on c as it stands, layer norm, bias.
  void Finish(int gate) {
    const int64_t units = parts_.units;
    double* z = z_ + gate * units;
    for (int64_t i = 0; i < units; ++i) z[i] += packed_[parts_.peephole + gate * units + i] * c_[i];
    if (HasLayerNorm(layer_)) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < units; ++i) mean += z[i] / static_cast<double>(units);
      for (int64_t i = 0; i < units; ++i) {
        variance += (z[i] - mean) * (z[i] - mean) / static_cast<double>(units);
      }
      const double deviation = std::sqrt(variance + kLayerNormEpsilon);
      for (int64_t i = 0; i < units; ++i) {
        z[i] = (z[i] - mean) / deviation * packed_[parts_.layer_norm + gate * units + i];
      }
    }
    for (int64_t i = 0; i < units; ++i) z[i] += packed_[parts_.bias + gate * units + i];
  }

  // Takes the vector that `Multiply` multiplies; quantized in hybrid arithmetic. Its scale.
  template <class T>
  double Load(const T* values, int64_t count) {
    if (!Hybrid(layer_)) {
      for (int64_t i = 0; i < count; ++i) vector_[i] = values[i];
      return 1;
    }
    float low = 0, high = 0;
    for (int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(values[i]);
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (layer_.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC) {
      return LoadAsymmetric(values, count, low, high);
    }
    const float largest = -low > high ? -low : high;
    const float factor = largest > 0 ? 127.0f / largest : 0.0f;
    for (int64_t i = 0; i < count; ++i) {
      const float rounded = std::round(static_cast<float>(values[i]) * factor);
      vector_[i] = Clipped(rounded, 127);
    }
    return largest > 0 ? largest / 127.0f : 1.0f;
  }

  // Rounded values less their zero point.
  template <class T>
  double LoadAsymmetric(const T* values, int64_t count, double low, double high) {
    if (low == high) {
      for (int64_t i = 0; i < count; ++i) vector_[i] = 0;
      return 1;
    }
    const double step = (high - low) / 255;
    // From the end of the range that is nearer to zero.
    const double ideal = 128 - low / step < 127 + high / step ? -128 - low / step : 127 - high / step;
    const double zero = ideal <= -128 ? -128 : ideal >= 127 ? 127 : std::round(ideal);
    const auto scale = static_cast<float>(step);
    const float inverse = 1.0f / scale;
    for (int64_t i = 0; i < count; ++i) {
      const float nearest =
          std::round(static_cast<float>(zero) + static_cast<float>(values[i]) * inverse);
      vector_[i] = (nearest < -128 ? -128 : nearest > 127 ? 127 : nearest) - zero;
    }
    return scale;
  }

  void Multiply(int64_t matrix, int64_t rows, int64_t columns, double scale, double* to) const {
    const float* weights = packed_ + matrix;
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0;
      for (int64_t k = 0; k < columns; ++k) sum += weights[row * columns + k] * vector_[k];
      to[row] += scale * sum;
    }
  }

  const EdgeLstmLayer& layer_;
  const Parts parts_;
  const float* packed_;
  const EdgeLstmCall& call_;
  double *h_, *c_, *hidden_, *z_, *vector_;
};

bool SplitsUnits(const EdgeLstmLayer&) { return false; }

void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch,
         void*, const Member&) {
  Sequence sequence(layer, static_cast<const float*>(packed), call,
                    static_cast<double*>(scratch));
  for (int64_t row = 0; row < call.batch; ++row) sequence.Run(row);
}

void SigmoidEach(const float* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(SigmoidOf(in[i]));
}

void TanhEach(const float* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(std::tanh(double{in[i]}));
}

bool RunsOn(const CpuFeatures&) { return true; }

}  // namespace

const LstmKernels kLstmScalar = {
    "scalar",       RunsOn,      {PackedBytes, Pack, ScratchBytes, SplitsUnits, Run},
    kIntegerScalar, kWideScalar, SigmoidEach, TanhEach,
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace edgelstm
