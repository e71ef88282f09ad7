// Products of float weights with many rows of floats in matrix tiles of bfloat16, where a CPU has them.
//
// A float32 is the sum of three pieces of 8 bits each, all bfloat16. Of the nine products of two
// numbers' pieces the six largest are summed, in float32: what is left out is less than 2^-21 of a
// product, 2^-24 of it on average, which is what a float32 product loses. Pieces below 1e-38 are zero to
// the tiles.
#pragma once

#include <cstdint>

#include "kernels/memory.h"
#include "kernels/tiles.h"

namespace edgelstm {
namespace {

template <class V>
class FloatTiles {
  using Float = typename V::Float;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kPieces = TileFunctions::kPieces, kDepth = TileFunctions::kFloatDepth;
  static constexpr int64_t kRows = TileFunctions::kRows;
  static constexpr int64_t kTile = kRows * kDepth;

 public:
  static constexpr bool kExist = V::kSplitsFloat && V::kLanes == TileFunctions::kLanes;

  // How many pieces `rows` rows of `depth` values become.
  static int64_t Pieces(int64_t rows, int64_t depth) {
    return RoundUp(rows, kRows) * RoundUp(depth, kDepth) * kPieces;
  }

  // Splits rows into tiles [k / 32][row / 16][piece]; false if a value is infinite: its product with a
  // piece that is zero is no number.
  static bool Split(const float* const* rows, int64_t count, int64_t depth, uint16_t* pieces) {
    const int64_t of_depth = RoundUp(count, kRows) / kRows * kPieces * kTile;
    bool split = true;
    for (int64_t r = 0; r < count; ++r) {
      uint16_t* row = pieces + r / kRows * kPieces * kTile + r % kRows * kDepth;
      for (int64_t k = 0; k < RoundUp(depth, kDepth); k += kLanes) {
        const int64_t left = Larger(0, Smaller(kLanes, depth - k));
        const Float x = V::LoadPart(rows[r] + k, static_cast<int>(left));
        split = split && !V::AnyInfinite(x);
        V::StorePieces(x, row + k / kDepth * of_depth + k % kDepth, kTile);
      }
    }
    return split;
  }

  // Of `count` split rows and blocks [0, blocks). `source(block, k, weights)` gives those of all gates of
  // two neighbouring k, `finish(block, row, gate, sum)` takes the sums.
  template <int kGates, class Source, class Finish>
  static void Multiply(const TileFunctions& tiles, const uint16_t* pieces, int64_t count, int64_t blocks,
                       int64_t depth, int64_t step, const Source& source, const Finish& finish) {
    const int64_t groups = RoundUp(count, kRows) / kRows;
    alignas(kAlignment) uint16_t weights[kPieces * kGates * kTile];
    alignas(kAlignment) float sums[kProjectedRows * kGates * kLanes];
    BackAndForth(step, blocks, [&](int64_t block) {
      for (int64_t k = 0; k < depth; k += kDepth) {
        for (int64_t pair = 0; pair < kDepth / 2; ++pair) {
          Float both[2 * kGates];
          source(block, k + 2 * pair, both);
          EDGELSTM_UNROLL
          for (int gate = 0; gate < kGates; ++gate) {
            V::StorePiecePairs(both[gate], both[kGates + gate],
                               weights + gate * kTile + pair * 2 * kLanes, kGates * kTile);
          }
        }
        tiles.multiply_pieces(weights, kGates, pieces + k / kDepth * groups * kPieces * kTile, groups,
                              k == 0, sums);
      }
      for (int64_t r = 0; r < count; ++r) {
        const float* of_row = sums + r / kRows * kGates * kRows * kLanes + r % kRows * kLanes;
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          finish(block, r, gate, V::Load(of_row + gate * kRows * kLanes));
        }
      }
    });
  }
};

}  // namespace
}  // namespace edgelstm
