// Recurrent float32 weights in 28 bits each, without loss, for those that exceed the second cache: a
// step then takes as long as reading them from the third does.
//
// The weights of a row lie within few powers of two. A packed weight has its sign at bit 31, its 23
// bits of mantissa, and at bits 23 to 26 the exponent less a base of its row; 0 is zero. Read as a
// float32 that is the weight times a power of two, which is as exact. Of eight vectors of packed
// weights seven stand in memory, and in their bits 27 to 30 the eighth. Weights outside of the range
// are zeros there, and entries of a list beside them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/lstm.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

// What a step adds to one sum: weight * h[k].
struct CompactOther {
  int32_t sum, k;  // `sum` as [block][gate][lane]
  float weight;
};

// Beside the packed weights: whether they are compact, and how many others there are.
struct CompactHeader {
  int32_t compact, others;
};

template <class V>
class CompactPacking {
 public:
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int kGates = 4;
  static constexpr int64_t kSums = kGates * kLanes;  // of a block
  static constexpr int64_t kGroup = 7 * kLanes;      // words of two k of a block
  // h is multiplied by this, so that sums of small h stay far from numbers that are not normal, which
  // take 150 cycles each. States from 8e28 on become infinite.
  static constexpr float kScale = 4294967296.0f;
  // Floats of a row of h so multiplied: read two at a time, written in whole vectors.
  static constexpr int64_t ScaledRow(int64_t depth) { return depth + kLanes; }
  // How many others a matrix may have: each takes about as long as reading 20 bytes.
  static constexpr int64_t MostOthers(int64_t weights) { return weights / 512; }

  // Makes the plain matrix at `words` compact where it stands, unless that has too many others or what
  // is no number.
  EDGELSTM_COLD static CompactHeader Pack(void* words, int64_t blocks, int64_t depth, float* factors,
                                          CompactOther* others) {
    const char* plain = static_cast<const char*>(words);
    const int64_t most = MostOthers(blocks * kSums * depth);
    int64_t count = 0;
    for (int64_t sum = 0; sum < blocks * kSums; ++sum) {
      const int top = TopOf(plain, sum, depth);
      if (top < 0) return {0, 0};
      factors[sum] = PowerOfTwo(top - kExponents) / kScale;
      for (int64_t k = 0; k < depth; ++k) {
        const uint32_t weight = WordAt(plain, sum, k, depth);
        if (Zero(weight) || Compact(weight, top) != 0) continue;
        if (count == most) return {0, 0};
        others[count] = {static_cast<int32_t>(sum), static_cast<int32_t>(k), 0};
        std::memcpy(&others[count++].weight, &weight, sizeof weight);
      }
    }
    // Behind what is still to be read: a group takes 7 / 8 of it.
    char* to = static_cast<char*>(words);
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t k = 0; k < depth; k += 2) {
        uint32_t group[8 * kLanes];
        for (int64_t i = 0; i < 8 * kLanes; ++i) {
          const int64_t sum = block * kSums + i % kSums, at = k + i / kSums;
          const int top = Exponent(factors[sum] * kScale) + kExponents;
          group[i] = at < depth ? Compact(WordAt(plain, sum, at, depth), top) : 0;
        }
        for (int64_t i = 0; i < kGroup; ++i) {
          const int turn = 4 * (7 - static_cast<int>(i / kLanes));
          const uint32_t last = group[kGroup + i % kLanes];
          group[i] |= ((last >> turn | last << (32 - turn)) & 0x78000000u);
        }
        std::memcpy(to, group, sizeof(uint32_t) * kGroup);
        to += sizeof(uint32_t) * kGroup;
      }
    }
    return {1, static_cast<int32_t>(count)};
  }

 private:
  // Exponents of a row, from `top` down.
  static constexpr int kExponents = 15;
  // So that weights times a power of two, and that power, are normal.
  static constexpr int kLowestTop = kExponents, kHighestTop = 127 + kExponents;

  static bool Zero(uint32_t weight) { return (weight & 0x7fffffffu) == 0; }
  static int ExponentField(uint32_t weight) { return static_cast<int>(weight >> 23 & 0xff); }
  static uint32_t WordAt(const char* plain, int64_t sum, int64_t k, int64_t depth) {
    const int64_t at = (sum / kSums * depth + k) * kSums + sum % kSums;
    uint32_t word;
    std::memcpy(&word, plain + at * int64_t{sizeof word}, sizeof word);
    return word;
  }
  // 0 for what is outside of the range.
  static uint32_t Compact(uint32_t weight, int top) {
    const int exponent = ExponentField(weight) - top + kExponents;
    if (ExponentField(weight) == 0 || exponent < 1 || exponent > kExponents) return 0;
    return (weight & 0x807fffffu) | static_cast<uint32_t>(exponent) << 23;
  }
  static float PowerOfTwo(int exponent) {
    const uint32_t bits = static_cast<uint32_t>(exponent + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  }
  static int Exponent(float power) {
    uint32_t bits;
    std::memcpy(&bits, &power, sizeof bits);
    return ExponentField(bits) - 127;
  }
  // The highest exponent of the range that holds most weights of a row; negative if one is no number.
  static int TopOf(const char* plain, int64_t sum, int64_t depth) {
    int32_t with[256] = {};
    for (int64_t k = 0; k < depth; ++k) ++with[ExponentField(WordAt(plain, sum, k, depth))];
    if (with[255] != 0) return -1;
    int32_t within = 0, most = -1;
    int best = kLowestTop;
    for (int top = 1; top <= kHighestTop; ++top) {
      within += with[top];
      if (top > kExponents) within -= with[top - kExponents];
      if (top >= kLowestTop && within > most) {
        most = within;
        best = top;
      }
    }
    return best;
  }
};

}  // namespace
}  // namespace edgelstm
