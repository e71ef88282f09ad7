// The 16x8 LSTM over a vector type V: results equal kWideScalar's bit for bit.
//
// A block is as many units as V has 16-bit lanes. Weights are packed as
// [block][pair of k][gate][half][V::WidePlace(lane, k)].
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/memory.h"
#include "kernels/wide.h"

namespace edgelstm {
namespace {

template <class V>
class WideLstm {
 public:
  static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }
  static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  EDGELSTM_COLD static void Pack(const EdgeLstmLayer& layer, int, void* packed) {
    const Sizes sizes(layer);
    char* to = static_cast<char*>(packed);
    std::memset(to, 0, static_cast<size_t>(sizes.packed));
    WideScales scales;
    DeriveWideScales(layer, &scales);
    std::memcpy(to, &scales, sizeof scales);
    PackMatrix(layer.kernel, layer.units, layer.inputs, to + sizes.kernel);
    PackMatrix(layer.recurrent, layer.units, layer.outputs, to + sizes.recurrent);
    for (int64_t unit = 0; unit < layer.units; ++unit) {
      for (int gate = 0; gate < kGates; ++gate) {
        const int64_t at = (unit / kUnits * kGates + gate) * kUnits + unit % kUnits;
        reinterpret_cast<int64_t*>(to + sizes.kernel_offsets)[at] =
            WideKernelOffset(layer, scales, gate, unit);
        reinterpret_cast<int64_t*>(to + sizes.recurrent_offsets)[at] =
            WideRecurrentOffset(layer, scales, gate, unit);
      }
    }
  }

  static bool SplitsUnits(const EdgeLstmLayer&) { return false; }

  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch, void*, const Member&) {
    WideLstm lstm(layer, packed, call, scratch);
    for (int64_t row = 0; row < call.batch; ++row) lstm.RunRow(row);
  }

 private:
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  static constexpr int kGates = 4;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kUnits = 2 * V::kLanes;
  static constexpr int64_t kBlock = kGates * kUnits;
  // As many products of -2^15 and 127 fit 32 bits.
  static constexpr int64_t kDepthOfInt = 512;

  // Offsets and sizes in bytes; `units` and depths in padded elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      units = RoundUp(layer.units, kUnits);
      input_depth = RoundUp(layer.inputs, 2);
      h_depth = RoundUp(layer.outputs, 2);
      Layout layout;
      layout.Place(sizeof(WideScales));
      kernel = layout.Place(units * kGates * input_depth);
      recurrent = layout.Place(units * kGates * h_depth);
      kernel_offsets = layout.Place(units * kGates * 8);
      recurrent_offsets = layout.Place(units * kGates * 8);
      packed = layout.end();

      Layout memory;
      chunk_steps = Larger(1, kChunkBytes / (units * kGates * 2));
      sums = memory.Place(chunk_steps * units * kGates * 2);
      x = memory.Place(input_depth * 2);
      h = memory.Place(2 * units * 2);
      c = memory.Place(units * 2);
      scratch = memory.end();
    }
    int64_t units, input_depth, h_depth;
    int64_t kernel, recurrent, kernel_offsets, recurrent_offsets, packed;
    int64_t chunk_steps, sums, x, h, c, scratch;
  };

  EDGELSTM_COLD static void PackMatrix(const EdgeLstmWeight* gates, int64_t rows, int64_t columns,
                         char* packed) {
    auto* to = reinterpret_cast<int8_t*>(packed);
    for (int64_t block = 0; block < rows; block += kUnits) {
      for (int64_t k = 0; k < columns; k += 2) {
        for (int part = 0; part < 2 * kGates; ++part, to += kUnits) {
          for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t row = block + part % 2 * kLanes + lane;
            for (int j = 0; j < 2 && k + j < columns && row < rows; ++j) {
              to[V::WidePlace(lane, j)] = Int8At(gates[part / 2], row * columns + k + j);
            }
          }
        }
      }
    }
  }

  WideLstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        scales_(*static_cast<const WideScales*>(packed)),
        packed_(static_cast<const char*>(packed)),
        sums_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.sums)),
        x_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.x)),
        h_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.h)),
        c_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.c)),
        keep_(V::ScalingOf(scales_.keep)),
        add_(V::ScalingOf(scales_.add)),
        hidden_(V::ScalingOf(scales_.hidden)) {}

  void RunRow(int64_t row) {
    const int64_t units = layer_.units;
    const size_t bytes = sizeof(int16_t) * static_cast<size_t>(units);
    int16_t* h = static_cast<int16_t*>(call_.h) + row * units;
    int16_t* c = static_cast<int16_t*>(call_.c) + row * units;
    const auto* input = static_cast<const int16_t*>(call_.input) + row * call_.input_row;
    auto* output = static_cast<int16_t*>(call_.output) + row * call_.output_row;
    std::memset(h_, 0, sizeof(int16_t) * static_cast<size_t>(2 * sizes_.units));
    std::memset(c_, 0, sizeof(int16_t) * static_cast<size_t>(sizes_.units));
    x_[sizes_.input_depth - 1] = 0;
    std::memcpy(H(0), h, bytes);
    std::memcpy(c_, c, bytes);
    const int64_t sums_of_step = sizes_.units * kGates;
    for (int64_t start = 0; start < call_.steps; start += sizes_.chunk_steps) {
      const int64_t end = Smaller(start + sizes_.chunk_steps, call_.steps);
      for (int64_t step = start; step < end; ++step) {
        std::memcpy(x_, input + step * call_.input_step,
                    sizeof(int16_t) * static_cast<size_t>(layer_.inputs));
        int16_t* sums = sums_ + (step - start) * sums_of_step;
        for (int64_t block = 0; block < sizes_.units / kUnits; ++block) {
          Product(sizes_.kernel, sizes_.kernel_offsets, sizes_.input_depth, block, x_,
                  scales_.kernel, sums + block * kBlock);
        }
      }
      for (int64_t step = start; step < end; ++step) {
        const int16_t* sums = sums_ + (step - start) * sums_of_step;
        for (int64_t block = 0; block < sizes_.units / kUnits; ++block) {
          Cell(sums + block * kBlock, block, step);
        }
        std::memcpy(output + step * call_.output_step, H(step + 1), bytes);
      }
    }
    std::memcpy(h, H(call_.steps), bytes);
    std::memcpy(c, c_, bytes);
  }

  // h before and after a step take turns.
  int16_t* H(int64_t turn) const { return h_ + (turn & 1) * sizes_.units; }

  // The products of a block of a matrix with a vector, scaled and cut to 16 bits: [gate][unit].
  void Product(int64_t matrix, int64_t offsets, int64_t depth, int64_t block, const int16_t* vector,
               const SumMultiplier* scaling, int16_t* to) const {
    const auto* weights =
        reinterpret_cast<const int8_t*>(packed_ + matrix) + block * kBlock * depth;
    int64_t sums[kBlock];
    std::memcpy(sums, packed_ + offsets + block * kBlock * 8, sizeof sums);
    for (int64_t k = 0; k < depth; k += kDepthOfInt) {
      AddProducts(weights + k * kBlock, vector + k, Smaller(kDepthOfInt, depth - k), sums);
    }
    for (int gate = 0; gate < kGates; ++gate) {
      const auto factor = static_cast<uint64_t>(scaling[gate].factor);
      const int shift = scaling[gate].shift;
      const uint64_t half = uint64_t{1} << (shift - 1);
      for (int64_t i = gate * kUnits; i < (gate + 1) * kUnits; ++i) {
        to[i] = Word(static_cast<int64_t>(static_cast<uint64_t>(sums[i]) * factor + half) >> shift);
      }
    }
  }

  EDGELSTM_NOINLINE static void AddProducts(const int8_t* weights, const int16_t* vector,
                                            int64_t depth, int64_t* sums) {
    Int sum[2 * kGates];
    EDGELSTM_UNROLL
    for (int part = 0; part < 2 * kGates; ++part) sum[part] = V::SetInt(0);
    for (int64_t k = 0; k < depth; k += 2) {
      EDGELSTM_UNROLL
      for (int part = 0; part < 2 * kGates; ++part) {
        sum[part] = V::AddWide(sum[part], weights + k * kBlock + part * kUnits, vector + k);
      }
    }
    alignas(kAlignment) int32_t lanes[kBlock];
    EDGELSTM_UNROLL
    for (int part = 0; part < 2 * kGates; ++part) V::StoreInt(lanes + part * kLanes, sum[part]);
    for (int64_t i = 0; i < kBlock; ++i) sums[i] = WrappedSum(sums[i], lanes[i]);
  }

  void Cell(const int16_t* own, int64_t block, int64_t step) {
    alignas(kAlignment) int16_t z[kBlock];
    Product(sizes_.recurrent, sizes_.recurrent_offsets, sizes_.h_depth, block, H(step),
            scales_.recurrent, z);
    for (int64_t i = 0; i < kBlock; ++i) z[i] = Word(own[i] + z[i]);
    EachSigmoid(z, 2 * kUnits);
    EachTanh(z + 2 * kUnits, -12);
    EachSigmoid(z + 3 * kUnits, kUnits);
    int16_t* c = c_ + block * kUnits;
    const Words kept = Scaled(V::LoadWords(z + kUnits), V::LoadWords(c), keep_, 0);
    const Words added = Scaled(V::LoadWords(z), V::LoadWords(z + 2 * kUnits), add_, 0);
    Words next = V::AddSaturated(kept, added);
    if (scales_.cell_clip != 0) {
      const auto limit = static_cast<int16_t>(scales_.cell_clip);
      next = V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                         V::SetWords(limit));
    }
    V::StoreWords(c, next);
    V::StoreWords(z, next);
    EachTanh(z, scales_.c_exponent);
    V::StoreWords(H(step + 1) + block * kUnits,
                  Scaled(V::LoadWords(z + 3 * kUnits), V::LoadWords(z), hidden_, scales_.h_zero));
  }

  // a * b, scaled, plus an offset, cut to 16 bits.
  static Words Scaled(Words a, Words b, const Scaling& by, int32_t offset) {
    const Pair product = V::Product(a, b);
    const Int plus = V::SetInt(offset);
    return V::Narrow({V::AddInt(V::Scaled(product.first, by), plus),
                      V::AddInt(V::Scaled(product.second, by), plus)});
  }

  static int16_t Word(int64_t value) {
    return static_cast<int16_t>(value > INT16_MAX   ? INT16_MAX
                                : value < INT16_MIN ? INT16_MIN
                                                    : value);
  }

  // Loops that compilers make vectors of, where an instruction set can look up a table.
  static void EachSigmoid(int16_t* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const int32_t magnitude = (values[i] < 0 ? -values[i] : values[i]) * 3;
      const int32_t place = magnitude >> 9 < 255 ? magnitude >> 9 : 254;
      const int32_t entry = kSigmoidTable[place];
      const int32_t between = (magnitude & 511) * (kSigmoidTable[place + 1] - entry);
      const int32_t s = magnitude >> 9 < 255 ? (entry << 9) + between : 0x7fff << 10;
      values[i] = static_cast<int16_t>(
          (values[i] < 0 ? (1 << 25) - s + (1 << 9) - 1 : s + (1 << 9)) >> 10);
    }
  }

  static void EachTanh(int16_t* values, int exponent) {
    const int left = exponent < -12 ? 0 : exponent + 12, right = exponent < -12 ? -12 - exponent : 0;
    const int32_t half = right == 0 ? 0 : 1 << (right - 1);
    for (int64_t i = 0; i < kUnits; ++i) {
      const int32_t value = (values[i] * (3 << left) + half) >> right;
      const int32_t magnitude = value < 0 ? -value : value;
      const int32_t place = magnitude >> 8 < 255 ? magnitude >> 8 : 254;
      const int32_t entry = kSigmoidTable[place];
      const int32_t between = (magnitude & 255) * (kSigmoidTable[place + 1] - entry);
      const int32_t s = (magnitude >> 8 < 255 ? (entry << 8) + between : 0xffff << 8) - (1 << 23);
      values[i] = static_cast<int16_t>((value < 0 ? -s + (1 << 7) - 1 : s + (1 << 7)) >> 8);
    }
  }

  const EdgeLstmLayer& layer_;
  const Sizes sizes_;
  const EdgeLstmCall& call_;
  const WideScales& scales_;
  const char* packed_;
  int16_t *sums_, *x_, *h_, *c_;
  const Scaling keep_, add_, hidden_;
};

}  // namespace
}  // namespace edgelstm
