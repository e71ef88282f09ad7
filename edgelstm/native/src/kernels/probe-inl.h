// What this machine can do at most with a vector type V: `edgelstm bench` sets layers beside it.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/memory.h"

namespace edgelstm {
namespace {

template <class V>
class Probe {
  // Chains of sums that do not wait for each other, within the registers: two of five cycles each
  // need ten.
  static constexpr int kChains = V::kFloatRows * 4;
  using Float = typename V::Float;
  using Int = typename V::Int;

 public:
  // Returns the number of float32 multiplications with addition, all in registers.
  static int64_t MultiplyAdds(void* memory, int64_t, int64_t rounds) {
    auto* values = static_cast<float*>(memory);
    Float sum[kChains];
    EDGELSTM_UNROLL
    for (int i = 0; i < kChains; ++i) sum[i] = V::Load(values + i);
    const Float a = V::Load(values), b = V::Load(values + kChains);
    for (int64_t round = 0; round < rounds; ++round) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kChains; ++i) sum[i] = V::MulAdd(sum[i], a, b);
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kChains; ++i) V::Store(values + i * V::kLanes, sum[i]);
    return rounds * kChains * V::kLanes;
  }

  // Likewise of int8, as the kernels multiply them: weights come from the nearest cache.
  static int64_t Int8MultiplyAdds(void* memory, int64_t, int64_t rounds) {
    auto* bytes = static_cast<int8_t*>(memory);
    Int sum[kChains / 2];
    EDGELSTM_UNROLL
    for (int i = 0; i < kChains / 2; ++i) sum[i] = V::ZeroInt();
    const auto x = V::LoadQuad(bytes);
    for (int64_t round = 0; round < rounds; ++round) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kChains / 2; ++i) {
        sum[i] = V::AddDot(sum[i], V::LoadWeights(bytes + i * 4 * V::kLanes), x);
      }
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kChains / 2; ++i) {
      V::StoreInt(reinterpret_cast<int32_t*>(bytes) + i * V::kLanes, sum[i]);
    }
    return rounds * (kChains / 2) * V::kLanes * 4;
  }

  // Reads `bytes` in each round and returns how many that were.
  static int64_t Read(void* memory, int64_t bytes, int64_t rounds) {
    constexpr int kVectors = 8;
    const int64_t step = int64_t{kVectors} * V::kLanes;
    auto* values = static_cast<float*>(memory);
    const int64_t count = bytes / int64_t{sizeof(float)} / step * step;
    Float sum[kVectors];
    EDGELSTM_UNROLL
    for (int i = 0; i < kVectors; ++i) sum[i] = V::Load(values);
    for (int64_t round = 0; round < rounds; ++round) {
      for (int64_t at = 0; at < count; at += step) {
        EDGELSTM_UNROLL
        for (int i = 0; i < kVectors; ++i) {
          sum[i] = V::Larger(sum[i], V::Load(values + at + i * V::kLanes));
        }
      }
      // Else one round would do for all.
      EDGELSTM_UNROLL
      for (int i = 0; i < kVectors; ++i) V::Store(values + i * V::kLanes, sum[i]);
    }
    return rounds * count * int64_t{sizeof(float)};
  }
};

}  // namespace
}  // namespace edgelstm
