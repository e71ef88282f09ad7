// Products of packed weights with sixteen rows at a time, where a CPU has matrix tiles.
#pragma once

#include <cstdint>

namespace edgelstm {

struct TileFunctions {
  static constexpr int kRows = 16;
  static constexpr int kParts = 8;
  static constexpr int kLanes = 16;
  // Around every use of `multiply` with rows of `depth` values, a multiple of four; 0 for
  // `multiply_pieces`.
  void (*begin)(int64_t depth);
  void (*end)();
  // sums[part][row][lane] of a block of weights as IntegerPacking lays them out for 16 lanes; the rows
  // have DotFunctions::value_bias and stand `stride` bytes apart.
  void (*multiply)(const int8_t* weights, int64_t depth, const int8_t* rows, int64_t stride,
                   int32_t* sums);
  // The same of a block of hybrid weights of three or four gates as LstmPacking lays them out, with
  // DotFunctions::weight_bias, which the sums have too much; the rows are as they are.
  void (*multiply_gates)(const int8_t* weights, int gates, int64_t depth, const int8_t* rows,
                         int64_t stride, int32_t* sums);
  // Pieces of a float32, bfloat16 each, of which a tile has 32 k; see FloatTiles.
  static constexpr int kPieces = 3;
  static constexpr int kFloatDepth = 32;
  // sums[group][gate][row][lane] = or += the products of tiles [piece][gate] of weights, two k of a lane
  // together, with tiles [group][piece] of rows.
  void (*multiply_pieces)(const uint16_t* weights, int gates, const uint16_t* rows, int64_t groups,
                          bool first, float* sums);
  // See LstmKernels; all in tiles.
  int64_t (*probe)(int64_t rounds);
};

#if defined(EDGELSTM_AMX)
extern const TileFunctions kTilesAmx;
#endif

}  // namespace edgelstm
