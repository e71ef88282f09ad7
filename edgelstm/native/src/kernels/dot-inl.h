// The functions of dot.h over a vector type V.
#pragma once

#include <cstdint>

#include "kernels/dot.h"
#include "kernels/memory.h"
#include "kernels/probe-inl.h"

namespace edgelstm {
namespace {

template <class V>
class Int8Product {
  using Int = typename V::Int;
  static constexpr int64_t kLanes = V::kLanes;

 public:
  // See DotFunctions::Add.
  template <int kRows, int kBlocks, int kParts>
  static void Add(const int8_t* weights, int64_t depth, const int8_t* const* rows, void* memory) {
    Int* sums = static_cast<Int*>(memory);
    Int sum[kRows * kBlocks * kParts];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kParts; ++i) sum[i] = sums[i];
    AddDots<kRows, kBlocks, kParts>(weights, depth, rows, sum);
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kParts; ++i) sums[i] = sum[i];
  }

 private:
  template <int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddDots(const int8_t* weights, int64_t depth,
                                      const int8_t* const* rows, Int* sum) {
    if constexpr (V::kOwnDots) {
      V::template AddDots<kRows, kBlocks, kParts>(weights, depth, rows, sum);
    } else {
      const int8_t* row[kRows];
      const int64_t stride = depth * kParts * kLanes;
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) row[r] = rows[r];
      for (int64_t k = 0; k < depth; k += 4) {
        typename V::Quad x[kRows];
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) x[r] = V::LoadQuad(row[r] + k);
        EDGELSTM_UNROLL
        for (int i = 0; i < kBlocks * kParts; ++i) {
          auto w = V::LoadWeights(weights + i / kParts * stride +
                                  (k * kParts + i % kParts * 4) * kLanes);
          if constexpr (kRows > 1) V::Keep(&w);
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Int& to = sum[r * kBlocks * kParts + i];
            to = kBlocks == 1 && kParts % 2 == 0 && kParts != 4 ? V::AddByteDot(to, w, x[r])
                                                                : V::AddDot(to, w, x[r]);
          }
        }
      }
    }
  }
};

template <class V, bool kUsed, int kRows, int kBlocks, int kParts>
constexpr DotFunctions::Add DotOf() {
  if constexpr (kUsed) {
    return Int8Product<V>::template Add<kRows, kBlocks, kParts>;
  } else {
    return nullptr;
  }
}

template <class V, int kRows>
constexpr void SetDotRow(DotFunctions* to) {
  constexpr bool kOne = kRows == 1, kHybrid = kRows <= V::kInt8Rows;
  constexpr bool kInteger = kRows <= V::kIntegerRows;
  DotFunctions::Add* add = to->add[kRows - 1];
  add[DotFunctions::Shape(2, 3)] = DotOf<V, kOne, kRows, 2, 3>();
  add[DotFunctions::Shape(2, 4)] = DotOf<V, kOne, kRows, 2, 4>();
  add[DotFunctions::Shape(1, 2)] = DotOf<V, kOne, kRows, 1, 2>();
  add[DotFunctions::Shape(1, 3)] = DotOf<V, kHybrid, kRows, 1, 3>();
  add[DotFunctions::Shape(1, 4)] = DotOf<V, kHybrid, kRows, 1, 4>();
  add[DotFunctions::Shape(1, 6)] = DotOf<V, kInteger, kRows, 1, 6>();
  add[DotFunctions::Shape(1, 8)] = DotOf<V, kInteger, kRows, 1, 8>();
}

template <class V>
constexpr DotFunctions DotFunctionsOf(decltype(DotFunctions::stream) stream = nullptr,
                                      decltype(DotFunctions::probe_units) units = nullptr,
                                      const TileFunctions* tiles = nullptr) {
  static_assert(V::kInt8Rows <= DotFunctions::kMostRows, "rows of the table");
  static_assert(V::kIntegerRows <= DotFunctions::kMostRows, "rows of the table");
  DotFunctions all = {V::kWeightBias, V::kValueBias, V::DotCorrection, {}, stream, tiles,
                      Probe<V>::Int8MultiplyAdds, units};
  SetDotRow<V, 1>(&all);
  SetDotRow<V, 2>(&all);
  SetDotRow<V, 3>(&all);
  SetDotRow<V, 4>(&all);
  return all;
}

template <class V>
constexpr DotFunctions kDotOf = DotFunctionsOf<V>();

// An int8 with a bias added to it.
inline int8_t Biased(uint8_t bias, int value) {
  return static_cast<int8_t>(static_cast<uint8_t>(value + bias));
}

}  // namespace
}  // namespace edgelstm
