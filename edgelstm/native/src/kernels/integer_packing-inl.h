// How the int8 kernels lay out weights and scratch memory.
//
// A block is as many units as V has 16-bit lanes. Weights are packed as
// [block][V::kDotGroup k][gate][half][lane][k]: each of a block's two halves fills the
// 32-bit lanes of one vector of sums, in the order in which V::Narrow makes 16-bit lanes of two of
// them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dot-inl.h"
#include "kernels/integer.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

template <class V>
class IntegerPacking {
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kWords = 2 * V::kLanes;

  // Larger kernels leave the second cache from chunk to chunk: the more rows in one, the better.
  static constexpr int64_t kNearBytes = 1 << 20;

 public:
  // Of the input, for which a kernel is read once: whole tiles.
  static constexpr int64_t kProductRows = 2 * TileFunctions::kRows;
  static constexpr int64_t kMostProductRows = 3 * TileFunctions::kRows;
  // Offsets and sizes in bytes; `units`, `outputs` and depths in padded elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      gates = Coupled(layer) ? 3 : 4;
      units = RoundUp(layer.units, kWords);
      outputs = RoundUp(layer.outputs, kWords);
      input_depth = RoundUp(layer.inputs, V::kDotGroup);
      output_depth = RoundUp(layer.outputs, V::kDotGroup);
      unit_depth = RoundUp(layer.units, V::kDotGroup);
      Layout layout;
      layout.Place(sizeof(IntegerScales));
      dots = layout.Place(sizeof(DotFunctions*));
      bounds = layout.Place(sizeof(SumBounds));
      streams = layout.Place(sizeof(bool));
      kernel = layout.Place(units * gates * input_depth);
      recurrent = layout.Place(units * gates * output_depth);
      kernel_offsets = layout.Place(units * gates * 4);
      recurrent_offsets = layout.Place(units * gates * 4);
      peephole = layout.Place(HasPeephole(layer) ? units * 4 * 2 : 0);
      layer_norm = layout.Place(HasLayerNorm(layer) ? units * 4 * 2 : 0);
      bias = layout.Place(HasLayerNorm(layer) ? units * 4 * 4 : 0);
      projection = layout.Place(HasProjection(layer) ? outputs * unit_depth : 0);
      projection_offsets = layout.Place(HasProjection(layer) ? outputs * 4 : 0);
      packed = layout.end();

      Layout memory;
      sums_row = units * gates;
      product_rows =
          units * gates * input_depth > kNearBytes ? kMostProductRows : kProductRows;
      chunk_rows = Larger(product_rows, kChunkBytes / (2 * sums_row));
      sums = memory.Place(2 * sums_row * chunk_rows);
      x = memory.Place(product_rows * input_depth);
      h_row = RoundUp(outputs + kWords, kAlignment);
      // Tiles read as many rows as they have.
      h = memory.Place((kMaxRows + RoundUp(kMaxRows, TileFunctions::kRows)) * h_row);
      // One block more than there are units, for what comes before the first.
      c = memory.Place(2 * (kMaxRows * units + kWords));
      hidden = memory.Place(kMaxRows * units);
      scratch = memory.end();
    }

    int gates;
    int64_t units, outputs, input_depth, output_depth, unit_depth;
    int64_t dots, bounds, streams, kernel, recurrent, kernel_offsets, recurrent_offsets, peephole, layer_norm, bias;
    int64_t projection, projection_offsets, packed;
    int64_t sums_row, product_rows, chunk_rows, sums, x, h_row, h, c, hidden, scratch;
  };

  EDGELSTM_COLD static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }
  EDGELSTM_COLD static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  EDGELSTM_COLD static void Pack(const EdgeLstmLayer& layer, const DotFunctions& dots, int, void* packed) {
    const Sizes sizes(layer);
    char* to = static_cast<char*>(packed);
    std::memset(to, 0, static_cast<size_t>(sizes.packed));
    IntegerScales scales;
    DeriveScales(layer, &scales);
    std::memcpy(to, &scales, sizeof scales);
    const DotFunctions* at = &dots;
    std::memcpy(to + sizes.dots, &at, sizeof at);
    const SumBounds bounds = BoundSums(layer, scales);
    std::memcpy(to + sizes.bounds, &bounds, sizeof bounds);
    const bool streams = !V::kDotsAreExact && dots.stream != nullptr && Streams(layer, scales, bounds);
    std::memcpy(to + sizes.streams, &streams, sizeof streams);
    const int first = 4 - sizes.gates;
    PackMatrix(layer.kernel + first, sizes.gates, layer.units, layer.inputs, sizes.input_depth,
               to + sizes.kernel);
    PackMatrix(layer.recurrent + first, sizes.gates, layer.units, layer.outputs,
               sizes.output_depth, to + sizes.recurrent);
    const auto excess = [&](const EdgeLstmWeight& matrix, int64_t columns, int64_t row) {
      uint32_t sum = 0;
      if (V::kDotsAreExact || dots.value_bias == 0) return sum;
      for (int64_t k = 0; k < columns; ++k) {
        sum += static_cast<uint32_t>(Int8At(matrix, row * columns + k));
      }
      return sum * dots.value_bias;
    };
    PackOffsets(sizes.gates, layer.units, to + sizes.kernel_offsets, [&](int gate, int64_t unit) {
      return static_cast<uint32_t>(KernelOffset(layer, scales, first + gate, unit)) -
             excess(layer.kernel[first + gate], layer.inputs, unit);
    });
    PackOffsets(sizes.gates, layer.units, to + sizes.recurrent_offsets,
                [&](int gate, int64_t unit) {
                  return static_cast<uint32_t>(RecurrentOffset(layer, scales, first + gate, unit)) -
                         excess(layer.recurrent[first + gate], layer.outputs, unit);
                });
    for (int gate = 0; gate < 4; ++gate) {
      for (int64_t i = 0; i < layer.units; ++i) {
        const int64_t at = gate * sizes.units + i;
        if (HasPeephole(layer)) {
          reinterpret_cast<int16_t*>(to + sizes.peephole)[at] =
              static_cast<int16_t>(IntegerAt(layer.peephole[gate], i));
        }
        if (HasLayerNorm(layer)) {
          reinterpret_cast<int16_t*>(to + sizes.layer_norm)[at] =
              static_cast<int16_t>(IntegerAt(layer.layer_norm[gate], i));
          reinterpret_cast<int32_t*>(to + sizes.bias)[at] = IntegerAt(layer.bias[gate], i);
        }
      }
    }
    if (HasProjection(layer)) {
      PackMatrix(&layer.projection, 1, layer.outputs, layer.units, sizes.unit_depth,
                 to + sizes.projection);
      PackOffsets(1, layer.outputs, to + sizes.projection_offsets, [&](int, int64_t output) {
        return static_cast<uint32_t>(ProjectionOffset(layer, scales, output)) -
               excess(layer.projection, layer.units, output);
      });
    }
  }

 private:
  // What IntegerStream takes.
  EDGELSTM_COLD static bool Streams(const EdgeLstmLayer& layer, const IntegerScales& scales,
                                    const SumBounds& bounds) {
    if (Coupled(layer) || HasPeephole(layer) || HasLayerNorm(layer) || HasProjection(layer)) return false;
    bool right = ShiftsRight(scales.hidden);
    for (int gate = 0; gate < 4; ++gate) {
      right = right && ShiftsRight(scales.kernel[gate]) && ShiftsRight(scales.recurrent[gate]);
    }
    return right && bounds.small_kernel && bounds.small_recurrent;
  }

  EDGELSTM_COLD static void PackMatrix(const EdgeLstmWeight* gates, int count,
                         int64_t rows, int64_t columns, int64_t depth, char* packed) {
    int8_t* to = reinterpret_cast<int8_t*>(packed);
    for (int64_t block = 0; block < RoundUp(rows, kWords); block += kWords) {
      for (int64_t k = 0; k < depth; k += V::kDotGroup) {
        for (int i = 0; i < 2 * count; ++i) {
          for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t row = block + V::WordOf(i % 2, lane);
            for (int64_t j = k; j < k + V::kDotGroup; ++j) {
              const int weight =
                  row < rows && j < columns ? Int8At(gates[i / 2], row * columns + j) : 0;
              *to++ = static_cast<int8_t>(weight);
            }
          }
        }
      }
    }
  }

  template <class Offset>
  EDGELSTM_COLD static void PackOffsets(int count, int64_t rows, char* packed, Offset offset) {
    uint32_t* to = reinterpret_cast<uint32_t*>(packed);
    for (int64_t block = 0; block < RoundUp(rows, kWords); block += kWords) {
      for (int i = 0; i < 2 * count; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) {
          const int64_t row = block + V::WordOf(i % 2, lane);
          *to++ = row < rows ? offset(i / 2, row) : 0;
        }
      }
    }
  }
};

}  // namespace
}  // namespace edgelstm
