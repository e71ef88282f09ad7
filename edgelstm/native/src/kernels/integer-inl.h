// The integer LSTM over a vector type V: results equal kIntegerScalar's bit for bit.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dot-inl.h"
#include "kernels/integer.h"
#include "kernels/integer_cell-inl.h"
#include "kernels/integer_norm-inl.h"
#include "kernels/integer_packing-inl.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

template <class V>
class IntegerLstm {
 public:
  // A projection and layer norm need all units before they begin.
  static bool SplitsUnits(const EdgeLstmLayer& layer) {
    return !HasLayerNorm(layer) && !HasProjection(layer);
  }

  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch, void* shared, const Member& member) {
    const Sizes sizes(layer);
    const char* at = static_cast<const char*>(packed);
    if (!V::kDotsAreExact && call.batch == 1 && member.size == 1 && at[sizes.streams] != 0) {
      (*reinterpret_cast<const DotFunctions* const*>(at + sizes.dots))
          ->stream(layer, packed, call, scratch);
      return;
    }
    IntegerLstm lstm(layer, packed, call, scratch, shared, member);
    for (int64_t row = 0; row < call.batch; row += kMaxRows) {
      const int64_t count = Smaller(kMaxRows, call.batch - row);
      if (lstm.sizes_.gates == 3) {
        lstm.template RunRows<3>(row, count);
      } else {
        lstm.template RunRows<4>(row, count);
      }
    }
  }

 private:
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  using Sizes = typename IntegerPacking<V>::Sizes;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kWords = 2 * V::kLanes;
  static constexpr bool kTiles = !V::kDotsAreExact && V::kLanes == TileFunctions::kLanes;
  // A tile takes as long for one row as for all; with few values vectors are faster.
  static constexpr int64_t kRowsForTiles = 3;
  static constexpr int64_t kDepthForTiles = 48;

  IntegerLstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
              void* scratch, void* shared, const Member& member)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        member_(member),
        first_block_(member.Begin(sizes_.units / kWords)),
        end_block_(member.End(sizes_.units / kWords)),
        scales_(*static_cast<const IntegerScales*>(packed)),
        dots_(**reinterpret_cast<const DotFunctions* const*>(
            static_cast<const char*>(packed) + sizes_.dots)),
        has_layer_norm_(HasLayerNorm(layer)),
        has_projection_(HasProjection(layer)),
        packed_(static_cast<const char*>(packed)),
        sums_(static_cast<char*>(scratch) + sizes_.sums),
        x_(static_cast<char*>(scratch) + sizes_.x),
        h_(static_cast<char*>(shared) + sizes_.h),
        c_(static_cast<char*>(scratch) + sizes_.c),
        hidden_(static_cast<char*>(scratch) + sizes_.hidden),
        cell_(layer, scales_, Packed<int16_t>(sizes_.peephole), sizes_.units, dots_.value_bias),
        norm_(layer.units, sizes_.units, scales_, Packed<int16_t>(sizes_.layer_norm),
              Packed<int32_t>(sizes_.bias), cell_) {
    const SumBounds& bounds = *Packed<SumBounds>(sizes_.bounds);
    kernel_shifts_right_ = bounds.small_kernel;
    recurrent_shifts_right_ = bounds.small_recurrent;
    recurrent_fits_words_ = bounds.recurrent_fits_words;
    for (int gate = 0; gate < 4; ++gate) {
      kernel_scaling_[gate] = V::ScalingOf(scales_.kernel[gate]);
      recurrent_scaling_[gate] = V::ScalingOf(scales_.recurrent[gate]);
      if (gate < 4 - sizes_.gates) continue;
      kernel_shifts_right_ = kernel_shifts_right_ && ShiftsRight(scales_.kernel[gate]);
      recurrent_shifts_right_ = recurrent_shifts_right_ && ShiftsRight(scales_.recurrent[gate]);
    }
  }

  template <class T>
  const T* Packed(int64_t offset) const {
    return reinterpret_cast<const T*>(packed_ + offset);
  }
  int16_t* Sums(int64_t row) const {
    return reinterpret_cast<int16_t*>(sums_) + row * sizes_.sums_row;
  }
  int16_t* C(int64_t row) const { return reinterpret_cast<int16_t*>(c_) + row * sizes_.units; }
  // h before and after a step take turns.
  int8_t* H(int64_t turn, int64_t row) const {
    return reinterpret_cast<int8_t*>(h_) + ((turn & 1) * kMaxRows + row) * sizes_.h_row;
  }
  // Where o tanh(c) goes.
  int8_t* Hidden(int64_t row, int64_t step) const {
    return has_projection_ ? reinterpret_cast<int8_t*>(hidden_) + row * sizes_.units
                           : H(step + 1, row);
  }

  template <int kGates>
  void RunRows(int64_t first, int64_t count) {
    if (call_.steps == 0) return;
    tiles_ = kGates == 4 && count >= kRowsForTiles && layer_.inputs >= kDepthForTiles &&
                     layer_.outputs >= kDepthForTiles
                 ? dots_.tiles
                 : nullptr;
    int8_t* h = static_cast<int8_t*>(call_.h) + first * layer_.outputs;
    int16_t* c = static_cast<int16_t*>(call_.c) + first * layer_.units;
    // Its own outputs and cells; without a projection they are its units.
    const int64_t begin = has_projection_ ? 0 : first_block_ * kWords;
    const int64_t end =
        has_projection_ ? layer_.outputs : Smaller(end_block_ * kWords, layer_.outputs);
    const int64_t own = end - begin;
    const int64_t c_begin = first_block_ * kWords;
    const int64_t c_end = Smaller(end_block_ * kWords, layer_.units);
    const size_t c_bytes = sizeof(int16_t) * static_cast<size_t>(c_end > c_begin ? c_end - c_begin : 0);
    for (int64_t r = 0; r < count; ++r) {
      if (member_.index == 0) {
        std::memset(H(0, r), 0, static_cast<size_t>(sizes_.h_row));
        CopyBiased(H(0, r), h + r * layer_.outputs, layer_.outputs);
      }
      std::memset(C(r), 0, sizeof(int16_t) * static_cast<size_t>(sizes_.units));
      std::memcpy(C(r) + c_begin, c + r * layer_.units + c_begin, c_bytes);
    }
    member_.Wait();
    const int64_t chunk = Larger(1, sizes_.chunk_rows / count);
    for (int64_t start = 0; start < call_.steps; start += chunk) {
      const int64_t steps = Smaller(chunk, call_.steps - start);
      Project<kGates>(first, count, start, steps);
      for (int64_t step = start; step < start + steps; ++step) {
        Step<kGates>(count, step, (step - start) * count);
        for (int64_t r = 0; r < count; ++r) {
          CopyBiased(Output(first + r, step) + begin, H(step + 1, r) + begin, own);
        }
        member_.Wait();
      }
    }
    for (int64_t r = 0; r < count; ++r) {
      CopyBiased(h + r * layer_.outputs + begin, H(call_.steps, r) + begin, own);
      std::memcpy(c + r * layer_.units + c_begin, C(r) + c_begin, c_bytes);
    }
    if (tiles_ != nullptr) tiles_->end();
    // The next rows begin with the same memory.
    member_.Wait();
  }

  // Between the caller's int8 and rows as `dots_` multiplies them.
  void CopyBiased(int8_t* to, const int8_t* from, int64_t count) const {
    if (count <= 0) return;
    if (V::kDotsAreExact || dots_.value_bias == 0) {
      std::memcpy(to, from, static_cast<size_t>(count));
      return;
    }
    const uint64_t bias = dots_.value_bias * (~uint64_t{0} / 255);
    int64_t i = 0;
    for (uint64_t eight; i + 8 <= count; i += 8) {
      std::memcpy(&eight, from + i, 8);
      eight ^= bias;
      std::memcpy(to + i, &eight, 8);
    }
    for (; i < count; ++i) to[i] = Biased(dots_.value_bias, from[i]);
  }
  int32_t Correction(const int8_t* row, int64_t depth) const {
    return V::kDotsAreExact || dots_.value_bias != 0 ? 0 : dots_.correction(row, depth);
  }

  const int8_t* Input(int64_t row, int64_t step) const {
    return static_cast<const int8_t*>(call_.input) + row * call_.input_row +
           step * call_.input_step;
  }
  int8_t* Output(int64_t row, int64_t step) const {
    return static_cast<int8_t*>(call_.output) + row * call_.output_row + step * call_.output_step;
  }

  // Sums of `steps` steps from the kernel alone, cut to 16 bits as the stock kernel does.
  template <int kGates>
  void Project(int64_t first, int64_t count, int64_t start, int64_t steps) {
    const int64_t total = steps * count;
    const int64_t most = sizes_.product_rows;
    if (tiles_ != nullptr) tiles_->begin(sizes_.input_depth);
    for (int64_t i = 0; i < total; i += most) {
      const int8_t* rows[IntegerPacking<V>::kMostProductRows];
      int32_t corrections[IntegerPacking<V>::kMostProductRows];
      const int64_t some = Smaller(most, total - i);
      for (int64_t r = 0; r < some; ++r) {
        int8_t* x = reinterpret_cast<int8_t*>(x_) + r * sizes_.input_depth;
        CopyBiased(x, Input(first + (i + r) % count, start + (i + r) / count), layer_.inputs);
        for (int64_t k = layer_.inputs; k < sizes_.input_depth; ++k) x[k] = 0;
        rows[r] = x;
        corrections[r] = Correction(x, sizes_.input_depth);
      }
      for (int64_t block = first_block_; block < end_block_; ++block) {
        if constexpr (kGates == 4 && kTiles) {
          for (int64_t r = 0; tiles_ != nullptr && r < some; r += TileFunctions::kRows) {
            EachOfTile(sizes_.kernel, sizes_.kernel_offsets, sizes_.input_depth, block, rows[r],
                       sizes_.input_depth, Smaller(TileFunctions::kRows, some - r),
                       [&](int64_t row, const Int* sum) EDGELSTM_ALWAYS {
                         StoreProjected<kGates>(sum, block, i + r + row);
                       });
          }
          if (tiles_ != nullptr) continue;
        }
        ForTiles<V::kIntegerRows>(some, [&](auto tile, int64_t r) {
          ProjectTile<tile.kRows, kGates>(block, rows + r, corrections + r, i + r);
        });
      }
    }
  }

  template <int kRows, int kGates>
  void ProjectTile(int64_t block, const int8_t* const* rows, const int32_t* corrections,
                   int64_t row) {
    Int sum[kRows * kGates * 2];
    Dot<kRows, kGates>(sizes_.kernel, sizes_.kernel_offsets, sizes_.input_depth, block, rows,
                       corrections, sum);
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) StoreProjected<kGates>(sum + r * kGates * 2, block, row + r);
  }

  template <int kGates>
  EDGELSTM_INLINE void StoreProjected(const Int* sum, int64_t block, int64_t row) {
    int16_t* to = Sums(row) + block * kGates * kWords;
    Pair scaled[kGates];
    ScaleGates<kGates>(sum, kernel_scaling_, kernel_shifts_right_, scaled);
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      V::StoreWords(to + gate * kWords, V::Narrow(scaled[gate]));
    }
  }

  // Calls `each(row, sums)` with what a block of a matrix makes of up to TileFunctions::kRows rows.
  template <class Each>
  EDGELSTM_INLINE void EachOfTile(int64_t matrix, int64_t offsets, int64_t depth, int64_t block,
                                  const int8_t* rows, int64_t stride, int64_t count, Each each) {
    constexpr int kParts = TileFunctions::kParts;
    alignas(kAlignment) int32_t products[kParts][TileFunctions::kRows][TileFunctions::kLanes];
    tiles_->multiply(Packed<int8_t>(matrix) + block * kParts * kLanes * depth, depth, rows, stride,
                     products[0][0]);
    const int32_t* offset = Packed<int32_t>(offsets) + block * kParts * kLanes;
    for (int64_t r = 0; r < count; ++r) {
      Int sum[kParts];
      EDGELSTM_UNROLL
      for (int part = 0; part < kParts; ++part) {
        sum[part] = V::AddInt(V::LoadInt(offset + part * kLanes), V::LoadInt(products[part][r]));
      }
      each(r, sum);
    }
  }

  // From products to gate sums; `scaling` has four gates.
  template <int kGates>
  static EDGELSTM_INLINE void ScaleGates(const Int* sum, const Scaling* scaling, bool shifts_right,
                                Pair* scaled) {
    const Scaling* own = scaling + 4 - kGates;
    if (shifts_right) {
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        scaled[gate] = {V::ScaledRight(sum[2 * gate], own[gate]),
                        V::ScaledRight(sum[2 * gate + 1], own[gate])};
      }
    } else {
      // Of its own, so that those above need no memory.
      Pair slow[kGates];
      ScaleSlowly(sum, own, kGates, slow);
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) scaled[gate] = slow[gate];
    }
  }
  // Rare, and once for all callers: the library is 10 kB smaller.
  EDGELSTM_NOINLINE static void ScaleSlowly(const Int* sum, const Scaling* scaling, int gates,
                                            Pair* scaled) {
    for (int gate = 0; gate < gates; ++gate) {
      scaled[gate] = {V::Scaled(sum[2 * gate], scaling[gate]),
                      V::Scaled(sum[2 * gate + 1], scaling[gate])};
    }
  }

  template <int kGates>
  void Step(int64_t count, int64_t step, int64_t sums) {
    const int8_t* before[kMaxRows];
    int32_t corrections[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      before[r] = H(step, r);
      corrections[r] = Correction(before[r], sizes_.output_depth);
    }
    if (tiles_ != nullptr) tiles_->begin(sizes_.output_depth);
    BackAndForth(step, end_block_ - first_block_, [&](int64_t i) {
      if constexpr (kGates == 4 && kTiles) {
        for (int64_t r = 0; tiles_ != nullptr && r < count; r += TileFunctions::kRows) {
          const int64_t block = first_block_ + i;
          EachOfTile(sizes_.recurrent, sizes_.recurrent_offsets, sizes_.output_depth, block,
                     before[r], sizes_.h_row, Smaller(TileFunctions::kRows, count - r),
                     [&](int64_t row, const Int* sum) {
                       FinishRow<kGates>(sum, block, r + row, sums + r + row);
                     });
        }
        if (tiles_ != nullptr) return;
      }
      ForTiles<V::kIntegerRows>(count, [&](auto tile, int64_t r) {
        StepTile<tile.kRows, kGates>(first_block_ + i, before + r, corrections + r, r, sums + r);
      });
    });
    for (int64_t r = 0; r < count; ++r) {
      if (has_layer_norm_) {
        norm_.template Finish<kGates>(Sums(sums + r), C(r), Hidden(r, step));
      } else {
        const int64_t o = (first_block_ * kGates + kGates - 1) * kWords;
        cell_.Hidden(Sums(sums + r) + o, kGates * kWords, C(r) + first_block_ * kWords,
                     end_block_ - first_block_, Hidden(r, step) + first_block_ * kWords);
      }
    }
    if (has_projection_) ProjectHidden(count, step);
  }

  template <int kRows, int kGates>
  void StepTile(int64_t block, const int8_t* const* before, const int32_t* corrections,
                int64_t row, int64_t sums) {
    Int sum[kRows * kGates * 2];
    Dot<kRows, kGates>(sizes_.recurrent, sizes_.recurrent_offsets, sizes_.output_depth, block,
                       before, corrections, sum);
    for (int r = 0; r < kRows; ++r) {
      FinishRow<kGates>(sum + r * kGates * 2, block, row + r, sums + r);
    }
  }

  // Gates and c of one block of a row, or with layer norm their sums.
  template <int kGates>
  void FinishRow(const Int* sum, int64_t block, int64_t row, int64_t sums) {
    int16_t* from = Sums(sums) + block * kGates * kWords;
    Pair scaled[kGates];
    ScaleGates<kGates>(sum, recurrent_scaling_, recurrent_shifts_right_, scaled);
    Words z[kGates];
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      const Words own = V::LoadWords(from + gate * kWords);
      z[gate] = recurrent_fits_words_ ? V::AddSaturated(own, V::Narrow(scaled[gate]))
                                      : V::AddNarrow(own, scaled[gate]);
    }
    if (has_layer_norm_) {
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) V::StoreWords(from + gate * kWords, z[gate]);
    } else {
      cell_.template Finish<kGates>(z, block, C(row) + block * kWords,
                                    from + (kGates - 1) * kWords);
    }
  }

  // sum[row][gate][half] = offset + the products of a row with one block of a matrix.
  template <int kRows, int kGates>
  void Dot(int64_t matrix, int64_t offsets, int64_t depth, int64_t block,
           const int8_t* const* rows, const int32_t* corrections, Int* sum) const {
    constexpr int kParts = 2 * kGates;
    const int32_t* offset = Packed<int32_t>(offsets) + block * kParts * kLanes;
    const int8_t* weights = Packed<int8_t>(matrix) + block * kParts * kLanes * depth;
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kParts; ++i) {
      sum[i] = V::LoadInt(offset + i % kParts * kLanes);
      if (!V::kDotsAreExact) sum[i] = V::AddInt(sum[i], V::SetInt(corrections[i / kParts]));
    }
    dots_.add[kRows - 1][DotFunctions::Shape(1, kParts)](weights, depth, rows, sum);
  }

  void ProjectHidden(int64_t count, int64_t step) {
    const Scaling scaling = V::ScalingOf(scales_.projection);
    const Int zero = V::SetInt(scales_.h_zero);
    const auto limit = static_cast<int16_t>(scales_.projection_clip);
    int32_t corrections[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      corrections[r] = Correction(Hidden(r, step), sizes_.unit_depth);
    }
    for (int64_t block = 0; block < sizes_.outputs / kWords; ++block) {
      for (int64_t r = 0; r < count; ++r) {
        const int8_t* hidden = Hidden(r, step);
        Int sum[2];
        Dot<1, 1>(sizes_.projection, sizes_.projection_offsets, sizes_.unit_depth, block, &hidden,
                  corrections + r, sum);
        Words y = V::Narrow({V::AddInt(V::Scaled(sum[0], scaling), zero),
                             V::AddInt(V::Scaled(sum[1], scaling), zero)});
        if (limit > 0) {
          y = V::MinWords(V::MaxWords(y, V::SetWords(static_cast<int16_t>(-limit))),
                          V::SetWords(limit));
        }
        V::StoreBytes(H(step + 1, r) + block * kWords, y, dots_.value_bias);
      }
    }
  }

  const EdgeLstmLayer& layer_;
  const Sizes sizes_;
  const EdgeLstmCall& call_;
  const Member& member_;
  // Its own units.
  const int64_t first_block_, end_block_;
  const IntegerScales& scales_;
  const DotFunctions& dots_;
  const bool has_layer_norm_, has_projection_;
  const char* packed_;
  char *sums_, *x_, *h_, *c_, *hidden_;
  // Of the rows at hand, or null.
  const TileFunctions* tiles_ = nullptr;
  Scaling kernel_scaling_[4], recurrent_scaling_[4];
  // Of all gates, and of sums below 2^30: almost always, and cheaper.
  bool kernel_shifts_right_, recurrent_shifts_right_;
  // With small weights, and cheaper.
  bool recurrent_fits_words_;
  const IntegerCell<V> cell_;
  const IntegerNorm<V> norm_;
};

}  // namespace
}  // namespace edgelstm
