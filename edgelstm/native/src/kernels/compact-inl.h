// Products of compact recurrent weights with rows of floats.
#pragma once

#include <cstdint>

#include "kernels/compact_packing-inl.h"
#include "kernels/memory.h"
#include "kernels/product-inl.h"

namespace edgelstm {
namespace {

template <class V>
class CompactMatrix {
  using Float = typename V::Float;
  using Packing = CompactPacking<V>;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kGates = Packing::kGates;
  static constexpr int64_t kSums = Packing::kSums, kGroup = Packing::kGroup;
  static constexpr float kScale = Packing::kScale;
  // More rows multiply weights that were unpacked to the first cache, once for all of them.
  static constexpr int kMostRows = 3;
  // Inputs whose weights for one block stay there, in even number.
  static constexpr int64_t kDepth = 64;

 public:
  CompactMatrix(const void* words, const float* factors, const CompactOther* others,
                int64_t other_count, int64_t depth)
      : words_(static_cast<const uint32_t*>(words)),
        factors_(factors),
        others_(others),
        other_count_(other_count),
        depth_(depth) {}

  // sums[row] += matrix rows[row] for the sums of blocks [first, end). `scaled` has room for `count`
  // rows of ScaledRow(depth) floats.
  void Multiply(int64_t first, int64_t end, const float* const* rows, int64_t count, int64_t step,
                float* scaled, float* sums, int64_t sums_row) const {
    for (int64_t r = 0; r < count; ++r) Scale(rows[r], scaled + r * Packing::ScaledRow(depth_));
    const float* x[kMaxRows];
    for (int64_t r = 0; r < count; ++r) x[r] = scaled + r * Packing::ScaledRow(depth_);
    if (count > kMostRows) {
      BackAndForth(step, end - first, [&](int64_t i) {
        AddBlock(first + i, (step & 1) == 0 ? 1 : -1, x, count, sums, sums_row);
      });
    } else BackAndForth(step, (end - first + 1) / 2, [&](int64_t pair) {
      const int64_t block = first + 2 * pair;
      const int64_t blocks = Smaller(2, end - block);
      if (count == 1 && blocks == 2) {
        AddBlocks<1, 2>(block, scaled, sums, sums_row);
        return;
      }
      for (int64_t i = block; i < block + blocks; ++i) {
        switch (count) {
          case 1:
            AddBlocks<1, 1>(i, scaled, sums, sums_row);
            break;
          case 2:
            AddBlocks<2, 1>(i, scaled, sums, sums_row);
            break;
          default:
            AddBlocks<kMostRows, 1>(i, scaled, sums, sums_row);
        }
      }
    });
    for (int64_t i = 0; i < other_count_; ++i) {
      const CompactOther& other = others_[i];
      if (other.sum < first * kSums || other.sum >= end * kSums) continue;
      for (int64_t r = 0; r < count; ++r) {
        sums[r * sums_row + other.sum] += other.weight * rows[r][other.k];
      }
    }
  }

 private:
  const uint32_t* At(int64_t block) const {
    return words_ + block * ((depth_ + 1) / 2) * kGroup;
  }

  void Scale(const float* h, float* scaled) const {
    int64_t k = 0;
    for (; k + kLanes <= depth_; k += kLanes) {
      V::Store(scaled + k, V::Mul(V::Load(h + k), V::Set(kScale)));
    }
    const int rest = static_cast<int>(depth_ - k);
    V::Store(scaled + k, V::Mul(V::LoadPart(h + k, rest), V::Set(kScale)));
  }

  // Many rows: the weights of some k at a time become floats, times a power of two.
  EDGELSTM_NOINLINE void AddBlock(int64_t block, int64_t turn, const float* const* x,
                                  int64_t count, float* sums, int64_t sums_row) const {
    alignas(kAlignment) float wide[kDepth * kSums], own[kMaxRows * kSums] = {};
    const uint32_t* from = At(block);
    for (int64_t k = 0; k < depth_; k += kDepth) {
      const int64_t depth = Smaller(kDepth, RoundUp(depth_ - k, 2));
      for (int64_t i = 0; i < depth; i += 2, from += kGroup) {
        Float w[8];
        V::LoadCompact(from, w);
        EDGELSTM_UNROLL
        for (int j = 0; j < 8; ++j) V::Store(wide + i * kSums + j * kLanes, w[j]);
      }
      const uint32_t* next = k + kDepth < depth_ ? from : At(block + turn);
      FloatProduct<V>::template AddTiles<kGates>(wide, depth, x, k, count,
                                                 {own, kSums, 0, kLanes}, own, kSums,
                                                 {reinterpret_cast<const char*>(next), kGroup * 2});
    }
    for (int i = 0; i < kGates; ++i) {
      const int64_t at = block * kSums + i * kLanes;
      const Float factor = V::Load(factors_ + at);
      for (int64_t r = 0; r < count; ++r) {
        float* to = sums + r * sums_row + at;
        V::Store(to, V::MulAdd(V::Load(own + r * kSums + i * kLanes), factor, V::Load(to)));
      }
    }
  }

  template <int kRows, int kBlocks>
  EDGELSTM_INLINE void AddBlocks(int64_t block, const float* x, float* sums,
                                   int64_t sums_row) const {
    Float sum[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) sum[i] = V::Set(0.0f);
    const uint32_t* from = At(block);
    const int64_t stride = At(1) - At(0), x_row = Packing::ScaledRow(depth_);
    for (int64_t k = 0; k < depth_; k += 2, from += kGroup) {
      EDGELSTM_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        Float w[8];
        V::LoadCompact(from + b * stride, w);
        EDGELSTM_UNROLL
        for (int i = 0; i < 8; ++i) {
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Float& to = sum[(r * kBlocks + b) * kGates + i % kGates];
            to = V::MulAdd(w[i], V::Set(x[r * x_row + k + i / kGates]), to);
          }
        }
      }
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kBlocks * kGates; ++i) {
      const int64_t at = block * kSums + i * kLanes;
      const Float factor = V::Load(factors_ + at);
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        float* to = sums + r * sums_row + at;
        V::Store(to, V::MulAdd(sum[r * kBlocks * kGates + i], factor, V::Load(to)));
      }
    }
  }

  const uint32_t* words_;
  const float* factors_;
  const CompactOther* others_;
  const int64_t other_count_, depth_;
};

}  // namespace
}  // namespace edgelstm
