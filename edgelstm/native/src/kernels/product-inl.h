// Products of packed float weights with rows of floats, in tiles of rows and gates.
#pragma once

#include <cstdint>

#include "kernels/lstm.h"
#include "kernels/memory.h"
#include "kernels/packing-inl.h"

namespace edgelstm {
namespace {

template <class V>
class FloatProduct {
  using Float = typename V::Float;
  static constexpr int64_t kLanes = V::kLanes;
  // Inputs whose weights for one block stay in the first cache while all rows pass.
  static constexpr int64_t kDepth = 64;

 public:
  // z[row][block][gate] += sum over k of weights[block][k][gate] * rows[row][k].
  template <int kRows, int kBlocks, int kGates, class Element>
  static inline void Accumulate(const Element* weights, int64_t depth, const float* const* rows,
                                Float* z) {
    using Row = PackedRow<V, Element, kGates>;
    const int64_t stride = depth * Row::kElements;
    Float sum[kRows * kBlocks * kGates];
    const float* row[kRows];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) sum[i] = z[i];
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) row[r] = rows[r];
    int64_t k = 0;
    if constexpr (V::kLaneProducts) {
      for (; k + 4 <= depth; k += 4) {
        Float x[kRows];
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) x[r] = V::Load(row[r] + k);
        const Element* from = weights + k * kGates * kLanes;
        AddLane<0, kRows, kBlocks, kGates>(from, stride, x, sum);
        AddLane<1, kRows, kBlocks, kGates>(from, stride, x, sum);
        AddLane<2, kRows, kBlocks, kGates>(from, stride, x, sum);
        AddLane<3, kRows, kBlocks, kGates>(from, stride, x, sum);
      }
    }
    for (; k < depth; ++k) {
      Float x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = V::Set(row[r][k]);
      EDGELSTM_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          const Float w = Row::Load(weights + b * stride + k * Row::kElements, gate);
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Float& to = sum[(r * kBlocks + b) * kGates + gate];
            to = V::MulAdd(w, x[r], to);
          }
        }
      }
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) z[i] = sum[i];
  }

  // sums[row] += weights rows[row].
  template <int kGates, class Element>
  static void Multiply(const Element* weights, int64_t blocks, int64_t depth,
                       const float* const* rows, int64_t count, float* sums, int64_t sums_row) {
    int64_t block = 0;
    if (count == 1) {
      for (; block + 2 <= blocks; block += 2) {
        AddTile<1, 2, kGates>(weights + block * depth * kGates * kLanes, depth, rows,
                              sums + block * kGates * kLanes, sums_row);
      }
    }
    for (; block < blocks; ++block) {
      float* to = sums + block * kGates * kLanes;
      for (int64_t k = 0; k < depth; k += kDepth) {
        const Element* from = weights + (block * depth + k) * kGates * kLanes;
        const int64_t part = Smaller(kDepth, depth - k);
        if constexpr (sizeof(Element) < sizeof(float)) {
          // Widening takes the ports of the products: once for all rows.
          alignas(64) float wide[kDepth * kGates * kLanes];
          for (int64_t i = 0; i < part * kGates * kLanes; i += kLanes) {
            V::Store(wide + i, V::Load(from + i));
          }
          AddTiles<kGates>(wide, part, rows, k, count, to, sums_row);
        } else {
          AddTiles<kGates>(from, part, rows, k, count, to, sums_row);
        }
      }
    }
  }

 private:
  template <int kLane, int kRows, int kBlocks, int kGates, class Element>
  static inline void AddLane(const Element* weights, int64_t stride, const Float* x, Float* sum) {
    EDGELSTM_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        const Float w = V::Load(weights + b * stride + (kLane * kGates + gate) * kLanes);
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          Float& to = sum[(r * kBlocks + b) * kGates + gate];
          to = V::template MulAddLane<kLane>(w, x[r], to);
        }
      }
    }
  }

  // One block for all rows, from element `k` of each.
  template <int kGates>
  static void AddTiles(const float* weights, int64_t depth, const float* const* rows, int64_t k,
                       int64_t count, float* sums, int64_t sums_row) {
    ForTiles<V::kFloatRows>(count, [&](auto tile, int64_t r) {
      const float* some[tile.kRows];
      EDGELSTM_UNROLL
      for (int i = 0; i < tile.kRows; ++i) some[i] = rows[r + i] + k;
      AddTile<tile.kRows, 1, kGates>(weights, depth, some, sums + r * sums_row, sums_row);
    });
  }

  template <int kRows, int kBlocks, int kGates, class Element>
  static inline void AddTile(const Element* weights, int64_t depth, const float* const* rows,
                             float* sums, int64_t sums_row) {
    Float z[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        z[row * kBlocks * kGates + i] = V::Load(sums + row * sums_row + i * kLanes);
      }
    }
    Accumulate<kRows, kBlocks, kGates>(weights, depth, rows, z);
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        V::Store(sums + row * sums_row + i * kLanes, z[row * kBlocks * kGates + i]);
      }
    }
  }
};

}  // namespace
}  // namespace edgelstm
