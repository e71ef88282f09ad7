// Products of packed int8 weights with rows of int8.
#pragma once

#include <cstdint>

#include "kernels/memory.h"

namespace edgelstm {
namespace {

// An int8 weight as products of V take it.
template <class V>
inline int8_t BiasedWeight(int weight) {
  return static_cast<int8_t>(static_cast<uint8_t>(weight + V::kWeightBias));
}

template <class V>
class Int8Product {
  using Int = typename V::Int;
  static constexpr int64_t kLanes = V::kLanes;

 public:
  // sums[row][block][part] += sum over k of weights[block][k][part] * rows[row][k]; four k of a
  // lane stand together, `depth` is a multiple of four. Not inlined: among the values of its
  // callers the compiler would keep sums in memory.
  template <int kRows, int kBlocks, int kParts>
  EDGELSTM_NOINLINE static void Add(const int8_t* weights, int64_t depth,
                                    const int8_t* const* rows, Int* sums) {
    Int sum[kRows * kBlocks * kParts];
    const int8_t* row[kRows];
    const int64_t stride = depth * kParts * kLanes;
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kParts; ++i) sum[i] = sums[i];
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) row[r] = rows[r];
    int64_t k = 0;
    if constexpr (V::kQuadLanes) {
      for (; k + 16 <= depth; k += 16) {
        typename V::Quads x[kRows];
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) x[r] = V::LoadQuads(row[r] + k);
        const int8_t* from = weights + k * kParts * kLanes;
        AddLane<0, kRows, kBlocks, kParts>(from, stride, x, sum);
        AddLane<1, kRows, kBlocks, kParts>(from, stride, x, sum);
        AddLane<2, kRows, kBlocks, kParts>(from, stride, x, sum);
        AddLane<3, kRows, kBlocks, kParts>(from, stride, x, sum);
      }
    }
    for (; k < depth; k += 4) {
      typename V::Quad x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = V::LoadQuad(row[r] + k);
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kParts; ++i) {
        const auto w = V::LoadWeights(weights + i / kParts * stride +
                                      (k * kParts + i % kParts * 4) * kLanes);
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          Int& to = sum[r * kBlocks * kParts + i];
          to = V::AddDot(to, w, x[r]);
        }
      }
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kParts; ++i) sums[i] = sum[i];
  }

 private:
  template <int kLane, int kRows, int kBlocks, int kParts, class Quads>
  static inline void AddLane(const int8_t* weights, int64_t stride, const Quads* x, Int* sum) {
    EDGELSTM_UNROLL
    for (int i = 0; i < kBlocks * kParts; ++i) {
      const auto w = V::LoadWeights(weights + i / kParts * stride +
                                    (kLane * 4 * kParts + i % kParts * 4) * kLanes);
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        Int& to = sum[r * kBlocks * kParts + i];
        to = V::template AddDotLane<kLane>(to, w, x[r]);
      }
    }
  }
};

}  // namespace
}  // namespace edgelstm
