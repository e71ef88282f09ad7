// How kernels place their arrays in memory.
#pragma once

#include <cstdint>

#include "kernels/lstm.h"

#define EDGELSTM_UNROLL _Pragma("GCC unroll 32")
#define EDGELSTM_NOINLINE __attribute__((noinline))
#define EDGELSTM_INLINE inline __attribute__((always_inline))
// Of a lambda.
#define EDGELSTM_ALWAYS __attribute__((always_inline))
// Runs once: small instead of fast.
#define EDGELSTM_COLD __attribute__((cold))

// Inline functions in the unnamed namespace: files with instruction sets of their own include this.
namespace edgelstm {
namespace {

// Rows that are computed together, whatever the batch.
constexpr int64_t kMaxRows = 24;
// Rows of the input that float weights multiply while they are near, where V::kReadsAhead.
constexpr int64_t kProjectedRows = 48;
// What the gate sums of the projected steps may take, unless that many rows take more.
constexpr int64_t kChunkBytes = 64 * 1024;

inline int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
inline int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Calls `tile(Rows<n>(), row)` for tiles of kMost rows and, at the end, of 3, 2 and 1.
template <int kCount>
struct Rows {
  static constexpr int kRows = kCount;
};
// Calls a tile of `size` rows, at most kMost; returns how many.
template <int kMost, class Tile>
inline int64_t OneTile(int64_t size, int64_t row, const Tile& tile) {
  if constexpr (kMost > 1) {
    if (size < kMost) return OneTile<kMost - 1>(size, row, tile);
  }
  tile(Rows<kMost>(), row);
  return kMost;
}
template <int kMost, class Tile>
inline void ForTiles(int64_t count, Tile tile) {
  int64_t row = 0;
  for (; row + kMost <= count; row += kMost) tile(Rows<kMost>(), row);
  if constexpr (kMost > 3) {
    for (; row + 3 <= count; row += 3) tile(Rows<3>(), row);
  }
  if constexpr (kMost > 2) {
    for (; row + 2 <= count; row += 2) tile(Rows<2>(), row);
  }
  for (; row < count; ++row) tile(Rows<1>(), row);
}

// The same in as few tiles as there can be, as equal as they can be: one row alone reads the weights
// for itself.
template <int kMost, class Tile>
inline void ForEvenTiles(int64_t count, const Tile& tile) {
  for (int64_t row = 0; row < count;) {
    const int64_t left = count - row, tiles = (left + kMost - 1) / kMost;
    const int64_t size = (left + tiles - 1) / tiles;
    row += OneTile<kMost>(size, row, tile);
  }
}

// Calls `tile(index)` for every index below `count`, in odd steps from the end: of weights that exceed
// a cache those that the step before read last are still in it.
template <class Tile>
inline void BackAndForth(int64_t step, int64_t count, Tile tile) {
  for (int64_t i = 0; i < count; ++i) tile((step & 1) == 0 ? i : count - 1 - i);
}

// What sums begin with, biases or sums themselves: vectors of rows, blocks and gates so many floats
// apart.
struct Initial {
  const float* from;
  int64_t row, block, gate;
  const float* At(int64_t r, int64_t b, int64_t g) const {
    return from + r * row + b * block + g * gate;
  }
  Initial From(int64_t r, int64_t b) const { return {At(r, b, 0), row, block, gate}; }
};

// Gives arrays their places one after the other, each aligned.
class Layout {
 public:
  int64_t Place(int64_t bytes) {
    const int64_t offset = end_;
    end_ = RoundUp(end_ + bytes, static_cast<int64_t>(kAlignment));
    return offset;
  }
  int64_t end() const { return end_; }

 private:
  int64_t end_ = 0;
};

}  // namespace
}  // namespace edgelstm
