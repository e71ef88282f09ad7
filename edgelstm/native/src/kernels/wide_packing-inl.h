// How the 16x8 kernels lay out weights and scratch memory.
//
// A block is as many units as V has 16-bit lanes; sums have the order of V::WordOf. Where int8 products
// take values without sign, h and x are multiplied as two rows of bytes, the higher with 128 added, and
// weights stand as those of full int8, [block][four k][gate][half][lane][k]; else as
// [block][pair of k][gate][half][V::WidePlace(lane, k)].
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dot.h"
#include "kernels/memory.h"
#include "kernels/wide.h"
#include "kernels/wide_activation-inl.h"

namespace edgelstm {
namespace {

template <class V>
class WidePacking {
 public:
  static constexpr int kGates = 4;
  static constexpr int kParts = 2 * kGates;
  static constexpr int64_t kUnits = 2 * V::kLanes;
  static constexpr int64_t kBlock = kGates * kUnits;

  // How a layer is computed; without gaps, as layers of the same packed weights share them.
  struct Form {
    const DotFunctions* dots;
    int32_t bytes;
    // Whether sums fit 32 bits whatever the input and h are, and all is scaled down.
    int32_t small;
  };

  // Offsets and sizes in bytes; `units` and depths in padded elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      units = RoundUp(layer.units, kUnits);
      input_depth = RoundUp(layer.inputs, 4);
      h_depth = RoundUp(layer.outputs, 4);
      x_row = RoundUp(layer.inputs, kUnits);
      Layout layout;
      layout.Place(sizeof(WideScales));
      form = layout.Place(sizeof(Form));
      table = layout.Place(WideVector<V>::kExists ? WideActivation<V>::kTableBytes : 0);
      kernel = layout.Place(units * kGates * input_depth);
      recurrent = layout.Place(units * kGates * h_depth);
      kernel_offsets = layout.Place(units * kGates * 8);
      recurrent_offsets = layout.Place(units * kGates * 8);
      packed = layout.end();

      Layout memory;
      chunk_steps = Smaller(kMaxRows, Larger(1, kChunkBytes / (units * kGates * 2)));
      sums = memory.Place(chunk_steps * units * kGates * 2);
      x = memory.Place(chunk_steps * x_row * 2);
      // What is stored behind a row lies in the next; tiles read as many rows as they have.
      x_bytes = memory.Place(
          RoundUp(2 * chunk_steps, TileFunctions::kRows) * input_depth + kUnits);
      h = memory.Place(2 * units * 2);
      h_bytes = memory.Place(2 * units * 2);
      c = memory.Place(units * 2);
      scratch = memory.end();
    }
    int64_t units, input_depth, h_depth, x_row;
    int64_t form, table, kernel, recurrent, kernel_offsets, recurrent_offsets, packed;
    int64_t chunk_steps, sums, x, x_bytes, h, h_bytes, c, scratch;
  };

  EDGELSTM_COLD static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }
  EDGELSTM_COLD static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  EDGELSTM_COLD static void Pack(const EdgeLstmLayer& layer, const DotFunctions& dots, int,
                                 void* packed) {
    const Sizes sizes(layer);
    char* to = static_cast<char*>(packed);
    std::memset(to, 0, static_cast<size_t>(sizes.packed));
    WideScales scales;
    DeriveWideScales(layer, &scales);
    std::memcpy(to, &scales, sizeof scales);
    const bool bytes = WideVector<V>::kExists && dots.value_bias != 0;
    const Form form = {&dots, bytes, WideVector<V>::kExists && IsSmall(layer, scales)};
    std::memcpy(to + sizes.form, &form, sizeof form);
    WideActivation<V>::PackTable(to + sizes.table);
    PackMatrix(layer.kernel, layer.units, layer.inputs, bytes, to + sizes.kernel);
    PackMatrix(layer.recurrent, layer.units, layer.outputs, bytes, to + sizes.recurrent);
    const auto of_kernel = [&](int gate, int64_t unit) {
      return WideKernelOffset(layer, scales, gate, unit);
    };
    const auto of_recurrent = [&](int gate, int64_t unit) {
      return WideRecurrentOffset(layer, scales, gate, unit);
    };
    PackOffsets(layer.kernel, layer.units, layer.inputs, bytes, of_kernel, to + sizes.kernel_offsets);
    PackOffsets(layer.recurrent, layer.units, layer.outputs, bytes, of_recurrent,
                to + sizes.recurrent_offsets);
  }

 private:
  EDGELSTM_COLD static bool IsSmall(const EdgeLstmLayer& layer, const WideScales& scales) {
    bool small = ShiftsRight(scales.keep) && ShiftsRight(scales.add) && ShiftsRight(scales.hidden);
    for (int gate = 0; gate < kGates; ++gate) {
      small = small && scales.kernel[gate].shift >= 16 && scales.recurrent[gate].shift >= 16;
      for (int64_t unit = 0; unit < layer.units; ++unit) {
        small = small &&
                FitsInt(WideKernelOffset(layer, scales, gate, unit), layer.kernel[gate], unit,
                        layer.inputs) &&
                FitsInt(WideRecurrentOffset(layer, scales, gate, unit), layer.recurrent[gate], unit,
                        layer.outputs);
      }
    }
    return small;
  }
  EDGELSTM_COLD static bool FitsInt(int64_t offset, const EdgeLstmWeight& matrix, int64_t row,
                                    int64_t columns) {
    constexpr int64_t kLimit = INT32_MAX;
    if (offset > kLimit || offset < -kLimit) return false;
    int64_t sum = 0;
    for (int64_t k = 0; k < columns; ++k) {
      const int32_t weight = IntegerAt(matrix, row * columns + k);
      sum += weight < 0 ? -weight : weight;
    }
    return (offset < 0 ? -offset : offset) + sum * 32768 <= kLimit;
  }

  EDGELSTM_COLD static void PackMatrix(const EdgeLstmWeight* gates, int64_t rows, int64_t columns,
                                       bool bytes, char* packed) {
    auto* to = reinterpret_cast<int8_t*>(packed);
    const int group = bytes ? 4 : 2;
    for (int64_t block = 0; block < rows; block += kUnits) {
      for (int64_t k = 0; k < RoundUp(columns, 4); k += group) {
        for (int part = 0; part < kParts; ++part, to += group * V::kLanes) {
          for (int lane = 0; lane < V::kLanes; ++lane) {
            const int64_t row = block + V::WordOf(part % 2, lane);
            for (int j = 0; j < group && k + j < columns && row < rows; ++j) {
              to[bytes ? 4 * lane + j : V::WidePlace(lane, j)] =
                  Int8At(gates[part / 2], row * columns + k + j);
            }
          }
        }
      }
    }
  }

  template <class Offset>
  EDGELSTM_COLD static void PackOffsets(const EdgeLstmWeight* gates, int64_t rows, int64_t columns,
                                        bool bytes, const Offset& offset, char* packed) {
    auto* to = reinterpret_cast<int64_t*>(packed);
    for (int64_t block = 0; block < rows; block += kUnits) {
      for (int part = 0; part < kParts; ++part) {
        for (int lane = 0; lane < V::kLanes; ++lane, ++to) {
          const int64_t row = block + V::WordOf(part % 2, lane);
          if (row >= rows) continue;
          *to = offset(part / 2, row);
          if (!bytes) continue;
          int64_t sum = 0;
          for (int64_t k = 0; k < columns; ++k) sum += Int8At(gates[part / 2], row * columns + k);
          *to = WrappedSum(*to, -32768 * sum);
        }
      }
    }
  }
};

}  // namespace
}  // namespace edgelstm
