// Eight float lanes of AVX2, FMA and F16C. Include it only where all are compiled in.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace edgelstm {
namespace {

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;
  static constexpr int kLanes = 8;
  // Rows whose sums of four gates stay in the sixteen registers.
  static constexpr int kFloatRows = 3;
  static constexpr int kInt8Rows = 2;

  static Float Set(float value) { return _mm256_set1_ps(value); }
  static Float Load(const float* from) { return _mm256_loadu_ps(from); }
  // Weights that are kept as float16.
  static constexpr bool kHasHalf = true;
  static Float Load(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void Store(float* to, Float value) { _mm256_storeu_ps(to, value); }
  // The first `n` lanes; memory behind them is neither read nor written, other lanes are 0.
  static Float LoadPart(const float* from, int n) { return _mm256_maskload_ps(from, Mask(n)); }
  static void StorePart(float* to, Float value, int n) { _mm256_maskstore_ps(to, Mask(n), value); }

  static Float Add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float Sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float Mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float Div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float MulAdd(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // NaN in `value` passes through.
  static Float Max(float limit, Float value) { return _mm256_max_ps(Set(limit), value); }
  static Float Min(float limit, Float value) { return _mm256_min_ps(Set(limit), value); }
  // The larger; `b` if either is NaN.
  static Float Larger(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float Floor(Float a) { return _mm256_floor_ps(a); }
  static Float Abs(Float a) { return _mm256_andnot_ps(Set(-0.0f), a); }
  // `magnitude` >= 0 with the sign of `sign`.
  static Float WithSign(Float magnitude, Float sign) {
    return _mm256_or_ps(magnitude, _mm256_and_ps(Set(-0.0f), sign));
  }
  // Lanes of `yes` where a < b, else of `no`.
  static Float SelectLess(Float a, Float b, Float yes, Float no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }
  // a * 2^n for whole n, by adding to the exponent; the caller keeps the result in range.
  static Float TimesPowerOfTwo(Float a, Float n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
  }
  static float Sum(Float a) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }

  static Int ZeroInt() { return _mm256_setzero_si256(); }
  static Float ToFloat(Int a) { return _mm256_cvtepi32_ps(a); }
  // Four consecutive values for every lane.
  struct Quad {
    Int value, magnitude;
  };
  static Quad LoadQuad(const int8_t* values) {
    int32_t bits;
    std::memcpy(&bits, values, 4);
    const Int value = _mm256_set1_epi32(bits);
    return {value, _mm256_abs_epi8(value)};
  }
  static Int LoadWeights(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  // Adds to each lane the products of its four weights with the quad. All values are within
  // [-127, 127]: pairs of products then fit into the 16 bits of the intermediate sums, and moving
  // the sign to the weights cannot overflow.
  static Int AddDot(Int sum, Int weights, Quad quad) {
    const Int pairs =
        _mm256_maddubs_epi16(quad.magnitude, _mm256_sign_epi8(weights, quad.value));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // kLanes values, rounded to nearest with halves away from zero and cut to [-127, 127]; their
  // magnitude is below 2^31.
  static void StoreRounded(int8_t* to, Float value) {
    const Float half = _mm256_or_ps(_mm256_and_ps(value, Set(-0.0f)), Set(0.5f));
    Int whole = _mm256_cvttps_epi32(_mm256_add_ps(value, half));
    whole = _mm256_max_epi32(_mm256_min_epi32(whole, _mm256_set1_epi32(127)),
                             _mm256_set1_epi32(-127));
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
  }

 private:
  static __m256i Mask(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
  }
};

}  // namespace
}  // namespace edgelstm
