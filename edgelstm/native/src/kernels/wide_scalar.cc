// The reference of 16x8 arithmetic, in plain loops; it shares no code with the other kernels but
// the scales and the table.
#include <cstdint>
#include <cstring>

#include "kernels/wide.h"

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
    const int64_t rows = int64_t{kGates} * layer.units;
    scales = place(sizeof(WideScales));
    kernel_offset = place(rows * 8);
    recurrent_offset = place(rows * 8);
    kernel = place(rows * layer.inputs);
    recurrent = place(rows * layer.outputs);
    packed = end;
  }
  int64_t scales, kernel, recurrent, kernel_offset, recurrent_offset, packed;
};

size_t PackedBytes(const EdgeLstmLayer& layer) { return static_cast<size_t>(Parts(layer).packed); }

void Pack(const EdgeLstmLayer& layer, int, void* packed) {
  const Parts parts(layer);
  WideScales scales;
  DeriveWideScales(layer, &scales);
  char* to = static_cast<char*>(packed);
  std::memcpy(to + parts.scales, &scales, sizeof scales);
  auto* kernel = reinterpret_cast<int8_t*>(to + parts.kernel);
  auto* recurrent = reinterpret_cast<int8_t*>(to + parts.recurrent);
  auto* kernel_offset = reinterpret_cast<int64_t*>(to + parts.kernel_offset);
  auto* recurrent_offset = reinterpret_cast<int64_t*>(to + parts.recurrent_offset);
  for (int g = 0; g < kGates; ++g) {
    for (int64_t i = 0; i < int64_t{layer.units} * layer.inputs; ++i) {
      *kernel++ = Int8At(layer.kernel[g], i);
    }
    for (int64_t i = 0; i < int64_t{layer.units} * layer.outputs; ++i) {
      *recurrent++ = Int8At(layer.recurrent[g], i);
    }
    for (int64_t i = 0; i < layer.units; ++i) {
      *kernel_offset++ = WideKernelOffset(layer, scales, g, i);
      *recurrent_offset++ = WideRecurrentOffset(layer, scales, g, i);
    }
  }
}

size_t ScratchBytes(const EdgeLstmLayer& layer) {
  return static_cast<size_t>(layer.units) * kGates * 2;
}

int16_t Word(int64_t value) {
  return static_cast<int16_t>(value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value);
}

// Rounded twice: the doubled high product, then the shift, halves away from zero.
int64_t Times(int32_t value, const Multiplier& by) {
  const int64_t product = int64_t{value} * by.factor;
  const int64_t half = int64_t{1} << 30;
  const int64_t high = (product + (product >= 0 ? half : 1 - half)) / (int64_t{1} << 31);
  if (by.shift == 0) return high;
  const int64_t rest = int64_t{1} << (-by.shift - 1);
  return high >= 0 ? (high + rest) >> -by.shift : -((-high + rest) >> -by.shift);
}

int16_t Sum(int64_t products, int64_t offset, const SumMultiplier& by) {
  const auto sum = static_cast<uint64_t>(WrappedSum(products, offset));
  const uint64_t scaled =
      sum * static_cast<uint64_t>(by.factor) + (uint64_t{1} << (by.shift - 1));
  return Word(static_cast<int64_t>(scaled) >> by.shift);
}

// Between the entries of the table; `place_bits` of `value` lie behind an entry's place.
int32_t Interpolated(int32_t value, int place_bits, int32_t end) {
  const int32_t place = value >> place_bits;
  if (place >= 255) return end;
  const int32_t between = value & ((1 << place_bits) - 1);
  return kSigmoidTable[place] * (1 << place_bits) +
         between * (kSigmoidTable[place + 1] - kSigmoidTable[place]);
}

int16_t SigmoidOf(int16_t a) {
  const int32_t value = a * 3;
  const int32_t s = Interpolated(value < 0 ? -value : value, 9, 0x7fff << 10);
  return static_cast<int16_t>((a >= 0 ? s + (1 << 9) : (1 << 25) - s + (1 << 9) - 1) >> 10);
}

int16_t TanhOf(int16_t a, int exponent) {
  const int left = exponent + 12;
  const int32_t value = left < 0 ? (a * 3 + (1 << (-left - 1))) >> -left : a * (3 << left);
  const int32_t s = Interpolated(value < 0 ? -value : value, 8, 0xffff << 8) - (1 << 23);
  return static_cast<int16_t>((value >= 0 ? s + (1 << 7) : -s + (1 << 7) - 1) >> 8);
}

int64_t Dot(const int8_t* weights, const int16_t* vector, int64_t count) {
  int64_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += weights[k] * vector[k];
  return sum;
}

void Step(const EdgeLstmLayer& layer, const char* packed, const int16_t* x, int16_t* h, int16_t* c,
          int16_t* gates) {
  const Parts parts(layer);
  const int64_t units = layer.units;
  const WideScales& scales = *reinterpret_cast<const WideScales*>(packed + parts.scales);
  const auto* kernel = reinterpret_cast<const int8_t*>(packed + parts.kernel);
  const auto* recurrent = reinterpret_cast<const int8_t*>(packed + parts.recurrent);
  const auto* kernel_offset = reinterpret_cast<const int64_t*>(packed + parts.kernel_offset);
  const auto* recurrent_offset = reinterpret_cast<const int64_t*>(packed + parts.recurrent_offset);
  for (int g = 0; g < kGates; ++g) {
    for (int64_t i = g * units; i < (g + 1) * units; ++i) {
      const int16_t own = Sum(Dot(kernel + i * layer.inputs, x, layer.inputs), kernel_offset[i],
                              scales.kernel[g]);
      const int16_t held = Sum(Dot(recurrent + i * units, h, units), recurrent_offset[i],
                               scales.recurrent[g]);
      gates[i] = Word(own + held);
    }
  }
  for (int64_t i = 0; i < units; ++i) {
    const int16_t f = SigmoidOf(gates[units + i]);
    const int16_t kept = Word(Times(f * c[i], scales.keep));
    const int16_t added =
        Word(Times(SigmoidOf(gates[i]) * TanhOf(gates[2 * units + i], -12), scales.add));
    const int32_t limit = scales.cell_clip == 0 ? INT32_MAX : scales.cell_clip;
    const int32_t next = Word(kept + added);
    c[i] = static_cast<int16_t>(next > limit ? limit : next < -limit ? -limit : next);
    const int32_t product = SigmoidOf(gates[3 * units + i]) * TanhOf(c[i], scales.c_exponent);
    h[i] = Word(Times(product, scales.hidden) + scales.h_zero);
  }
}

bool SplitsUnits(const EdgeLstmLayer&) { return false; }

void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch,
         void*, const Member&) {
  for (int64_t row = 0; row < call.batch; ++row) {
    int16_t* h = static_cast<int16_t*>(call.h) + row * layer.outputs;
    int16_t* c = static_cast<int16_t*>(call.c) + row * layer.units;
    for (int64_t t = 0; t < call.steps; ++t) {
      const auto* x =
          static_cast<const int16_t*>(call.input) + row * call.input_row + t * call.input_step;
      auto* y = static_cast<int16_t*>(call.output) + row * call.output_row + t * call.output_step;
      Step(layer, static_cast<const char*>(packed), x, h, c, static_cast<int16_t*>(scratch));
      std::memcpy(y, h, sizeof(int16_t) * static_cast<size_t>(layer.outputs));
    }
  }
}

}  // namespace

const LayerKernels kWideScalar = {PackedBytes, Pack, ScratchBytes, SplitsUnits, Run};

}  // namespace edgelstm
