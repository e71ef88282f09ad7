// The integer LSTM of one row over a vector type V: plain layers, as most are. While the gates of a
// block of units are computed, the weights of the next block stream in.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dot-inl.h"
#include "kernels/integer.h"
#include "kernels/integer_activation-inl.h"
#include "kernels/integer_packing-inl.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

// A step takes its blocks in order, every second step from the end. Of block i at a time: the products
// of block i, the gates and c of block i - 1, tanh(c) and h of block i - 2. The last two of a step
// leave room for products of the next step with what is known of h.
template <class V>
class IntegerStream {
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  using Sizes = typename IntegerPacking<V>::Sizes;
  static constexpr int64_t kWords = 2 * V::kLanes;
  static constexpr int kParts = 8;
  // Bytes of the weights of a block that four values of h multiply.
  static constexpr int64_t kGroup = kParts * V::kLanes * 4;
  static constexpr int64_t kGroupsOfBlock = kWords / 4;
  // Into how many pieces the products of a block are cut at most.
  static constexpr int64_t kPieces = 22;
  // A tile takes as long for one row as for all.
  static constexpr int64_t kStepsForTiles = 4;
  // With 16 they took longer than vectors.
  static constexpr int64_t kInputsForTiles = 48;

 public:
  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch) {
    if (call.steps > 0) IntegerStream(layer, packed, call, scratch).RunSteps();
  }

  // Both scalings, gates, c and h of some units, `rounds` times, all within EDGELSTM_PROBE_BYTES of
  // `memory`; returns how many units that were.
  EDGELSTM_NOINLINE static int64_t ProbeUnits(void* memory, int64_t, int64_t rounds) {
    static constexpr int64_t kBlocks = 4;
    static constexpr DotFunctions kNoTiles = {};
    EdgeLstmLayer layer = {};
    layer.inputs = 4;
    layer.units = layer.outputs = static_cast<int32_t>(kBlocks * kWords);
    const Sizes sizes(layer);
    IntegerScales scales = {};
    const Multiplier some = {1 << 30, -8};
    for (int gate = 0; gate < 4; ++gate) scales.kernel[gate] = scales.recurrent[gate] = some;
    scales.hidden = some;
    scales.c_bits = 2;
    // What of packed weights the units of a layer read, and their own memory behind it.
    char* packed = static_cast<char*>(memory);
    std::memcpy(packed, &scales, sizeof scales);
    const DotFunctions* dots = &kNoTiles;
    std::memcpy(packed + sizes.dots, &dots, sizeof dots);
    const SumBounds bounds = {true, true, true};
    std::memcpy(packed + sizes.bounds, &bounds, sizeof bounds);
    const EdgeLstmCall call = {};
    IntegerStream stream(layer, packed, call, memory);
    stream.RunUnits(packed + sizes.kernel, kBlocks, rounds);
    return rounds * kBlocks * kWords;
  }

 private:
  IntegerStream(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                void* scratch)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        packed_(static_cast<const char*>(packed)),
        scales_(*static_cast<const IntegerScales*>(packed)),
        blocks_(sizes_.units / kWords),
        fits_words_(Packed<SumBounds>(sizes_.bounds)->recurrent_fits_words),
        sums_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.sums)),
        c_(reinterpret_cast<int16_t*>(static_cast<char*>(scratch) + sizes_.c)),
        tiles_((*reinterpret_cast<const DotFunctions* const*>(packed_ + sizes_.dots))->tiles),
        x_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.x)),
        h_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.h)),
        hidden_scaling_(V::ScalingOf(scales_.hidden)),
        activation_(scales_.c_bits) {
    for (int gate = 0; gate < 4; ++gate) {
      kernel_scaling_[gate] = V::ScalingOf(scales_.kernel[gate]);
      recurrent_scaling_[gate] = V::ScalingOf(scales_.recurrent[gate]);
    }
  }

  template <class T>
  const T* Packed(int64_t offset) const {
    return reinterpret_cast<const T*>(packed_ + offset);
  }
  int8_t* H(int64_t turn) const { return h_ + (turn & 1) * sizes_.h_row; }

  // The products of one block, made piece by piece.
  struct Products {
    const int8_t *weights, *values;
    int64_t weights_step, values_step, left, piece;
    Int sum[kParts];

    EDGELSTM_INLINE void Some(int64_t count) {
      if (count > left) count = left;
      left -= count;
      for (; count > 0; --count) {
        V::AddByteDots(sum, weights, values);
        weights += weights_step;
        values += values_step;
        // Else g++ 12 multiplies to know where they end, and the next piece waits for that.
        asm("" : "+r"(weights), "+r"(values));
      }
    }
  };

  // Of the block-th of a step, in its order, with what lies at `h`.
  EDGELSTM_INLINE Products Begin(int64_t step, int64_t index, const int8_t* h) const {
    const int64_t groups = sizes_.output_depth / 4, block = BlockOf(step, index);
    // The step before ended at the other side.
    const bool back = (step & 1) == 0;
    const int64_t first = back ? groups - 1 : 0;
    Products products;
    products.weights =
        Packed<int8_t>(sizes_.recurrent) + (block * groups + first) * kGroup;
    products.values = h + first * 4;
    products.weights_step = back ? -kGroup : kGroup;
    products.values_step = back ? -4 : 4;
    products.left = groups;
    products.piece = Pieces(groups);
    const int32_t* offset = Packed<int32_t>(sizes_.recurrent_offsets) + block * kParts * V::kLanes;
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) products.sum[i] = V::LoadInt(offset + i * V::kLanes);
    return products;
  }
  EDGELSTM_INLINE void End(Products* products) {
    products->Some(products->left);
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) products_[i] = products->sum[i];
  }

  int64_t BlockOf(int64_t step, int64_t index) const {
    return (step & 1) == 0 ? index : blocks_ - 1 - index;
  }

  void RunSteps() {
    CopyBiased(H(0), static_cast<const int8_t*>(call_.h), layer_.outputs);
    for (int64_t i = layer_.outputs; i < sizes_.h_row; ++i) H(0)[i] = 0;
    const size_t c_bytes = sizeof(int16_t) * static_cast<size_t>(layer_.units);
    std::memset(c_, 0, sizeof(int16_t) * static_cast<size_t>(sizes_.units + kWords));
    std::memcpy(c_, call_.c, c_bytes);
    o_ = V::SetWords(0);

    Products first = Begin(0, 0, H(0));
    End(&first);
    for (int64_t start = 0; start < call_.steps; start += sizes_.chunk_rows) {
      const int64_t end = Smaller(start + sizes_.chunk_rows, call_.steps);
      Project(start, end - start);
      for (int64_t step = start; step < end; ++step) {
        Step(step, sums_ + (step - start) * sizes_.sums_row);
        CopyBiased(static_cast<int8_t*>(call_.output) + step * call_.output_step, H(step + 1),
                   layer_.outputs);
      }
    }
    CopyBiased(static_cast<int8_t*>(call_.h), H(call_.steps), layer_.outputs);
    std::memcpy(call_.c, c_, c_bytes);
  }

  // All but the products of the first block, which the step before has made.
  EDGELSTM_NOINLINE void Step(int64_t step, const int16_t* own) {
    int8_t* after = H(step + 1);
    const bool more = step + 1 < call_.steps;
    // The products of the next step begin with those values of h that are known by then.
    const int64_t groups = sizes_.output_depth / 4;
    const int64_t third_last = Known(step, blocks_ - 2), second_last = Known(step, blocks_ - 1);
    Products products;
    // Before the first block has a c: of none.
    int64_t last = blocks_, block = BlockOf(step, 0);
    for (int64_t index = 1;; ++index) {
      const bool same_step = index < blocks_;
      products = same_step ? Begin(step, index, H(step)) : Begin(step + 1, 0, after);
      if (!same_step) products.left = more ? third_last : 0;
      Gates(own, block, last, after, [&]() EDGELSTM_ALWAYS { products.Some(products.piece); });
      if (!same_step) break;
      End(&products);
      last = block;
      block = BlockOf(step, index);
    }
    if (more) products.left += second_last - third_last;
    products.piece = Pieces(products.left);
    Words tanh = V::LoadWords(c_ + block * kWords);
    activation_.template GatesAndCells<1, -1, 1>(&tanh, [&]() EDGELSTM_ALWAYS { products.Some(products.piece); });
    Hidden(block, tanh, after);
    if (!more) return;
    products.left += groups - second_last;
    End(&products);
  }

  // How many groups of h are known when `count` blocks of a step are done, in the order in which the
  // next step reads them.
  int64_t Known(int64_t step, int64_t count) const {
    if (count <= 0) return 0;
    const int64_t groups = sizes_.output_depth / 4;
    const int64_t known = (step & 1) == 0 ? count * kGroupsOfBlock
                                          : groups - (blocks_ - count) * kGroupsOfBlock;
    return Smaller(Larger(known, 0), groups);
  }
  static int64_t Pieces(int64_t groups) { return (groups + kPieces - 1) / kPieces; }

  EDGELSTM_NOINLINE void RunUnits(char* memory, int64_t blocks, int64_t rounds) {
    auto* products = reinterpret_cast<int32_t*>(memory);
    sums_ = reinterpret_cast<int16_t*>(products + kParts * V::kLanes);
    c_ = sums_ + blocks * 4 * kWords;
    h_ = reinterpret_cast<int8_t*>(c_ + blocks * kWords);
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) products_[i] = V::LoadInt(products + i * V::kLanes);
    o_ = V::SetWords(0);
    int64_t last = blocks - 1;
    for (int64_t round = 0; round < rounds; ++round) {
      for (int64_t block = 0; block < blocks; last = block++) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
          const int32_t* from = products + 2 * gate * V::kLanes;
          StoreInput(V::LoadInt(from), V::LoadInt(from + V::kLanes), gate,
                     sums_ + (block * 4 + gate) * kWords);
        }
        Gates(sums_, block, last, h_, NothingBetween());
      }
    }
  }

  // Gates and c of `block` from its products; tanh(c) and h of the block `last`.
  template <class Between>
  EDGELSTM_INLINE void Gates(const int16_t* own, int64_t block, int64_t last, int8_t* after,
                             const Between& between) {
    const int16_t* from = own + block * 4 * kWords;
    Words z[5];
    EDGELSTM_UNROLL
    for (int gate = 0; gate < 4; ++gate) {
      const Int* sum = products_ + gate * 2;
      const Scaling& scaling = recurrent_scaling_[gate];
      const Pair scaled = {V::ScaledRight(sum[0], scaling), V::ScaledRight(sum[1], scaling)};
      const Words of_input = V::LoadWords(from + gate * kWords);
      z[gate] = fits_words_ ? V::AddSaturated(of_input, V::Narrow(scaled))
                            : V::AddNarrow(of_input, scaled);
      between();
    }
    z[4] = V::LoadWords(c_ + last * kWords);
    activation_.template GatesAndCells<5, 2, 1>(z, between);
    int16_t* c = c_ + block * kWords;
    Words next = V::AddSaturated(V::UnitProduct(z[1], V::LoadWords(c)),
                                 V::RoundedProduct(z[0], z[2], 15 + scales_.c_bits));
    if (scales_.cell_clip != 0) {
      const auto limit = static_cast<int16_t>(scales_.cell_clip);
      next = V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                         V::SetWords(limit));
    }
    V::StoreWords(c, next);
    Hidden(last, z[4], after);
    o_ = z[3];
  }

  // h of a block from o, which is the last computed, and tanh(c).
  EDGELSTM_INLINE void Hidden(int64_t block, Words tanh, int8_t* after) {
    const Pair product = V::Product(o_, tanh);
    const Pair scaled = {V::ScaledRight(product.first, hidden_scaling_),
                         V::ScaledRight(product.second, hidden_scaling_)};
    V::StoreBytes(after + block * kWords,
                  V::AddSaturated(V::SetWords(static_cast<int16_t>(scales_.hidden_offset)),
                                  V::Narrow(scaled)),
                  V::kValueBias);
  }

  // The products of some steps with the kernel, cut to 16 bits as the stock kernel does.
  EDGELSTM_NOINLINE void Project(int64_t start, int64_t steps) {
    const bool tiled = tiles_ != nullptr && steps >= kStepsForTiles && layer_.inputs >= kInputsForTiles;
    const int64_t most = sizes_.product_rows;
    if (tiled) tiles_->begin(sizes_.input_depth);
    for (int64_t i = 0; i < steps; i += most) {
      const int8_t* rows[IntegerPacking<V>::kMostProductRows];
      const int64_t some = Smaller(most, steps - i);
      for (int64_t r = 0; r < some; ++r) {
        int8_t* x = x_ + r * sizes_.input_depth;
        CopyBiased(x, static_cast<const int8_t*>(call_.input) + (start + i + r) * call_.input_step,
                   layer_.inputs);
        for (int64_t k = layer_.inputs; k < sizes_.input_depth; ++k) x[k] = 0;
        rows[r] = x;
      }
      for (int64_t block = 0; block < blocks_; ++block) {
        for (int64_t r = 0; tiled && r < some; r += TileFunctions::kRows) {
          ProjectTiled(block, r, Smaller(TileFunctions::kRows, some - r),
                       sums_ + (i + r) * sizes_.sums_row);
        }
        if (tiled) continue;
        ForTiles<V::kIntegerRows>(some, [&](auto tile, int64_t r) {
          ProjectTile<tile.kRows>(block, rows + r, sums_ + (i + r) * sizes_.sums_row);
        });
      }
    }
    if (tiled) tiles_->end();
  }

  // As ProjectTile, of up to TileFunctions::kRows rows from `first` on.
  void ProjectTiled(int64_t block, int64_t first, int64_t rows, int16_t* sums) const {
    constexpr int kTileSums = TileFunctions::kRows * TileFunctions::kLanes;
    static_assert(V::kLanes == TileFunctions::kLanes && kParts == TileFunctions::kParts, "tiles");
    alignas(kAlignment) int32_t products[kParts * kTileSums];
    tiles_->multiply(Packed<int8_t>(sizes_.kernel) + block * kParts * V::kLanes * sizes_.input_depth,
                     sizes_.input_depth, x_ + first * sizes_.input_depth, sizes_.input_depth,
                     products);
    const int32_t* offset = Packed<int32_t>(sizes_.kernel_offsets) + block * kParts * V::kLanes;
    for (int gate = 0; gate < 4; ++gate) {
      const Scaling scaling = kernel_scaling_[gate];
      const Int low = V::LoadInt(offset + 2 * gate * V::kLanes);
      const Int high = V::LoadInt(offset + (2 * gate + 1) * V::kLanes);
      const int32_t* from = products + 2 * gate * kTileSums;
      int16_t* to = sums + (block * 4 + gate) * kWords;
      for (int64_t r = 0; r < rows; ++r, from += V::kLanes, to += sizes_.sums_row) {
        V::StoreWords(to, V::Narrow({V::ScaledRight(V::AddInt(low, V::LoadInt(from)), scaling),
                                     V::ScaledRight(
                                         V::AddInt(high, V::LoadInt(from + kTileSums)), scaling)}));
      }
    }
  }

  template <int kRows>
  EDGELSTM_INLINE void ProjectTile(int64_t block, const int8_t* const* rows, int16_t* sums) const {
    Int sum[kRows * kParts];
    const int32_t* offset = Packed<int32_t>(sizes_.kernel_offsets) + block * kParts * V::kLanes;
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kParts; ++i) sum[i] = V::LoadInt(offset + i % kParts * V::kLanes);
    Int8Product<V>::template Add<kRows, 1, kParts>(
        Packed<int8_t>(sizes_.kernel) + block * kParts * V::kLanes * sizes_.input_depth,
        sizes_.input_depth, rows, sum);
    for (int r = 0; r < kRows; ++r) {
      int16_t* to = sums + r * sizes_.sums_row + block * 4 * kWords;
      EDGELSTM_UNROLL
      for (int gate = 0; gate < 4; ++gate) {
        const Int* own = sum + r * kParts + gate * 2;
        StoreInput(own[0], own[1], gate, to + gate * kWords);
      }
    }
  }

  // The products of a gate's units with the kernel, as its sums.
  EDGELSTM_INLINE void StoreInput(Int first, Int second, int gate, int16_t* to) const {
    const Scaling& scaling = kernel_scaling_[gate];
    V::StoreWords(to, V::Narrow({V::ScaledRight(first, scaling), V::ScaledRight(second, scaling)}));
  }

  // Between the caller's int8 and rows as they are multiplied.
  static void CopyBiased(int8_t* to, const int8_t* from, int64_t count) {
    constexpr uint64_t kBias = V::kValueBias * (~uint64_t{0} / 255);
    int64_t i = 0;
    for (uint64_t eight; i + 8 <= count; i += 8) {
      std::memcpy(&eight, from + i, 8);
      eight ^= kBias;
      std::memcpy(to + i, &eight, 8);
    }
    for (; i < count; ++i) to[i] = Biased(V::kValueBias, from[i]);
  }

  const EdgeLstmLayer& layer_;
  const Sizes sizes_;
  const EdgeLstmCall& call_;
  const char* packed_;
  const IntegerScales& scales_;
  const int64_t blocks_;
  const bool fits_words_;
  int16_t *sums_, *c_;
  const TileFunctions* const tiles_;
  int8_t *x_, *h_;
  Scaling kernel_scaling_[4], recurrent_scaling_[4];
  const Scaling hidden_scaling_;
  Int products_[kParts];
  Words o_;
  const IntegerActivation<V> activation_;
};

}  // namespace
}  // namespace edgelstm
