// Four float lanes of NEON, 64-bit and 32-bit; with dot products where the file is compiled with
// them. Include it only where NEON (32-bit: with VFPv4) is compiled in.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/integer.h"

namespace edgelstm {
namespace {

struct Neon {
  using Float = float32x4_t;
  using Int = int32x4_t;
  static constexpr int kLanes = 4;
#if defined(__aarch64__)
  // Of 32 registers.
  static constexpr int kFloatRows = 5;
  static constexpr int kInt8Rows = 4;
  static constexpr int kIntegerRows = 2;
  // Products take one lane of a vector as their factor.
  static constexpr bool kLaneProducts = true;
#else
  static constexpr bool kLaneProducts = false;
  static constexpr int kFloatRows = 3;
  static constexpr int kInt8Rows = 2;
  static constexpr int kIntegerRows = 1;
#endif

  static Float Set(float value) { return vdupq_n_f32(value); }
  static Float Load(const float* from) { return vld1q_f32(from); }
#if defined(__aarch64__)
  static constexpr bool kHasHalf = true;
  static Float Load(const uint16_t* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
  }
#else
  static constexpr bool kHasHalf = false;
  static Float Load(const uint16_t*) { return Set(0.0f); }
#endif
  static void Store(float* to, Float value) { vst1q_f32(to, value); }
  static Float LoadPart(const float* from, int n) {
    float lanes[kLanes] = {0, 0, 0, 0};
    for (int lane = 0; lane < n && lane < kLanes; ++lane) lanes[lane] = from[lane];
    return Load(lanes);
  }
  static void StorePart(float* to, Float value, int n) {
    float lanes[kLanes];
    Store(lanes, value);
    for (int lane = 0; lane < n && lane < kLanes; ++lane) to[lane] = lanes[lane];
  }

  static Float Add(Float a, Float b) { return vaddq_f32(a, b); }
  static Float Sub(Float a, Float b) { return vsubq_f32(a, b); }
  static Float Mul(Float a, Float b) { return vmulq_f32(a, b); }
  static Float Div(Float a, Float b) {
#if defined(__aarch64__)
    return vdivq_f32(a, b);
#else
    // The vector unit has estimates only; sigmoid and tanh need the rounded quotient.
    float x[kLanes], y[kLanes];
    Store(x, a);
    Store(y, b);
    for (int lane = 0; lane < kLanes; ++lane) x[lane] /= y[lane];
    return Load(x);
#endif
  }
  static Float MulAdd(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
#if defined(__aarch64__)
  template <int kLane>
  static Float MulAddLane(Float a, Float b, Float c) {
    return vfmaq_laneq_f32(c, a, b, kLane);
  }
#endif
  // NaN in `value` passes through.
  static Float Max(float limit, Float value) { return vmaxq_f32(Set(limit), value); }
  static Float Min(float limit, Float value) { return vminq_f32(Set(limit), value); }
  // The larger; `b` if either is NaN.
  static Float Larger(Float a, Float b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static Float Floor(Float a) {
#if defined(__aarch64__)
    return vrndmq_f32(a);
#else
    // The caller keeps |a| below 2^31; NaN stays.
    const Float whole = vcvtq_f32_s32(vcvtq_s32_f32(a));
    const Float below = vbslq_f32(vcgtq_f32(whole, a), vsubq_f32(whole, Set(1.0f)), whole);
    return vbslq_f32(vceqq_f32(a, a), below, a);
#endif
  }
  static Float Abs(Float a) { return vabsq_f32(a); }
  // `magnitude` >= 0 with the sign of `sign`.
  static Float WithSign(Float magnitude, Float sign) {
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude);
  }
  static Float SelectLess(Float a, Float b, Float yes, Float no) {
    return vbslq_f32(vcltq_f32(a, b), yes, no);
  }
  static Float TimesPowerOfTwo(Float a, Float n) {
    const Int exponent = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent));
  }
  static float Sum(Float a) {
    const float32x2_t half = vadd_f32(vget_low_f32(a), vget_high_f32(a));
    return vget_lane_f32(vpadd_f32(half, half), 0);
  }

  static Int ZeroInt() { return vdupq_n_s32(0); }
  static Float ToFloat(Int a) { return vcvtq_f32_s32(a); }

  using Quad = int8x16_t;
  using Weights = int8x16_t;
  // Four consecutive values for every lane.
  static Quad LoadQuad(const int8_t* values) {
    int32_t bits;
    std::memcpy(&bits, values, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
  }
  static Weights LoadWeights(const int8_t* from) { return vld1q_s8(from); }
#if defined(__ARM_FEATURE_DOTPROD)
  static constexpr bool kQuadLanes = true;
  using Quads = int8x16_t;
  static Quads LoadQuads(const int8_t* values) { return vld1q_s8(values); }
  template <int kLane>
  static Int AddDotLane(Int sum, Weights weights, Quads quads) {
    return vdotq_laneq_s32(sum, weights, quads, kLane);
  }
  static Int AddDot(Int sum, Weights weights, Quad quad) { return vdotq_s32(sum, weights, quad); }
#else
  static constexpr bool kQuadLanes = false;
  // Weights are within [-127, 127]: sums of two products fit into 16 bits.
  static Int AddDot(Int sum, Weights weights, Quad quad) {
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(quad));
#if defined(__aarch64__)
    const int16x8_t high = vmull_high_s8(weights, quad);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#else
    const int16x8_t high = vmull_s8(vget_high_s8(weights), vget_high_s8(quad));
    return vpadalq_s16(sum, vcombine_s16(vpadd_s16(vget_low_s16(low), vget_high_s16(low)),
                                         vpadd_s16(vget_low_s16(high), vget_high_s16(high))));
#endif
  }
#endif
  static constexpr uint8_t kWeightBias = 0;
  static int32_t DotCorrection(const int8_t*, int64_t) { return 0; }

  // kLanes values, rounded to nearest with halves away from zero and cut to [lowest, 127].
  static void StoreRounded(int8_t* to, Float value, int lowest) {
#if defined(__aarch64__)
    Int whole = vcvtaq_s32_f32(value);
#else
    Int whole = vcvtq_s32_f32(vaddq_f32(value, WithSign(Set(0.5f), value)));
#endif
    whole = vmaxq_s32(vminq_s32(whole, vdupq_n_s32(127)), vdupq_n_s32(lowest));
    const int16x4_t words = vmovn_s32(whole);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    const int32_t bits = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
    std::memcpy(to, &bits, 4);
  }

  // --- 16-bit lanes, for integer arithmetic ---

  using Words = int16x8_t;
  struct Pair {
    Int first, second;
  };
  static constexpr int WordOf(int half, int lane) { return half * kLanes + lane; }

  static Words SetWords(int16_t value) { return vdupq_n_s16(value); }
  static Words LoadWords(const int16_t* from) { return vld1q_s16(from); }
  static void StoreWords(int16_t* to, Words value) { vst1q_s16(to, value); }
  static void StoreBytes(int8_t* to, Words value) { vst1_s8(to, vqmovn_s16(value)); }
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
  static Words ShiftLeftWords(Words a, int bits) {
    return vshlq_s16(a, vdupq_n_s16(static_cast<int16_t>(bits)));
  }
  // a / 2^kBits to nearest, halves away from zero.
  template <int kBits>
  static Words RoundedWords(Words a) {
    return vrshrq_n_s16(vaddq_s16(a, vshrq_n_s16(a, 15)), kBits);
  }
  static Words MulHigh(Words a, Words b) { return vqrdmulhq_s16(a, b); }
  // (a + 2^15) / 2 for a >= 0.
  static Words HalfOfOnePlus(Words a) { return vrhaddq_s16(a, SetWords(INT16_MAX)); }
  static Pair Product(Words a, Words b) {
    return {vmull_s16(vget_low_s16(a), vget_low_s16(b)),
            vmull_s16(vget_high_s16(a), vget_high_s16(b))};
  }
  static Pair Widen(Words a) { return {vmovl_s16(vget_low_s16(a)), vmovl_s16(vget_high_s16(a))}; }
  static Words Narrow(Pair pair) {
    return vcombine_s16(vqmovn_s32(pair.first), vqmovn_s32(pair.second));
  }
  static Words RoundedProduct(Words a, Words b, int bits) {
    const Int right = vdupq_n_s32(-bits);
    const Pair product = Product(a, b);
    return Narrow({RoundedAway(product.first, right), RoundedAway(product.second, right)});
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
  // The same with halves up.
  static Int ScaledUp(Int a, const Scaling& by) {
    return vrshlq_s32(vqrdmulhq_s32(vshlq_s32(a, by.left), by.factor), by.right);
  }

 private:
  // a * 2^right for right <= 0.
  static Int RoundedAway(Int a, Int right) {
    return vrshlq_s32(vqaddq_s32(a, vshrq_n_s32(vandq_s32(a, right), 31)), right);
  }
};

}  // namespace
}  // namespace edgelstm
