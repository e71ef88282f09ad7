// Four float lanes of NEON, 64-bit and 32-bit; with dot products where the file is compiled with
// them. Include it only where NEON (32-bit: with VFPv4) is compiled in.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/dots_neon.h"

namespace edgelstm {
namespace {

struct Neon : NeonDots {
  using Float = float32x4_t;
#if defined(__aarch64__)
  // Of 32 registers.
  static constexpr int kFloatRows = 5;
  static constexpr int kFloatBlocks = 2;
  // Products take one lane of a vector as their factor.
  static constexpr bool kLaneProducts = true;
#else
  static constexpr bool kLaneProducts = false;
  static constexpr int kFloatRows = 3;
  static constexpr int kFloatBlocks = 2;
#endif

  static Float Set(float value) { return vdupq_n_f32(value); }
  static Float Load(const float* from) { return vld1q_f32(from); }
  static constexpr bool kMixesHalf = false;
  static constexpr bool kHasCompact = false;
  static constexpr bool kReadsAhead = false;
  static constexpr bool kStreamsFloat = false;
  static constexpr bool kSplitsFloat = false;
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
};

}  // namespace
}  // namespace edgelstm
