// Products of packed int8 weights with rows of int8. Sets of kernels with the same vector type share
// all but these, which keeps the library small.
#pragma once

#include <cstdint>

#include "edgelstm/edgelstm.h"
#include "kernels/tiles.h"

namespace edgelstm {

struct DotFunctions {
  static constexpr int kMostRows = 4;
  static constexpr int kShapes = 7;
  // sums[row][block][part] += sum over k of weights[block][k][part] * rows[row][k]; V::kDotGroup k of a
  // lane stand together, `depth` is a multiple of that. `sums` are vectors.
  using Add = void (*)(const int8_t* weights, int64_t depth, const int8_t* const* rows, void* sums);

  // Added to every weight of hybrid products when it is packed.
  uint8_t weight_bias;
  // Added to every value of a row that full int8 multiplies; its shapes have an even number of parts,
  // but for (1, 4) and (2, 4). What the sums have too much is taken off when offsets are packed.
  uint8_t value_bias;
  // What the sums lack that `add` makes of `count` values, a multiple of the same; of full int8 nothing
  // where there is a `value_bias`.
  int32_t (*correction)(const int8_t* values, int64_t count);
  // By rows less one and by `Shape`; null for those that no kernel uses.
  Add add[kMostRows][kShapes];
  // Full int8 of one row of a layer of which all is small and plain, or null.
  void (*stream)(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                 void* scratch);
  // What multiplies the input where it has enough steps, and h where a batch has enough rows, or null.
  const TileFunctions* tiles;
  // See LstmKernels; the second of all that `stream` does beside products, null where that is.
  int64_t (*probe)(void* memory, int64_t bytes, int64_t rounds);
  int64_t (*probe_units)(void* memory, int64_t bytes, int64_t rounds);

  static constexpr int Shape(int blocks, int parts) {
    if (blocks == 2) return parts == 3 ? 0 : 1;
    return parts == 2 ? 2 : parts == 3 ? 3 : parts == 4 ? 4 : parts == 6 ? 5 : 6;
  }
};

#if defined(EDGELSTM_AVXVNNI)
extern const DotFunctions kDotAvxVnni;
#endif
#if defined(EDGELSTM_AVX512)
extern const DotFunctions kDotAvx512Vnni;
#endif
#if defined(EDGELSTM_AMX)
extern const DotFunctions kDotAvx512Amx;
#endif

}  // namespace edgelstm
