// What 16x8 needs of AVX-512 beside Avx512.
#pragma once

#include "kernels/vec_avx512.h"
#include "kernels/wide.h"

namespace edgelstm {
namespace {

template <class V>
struct WideVector;

template <>
struct WideVector<Avx512> {
  using Int = Avx512::Int;
  using Words = Avx512::Words;
  static constexpr bool kExists = true;

  struct SumScaling {
    Int factor, half, right;
  };
  // shift >= 16.
  static SumScaling SumScalingOf(const SumMultiplier& by) {
    const int left = by.shift < 32 ? 32 - by.shift : 0;
    return {_mm512_set1_epi32(by.factor << left), _mm512_set1_epi64(int64_t{1} << (by.shift - 1 + left)),
            _mm512_set1_epi32(by.shift + left - 32)};
  }
  // Scaled to nearest, halves up.
  static EDGELSTM_INLINE Int ScaledSum(Int a, const SumScaling& by) {
    const Int even = _mm512_add_epi64(_mm512_mul_epi32(a, by.factor), by.half);
    const Int odd =
        _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(a, 32), by.factor), by.half);
    return _mm512_srav_epi32(_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_CDAB), by.right);
  }

  // The lower halves of kLanes numbers.
  static Int LowHalves(const int64_t* from) {
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm512_cvtepi64_epi32(_mm512_loadu_si512(from))),
        _mm512_cvtepi64_epi32(_mm512_loadu_si512(from + 8)), 1);
  }

  static Words Abs(Words a) { return _mm512_abs_epi16(a); }
  // Of numbers without sign: the highest 16 bits of a product; (a + b) / 2, halves up; the less.
  static Words MulHighUnsigned(Words a, Words b) { return _mm512_mulhi_epu16(a, b); }
  static Words MeanUnsigned(Words a, Words b) { return _mm512_avg_epu16(a, b); }
  static Words MinUnsigned(Words a, Words b) { return _mm512_min_epu16(a, b); }
  static Words ShiftRightUnsigned(Words a, int bits) {
    return _mm512_srl_epi16(a, _mm_cvtsi32_si128(bits));
  }
  // from - a where `sign` is negative, else a.
  static Words LessFrom(Words from, Words a, Words sign) {
    return _mm512_mask_sub_epi16(a, _mm512_movepi16_mask(sign), from, a);
  }

  // Entries, and what they are less than the next. By permutations: on CPUs whose gathers leak, these
  // are made slow.
  static void PackTable(const int32_t* table, void* to) {
    auto* words = static_cast<uint16_t*>(to);
    for (int i = 0; i < 256; ++i) {
      words[i] = static_cast<uint16_t>(table[i]);
      words[256 + i] = static_cast<uint16_t>(i < 255 ? table[i + 1] - table[i] : 0);
    }
  }
  static EDGELSTM_INLINE void LookUp(const void* table, Words place, Words* entry, Words* delta) {
    const __mmask32 odd = _mm512_test_epi16_mask(place, _mm512_set1_epi16(64));
    const __mmask32 high = _mm512_test_epi16_mask(place, _mm512_set1_epi16(128));
    const auto* from = static_cast<const int16_t*>(table);
    const auto find = [&](const int16_t* words) {
      const Words low = _mm512_mask_mov_epi16(Of64(words, place), odd, Of64(words + 64, place));
      return _mm512_mask_mov_epi16(
          low, high,
          _mm512_mask_mov_epi16(Of64(words + 128, place), odd, Of64(words + 192, place)));
    };
    *entry = find(from);
    *delta = find(from + 256);
  }

  // The higher bytes with 128 added, the lower ones as they are.
  static void StoreHighBytes(int8_t* to, Words a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_xor_si256(_mm512_cvtepi16_epi8(_mm512_srli_epi16(a, 8)),
                                         _mm256_set1_epi8(static_cast<char>(0x80))));
  }
  static void StoreLowBytes(int8_t* to, Words a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi16_epi8(a));
  }

 private:
  static EDGELSTM_INLINE Words Of64(const int16_t* words, Words place) {
    return _mm512_permutex2var_epi16(_mm512_loadu_si512(words), place,
                                     _mm512_loadu_si512(words + 32));
  }
};

}  // namespace
}  // namespace edgelstm
