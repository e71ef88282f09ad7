// The 16x8 LSTM over a vector type V: results equal kWideScalar's bit for bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/memory.h"
#include "kernels/wide.h"
#include "kernels/wide_activation-inl.h"
#include "kernels/wide_packing-inl.h"

namespace edgelstm {
namespace {

template <class V>
class WideLstm {
 public:
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
  using More = WideVector<V>;
  using Packing = WidePacking<V>;
  static constexpr int kGates = Packing::kGates;
  static constexpr int kParts = Packing::kParts;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kUnits = Packing::kUnits;
  static constexpr int64_t kBlock = Packing::kBlock;
  // As many products of 2^16 and 2^7 fit 32 bits.
  static constexpr int64_t kDepthOfInt = 252;
  // A tile takes as long for one row as for all.
  static constexpr int64_t kStepsForTiles = 4;
  static constexpr int64_t kInputsForTiles = 48;

  // A row that a matrix multiplies, in the form that it takes.
  struct Row {
    const int16_t* words;
    const int8_t *high, *low;
  };

  WideLstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        scales_(*static_cast<const WideScales*>(packed)),
        packed_(static_cast<const char*>(packed)),
        form_(*reinterpret_cast<const typename Packing::Form*>(packed_ + sizes_.form)),
        sums_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.sums)),
        x_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.x)),
        h_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.h)),
        c_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.c)),
        x_bytes_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.x_bytes)),
        h_bytes_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.h_bytes)),
        keep_(V::ScalingOf(scales_.keep)),
        add_(V::ScalingOf(scales_.add)),
        hidden_(V::ScalingOf(scales_.hidden)),
        activation_(packed_ + sizes_.table, scales_.c_exponent) {}

  void RunRow(int64_t row) {
    const int64_t units = layer_.units;
    const size_t bytes = sizeof(int16_t) * static_cast<size_t>(units);
    int16_t* h = static_cast<int16_t*>(call_.h) + row * units;
    int16_t* c = static_cast<int16_t*>(call_.c) + row * units;
    const auto* input = static_cast<const int16_t*>(call_.input) + row * call_.input_row;
    auto* output = static_cast<int16_t*>(call_.output) + row * call_.output_row;
    std::memset(h_, 0, sizeof(int16_t) * static_cast<size_t>(2 * sizes_.units));
    std::memset(c_, 0, sizeof(int16_t) * static_cast<size_t>(sizes_.units));
    std::memcpy(H(0), h, bytes);
    std::memcpy(c_, c, bytes);
    if (form_.bytes) SplitBytes(HighBytes(0), LowBytes(0), H(0), sizes_.units);
    for (int64_t start = 0; start < call_.steps; start += sizes_.chunk_steps) {
      const int64_t steps = Smaller(sizes_.chunk_steps, call_.steps - start);
      Project(input + start * call_.input_step, steps);
      for (int64_t step = start; step < start + steps; ++step) {
        const int16_t* sums = sums_ + (step - start) * sizes_.units * kGates;
        const Row before = {H(step), HighBytes(step), LowBytes(step)};
        BackAndForth(step, sizes_.units / kUnits, [&](int64_t block) {
          Cell(sums + block * kBlock, block, before, step + 1);
        });
        std::memcpy(output + step * call_.output_step, H(step + 1), bytes);
      }
    }
    std::memcpy(h, H(call_.steps), bytes);
    std::memcpy(c, c_, bytes);
  }

  // h before and after a step take turns.
  int16_t* H(int64_t turn) const { return h_ + (turn & 1) * sizes_.units; }
  int8_t* HighBytes(int64_t turn) const { return h_bytes_ + (turn & 1) * 2 * sizes_.units; }
  int8_t* LowBytes(int64_t turn) const { return HighBytes(turn) + sizes_.units; }

  // `count` is a multiple of kUnits; what is stored behind `high` may lie in `low`.
  static void SplitBytes(int8_t* high, int8_t* low, const int16_t* from, int64_t count) {
    if constexpr (More::kExists) {
      for (int64_t i = 0; i < count; i += kUnits) {
        More::StoreHighBytes(high + i, V::LoadWords(from + i));
      }
      for (int64_t i = 0; i < count; i += kUnits) {
        More::StoreLowBytes(low + i, V::LoadWords(from + i));
      }
    }
  }

  // Sums of some steps from the kernel alone.
  void Project(const int16_t* input, int64_t steps) {
    for (int64_t step = 0; step < steps; ++step) {
      int16_t* x = x_ + step * sizes_.x_row;
      std::memcpy(x, input + step * call_.input_step,
                  sizeof(int16_t) * static_cast<size_t>(layer_.inputs));
      for (int64_t k = layer_.inputs; k < sizes_.x_row; ++k) x[k] = 0;
      if (form_.bytes) {
        int8_t* high = x_bytes_ + 2 * step * sizes_.input_depth;
        SplitBytes(high, high + sizes_.input_depth, x, sizes_.x_row);
      }
    }
    if constexpr (More::kExists && kLanes == TileFunctions::kLanes) {
      if (form_.small && form_.dots->tiles != nullptr && steps >= kStepsForTiles &&
          layer_.inputs >= kInputsForTiles) {
        return ProjectTiled(*form_.dots->tiles, steps);
      }
    }
    for (int64_t block = 0; block < sizes_.units / kUnits; ++block) {
      for (int64_t step = 0; step < steps; ++step) {
        const int8_t* high = x_bytes_ + 2 * step * sizes_.input_depth;
        const Row row = {x_ + step * sizes_.x_row, high, high + sizes_.input_depth};
        Words z[kGates];
        Product(sizes_.kernel, sizes_.kernel_offsets, sizes_.input_depth, block, row,
                scales_.kernel, z);
        int16_t* to = sums_ + step * sizes_.units * kGates + block * kBlock;
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) V::StoreWords(to + gate * kUnits, z[gate]);
      }
    }
  }

  // The rows of a tile are the higher and the lower bytes of half as many steps.
  EDGELSTM_NOINLINE void ProjectTiled(const TileFunctions& tiles, int64_t steps) {
    constexpr int64_t kSteps = TileFunctions::kRows / 2;
    constexpr int kTileSums = TileFunctions::kRows * kLanes;
    tiles.begin(sizes_.input_depth);
    for (int64_t block = 0; block < sizes_.units / kUnits; ++block) {
      const auto* weights = reinterpret_cast<const int8_t*>(packed_ + sizes_.kernel) +
                            block * kBlock * sizes_.input_depth;
      const auto* offset =
          reinterpret_cast<const int64_t*>(packed_ + sizes_.kernel_offsets) + block * kBlock;
      for (int64_t step = 0; step < steps; ++step) {
        alignas(kAlignment) int32_t products[kParts * kTileSums];
        if (step % kSteps == 0) {
          tiles.multiply(weights, sizes_.input_depth, x_bytes_ + 2 * step * sizes_.input_depth,
                         sizes_.input_depth, products);
        }
        Int sum[kParts];
        EDGELSTM_UNROLL
        for (int part = 0; part < kParts; ++part) {
          const int32_t* own = products + part * kTileSums + step % kSteps * 2 * kLanes;
          sum[part] = Joined(V::LoadInt(own), V::LoadInt(own + kLanes));
        }
        Words z[kGates];
        Scale(sum, offset, scales_.kernel, z);
        int16_t* to = sums_ + step * sizes_.units * kGates + block * kBlock;
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) V::StoreWords(to + gate * kUnits, z[gate]);
      }
    }
    tiles.end();
  }

  // The products of a block of a matrix with a row, scaled and cut to 16 bits.
  EDGELSTM_NOINLINE void Product(int64_t matrix, int64_t offsets, int64_t depth, int64_t block,
                               const Row& row, const SumMultiplier* scaling, Words* to) const {
    const auto* weights =
        reinterpret_cast<const int8_t*>(packed_ + matrix) + block * kBlock * depth;
    const auto* offset = reinterpret_cast<const int64_t*>(packed_ + offsets) + block * kBlock;
    if constexpr (More::kExists) {
      if (form_.small) {
        Int sum[kParts];
        AddProducts(weights, row, depth, sum);
        return Scale(sum, offset, scaling, to);
      }
    }
    LargeProduct(weights, offset, depth, row, scaling, to);
  }

  // Of a small layer.
  EDGELSTM_NOINLINE static void Scale(const Int* sum, const int64_t* offset,
                                      const SumMultiplier* scaling, Words* to) {
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      const auto by = More::SumScalingOf(scaling[gate]);
      const int64_t* own = offset + 2 * gate * kLanes;
      to[gate] = V::Narrow(
          {More::ScaledSum(V::AddInt(sum[2 * gate], More::LowHalves(own)), by),
           More::ScaledSum(V::AddInt(sum[2 * gate + 1], More::LowHalves(own + kLanes)), by)});
    }
  }
  static Int Joined(Int high, Int low) { return V::AddInt(V::template ShiftLeftInt<8>(high), low); }

  EDGELSTM_NOINLINE void LargeProduct(const int8_t* weights, const int64_t* offset, int64_t depth,
                                      Row row, const SumMultiplier* scaling, Words* to) const {
    int64_t sums[kBlock];
    std::memcpy(sums, offset, sizeof sums);
    for (int64_t k = 0; k < depth; k += kDepthOfInt) {
      alignas(kAlignment) int32_t lanes[kBlock];
      Int sum[kParts];
      AddProducts(weights + k * kBlock, {row.words + k, row.high + k, row.low + k},
                  Smaller(kDepthOfInt, depth - k), sum);
      for (int part = 0; part < kParts; ++part) V::StoreInt(lanes + part * kLanes, sum[part]);
      for (int64_t i = 0; i < kBlock; ++i) sums[i] = WrappedSum(sums[i], lanes[i]);
    }
    for (int gate = 0; gate < kGates; ++gate) {
      const auto factor = static_cast<uint64_t>(scaling[gate].factor);
      const int shift = scaling[gate].shift;
      const uint64_t half = uint64_t{1} << (shift - 1);
      alignas(kAlignment) int16_t words[kUnits];
      for (int i = 0; i < kUnits; ++i) {
        const auto sum = static_cast<uint64_t>(sums[gate * kUnits + i]);
        words[V::WordOf(i / kLanes, i % kLanes)] =
            Word(static_cast<int64_t>(sum * factor + half) >> shift);
      }
      to[gate] = V::LoadWords(words);
    }
  }

  void AddProducts(const int8_t* weights, const Row& row, int64_t depth, Int* sum) const {
    if constexpr (More::kExists) {
      if (form_.bytes) return AddByteProducts(weights, row, depth, sum);
    }
    AddWordProducts(weights, row.words, depth, sum);
  }

  EDGELSTM_NOINLINE static void AddWordProducts(const int8_t* weights, const int16_t* words,
                                                int64_t depth, Int* to) {
    Int sum[kParts];
    EDGELSTM_UNROLL
    for (int part = 0; part < kParts; ++part) sum[part] = V::SetInt(0);
    for (int64_t k = 0; k < depth; k += 2) {
      EDGELSTM_UNROLL
      for (int part = 0; part < kParts; ++part) {
        sum[part] = V::AddWide(sum[part], weights + k * kBlock + part * kUnits, words + k);
      }
    }
    EDGELSTM_UNROLL
    for (int part = 0; part < kParts; ++part) to[part] = sum[part];
  }

  EDGELSTM_INLINE void AddByteProducts(const int8_t* weights, const Row& row, int64_t depth,
                                       Int* to) const {
    const int8_t* rows[] = {row.high, row.low};
    Int sum[2 * kParts];
    EDGELSTM_UNROLL
    for (int i = 0; i < 2 * kParts; ++i) sum[i] = V::SetInt(0);
    constexpr int kShape = DotFunctions::Shape(1, kParts);
    if constexpr (V::kIntegerRows > 1) {
      form_.dots->add[1][kShape](weights, depth, rows, sum);
    } else {
      form_.dots->add[0][kShape](weights, depth, rows, sum);
      form_.dots->add[0][kShape](weights, depth, rows + 1, sum + kParts);
    }
    EDGELSTM_UNROLL
    for (int part = 0; part < kParts; ++part) to[part] = Joined(sum[part], sum[kParts + part]);
  }

  void Cell(const int16_t* own, int64_t block, const Row& before, int64_t after) {
    Words z[kGates];
    Product(sizes_.recurrent, sizes_.recurrent_offsets, sizes_.h_depth, block, before,
            scales_.recurrent, z);
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      z[gate] = V::AddSaturated(V::LoadWords(own + gate * kUnits), z[gate]);
    }
    const Words added =
        Scaled(activation_.Sigmoid(z[0]), activation_.TanhOfSum(z[2]), add_, 0);
    int16_t* c = c_ + block * kUnits;
    Words next = V::AddSaturated(Scaled(activation_.Sigmoid(z[1]), V::LoadWords(c), keep_, 0), added);
    if (scales_.cell_clip != 0) {
      const auto limit = static_cast<int16_t>(scales_.cell_clip);
      next = V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                         V::SetWords(limit));
    }
    V::StoreWords(c, next);
    const Words h = Scaled(activation_.Sigmoid(z[3]), activation_.TanhOfCell(next), hidden_,
                           scales_.h_zero);
    V::StoreWords(H(after) + block * kUnits, h);
    if constexpr (More::kExists) {
      if (form_.bytes) {
        More::StoreHighBytes(HighBytes(after) + block * kUnits, h);
        More::StoreLowBytes(LowBytes(after) + block * kUnits, h);
      }
    }
  }

  // a * b, scaled, plus an offset, cut to 16 bits.
  Words Scaled(Words a, Words b, const Scaling& by, int32_t offset) const {
    const Pair product = V::Product(a, b);
    const Int plus = V::SetInt(offset);
    if constexpr (More::kExists) {
      if (form_.small) {
        return V::Narrow({V::AddInt(V::ScaledRight(product.first, by), plus),
                          V::AddInt(V::ScaledRight(product.second, by), plus)});
      }
    }
    return V::Narrow({V::AddInt(V::Scaled(product.first, by), plus),
                      V::AddInt(V::Scaled(product.second, by), plus)});
  }

  static int16_t Word(int64_t value) {
    return static_cast<int16_t>(value > INT16_MAX   ? INT16_MAX
                                : value < INT16_MIN ? INT16_MIN
                                                    : value);
  }

  const EdgeLstmLayer& layer_;
  const typename Packing::Sizes sizes_;
  const EdgeLstmCall& call_;
  const WideScales& scales_;
  const char* packed_;
  const typename Packing::Form& form_;
  int16_t *sums_, *x_, *h_, *c_;
  int8_t *x_bytes_, *h_bytes_;
  const Scaling keep_, add_, hidden_;
  const WideActivation<V> activation_;
};

}  // namespace
}  // namespace edgelstm
