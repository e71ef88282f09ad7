// The reference of integer arithmetic, in plain loops; it shares no code with the other kernels but
// the scales.
#include <cstdint>
#include <cstring>

#include "kernels/integer.h"

namespace edgelstm {
namespace {

constexpr int kGates = 4;

struct Parts {
  explicit Parts(const EdgeLstmLayer& layer) {
    int64_t end = 0;
    const auto place = [&end](int64_t bytes) {
      const int64_t offset = end;
      end += (bytes + 7) / 8 * 8;
      return offset;
    };
    const int64_t units = layer.units, outputs = layer.outputs;
    scales = place(sizeof(IntegerScales));
    kernel = place(kGates * units * layer.inputs);
    recurrent = place(kGates * units * outputs);
    kernel_offset = place(kGates * units * 4);
    recurrent_offset = place(kGates * units * 4);
    bias = place(kGates * units * 4);
    peephole = place(kGates * units * 2);
    layer_norm = place(kGates * units * 2);
    projection = place(HasProjection(layer) ? outputs * units : 0);
    projection_offset = place(HasProjection(layer) ? outputs * 4 : 0);
    packed = end;
  }
  int64_t scales, kernel, recurrent, kernel_offset, recurrent_offset, bias, peephole, layer_norm,
      projection, projection_offset, packed;
};

size_t PackedBytes(const EdgeLstmLayer& layer) { return static_cast<size_t>(Parts(layer).packed); }

template <class T>
void Copy(const EdgeLstmWeight& weight, int64_t count, void* packed, int64_t offset) {
  T* to = reinterpret_cast<T*>(static_cast<char*>(packed) + offset);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(IntegerAt(weight, i));
}

void Pack(const EdgeLstmLayer& layer, int, void* packed) {
  const Parts parts(layer);
  const int64_t units = layer.units;
  IntegerScales scales;
  DeriveScales(layer, &scales);
  char* to = static_cast<char*>(packed);
  std::memcpy(to + parts.scales, &scales, sizeof scales);
  for (int g = 0; g < kGates; ++g) {
    Copy<int8_t>(layer.kernel[g], units * layer.inputs, to, parts.kernel + g * units * layer.inputs);
    Copy<int8_t>(layer.recurrent[g], units * layer.outputs, to,
                 parts.recurrent + g * units * layer.outputs);
    Copy<int32_t>(layer.bias[g], units, to, parts.bias + g * units * 4);
    Copy<int16_t>(layer.peephole[g], units, to, parts.peephole + g * units * 2);
    Copy<int16_t>(layer.layer_norm[g], units, to, parts.layer_norm + g * units * 2);
    for (int64_t i = 0; i < units; ++i) {
      const int64_t index = g * units + i;
      reinterpret_cast<int32_t*>(to + parts.kernel_offset)[index] =
          KernelOffset(layer, scales, g, i);
      reinterpret_cast<int32_t*>(to + parts.recurrent_offset)[index] =
          RecurrentOffset(layer, scales, g, i);
    }
  }
  if (!HasProjection(layer)) return;
  Copy<int8_t>(layer.projection, layer.outputs * units, to, parts.projection);
  for (int64_t o = 0; o < layer.outputs; ++o) {
    reinterpret_cast<int32_t*>(to + parts.projection_offset)[o] =
        ProjectionOffset(layer, scales, o);
  }
}

// Four gates and a vector before projection.
size_t ScratchBytes(const EdgeLstmLayer& layer) {
  return static_cast<size_t>(layer.units) * (kGates * 2 + 1);
}

int16_t Word(int64_t value) {
  return static_cast<int16_t>(value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value);
}

int8_t Byte(int64_t value) {
  return static_cast<int8_t>(value > INT8_MAX ? INT8_MAX : value < INT8_MIN ? INT8_MIN : value);
}

int32_t Wrapped(int64_t value) { return static_cast<int32_t>(static_cast<uint32_t>(value)); }
int16_t WrappedWord(int32_t value) { return static_cast<int16_t>(static_cast<uint16_t>(value)); }

// value / 2^bits, halves away from zero.
int32_t Shifted(int32_t value, int bits) {
  if (bits == 0) return value;
  const int64_t half = int64_t{1} << (bits - 1);
  return static_cast<int32_t>(value >= 0 ? (value + half) >> bits : -((-int64_t{value} + half) >> bits));
}

// The high half of the doubled product.
int32_t HighTimes(int32_t value, const Multiplier& by) {
  const int32_t left = by.shift > 0 ? Wrapped(int64_t{value} * (int64_t{1} << by.shift)) : value;
  const int64_t product = int64_t{left} * by.factor;
  const int64_t nudge = product >= 0 ? int64_t{1} << 30 : 1 - (int64_t{1} << 30);
  return static_cast<int32_t>((product + nudge) / (int64_t{1} << 31));
}

int32_t Times(int32_t value, const Multiplier& by) {
  return Shifted(HighTimes(value, by), by.shift < 0 ? -by.shift : 0);
}

// Halves up.
int32_t TimesUp(int32_t value, const Multiplier& by) {
  const int32_t high = HighTimes(value, by);
  if (by.shift >= 0) return high;
  const int64_t half = int64_t{1} << (-by.shift - 1);
  return static_cast<int32_t>((high + half) >> -by.shift);
}

// a * b of numbers with 15 bits behind the binary point.
int16_t Times(int16_t a, int16_t b) {
  if (a == INT16_MIN && b == INT16_MIN) return INT16_MAX;
  const int32_t product = int32_t{a} * b;
  const int32_t nudge = product >= 0 ? 1 << 14 : 1 - (1 << 14);
  return static_cast<int16_t>((product + nudge) / (1 << 15));
}

// exp(a) for a <= 0 with `bits` bits before the binary point; 15 bits behind it in the result.
int16_t Exp(int16_t a, int bits) {
  static constexpr int32_t kPowers[] = {1672461947, 1302514674, 790015084, 290630308,
                                        39332535,   720401,     242};
  if (a == 0) return INT16_MAX;
  const int fraction = 15 - bits;
  const int16_t quarter = static_cast<int16_t>(1 << (fraction - 2));
  const int16_t rest = static_cast<int16_t>((a & (quarter - 1)) - quarter);
  const int16_t x = WrappedWord(Word(int32_t{rest} * (1 << bits)) + 4096);
  const int16_t x2 = Times(x, x), x3 = Times(x2, x), x4 = Times(x2, x2);
  const int16_t tail = static_cast<int16_t>(Shifted(
      WrappedWord(Times(WrappedWord(Shifted(x4, 2) + x3), int16_t{10923}) + x2), 1));
  constexpr int16_t kExpOfEighth = 28918;
  int16_t e = Word(kExpOfEighth + Times(kExpOfEighth, WrappedWord(x + tail)));
  const int whole = rest - a;
  for (int j = -2; j < 5 && j < bits; ++j) {
    if ((whole & (1 << (fraction + j))) != 0) {
      e = Times(e, static_cast<int16_t>(Shifted(kPowers[j + 2], 16)));
    }
  }
  if (bits > 5 && a < Shifted(Wrapped(-(int64_t{1} << (36 - bits))), 16)) return 0;
  return e;
}

// 1 / (1 + e), 13 bits behind the binary point.
int16_t InverseOfOnePlus(int16_t e) {
  const int32_t sum = e + INT16_MAX;
  const auto half = static_cast<int16_t>((sum + (sum >= 0 ? 1 : -1)) / 2);
  int16_t x = WrappedWord(23130 + Times(half, int16_t{-15420}));
  for (int i = 0; i < 3; ++i) {
    const int16_t error = WrappedWord(8192 - Times(half, x));
    x = WrappedWord(x + Word(4 * int32_t{Times(x, error)}));
  }
  return x;
}

int16_t MinusMagnitude(int16_t a) { return a > 0 ? static_cast<int16_t>(-a) : a; }

// Three bits before the binary point, as all gate sums.
int16_t SigmoidOf(int16_t a) {
  if (a == 0) return 1 << 14;
  const int16_t p = Word(2 * int32_t{InverseOfOnePlus(Exp(MinusMagnitude(a), 3))});
  return a > 0 ? p : WrappedWord(INT16_MAX - p);
}

int16_t TanhOf(int16_t a, int bits) {
  if (a == 0) return 0;
  const int16_t p = InverseOfOnePlus(Exp(MinusMagnitude(a), bits + 1));
  const int16_t t = Word(4 * int32_t{WrappedWord(p - 8192)});
  return a < 0 ? WrappedWord(-t) : t;
}

class Step {
 public:
  Step(const EdgeLstmLayer& layer, const char* packed, char* scratch)
      : layer_(layer),
        parts_(layer),
        packed_(packed),
        scales_(*reinterpret_cast<const IntegerScales*>(packed + parts_.scales)),
        gates_(reinterpret_cast<int16_t*>(scratch)),
        hidden_(reinterpret_cast<int8_t*>(scratch + int64_t{kGates} * 2 * layer.units)) {}

  void Run(const int8_t* x, const int8_t* h, int16_t* c, int8_t* output) {
    const int first = Coupled(layer_) ? 1 : 0;
    const int64_t units = layer_.units;
    for (int g = first; g < kGates; ++g) {
      for (int64_t i = 0; i < units; ++i) {
        const int64_t row = g * units + i;
        int16_t z = Word(Times(Dot(parts_.kernel, parts_.kernel_offset, row, x, layer_.inputs),
                               scales_.kernel[g]));
        z = Word(z + int64_t{Times(Dot(parts_.recurrent, parts_.recurrent_offset, row, h,
                                       layer_.outputs),
                                   scales_.recurrent[g])});
        gates_[row] = z;
      }
    }
    for (int g = first; g < 3; ++g) Finish(g, c);
    for (int64_t i = 0; i < units; ++i) {
      const int16_t f = SigmoidOf(gates_[units + i]);
      const int16_t update = first ? static_cast<int16_t>(INT16_MAX - f) : SigmoidOf(gates_[i]);
      const int16_t g = TanhOf(gates_[2 * units + i], 3);
      const int16_t kept = WrappedWord(Shifted(int32_t{f} * c[i], 15));
      const int16_t added = WrappedWord(Shifted(int32_t{update} * g, 15 + scales_.c_bits));
      c[i] = static_cast<int16_t>(Clipped(Word(kept + added), scales_.cell_clip));
    }
    Finish(3, c);
    for (int64_t i = 0; i < units; ++i) {
      const int32_t product =
          int32_t{SigmoidOf(gates_[3 * units + i])} * TanhOf(c[i], scales_.c_bits);
      hidden_[i] = Byte(int64_t{Times(product, scales_.hidden)} + scales_.hidden_offset);
    }
    if (!HasProjection(layer_)) {
      std::memcpy(output, hidden_, static_cast<size_t>(units));
      return;
    }
    for (int64_t o = 0; o < layer_.outputs; ++o) {
      const int32_t sum = Dot(parts_.projection, parts_.projection_offset, o, hidden_, units);
      output[o] = static_cast<int8_t>(
          Clipped(Byte(int64_t{Times(sum, scales_.projection)} + scales_.h_zero),
                  scales_.projection_clip));
    }
  }

 private:
  template <class T>
  const T* At(int64_t offset) const {
    return reinterpret_cast<const T*>(packed_ + offset);
  }

  static int32_t Clipped(int32_t value, int32_t limit) {
    if (limit <= 0) return value;
    return value > limit ? limit : value < -limit ? -limit : value;
  }

  int32_t Dot(int64_t matrix, int64_t offset, int64_t row, const int8_t* vector,
              int64_t count) const {
    int64_t sum = At<int32_t>(offset)[row];
    const int8_t* weights = At<int8_t>(matrix) + row * count;
    for (int64_t k = 0; k < count; ++k) sum += weights[k] * vector[k];
    return Wrapped(sum);
  }

  // Peephole on c as it stands, layer norm and its bias.
  void Finish(int gate, const int16_t* c) {
    const int64_t units = layer_.units;
    int16_t* z = gates_ + gate * units;
    if (layer_.peephole[gate].data != nullptr) {
      const int16_t* weight = At<int16_t>(parts_.peephole) + gate * units;
      const int32_t up = PeepholesRoundedUp(layer_.units);
      for (int64_t i = 0; i < units; ++i) {
        const int32_t product = weight[i] * c[i];
        const Multiplier& scale = scales_.peephole[gate];
        z[i] = Word(z[i] + int64_t{i < up ? TimesUp(product, scale) : Times(product, scale)});
      }
    }
    if (!HasLayerNorm(layer_)) return;
    const int16_t* weight = At<int16_t>(parts_.layer_norm) + gate * units;
    const int32_t* bias = At<int32_t>(parts_.bias) + gate * units;
    int64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < units; ++i) {
      sum += z[i];
      squares += z[i] * z[i];
    }
    const Moments moments = MomentsOf(sum, squares, layer_.units, scales_.variance_guard[gate]);
    Multiplier scale = scales_.layer_norm[gate];
    scale.shift += 12;
    for (int64_t i = 0; i < units; ++i) {
      const int32_t y = Times(1024 * z[i] - moments.mean, moments.inverse_deviation);
      const int32_t w = Wrapped(int64_t{y} * weight[i] + bias[i]);
      const auto rounded = static_cast<int32_t>((int64_t{w} + (w > 0 ? 512 : -512)) / 1024);
      z[i] = Word(Times(rounded, scale));
    }
  }

  const EdgeLstmLayer& layer_;
  const Parts parts_;
  const char* packed_;
  const IntegerScales& scales_;
  int16_t* gates_;
  int8_t* hidden_;
};

bool SplitsUnits(const EdgeLstmLayer&) { return false; }

void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch,
         void*, const Member&) {
  Step step(layer, static_cast<const char*>(packed), static_cast<char*>(scratch));
  for (int64_t row = 0; row < call.batch; ++row) {
    int8_t* h = static_cast<int8_t*>(call.h) + row * layer.outputs;
    int16_t* c = static_cast<int16_t*>(call.c) + row * layer.units;
    for (int64_t t = 0; t < call.steps; ++t) {
      const int8_t* x =
          static_cast<const int8_t*>(call.input) + row * call.input_row + t * call.input_step;
      int8_t* y = static_cast<int8_t*>(call.output) + row * call.output_row + t * call.output_step;
      step.Run(x, h, c, y);
      std::memcpy(h, y, static_cast<size_t>(layer.outputs));
    }
  }
}

}  // namespace

const LayerKernels kIntegerScalar = {PackedBytes, Pack, ScratchBytes, SplitsUnits, Run};

}  // namespace edgelstm
