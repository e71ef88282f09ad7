// What 16x8 needs of AVX2 beside Avx2.
#pragma once

#include "kernels/memory.h"
#include "kernels/vec_avx2.h"
#include "kernels/wide.h"

namespace edgelstm {
namespace {

template <class V>
struct WideVector;

template <>
struct WideVector<Avx2> {
  using Int = Avx2::Int;
  using Words = Avx2::Words;
  static constexpr bool kExists = true;

  struct SumScaling {
    Int factor, half;
    __m128i right;
  };
  // shift >= 16.
  static SumScaling SumScalingOf(const SumMultiplier& by) {
    const int left = by.shift < 32 ? 32 - by.shift : 0;
    return {_mm256_set1_epi32(by.factor << left), _mm256_set1_epi64x(int64_t{1} << (by.shift - 1 + left)),
            _mm_cvtsi32_si128(by.shift + left - 32)};
  }
  // Scaled to nearest, halves up.
  static EDGELSTM_INLINE Int ScaledSum(Int a, const SumScaling& by) {
    const Int even = _mm256_add_epi64(_mm256_mul_epi32(a, by.factor), by.half);
    const Int odd =
        _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(a, 32), by.factor), by.half);
    return _mm256_sra_epi32(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa), by.right);
  }

  // The lower halves of kLanes numbers.
  static Int LowHalves(const int64_t* from) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 4));
    const __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high), 0x88);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xd8);
  }

  static Words Abs(Words a) { return _mm256_abs_epi16(a); }
  // Of numbers without sign: the highest 16 bits of a product; (a + b) / 2, halves up; the less.
  static Words MulHighUnsigned(Words a, Words b) { return _mm256_mulhi_epu16(a, b); }
  static Words MeanUnsigned(Words a, Words b) { return _mm256_avg_epu16(a, b); }
  static Words MinUnsigned(Words a, Words b) { return _mm256_min_epu16(a, b); }
  static Words ShiftRightUnsigned(Words a, int bits) {
    return _mm256_srl_epi16(a, _mm_cvtsi32_si128(bits));
  }
  // from - a where `sign` is negative, else a.
  static Words LessFrom(Words from, Words a, Words sign) {
    return _mm256_blendv_epi8(a, _mm256_sub_epi16(from, a), _mm256_srai_epi16(sign, 15));
  }

  // Entries, and above them what they are less than the next.
  static void PackTable(const int32_t* table, void* to) {
    auto* both = static_cast<uint32_t*>(to);
    for (int i = 0; i < 256; ++i) {
      both[i] = static_cast<uint32_t>(table[i]) |
                static_cast<uint32_t>(i < 255 ? table[i + 1] - table[i] : 0) << 16;
    }
  }
  static EDGELSTM_INLINE void LookUp(const void* table, Words place, Words* entry, Words* delta) {
    const auto* from = static_cast<const int*>(table);
    const Int zero = _mm256_setzero_si256(), low = _mm256_set1_epi32(0xffff);
    const Int first = _mm256_i32gather_epi32(from, _mm256_unpacklo_epi16(place, zero), 4);
    const Int second = _mm256_i32gather_epi32(from, _mm256_unpackhi_epi16(place, zero), 4);
    *entry = _mm256_packus_epi32(_mm256_and_si256(first, low), _mm256_and_si256(second, low));
    *delta = _mm256_packus_epi32(_mm256_srli_epi32(first, 16), _mm256_srli_epi32(second, 16));
  }

  // The higher bytes with 128 added, the lower ones as they are.
  static void StoreHighBytes(int8_t* to, Words a) {
    StoreBytes(to, _mm256_srli_epi16(_mm256_xor_si256(a, _mm256_set1_epi16(INT16_MIN)), 8));
  }
  static void StoreLowBytes(int8_t* to, Words a) {
    StoreBytes(to, _mm256_and_si256(a, _mm256_set1_epi16(0xff)));
  }

 private:
  static void StoreBytes(int8_t* to, Words a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_packus_epi16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
  }
};

}  // namespace
}  // namespace edgelstm
