// Products of packed float weights with rows of floats, in tiles of rows and gates.
#pragma once

#include <cstdint>

#include "kernels/lstm.h"
#include "kernels/memory.h"
#include "kernels/packing-inl.h"

// Among the instructions around it g++ 12 spills the sums of a loop for ARM.
#if defined(__x86_64__)
#define EDGELSTM_INLINE_PRODUCT EDGELSTM_INLINE
#else
#define EDGELSTM_INLINE_PRODUCT inline
#endif

namespace edgelstm {
namespace {

template <class V>
class FloatProduct {
  using Float = typename V::Float;
  static constexpr int64_t kLanes = V::kLanes;
  // Inputs whose weights for one block stay in the first cache while all rows pass.
  static constexpr int64_t kDepth = 64;

 public:
  // What the next tiles read: `step` bytes of it with every k of a tile.
  struct Ahead {
    const char* from;
    int64_t step;
  };


  // z[row][block][gate] += sum over k of weights[block][k][gate] * rows[row][k].
  template <int kRows, int kBlocks, int kGates, class Element>
  static EDGELSTM_INLINE_PRODUCT void Accumulate(const Element* weights, int64_t depth,
                                                 const float* const* rows, Float* z, Ahead ahead = {}) {
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
      if constexpr (kRows > 1 && V::kReadsAhead) {
        __builtin_prefetch(ahead.from);
        ahead.from += ahead.step;
      }
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

  // sums[row] = initial + weights rows[row].
  template <int kGates, class Element>
  static void Multiply(const Element* weights, int64_t blocks, int64_t depth,
                       const float* const* rows, int64_t count, int64_t step, Initial initial,
                       float* sums, int64_t sums_row) {
    using Row = PackedRow<V, Element, kGates>;
    if (count == 1) {
      int64_t block = 0;
      for (; block + 2 <= blocks; block += 2) {
        AddTile<1, 2, kGates>(weights + block * depth * Row::kElements, depth, rows,
                              initial.From(0, block), sums + block * kGates * kLanes, sums_row);
      }
      if (block == blocks) return;
      weights += block * depth * Row::kElements;
      sums += block * kGates * kLanes;
      initial = initial.From(0, block);
      blocks = 1;
    }
    constexpr bool kWidened = sizeof(Element) < sizeof(float);
    // One tile has no use for what is near.
    const int64_t most = !kWidened && count <= V::kFloatRows ? depth : kDepth;
    const int64_t turn = (step & 1) == 0 ? 1 : -1;
    BackAndForth(step, blocks, [&](int64_t block) {
      float* to = sums + block * kGates * kLanes;
      Initial first = initial.From(0, block);
      for (int64_t k = 0; k < depth; k += most) {
        const Element* from = weights + (block * depth + k) * Row::kElements;
        const int64_t part = Smaller(most, depth - k);
        const Element* next = k + most < depth ? from + most * Row::kElements
                                               : weights + (block + turn) * depth * Row::kElements;
        Ahead ahead = {reinterpret_cast<const char*>(next), Row::kElements * int64_t{sizeof(Element)}};
        if (most == depth && !kWidened) ahead = {reinterpret_cast<const char*>(from), 0};
        if constexpr (kWidened) {
          // Widening takes the ports of the products: once for all rows.
          alignas(64) float wide[kDepth * kGates * kLanes];
          for (int64_t i = 0; i < part; ++i) {
            EDGELSTM_UNROLL
            for (int gate = 0; gate < kGates; ++gate) {
              V::Store(wide + (i * kGates + gate) * kLanes, Row::Load(from + i * Row::kElements, gate));
            }
          }
          AddTiles<kGates>(wide, part, rows, k, count, first, to, sums_row, ahead);
        } else {
          AddTiles<kGates>(from, part, rows, k, count, first, to, sums_row, ahead);
        }
        first = {to, sums_row, 0, kLanes};
      }
    });
  }

  // One block for all rows, from element `k` of each; meanwhile `ahead.step` bytes for each k are
  // asked for.
  template <int kGates>
  static void AddTiles(const float* weights, int64_t depth, const float* const* rows, int64_t k,
                       int64_t count, const Initial& initial, float* sums, int64_t sums_row,
                       Ahead ahead) {
    const int64_t tiles = (count + V::kFloatRows - 1) / V::kFloatRows;
    ahead.step /= tiles;
    ForEvenTiles<V::kFloatRows>(count, [&](auto tile, int64_t r) {
      const float* some[tile.kRows];
      EDGELSTM_UNROLL
      for (int i = 0; i < tile.kRows; ++i) some[i] = rows[r + i] + k;
      AddTile<tile.kRows, 1, kGates>(weights, depth, some, initial.From(r, 0), sums + r * sums_row,
                                        sums_row, ahead);
      ahead.from += depth * ahead.step;
    });
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

  template <int kRows, int kBlocks, int kGates, class Element>
  static inline void AddTile(const Element* weights, int64_t depth, const float* const* rows,
                             const Initial& initial, float* sums, int64_t sums_row,
                             Ahead ahead = {}) {
    Float z[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        z[row * kBlocks * kGates + i] = V::Load(initial.At(row, i / kGates, i % kGates));
      }
    }
    Accumulate<kRows, kBlocks, kGates>(weights, depth, rows, z, ahead);
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
