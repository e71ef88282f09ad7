#include "kernels/tiles.h"

#include <immintrin.h>

#include <cstddef>

namespace edgelstm {
namespace {

// Tiles are named by constants: 0 to 3 sums, 4 values and 5 weights of 64 k, 6 and 7 those of the rest.
// Of pieces: 0 to 3 sums, 4 to 6 rows, 7 weights.
constexpr int64_t kDepth = 64;
constexpr size_t kGroup = TileFunctions::kParts * TileFunctions::kLanes * 4;
constexpr int kRowBytes = 4 * TileFunctions::kLanes;

struct alignas(64) Shapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

void Begin(int64_t depth) {
  Shapes shapes;
  const auto rest = static_cast<uint16_t>(depth % kDepth);
  for (int tile = 0; tile < 6; ++tile) {
    shapes.rows[tile] = 16;
    shapes.row_bytes[tile] = kRowBytes;
  }
  // A shape without rows or bytes is an error.
  const auto some = static_cast<uint16_t>(rest == 0 ? kDepth : rest);
  shapes.rows[6] = TileFunctions::kRows;
  shapes.row_bytes[6] = some;
  shapes.rows[7] = static_cast<uint8_t>(some / 4);
  shapes.row_bytes[7] = kRowBytes;
  // To g++ 12 the instruction reads eight bytes.
  asm volatile("" : : "r"(&shapes) : "memory");
  _tile_loadconfig(&shapes);
}

void End() { _tile_release(); }

// Weights of full int8 have a sign and its rows none, in hybrid arithmetic it is the other way round.
#define EDGELSTM_PRODUCT(sum, values, weights)                    \
  do {                                                            \
    if constexpr (kHybrid) {                                      \
      _tile_dpbsud(sum, values, weights);                         \
    } else {                                                      \
      _tile_dpbusd(sum, values, weights);                         \
    }                                                             \
  } while (false)

// Of three or four parts, as there are eight tiles; four k of all parts take `kBytes`.
template <int kParts, size_t kBytes, bool kHybrid>
void MultiplyParts(const int8_t* weights, int64_t depth, const int8_t* rows, size_t stride,
                   int32_t* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  int64_t k = 0;
  for (; k + kDepth <= depth; k += kDepth, weights += kDepth / 4 * kBytes) {
    _tile_loadd(4, rows + k, stride);
    _tile_loadd(5, weights, kBytes);
    EDGELSTM_PRODUCT(0, 4, 5);
    _tile_loadd(5, weights + kRowBytes, kBytes);
    EDGELSTM_PRODUCT(1, 4, 5);
    _tile_loadd(5, weights + 2 * kRowBytes, kBytes);
    EDGELSTM_PRODUCT(2, 4, 5);
    if constexpr (kParts == 4) {
      _tile_loadd(5, weights + 3 * kRowBytes, kBytes);
      EDGELSTM_PRODUCT(3, 4, 5);
    }
  }
  if (k < depth) {
    _tile_loadd(6, rows + k, stride);
    _tile_loadd(7, weights, kBytes);
    EDGELSTM_PRODUCT(0, 6, 7);
    _tile_loadd(7, weights + kRowBytes, kBytes);
    EDGELSTM_PRODUCT(1, 6, 7);
    _tile_loadd(7, weights + 2 * kRowBytes, kBytes);
    EDGELSTM_PRODUCT(2, 6, 7);
    if constexpr (kParts == 4) {
      _tile_loadd(7, weights + 3 * kRowBytes, kBytes);
      EDGELSTM_PRODUCT(3, 6, 7);
    }
  }
  constexpr int kSums = TileFunctions::kRows * TileFunctions::kLanes;
  _tile_stored(0, sums, kRowBytes);
  _tile_stored(1, sums + kSums, kRowBytes);
  _tile_stored(2, sums + 2 * kSums, kRowBytes);
  if constexpr (kParts == 4) _tile_stored(3, sums + 3 * kSums, kRowBytes);
}

void Multiply(const int8_t* weights, int64_t depth, const int8_t* rows, int64_t stride,
              int32_t* sums) {
  constexpr int kHalf = TileFunctions::kParts / 2;
  MultiplyParts<kHalf, kGroup, false>(weights, depth, rows, static_cast<size_t>(stride), sums);
  MultiplyParts<kHalf, kGroup, false>(
      weights + kGroup / 2, depth, rows, static_cast<size_t>(stride),
      sums + TileFunctions::kRows * TileFunctions::kLanes * kHalf);
}

void MultiplyGates(const int8_t* weights, int gates, int64_t depth, const int8_t* rows, int64_t stride,
                   int32_t* sums) {
  const auto apart = static_cast<size_t>(stride);
  if (gates == 3) {
    MultiplyParts<3, 3 * kRowBytes, true>(weights, depth, rows, apart, sums);
  } else {
    MultiplyParts<4, 4 * kRowBytes, true>(weights, depth, rows, apart, sums);
  }
}

// The products of one piece of a gate's weights with those of the rows that are large enough beside it.
#define EDGELSTM_PIECES(gate)                                                \
  do {                                                                       \
    _tile_loadd(7, weights + (kPiece * kGates + (gate)) * kTile, kRowBytes); \
    _tile_dpbf16ps(gate, 4, 7);                                              \
    if constexpr (kPiece < 2) _tile_dpbf16ps(gate, 5, 7);                    \
    if constexpr (kPiece < 1) _tile_dpbf16ps(gate, 6, 7);                    \
  } while (false)

template <int kGates, int kPiece>
inline __attribute__((always_inline)) void MultiplyPiece(const uint16_t* weights) {
  constexpr int kTile = TileFunctions::kRows * TileFunctions::kFloatDepth;
  EDGELSTM_PIECES(0);
  EDGELSTM_PIECES(1);
  EDGELSTM_PIECES(2);
  if constexpr (kGates == 4) EDGELSTM_PIECES(3);
}

template <int kGates>
void MultiplyPiecesOf(const uint16_t* weights, const uint16_t* rows, int64_t groups, bool first,
                      float* sums) {
  constexpr int kTile = TileFunctions::kRows * TileFunctions::kFloatDepth;
  constexpr int kSums = TileFunctions::kRows * TileFunctions::kLanes;
  for (int64_t group = 0; group < groups; ++group) {
    if (first) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      if constexpr (kGates == 4) _tile_zero(3);
    } else {
      _tile_loadd(0, sums, kRowBytes);
      _tile_loadd(1, sums + kSums, kRowBytes);
      _tile_loadd(2, sums + 2 * kSums, kRowBytes);
      if constexpr (kGates == 4) _tile_loadd(3, sums + 3 * kSums, kRowBytes);
    }
    _tile_loadd(4, rows, kRowBytes);
    _tile_loadd(5, rows + kTile, kRowBytes);
    _tile_loadd(6, rows + 2 * kTile, kRowBytes);
    MultiplyPiece<kGates, 0>(weights);
    MultiplyPiece<kGates, 1>(weights);
    MultiplyPiece<kGates, 2>(weights);
    _tile_stored(0, sums, kRowBytes);
    _tile_stored(1, sums + kSums, kRowBytes);
    _tile_stored(2, sums + 2 * kSums, kRowBytes);
    if constexpr (kGates == 4) _tile_stored(3, sums + 3 * kSums, kRowBytes);
    sums += kGates * kSums;
    rows += TileFunctions::kPieces * kTile;
  }
}

void MultiplyPieces(const uint16_t* weights, int gates, const uint16_t* rows, int64_t groups,
                    bool first, float* sums) {
  if (gates == 3) {
    MultiplyPiecesOf<3>(weights, rows, groups, first, sums);
  } else {
    MultiplyPiecesOf<4>(weights, rows, groups, first, sums);
  }
}

// A product takes 52 cycles and begins every 16: four sums do not wait for each other.
int64_t Probe(int64_t rounds) {
  alignas(kRowBytes) static constexpr int8_t kOnes[TileFunctions::kRows * kRowBytes] = {1};
  Begin(kDepth);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, kOnes, kRowBytes);
  _tile_loadd(5, kOnes, kRowBytes);
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbusd(0, 4, 5);
    _tile_dpbusd(1, 4, 5);
    _tile_dpbusd(2, 4, 5);
    _tile_dpbusd(3, 4, 5);
  }
  End();
  return rounds * 4 * TileFunctions::kRows * TileFunctions::kLanes * kDepth;
}

}  // namespace

const TileFunctions kTilesAmx = {Begin, End, Multiply, MultiplyGates, MultiplyPieces, Probe};

}  // namespace edgelstm
