// Eight float lanes of AVX2, FMA and F16C; with dot products where the file is compiled with
// AVX-VNNI. Include it only where all are compiled in.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/composed_words-inl.h"
#include "kernels/integer.h"

namespace edgelstm {
namespace {

struct Avx2 : ComposedWords<Avx2> {
  using Float = __m256;
  using Int = __m256i;
  static constexpr int kLanes = 8;
  // Whether products take one lane of a vector as their factor.
  static constexpr bool kLaneProducts = false;
  // Rows whose sums of four gates stay in the sixteen registers.
  static constexpr int kFloatRows = 3;
  static constexpr int kFloatBlocks = 2;
  static constexpr int kInt8Rows = 2;

  static Float Set(float value) { return _mm256_set1_ps(value); }
  static Float Load(const float* from) { return _mm256_loadu_ps(from); }
  // Weights that are kept as float16.
  static constexpr bool kHasHalf = true;
  static constexpr bool kMixesHalf = false;
  static constexpr bool kHasCompact = false;
  static constexpr bool kReadsAhead = false;
  static constexpr bool kStreamsFloat = false;
  static constexpr bool kSplitsFloat = false;
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
  static Int LoadWeights(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }

#if defined(__AVXVNNI__)
  // The instruction takes one factor without sign: weights are packed with 128 added, and every sum
  // lacks as many times the sum of its values.
  static constexpr uint8_t kWeightBias = 128;
  // Where the values of a row can have the bias no sum lacks anything, and weights are read by the
  // instruction that multiplies them.
  static constexpr uint8_t kValueBias = 128;
  using Quad = Int;
  static Quad LoadQuad(const int8_t* values) {
    int32_t bits;
    std::memcpy(&bits, values, 4);
    return _mm256_set1_epi32(bits);
  }
  static Int AddDot(Int sum, Int weights, Quad quad) {
    return _mm256_dpbusd_avx_epi32(sum, weights, quad);
  }
  static Int AddByteDot(Int sum, Int weights, Quad quad) {
    return _mm256_dpbusd_avx_epi32(sum, quad, weights);
  }
  // What sums of AddDot over `count` values lack, a multiple of four.
  static int32_t DotCorrection(const int8_t* values, int64_t count) {
    const Int bias = _mm256_set1_epi8(static_cast<char>(kWeightBias));
    Int sum = ZeroInt();
    int64_t k = 0;
    for (; k + 32 <= count; k += 32) {
      sum = _mm256_dpbusd_avx_epi32(sum, bias, LoadWeights(values + k));
    }
    int32_t parts[kLanes], total = 0;
    StoreInt(parts, sum);
    for (const int32_t part : parts) total += part;
    for (; k < count; ++k) total += kWeightBias * values[k];
    return -total;
  }
#else
  static constexpr uint8_t kWeightBias = 0;
  // Four consecutive values for every lane.
  struct Quad {
    Int negative, magnitude;
  };
  static Quad LoadQuad(const int8_t* values) {
    int32_t bits;
    std::memcpy(&bits, values, 4);
    const Int value = _mm256_set1_epi32(bits);
    return {_mm256_cmpgt_epi8(ZeroInt(), value), _mm256_abs_epi8(value)};
  }
  // Adds to each lane the products of its four weights with the quad, less the magnitudes of the
  // quad's negative values: those turn a weight w into -w - 1, which saves the instruction that
  // would make it -w. Weights are within [-127, 127]: pairs of products then fit into the 16 bits
  // of the intermediate sums.
  static Int AddDot(Int sum, Int weights, Quad quad) {
    const Int pairs =
        _mm256_maddubs_epi16(quad.magnitude, _mm256_xor_si256(weights, quad.negative));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  // What sums of AddDot over `count` values lack, a multiple of four.
  static int32_t DotCorrection(const int8_t* values, int64_t count) {
    Int sum = ZeroInt();
    int64_t k = 0;
    for (; k + 32 <= count; k += 32) {
      const Int value = LoadWeights(values + k);
      sum = _mm256_add_epi64(
          sum, _mm256_sad_epu8(_mm256_and_si256(_mm256_abs_epi8(value),
                                                _mm256_cmpgt_epi8(ZeroInt(), value)),
                               ZeroInt()));
    }
    int64_t parts[4];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(parts), sum);
    int64_t total = parts[0] + parts[1] + parts[2] + parts[3];
    for (; k < count; ++k) total -= values[k] < 0 ? values[k] : 0;
    return static_cast<int32_t>(total);
  }
#endif

  // kLanes values, rounded to nearest with halves away from zero and cut to [lowest, 127]; their
  // magnitude is below 2^31.
  static void StoreRounded(int8_t* to, Float value, int lowest) {
    const Float half = _mm256_or_ps(_mm256_and_ps(value, Set(-0.0f)), Set(0.5f));
    Int whole = _mm256_cvttps_epi32(_mm256_add_ps(value, half));
    whole = _mm256_max_epi32(_mm256_min_epi32(whole, _mm256_set1_epi32(127)),
                             _mm256_set1_epi32(lowest));
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
  }

  // --- 16-bit lanes, for integer arithmetic ---

  using Words = __m256i;
  struct Pair {
    Int first, second;
  };
  static constexpr int kIntegerRows = 1;
  // Which 16-bit lane comes from lane `lane` of the first or second half of a pair.
  static constexpr int WordOf(int half, int lane) { return lane / 4 * 8 + half * 4 + lane % 4; }

  static Words SetWords(int16_t value) { return _mm256_set1_epi16(value); }
  static Words LoadWords(const int16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void StoreWords(int16_t* to, Words value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
  }
  // The words cut to 8 bits, plus 0 or 128.
  static void StoreBytes(int8_t* to, Words value, uint8_t bias) {
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(bias))));
  }
  static Words AddWords(Words a, Words b) { return _mm256_add_epi16(a, b); }
  static Words SubWords(Words a, Words b) { return _mm256_sub_epi16(a, b); }
  static Words AddSaturated(Words a, Words b) { return _mm256_adds_epi16(a, b); }
  static Words AndWords(Words a, Words b) { return _mm256_and_si256(a, b); }
  static Words MinWords(Words a, Words b) { return _mm256_min_epi16(a, b); }
  static Words MaxWords(Words a, Words b) { return _mm256_max_epi16(a, b); }
  static Words EqualWords(Words a, Words b) { return _mm256_cmpeq_epi16(a, b); }
  static Words GreaterWords(Words a, Words b) { return _mm256_cmpgt_epi16(a, b); }
  static Words ChooseWords(Words mask, Words yes, Words no) {
    return _mm256_blendv_epi8(no, yes, mask);
  }
  template <int kBits>
  static Words ShiftLeftWords(Words a) {
    return _mm256_slli_epi16(a, kBits);
  }
  // The lowest 16 bits of a * b.
  static Words MulLow(Words a, Words b) { return _mm256_mullo_epi16(a, b); }
  // a * b / 2^15 to nearest, halves up; not both are -2^15.
  static Words MulHigh(Words a, Words b) { return _mm256_mulhrs_epi16(a, b); }
  static Words BelowMagnitude(Words a) {
    return _mm256_subs_epu16(_mm256_abs_epi16(a), SetWords(1));
  }
  static Words NotAndWords(Words a, Words b) { return _mm256_andnot_si256(a, b); }
  static Words LessFromOne(Words a, Words sign) {
    return _mm256_xor_si256(
        a, _mm256_and_si256(_mm256_srai_epi16(sign, 15), SetWords(INT16_MAX)));
  }
  static Words TimesSign(Words a, Words sign) { return _mm256_sign_epi16(a, sign); }
  static Words UnitProduct(Words a, Words b) {
    const Words product = _mm256_mulhrs_epi16(a, _mm256_abs_epi16(b));
    // -2^15 has no magnitude: the product has its sign already.
    return _mm256_min_epi16(product, _mm256_sign_epi16(product, b));
  }
  // (a + 2^15) / 2 for a >= 0.
  static Words HalfOfOnePlus(Words a) { return _mm256_avg_epu16(a, SetWords(INT16_MAX)); }
  static Pair Product(Words a, Words b) {
    const Words low = _mm256_mullo_epi16(a, b), high = _mm256_mulhi_epi16(a, b);
    return {_mm256_unpacklo_epi16(low, high), _mm256_unpackhi_epi16(low, high)};
  }
  static Pair Widen(Words a) {
    return {_mm256_srai_epi32(_mm256_unpacklo_epi16(a, a), 16),
            _mm256_srai_epi32(_mm256_unpackhi_epi16(a, a), 16)};
  }
  // Cut to 16 bits.
  static Words Narrow(Pair pair) { return _mm256_packs_epi32(pair.first, pair.second); }
  // a * b / 2^bits to nearest, halves away from zero; a >= 0, b > -2^15, bits >= 15.
  static Words RoundedProduct(Words a, Words b, int bits) {
    const Words magnitude = _mm256_abs_epi16(b);
    const Words product =
        bits == 15 ? _mm256_mulhrs_epi16(a, magnitude)
                   : _mm256_mulhrs_epi16(_mm256_mulhi_epu16(_mm256_add_epi16(a, a), magnitude),
                                         SetWords(static_cast<int16_t>(1 << (30 - bits))));
    return _mm256_sign_epi16(product, b);
  }

  static Int SetInt(int32_t value) { return _mm256_set1_epi32(value); }
  static Int LoadInt(const int32_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  // The lanes that a half of a pair takes of 2 * kLanes values in their natural order.
  static Int LoadHalf(const int32_t* from, int half) {
    const auto* at = reinterpret_cast<const __m128i*>(from + 4 * half);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(at)),
                                   _mm_loadu_si128(at + 2), 1);
  }
  static Int AddInt(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int SubInt(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int MulInt(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  template <int kBits>
  static Int ShiftLeftInt(Int a) {
    return _mm256_slli_epi32(a, kBits);
  }
  // a / 1024 to nearest, halves away from zero; -0.5 to 0.5 is 0 and the sum may take 33 bits.
  static Int NearestOf1024(Int a) {
    // |a| as an unsigned number has room for 512 more.
    const Int magnitude = _mm256_srli_epi32(_mm256_add_epi32(_mm256_abs_epi32(a), SetInt(512)), 10);
    return _mm256_sign_epi32(magnitude, a);
  }

  // Where weight k of a lane stands among the 2 * kLanes of a pair of k.
  static constexpr int WidePlace(int lane, int k) { return 2 * lane + k; }
  // sum + the products of 2 * kLanes weights with two int16 each lane has in common.
  static Int AddWide(Int sum, const int8_t* weights, const int16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(weights));
    return _mm256_add_epi32(
        sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), _mm256_set1_epi32(pair)));
  }
  static void StoreInt(int32_t* to, Int value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
  }

  struct Scaling {
    Int factor, mask, half, nudge;
    __m128i left, right;
  };
  static Scaling ScalingOf(const Multiplier& by) {
    const int right = by.shift < 0 ? -by.shift : 0;
    const auto mask = static_cast<int32_t>((int64_t{1} << right) - 1);
    const int64_t nudge = (int64_t{1} << 31) + (right > 0 ? int64_t{1} << (31 + right) : 0);
    return {SetInt(by.factor),
            SetInt(mask),
            SetInt(mask >> 1),
            _mm256_set1_epi64x(nudge),
            _mm_cvtsi32_si128(by.shift > 0 ? by.shift : 0),
            _mm_cvtsi32_si128(right)};
  }
  // Both roundings in one addition before the shifts, to the doubled product.
  static Int ScaledRight(Int a, const Scaling& by) {
    const Int twice = _mm256_add_epi32(a, a);
    const Int even = _mm256_add_epi64(_mm256_mul_epi32(twice, by.factor), by.nudge);
    const Int odd = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(twice, 32), by.factor), by.nudge);
    const Int high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    // Halves away from zero: one less where a is negative.
    return _mm256_sra_epi32(_mm256_add_epi32(high, _mm256_srai_epi32(a, 31)), by.right);
  }
  // Twice rounded: the high half of the doubled product, then the shift, halves away from zero.
  static Int Scaled(Int a, const Scaling& by) {
    const Int high = HighProduct(a, by);
    const Int rest = _mm256_and_si256(high, by.mask);
    const Int limit = _mm256_sub_epi32(by.half, _mm256_srai_epi32(high, 31));
    return _mm256_sub_epi32(_mm256_sra_epi32(high, by.right), _mm256_cmpgt_epi32(rest, limit));
  }
  // The same with halves up.
  static Int ScaledUp(Int a, const Scaling& by) {
    const Int high = HighProduct(a, by);
    const Int rest = _mm256_and_si256(high, by.mask);
    return _mm256_sub_epi32(_mm256_sra_epi32(high, by.right), _mm256_cmpgt_epi32(rest, by.half));
  }

 private:
  static Int HighProduct(Int a, const Scaling& by) {
    a = _mm256_sll_epi32(a, by.left);
    const Int half = _mm256_set1_epi64x(int64_t{1} << 30);
    const Int even = _mm256_add_epi64(_mm256_mul_epi32(a, by.factor), half);
    const Int odd =
        _mm256_add_epi64(_mm256_mul_epi32(_mm256_srli_epi64(a, 32), by.factor), half);
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 31), _mm256_slli_epi64(odd, 1), 0xaa);
  }
  static __m256i Mask(int n) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes);
  }
};

}  // namespace
}  // namespace edgelstm
