// Sixteen float lanes of AVX-512 (F, BW, DQ, VL); with VNNI's dot products where the file is
// compiled with them. Include it only where all are compiled in.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/composed_words-inl.h"
#include "kernels/integer.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

struct Avx512 : ComposedWords<Avx512> {
  using Float = __m512;
  using Int = __m512i;
  static constexpr int kLanes = 16;
  static constexpr bool kLaneProducts = false;
  // Of 32 registers.
  static constexpr int kFloatRows = 6;
  // Blocks of one row: with two, 64 -> 128 and 128 -> 256 took 1.06 times as long.
  static constexpr int kFloatBlocks = 4;
  static constexpr bool kReadsAhead = true;
  static constexpr bool kStreamsFloat = true;
  static constexpr int kInt8Rows = 4;
  static constexpr int kIntegerRows = 2;
  static constexpr int kTogether = 4;

  static Float Set(float value) { return _mm512_set1_ps(value); }
  static Float Load(const float* from) { return _mm512_loadu_ps(from); }
  // Weights that are kept as float16.
  static constexpr bool kHasHalf = true;
  // Widening takes two instructions: all of them for 16 lanes 1.2 times as long as reading 64 bytes
  // from a second cache, every other one 0.95.
  static constexpr bool kMixesHalf = true;
  static Float Load(const uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  // Weights of 28 bits, as CompactMatrix packs them: eight vectors from seven.
  static constexpr bool kHasCompact = true;
  static EDGELSTM_INLINE void LoadCompact(const uint32_t* from, Float* eight) {
    const Int own = SetInt(static_cast<int32_t>(0x87ffffffu)), spare = SetInt(0x78000000);
    Int last = ZeroInt();
    EDGELSTM_UNROLL
    for (int i = 0; i < 7; ++i) {
      const Int word = _mm512_loadu_si512(from + i * kLanes);
      eight[i] = _mm512_castsi512_ps(_mm512_and_si512(word, own));
      last = i == 0 ? _mm512_and_si512(word, spare)
                    : _mm512_ternarylogic_epi32(_mm512_rol_epi32(last, 4), spare, word, 0xb8);
    }
    eight[7] = _mm512_castsi512_ps(_mm512_rol_epi32(last, 4));
  }
  // The pieces of a float32, see FloatTiles, those of `odd` above those of `even`.
  static constexpr bool kSplitsFloat = true;
  static EDGELSTM_INLINE void StorePiecePairs(Float even, Float odd, uint16_t* to, int64_t apart) {
    // The upper half of every 32 bits to their lower.
    const Int halves = _mm512_set4_epi32(0x0f0e0f0e, 0x0b0a0b0a, 0x07060706, 0x03020302);
    constexpr __mmask64 kLower = 0x3333333333333333u;
    EDGELSTM_UNROLL
    for (int piece = 0; piece < 3; ++piece) {
      const Int both = _mm512_mask_shuffle_epi8(_mm512_castps_si512(odd), kLower,
                                                _mm512_castps_si512(even), halves);
      _mm512_store_si512(to + piece * apart, both);
      even = Rest(even);
      odd = Rest(odd);
    }
  }
  // The pieces of neighbouring values.
  static EDGELSTM_INLINE void StorePieces(Float value, uint16_t* to, int64_t apart) {
    EDGELSTM_UNROLL
    for (int piece = 0; piece < 3; ++piece) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + piece * apart),
                         _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(value), 16)));
      value = Rest(value);
    }
  }
  // Without its first piece; exact.
  static Float Rest(Float value) {
    const Int first = SetInt(static_cast<int32_t>(0xffff0000u));
    return Sub(value, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(value), first)));
  }
  static bool AnyInfinite(Float value) { return _mm512_fpclass_ps_mask(value, 0x18) != 0; }
  static void Store(float* to, Float value) { _mm512_storeu_ps(to, value); }
  // The first `n` lanes; memory behind them is neither read nor written, other lanes are 0.
  static Float LoadPart(const float* from, int n) { return _mm512_maskz_loadu_ps(Mask(n), from); }
  static void StorePart(float* to, Float value, int n) {
    _mm512_mask_storeu_ps(to, Mask(n), value);
  }

  static Float Add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float Sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float Mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float Div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float MulAdd(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // NaN in `value` passes through.
  static Float Max(float limit, Float value) { return _mm512_max_ps(Set(limit), value); }
  static Float Min(float limit, Float value) { return _mm512_min_ps(Set(limit), value); }
  // The larger; `b` if either is NaN.
  static Float Larger(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float Floor(Float a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  static Float Abs(Float a) { return _mm512_andnot_ps(Set(-0.0f), a); }
  // `magnitude` >= 0 with the sign of `sign`.
  static Float WithSign(Float magnitude, Float sign) {
    return _mm512_or_ps(magnitude, _mm512_and_ps(Set(-0.0f), sign));
  }
  // Lanes of `yes` where a < b, else of `no`.
  static Float SelectLess(Float a, Float b, Float yes, Float no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  // a * 2^n for whole n.
  static Float TimesPowerOfTwo(Float a, Float n) { return _mm512_scalef_ps(a, n); }
  static float Sum(Float a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }

  static Int ZeroInt() { return _mm512_setzero_si512(); }
  static Float ToFloat(Int a) { return _mm512_cvtepi32_ps(a); }
  static Int LoadWeights(const int8_t* from) { return _mm512_loadu_si512(from); }
  // Else g++ 12 reads them in every instruction that multiplies.
  static void Keep(Int* weights) { asm("" : "+v"(*weights)); }

#if defined(__AVX512VNNI__)
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
    return _mm512_set1_epi32(bits);
  }
  static Int AddDot(Int sum, Int weights, Quad quad) {
    return _mm512_dpbusd_epi32(sum, weights, quad);
  }
  static Int AddByteDot(Int sum, Int weights, Quad quad) {
    return _mm512_dpbusd_epi32(sum, quad, weights);
  }
  // AddByteDot of eight vectors of weights with four values. g++ 12 copies each sum twice when it
  // finds this in a loop among other work, which takes as many slots again.
  static EDGELSTM_INLINE void AddByteDots(Int* sum, const int8_t* weights, const int8_t* values) {
    Int quad;
    asm("vpbroadcastd %[values], %[quad]\n\t"
        "vpdpbusd (%[at]), %[quad], %[a]\n\t"
        "vpdpbusd 64(%[at]), %[quad], %[b]\n\t"
        "vpdpbusd 128(%[at]), %[quad], %[c]\n\t"
        "vpdpbusd 192(%[at]), %[quad], %[d]\n\t"
        "vpdpbusd 256(%[at]), %[quad], %[e]\n\t"
        "vpdpbusd 320(%[at]), %[quad], %[f]\n\t"
        "vpdpbusd 384(%[at]), %[quad], %[g]\n\t"
        "vpdpbusd 448(%[at]), %[quad], %[h]"
        : [quad] "=&v"(quad), [a] "+v"(sum[0]), [b] "+v"(sum[1]), [c] "+v"(sum[2]),
          [d] "+v"(sum[3]), [e] "+v"(sum[4]), [f] "+v"(sum[5]), [g] "+v"(sum[6]), [h] "+v"(sum[7])
        : [at] "r"(weights), [values] "m"(*reinterpret_cast<const int8_t(*)[4]>(values)),
          "m"(*reinterpret_cast<const int8_t(*)[512]>(weights)));
  }
  // What sums of AddDot over `count` values lack, a multiple of four.
  static int32_t DotCorrection(const int8_t* values, int64_t count) {
    const Int bias = _mm512_set1_epi8(static_cast<char>(kWeightBias));
    Int sum = ZeroInt();
    int64_t k = 0;
    for (; k + 64 <= count; k += 64) sum = _mm512_dpbusd_epi32(sum, bias, LoadWeights(values + k));
    sum = _mm512_dpbusd_epi32(sum, bias, LoadBytes(values + k, count - k));
    return -_mm512_reduce_add_epi32(sum);
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
    const Int value = _mm512_set1_epi32(bits);
    return {_mm512_movm_epi8(_mm512_movepi8_mask(value)), _mm512_abs_epi8(value)};
  }
  // As with AVX2: a negative value turns a weight w into -w - 1, which DotCorrection makes good.
  static Int AddDot(Int sum, Int weights, Quad quad) {
    const Int pairs =
        _mm512_maddubs_epi16(quad.magnitude, _mm512_xor_si512(weights, quad.negative));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
  static int32_t DotCorrection(const int8_t* values, int64_t count) {
    Int sum = ZeroInt();
    for (int64_t k = 0; k < count; k += 64) {
      const Int value = LoadBytes(values + k, count - k);
      const Int magnitude = _mm512_maskz_abs_epi8(_mm512_movepi8_mask(value), value);
      sum = _mm512_add_epi64(sum, _mm512_sad_epu8(magnitude, ZeroInt()));
    }
    return static_cast<int32_t>(_mm512_reduce_add_epi64(sum));
  }
#endif

  // kLanes values, rounded to nearest with halves away from zero and cut to [lowest, 127]; their
  // magnitude is below 2^31.
  static void StoreRounded(int8_t* to, Float value, int lowest) {
    const Float half = WithSign(Set(0.5f), value);
    Int whole = _mm512_cvttps_epi32(_mm512_add_ps(value, half));
    whole = _mm512_max_epi32(_mm512_min_epi32(whole, SetInt(127)), SetInt(lowest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(whole));
  }

  // --- 16-bit lanes, for integer arithmetic ---

  using Words = __m512i;
  using WordMask = __mmask32;
  struct Pair {
    Int first, second;
  };
  // Which 16-bit lane comes from lane `lane` of the first or second half of a pair.
  static constexpr int WordOf(int half, int lane) { return lane / 4 * 8 + half * 4 + lane % 4; }

  static Words SetWords(int16_t value) { return _mm512_set1_epi16(value); }
  static Words LoadWords(const int16_t* from) { return _mm512_loadu_si512(from); }
  static void StoreWords(int16_t* to, Words value) { _mm512_storeu_si512(to, value); }
  // The words cut to 8 bits, plus 0 or 128.
  static void StoreBytes(int8_t* to, Words value, uint8_t bias) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_xor_si256(_mm512_cvtsepi16_epi8(value),
                                         _mm256_set1_epi8(static_cast<char>(bias))));
  }
  static Words AddWords(Words a, Words b) { return _mm512_add_epi16(a, b); }
  static Words SubWords(Words a, Words b) { return _mm512_sub_epi16(a, b); }
  static Words AddSaturated(Words a, Words b) { return _mm512_adds_epi16(a, b); }
  static Words AndWords(Words a, Words b) { return _mm512_and_si512(a, b); }
  static Words MinWords(Words a, Words b) { return _mm512_min_epi16(a, b); }
  static Words MaxWords(Words a, Words b) { return _mm512_max_epi16(a, b); }
  static WordMask EqualWords(Words a, Words b) { return _mm512_cmpeq_epi16_mask(a, b); }
  static WordMask GreaterWords(Words a, Words b) { return _mm512_cmpgt_epi16_mask(a, b); }
  static Words ChooseWords(WordMask mask, Words yes, Words no) {
    return _mm512_mask_blend_epi16(mask, no, yes);
  }
  template <int kBits>
  static Words ShiftLeftWords(Words a) {
    return _mm512_slli_epi16(a, kBits);
  }
  // The lowest 16 bits of a * b.
  static Words MulLow(Words a, Words b) { return _mm512_mullo_epi16(a, b); }
  // a * b / 2^15 to nearest, halves up; not both are -2^15.
  static Words MulHigh(Words a, Words b) { return _mm512_mulhrs_epi16(a, b); }
  static Words ChooseByBits(Words a, Words bits, Words some, Words none) {
    return _mm512_mask_mov_epi16(some, _mm512_testn_epi16_mask(a, bits), none);
  }
  static Words MulHighIf(Words a, Words bits, Words value, Words factor) {
    return _mm512_mask_mulhrs_epi16(value, _mm512_test_epi16_mask(a, bits), value, factor);
  }
  static Words BelowMagnitude(Words a) {
    return _mm512_subs_epu16(_mm512_abs_epi16(a), SetWords(1));
  }
  static Words NotAndWords(Words a, Words b) { return _mm512_andnot_si512(a, b); }
  static Words LessFromOne(Words a, Words sign) {
    // Exclusive or of `a` and of the 15 low bits of the sign.
    return _mm512_ternarylogic_epi32(a, _mm512_srai_epi16(sign, 15), SetWords(INT16_MAX), 0x78);
  }
  static Words TimesSign(Words a, Words sign) {
    return _mm512_mullo_epi16(a, MaxWords(MinWords(sign, SetWords(1)), SetWords(-1)));
  }
  static Words UnitProduct(Words a, Words b) {
    const Words product = _mm512_mulhrs_epi16(a, _mm512_abs_epi16(b));
    const Words negative = SubWords(SetWords(0), product);
    // -2^15 has no magnitude: the product has its sign already.
    return _mm512_mask_min_epi16(product, _mm512_movepi16_mask(b), product, negative);
  }
  // (a + 2^15) / 2 for a >= 0.
  static Words HalfOfOnePlus(Words a) { return _mm512_avg_epu16(a, SetWords(INT16_MAX)); }
  static Pair Product(Words a, Words b) {
    const Words low = _mm512_mullo_epi16(a, b), high = _mm512_mulhi_epi16(a, b);
    return {_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high)};
  }
  static Pair Widen(Words a) {
    return {_mm512_srai_epi32(_mm512_unpacklo_epi16(a, a), 16),
            _mm512_srai_epi32(_mm512_unpackhi_epi16(a, a), 16)};
  }
  // Cut to 16 bits.
  static Words Narrow(Pair pair) { return _mm512_packs_epi32(pair.first, pair.second); }
  // a * b / 2^bits to nearest, halves away from zero; a >= 0, b > -2^15, bits >= 15.
  static Words RoundedProduct(Words a, Words b, int bits) {
    const Words magnitude = _mm512_abs_epi16(b);
    const Words product =
        bits == 15 ? _mm512_mulhrs_epi16(a, magnitude)
                   : _mm512_mulhrs_epi16(_mm512_mulhi_epu16(_mm512_add_epi16(a, a), magnitude),
                                         SetWords(static_cast<int16_t>(1 << (30 - bits))));
    return _mm512_mask_sub_epi16(product, _mm512_movepi16_mask(b), SetWords(0), product);
  }

  static Int SetInt(int32_t value) { return _mm512_set1_epi32(value); }
  static Int LoadInt(const int32_t* from) { return _mm512_loadu_si512(from); }
  // The lanes that a half of a pair takes of 2 * kLanes values in their natural order.
  static Int LoadHalf(const int32_t* from, int half) {
    const Int low = LoadInt(from), high = LoadInt(from + kLanes);
    return half == 0 ? _mm512_shuffle_i32x4(low, high, 0x88)
                     : _mm512_shuffle_i32x4(low, high, 0xdd);
  }
  static Int AddInt(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int SubInt(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int MulInt(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  template <int kBits>
  static Int ShiftLeftInt(Int a) {
    return _mm512_slli_epi32(a, kBits);
  }
  // a / 1024 to nearest, halves away from zero; -0.5 to 0.5 is 0 and the sum may take 33 bits.
  static Int NearestOf1024(Int a) {
    // |a| as an unsigned number has room for 512 more.
    const Int magnitude = _mm512_srli_epi32(_mm512_add_epi32(_mm512_abs_epi32(a), SetInt(512)), 10);
    return _mm512_mask_sub_epi32(magnitude, _mm512_movepi32_mask(a), ZeroInt(), magnitude);
  }

  // Where weight k of a lane stands among the 2 * kLanes of a pair of k.
  static constexpr int WidePlace(int lane, int k) { return 2 * lane + k; }
  // sum + the products of 2 * kLanes weights with two int16 each lane has in common.
  static Int AddWide(Int sum, const int8_t* weights, const int16_t* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_cvtepi8_epi16(bytes), SetInt(pair)));
  }
  static void StoreInt(int32_t* to, Int value) { _mm512_storeu_si512(to, value); }

  struct Scaling {
    Int factor, mask, half, right, nudge;
    __m128i left;
  };
  static Scaling ScalingOf(const Multiplier& by) {
    const int right = by.shift < 0 ? -by.shift : 0;
    const auto mask = static_cast<int32_t>((int64_t{1} << right) - 1);
    const int64_t nudge = (int64_t{1} << 31) + (right > 0 ? int64_t{1} << (31 + right) : 0);
    return {SetInt(by.factor),         SetInt(mask), SetInt(mask >> 1), SetInt(right),
            _mm512_set1_epi64(nudge), _mm_cvtsi32_si128(by.shift > 0 ? by.shift : 0)};
  }
  // Both roundings in one addition before the shifts, to the doubled product.
  static Int ScaledRight(Int a, const Scaling& by) {
    const Int twice = _mm512_add_epi32(a, a);
    const Int even = _mm512_add_epi64(_mm512_mul_epi32(twice, by.factor), by.nudge);
    const Int odd = _mm512_add_epi64(
        _mm512_mul_epi32(_mm512_srli_epi64(twice, 32), by.factor), by.nudge);
    const Int high = _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_CDAB);
    // Halves away from zero: one less where a is negative.
    return _mm512_srav_epi32(_mm512_add_epi32(high, _mm512_srai_epi32(a, 31)), by.right);
  }
  // Twice rounded: the high half of the doubled product, then the shift, halves away from zero.
  static Int Scaled(Int a, const Scaling& by) {
    const Int high = HighProduct(a, by);
    const Int limit = _mm512_sub_epi32(by.half, _mm512_srai_epi32(high, 31));
    return Shifted(high, limit, by);
  }
  // The same with halves up.
  static Int ScaledUp(Int a, const Scaling& by) {
    return Shifted(HighProduct(a, by), by.half, by);
  }

 private:
  // high * 2^-right, one more where what is shifted out exceeds `limit`.
  static Int Shifted(Int high, Int limit, const Scaling& by) {
    const Int whole = _mm512_srav_epi32(high, by.right);
    const __mmask16 up = _mm512_cmpgt_epi32_mask(_mm512_and_si512(high, by.mask), limit);
    return _mm512_mask_sub_epi32(whole, up, whole, _mm512_set1_epi32(-1));
  }
  static Int HighProduct(Int a, const Scaling& by) {
    a = _mm512_sll_epi32(a, by.left);
    const Int half = _mm512_set1_epi64(int64_t{1} << 30);
    const Int even = _mm512_add_epi64(_mm512_mul_epi32(a, by.factor), half);
    const Int odd = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64(a, 32), by.factor), half);
    return _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 31),
                                   _mm512_slli_epi64(odd, 1));
  }
  static __mmask16 Mask(int n) {
    return static_cast<__mmask16>(n >= kLanes ? 0xffff : (1 << n) - 1);
  }
  // The first `n` of 64 bytes, else 0; memory behind them is not read.
  static Int LoadBytes(const int8_t* from, int64_t n) {
    return _mm512_maskz_loadu_epi8(n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1, from);
  }
};

}  // namespace
}  // namespace edgelstm
