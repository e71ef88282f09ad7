// Products of packed int8 weights with rows of floats that are quantized row by row.
#pragma once

#include <cstdint>

#include "kernels/dot.h"
#include "kernels/lstm.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

// A packed int8 matrix and the scales of its gates.
struct HybridMatrix {
  const DotFunctions* dots;
  const int8_t* weights;
  const int32_t* row_sums;  // null where vectors have no zero points
  const float* scales;
  int scale_step;  // 0: one scale for all gates
  int64_t first_block, end_block;
  int64_t depth;   // elements of a row that are read
  int64_t padded;  // elements of a row that are packed
  // What multiplies, or null; TileFunctions::begin was called with `padded`.
  const TileFunctions* tiles;
};

template <class V>
class HybridProduct {
  using Float = typename V::Float;
  using Int = typename V::Int;
  static constexpr int64_t kLanes = V::kLanes;

 public:
  static constexpr bool kTiles = !V::kDotsAreExact && V::kLanes == TileFunctions::kLanes;

  struct Row {
    const int8_t* values;
    float scale;
    int32_t zero, correction;
  };

  // `vectors` has `vector_depth` int8 for each row.
  static void Quantize(const HybridMatrix& matrix, const float* const* rows, int64_t count,
                       int8_t* vectors, int64_t vector_depth, Row* quantized) {
    for (int64_t r = 0; r < count; ++r) {
      int8_t* vector = vectors + r * vector_depth;
      quantized[r] = matrix.row_sums ? QuantizeAsymmetric(rows[r], matrix, vector)
                                     : QuantizeSymmetric(rows[r], matrix, vector);
      quantized[r].values = vector;
      quantized[r].correction = matrix.dots->correction(vector, matrix.padded);
    }
  }

  // sums[row] = initial + matrix rows[row].
  template <int kGates>
  static void Multiply(const HybridMatrix& matrix, const Row* rows, int64_t count, int64_t step,
                       const Initial& initial, float* sums, int64_t sums_row) {
    if constexpr (kTiles) {
      if (matrix.tiles != nullptr) {
        MultiplyTiles<kGates>(matrix, rows, count, step,
                              [&](int64_t r, int64_t block, const Float* products, const Float* scales) {
                                AddScaled<kGates>(products, scales, initial.From(r, block),
                                                  sums + r * sums_row + block * kGates * kLanes);
                              });
        return;
      }
    }
    int64_t block = matrix.first_block;
    if (count == 1) {
      for (; block + 2 <= matrix.end_block; block += 2) {
        AddTile<1, 2, kGates>(matrix, block, rows, initial, sums, sums_row);
      }
    }
    for (; block < matrix.end_block; ++block) {
      ForTiles<V::kInt8Rows>(count, [&](auto tile, int64_t r) {
        AddTile<tile.kRows, 1, kGates>(matrix, block, rows + r, initial.From(r, 0),
                                       sums + r * sums_row, sums_row);
      });
    }
  }

  // Calls `each(row, block, products, scales)`, both by gate, block by block. There are two rows or
  // more, whose values stand one after the other with room behind them for a tile's.
  template <int kGates, class Each>
  static EDGELSTM_INLINE void MultiplyTiles(const HybridMatrix& matrix, const Row* rows, int64_t count,
                                            int64_t step, Each each) {
    const int64_t stride = rows[1].values - rows[0].values;
    BackAndForth(step, matrix.end_block - matrix.first_block, [&](int64_t i) {
      const int64_t block = matrix.first_block + i;
      const int8_t* weights = matrix.weights + block * matrix.padded * kGates * kLanes;
      Int row_sum[kGates];
      if (matrix.row_sums != nullptr) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          row_sum[gate] = V::LoadInt(matrix.row_sums + (block * kGates + gate) * kLanes);
        }
      }
      for (int64_t first = 0; first < count; first += TileFunctions::kRows) {
        alignas(kAlignment) int32_t sums[kGates][TileFunctions::kRows][TileFunctions::kLanes];
        matrix.tiles->multiply_gates(weights, kGates, matrix.padded, rows[first].values, stride,
                                     sums[0][0]);
        const int64_t end = Smaller(count, first + TileFunctions::kRows);
        for (int64_t r = first; r < end; ++r) {
          Float products[kGates], scales[kGates];
          EDGELSTM_UNROLL
          for (int gate = 0; gate < kGates; ++gate) {
            Int sum = V::AddInt(V::LoadInt(sums[gate][r - first]), V::SetInt(rows[r].correction));
            if (matrix.row_sums != nullptr) {
              sum = V::SubInt(sum, V::MulInt(V::SetInt(rows[r].zero), row_sum[gate]));
            }
            products[gate] = V::ToFloat(sum);
            scales[gate] = V::Set(matrix.scales[gate * matrix.scale_step] * rows[r].scale);
          }
          each(r, block, products, scales);
        }
      }
    });
  }

 private:
  template <int kGates>
  static EDGELSTM_INLINE void AddScaled(const Float* products, const Float* scales,
                                        const Initial& initial, float* to) {
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate, to += kLanes) {
      V::Store(to, V::MulAdd(products[gate], scales[gate], V::Load(initial.At(0, 0, gate))));
    }
  }

  template <int kRows, int kBlocks, int kGates>
  static void AddTile(const HybridMatrix& matrix, int64_t block, const Row* rows,
                      const Initial& initial, float* all_sums, int64_t sums_row) {
    constexpr int kParts = kBlocks * kGates;
    const int8_t* weights = matrix.weights + block * matrix.padded * kGates * kLanes;
    float* sums = all_sums + block * kGates * kLanes;
    Int sum[kRows * kParts];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kParts; ++i) {
      sum[i] = V::SetInt(rows[i / kParts].correction);
      if (matrix.row_sums != nullptr) {
        const Int row_sum =
            V::LoadInt(matrix.row_sums + (block * kGates + i % kParts) * kLanes);
        sum[i] = V::SubInt(sum[i], V::MulInt(V::SetInt(rows[i / kParts].zero), row_sum));
      }
    }
    const int8_t* values[kRows];
    for (int r = 0; r < kRows; ++r) values[r] = rows[r].values;
    matrix.dots->add[kRows - 1][DotFunctions::Shape(kBlocks, kGates)](weights, matrix.padded, values,
                                                                      sum);
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kParts; ++i) {
        float* to = sums + r * sums_row + i * kLanes;
        const Float scale =
            V::Set(matrix.scales[i % kGates * matrix.scale_step] * rows[r].scale);
        const Float first = V::Load(initial.At(r, block + i / kGates, i % kGates));
        V::Store(to, V::MulAdd(V::ToFloat(sum[r * kParts + i]), scale, first));
      }
    }
  }

  // The smallest and the largest of a row and 0.
  struct Range {
    float low, high;
  };
  static Range RangeOf(const float* values, int64_t depth) {
    const Float zero = V::Set(0.0f);
    Float high = zero, low = zero;
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
      const Float value = V::Load(values + k);
      high = V::Larger(value, high);
      low = V::Larger(V::Sub(zero, value), low);
    }
    if (k < depth) {
      const Float value = V::LoadPart(values + k, static_cast<int>(depth - k));
      high = V::Larger(value, high);
      low = V::Larger(V::Sub(zero, value), low);
    }
    float lows[kLanes], highs[kLanes];
    V::Store(lows, low);
    V::Store(highs, high);
    Range range = {0.0f, 0.0f};
    for (int64_t i = 0; i < kLanes; ++i) {
      if (-lows[i] < range.low) range.low = -lows[i];
      if (highs[i] > range.high) range.high = highs[i];
    }
    return range;
  }

  // Nearest int8 within [lowest, 127] of offset + value * factor, halves away from zero. Elements
  // from `depth` to `padded` become 0.
  static void Round(const float* values, const HybridMatrix& matrix, float factor, float offset,
                    int lowest, int8_t* to) {
    int64_t k = 0;
    for (; k + kLanes <= matrix.depth; k += kLanes) {
      const Float scaled = V::Add(V::Mul(V::Load(values + k), V::Set(factor)), V::Set(offset));
      V::StoreRounded(to + k, scaled, lowest);
    }
    const auto limit = static_cast<float>(lowest);
    for (; k < matrix.depth; ++k) {
      const float scaled = values[k] * factor + offset;
      const float half = scaled < 0.0f ? -0.5f : 0.5f;
      to[k] = scaled >= limit && scaled <= 127.0f ? static_cast<int8_t>(scaled + half)
              : scaled > 0.0f                     ? static_cast<int8_t>(127)
                                                  : static_cast<int8_t>(lowest);
    }
    for (; k < matrix.padded; ++k) to[k] = 0;
  }

  // The scale is max|values| / 127; 1 for a row of zeros.
  static Row QuantizeSymmetric(const float* values, const HybridMatrix& matrix, int8_t* to) {
    const Range range = RangeOf(values, matrix.depth);
    const float largest = -range.low > range.high ? -range.low : range.high;
    Round(values, matrix, largest > 0.0f ? 127.0f / largest : 0.0f, 0.0f, -127, to);
    return {to, largest > 0.0f ? largest / 127.0f : 1.0f, 0, 0};
  }

  // The range, widened to hold 0, spans 255 steps; the zero point is counted from its end that is
  // nearer to zero.
  static Row QuantizeAsymmetric(const float* values, const HybridMatrix& matrix, int8_t* to) {
    const Range range = RangeOf(values, matrix.depth);
    if (range.low == range.high) {
      for (int64_t k = 0; k < matrix.padded; ++k) to[k] = 0;
      return {to, 1.0f, 0, 0};
    }
    const double step = (double{range.high} - double{range.low}) / 255;
    const double below = range.low / step, above = range.high / step;
    const double ideal = 128 - below < 127 + above ? -128 - below : 127 - above;
    const double zero = ideal <= -128.0  ? -128.0
                        : ideal >= 127.0 ? 127.0
                        : ideal < 0      ? static_cast<int>(ideal - 0.5)
                                         : static_cast<int>(ideal + 0.5);
    const auto scale = static_cast<float>(step);
    Round(values, matrix, 1.0f / scale, static_cast<float>(zero), -128, to);
    return {to, scale, static_cast<int32_t>(zero), 0};
  }
};

}  // namespace
}  // namespace edgelstm
