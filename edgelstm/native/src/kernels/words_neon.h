// Eight 16-bit and four 32-bit lanes of NEON, for integer arithmetic.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "kernels/composed_words-inl.h"
#include "kernels/integer.h"

namespace edgelstm {
namespace {

struct NeonWords : ComposedWords<NeonWords> {
  using Int = int32x4_t;
  using Words = int16x8_t;
  static constexpr int kLanes = 4;
  struct Pair {
    Int first, second;
  };
  static constexpr int WordOf(int half, int lane) { return half * kLanes + lane; }

  static Words SetWords(int16_t value) { return vdupq_n_s16(value); }
  static Words LoadWords(const int16_t* from) { return vld1q_s16(from); }
  static void StoreWords(int16_t* to, Words value) { vst1q_s16(to, value); }
  static void StoreBytes(int8_t* to, Words value, uint8_t) { vst1_s8(to, vqmovn_s16(value)); }
  static Words AddWords(Words a, Words b) { return vaddq_s16(a, b); }
  static Words SubWords(Words a, Words b) { return vsubq_s16(a, b); }
  static Words AddSaturated(Words a, Words b) { return vqaddq_s16(a, b); }
  static Words AndWords(Words a, Words b) { return vandq_s16(a, b); }
  static Words MinWords(Words a, Words b) { return vminq_s16(a, b); }
  static Words MaxWords(Words a, Words b) { return vmaxq_s16(a, b); }
  static Words EqualWords(Words a, Words b) { return vreinterpretq_s16_u16(vceqq_s16(a, b)); }
  static Words GreaterWords(Words a, Words b) { return vreinterpretq_s16_u16(vcgtq_s16(a, b)); }
  static Words ChooseWords(Words mask, Words yes, Words no) {
    return vbslq_s16(vreinterpretq_u16_s16(mask), yes, no);
  }
  template <int kBits>
  static Words ShiftLeftWords(Words a) {
    return vshlq_n_s16(a, kBits);
  }
  // The lowest 16 bits of a * b.
  static Words MulLow(Words a, Words b) { return vmulq_s16(a, b); }
  static Words MulHigh(Words a, Words b) { return vqrdmulhq_s16(a, b); }
  static Words AddMulHigh(Words sum, Words a, Words b) {
#if defined(__ARM_FEATURE_QRDMX)
    return vqrdmlahq_s16(sum, a, b);
#else
    return vqaddq_s16(sum, vqrdmulhq_s16(a, b));
#endif
  }
  static Words AddQuarter(Words a, Words b) { return vrsraq_n_s16(a, b, 2); }
  static Words Mean(Words a, Words b) { return vrhaddq_s16(a, b); }
  template <int kBits>
  static Words ShiftLeftSaturated(Words a) {
    return vqshlq_n_s16(a, kBits);
  }
  static Words ChooseByBits(Words a, Words bits, Words some, Words none) {
    return vbslq_s16(vtstq_s16(a, bits), some, none);
  }
  static Words BelowMagnitude(Words a) {
    return vreinterpretq_s16_u16(vqsubq_u16(vreinterpretq_u16_s16(vabsq_s16(a)), vdupq_n_u16(1)));
  }
  static Words NotAndWords(Words a, Words b) { return vbicq_s16(b, a); }
  static Words LessFromOne(Words a, Words sign) {
    return veorq_s16(a, vandq_s16(vshrq_n_s16(sign, 15), SetWords(INT16_MAX)));
  }
  static Words TimesSign(Words a, Words sign) {
    return vmulq_s16(a, vminq_s16(vmaxq_s16(sign, SetWords(-1)), SetWords(1)));
  }
  // (a + 2^15) / 2 for a >= 0.
  static Words HalfOfOnePlus(Words a) { return vrhaddq_s16(a, SetWords(INT16_MAX)); }
  static Pair Product(Words a, Words b) {
    return {vmull_s16(vget_low_s16(a), vget_low_s16(b)), ProductOfHigh(a, b)};
  }
  static Pair Widen(Words a) { return {vmovl_s16(vget_low_s16(a)), vmovl_s16(vget_high_s16(a))}; }
  static Words Narrow(Pair pair) {
#if defined(__aarch64__)
    return vqmovn_high_s32(vqmovn_s32(pair.first), pair.second);
#else
    return vcombine_s16(vqmovn_s32(pair.first), vqmovn_s32(pair.second));
#endif
  }
  static Words AddNarrow(Words a, Pair b) {
    return Narrow({vaddw_s16(b.first, vget_low_s16(a)), vaddw_s16(b.second, vget_high_s16(a))});
  }
  // a * b / 2^bits to nearest, halves away from zero; bits > 0.
  static Words RoundedProduct(Words a, Words b, int bits) {
    const Int right = vdupq_n_s32(-bits);
    const Pair product = Product(a, b);
    return Narrow({vrshlq_s32(LessOneIfNegative(product.first), right),
                   vrshlq_s32(LessOneIfNegative(product.second), right)});
  }
  static Words UnitProduct(Words a, Words b) {
    const Pair product = Product(a, b);
    const int16x4_t first = vqrshrn_n_s32(LessOneIfNegative(product.first), 15);
#if defined(__aarch64__)
    return vqrshrn_high_n_s32(first, LessOneIfNegative(product.second), 15);
#else
    return vcombine_s16(first, vqrshrn_n_s32(LessOneIfNegative(product.second), 15));
#endif
  }

  static Int SetInt(int32_t value) { return vdupq_n_s32(value); }
  static Int LoadInt(const int32_t* from) { return vld1q_s32(from); }
  static Int LoadHalf(const int32_t* from, int half) { return vld1q_s32(from + half * kLanes); }
  static Int AddInt(Int a, Int b) { return vaddq_s32(a, b); }
  static Int SubInt(Int a, Int b) { return vsubq_s32(a, b); }
  static Int MulInt(Int a, Int b) { return vmulq_s32(a, b); }
  template <int kBits>
  static Int ShiftLeftInt(Int a) {
    return vshlq_n_s32(a, kBits);
  }
  // a / 1024 to nearest, halves away from zero.
  static Int NearestOf1024(Int a) {
    const Int sign = vshrq_n_s32(a, 31);
    const uint32x4_t magnitude =
        vrshrq_n_u32(vreinterpretq_u32_s32(vsubq_s32(veorq_s32(a, sign), sign)), 10);
    return vsubq_s32(veorq_s32(vreinterpretq_s32_u32(magnitude), sign), sign);
  }

  static constexpr int WidePlace(int lane, int k) { return k * kLanes + lane; }
  static Int AddWide(Int sum, const int8_t* weights, const int16_t* x) {
    const int16x8_t words = vmovl_s8(vld1_s8(weights));
    return vmlal_n_s16(vmlal_n_s16(sum, vget_low_s16(words), x[0]), vget_high_s16(words), x[1]);
  }
  static void StoreInt(int32_t* to, Int value) { vst1q_s32(to, value); }

  struct Scaling {
    Int factor, left, right;
  };
  static Scaling ScalingOf(const Multiplier& by) {
    return {SetInt(by.factor), SetInt(by.shift > 0 ? by.shift : 0),
            SetInt(by.shift < 0 ? by.shift : 0)};
  }
  // Twice rounded: the high half of the doubled product, then the shift, halves away from zero.
  static Int Scaled(Int a, const Scaling& by) {
    return RoundedAway(vqrdmulhq_s32(vshlq_s32(a, by.left), by.factor), by.right);
  }
  static Int ScaledRight(Int a, const Scaling& by) {
    return vrshlq_s32(LessOneIfNegative(vqrdmulhq_s32(a, by.factor)), by.right);
  }
  // As Scaled with halves up.
  static Int ScaledUp(Int a, const Scaling& by) {
    return vrshlq_s32(vqrdmulhq_s32(vshlq_s32(a, by.left), by.factor), by.right);
  }

 private:
  static Int ProductOfHigh(Words a, Words b) {
#if defined(__aarch64__)
    return vmull_high_s16(a, b);
#else
    return vmull_s16(vget_high_s16(a), vget_high_s16(b));
#endif
  }
  // What shifts that round halves up round away from zero.
  static Int LessOneIfNegative(Int a) { return vsraq_n_s32(a, a, 31); }
  // a * 2^right for right <= 0.
  static Int RoundedAway(Int a, Int right) {
    return vrshlq_s32(vqaddq_s32(a, vshrq_n_s32(vandq_s32(a, right), 31)), right);
  }
};

}  // namespace
}  // namespace edgelstm
