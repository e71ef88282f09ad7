// Four float lanes of whatever the compiler targets; every CPU runs it.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgelstm {
namespace {

struct Generic {
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
  typedef int16_t Words __attribute__((vector_size(16)));
  typedef uint16_t UnsignedWords __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  static constexpr int kFloatRows = 3;
  static constexpr int kInt8Rows = 2;

  static Float Set(float value) { return Float{value, value, value, value}; }
  static Float Load(const float* from) {
    Float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void Store(float* to, Float value) { std::memcpy(to, &value, sizeof value); }
  // Without instructions for it, widening float16 in every step costs more than it saves.
  static constexpr bool kHasHalf = false;
  static Float Load(const uint16_t*) { return Set(0); }
  static Float LoadPart(const float* from, int n) {
    Float value = {0, 0, 0, 0};
    for (int lane = 0; lane < kLanes && lane < n; ++lane) value[lane] = from[lane];
    return value;
  }
  static void StorePart(float* to, Float value, int n) {
    for (int lane = 0; lane < kLanes && lane < n; ++lane) to[lane] = value[lane];
  }

  static Float Add(Float a, Float b) { return a + b; }
  static Float Sub(Float a, Float b) { return a - b; }
  static Float Mul(Float a, Float b) { return a * b; }
  static Float Div(Float a, Float b) { return a / b; }
  static Float MulAdd(Float a, Float b, Float c) { return a * b + c; }
  static Float Max(float limit, Float value) { return Choose(Set(limit) > value, Set(limit), value); }
  static Float Min(float limit, Float value) { return Choose(Set(limit) < value, Set(limit), value); }
  static Float Larger(Float a, Float b) { return Choose(a > b, a, b); }
  static Float Floor(Float a) {
    // The caller keeps |a| below 2^31; NaN stays.
    const Float whole = __builtin_convertvector(__builtin_convertvector(a, Int), Float);
    const Float below = Choose(whole > a, whole - 1.0f, whole);
    return Choose(a == a, below, a);
  }
  static Float Abs(Float a) { return reinterpret_cast<Float>(Bits(a) & 0x7fffffff); }
  static Float WithSign(Float magnitude, Float sign) {
    return reinterpret_cast<Float>(Bits(magnitude) | (Bits(sign) & INT32_MIN));
  }
  static Float SelectLess(Float a, Float b, Float yes, Float no) { return Choose(a < b, yes, no); }
  static Float TimesPowerOfTwo(Float a, Float n) {
    const auto exponent = reinterpret_cast<Unsigned>(__builtin_convertvector(n, Int)) << 23;
    return reinterpret_cast<Float>(reinterpret_cast<Unsigned>(a) + exponent);
  }
  static float Sum(Float a) { return (a[0] + a[2]) + (a[1] + a[3]); }

  static Int ZeroInt() { return Int{0, 0, 0, 0}; }
  static Float ToFloat(Int a) { return __builtin_convertvector(a, Float); }
  struct Quad {
    Words even, odd;  // of the four, twice in each lane's two words
  };
  static Quad LoadQuad(const int8_t* v) {
    return {Words{v[0], v[2], v[0], v[2], v[0], v[2], v[0], v[2]},
            Words{v[1], v[3], v[1], v[3], v[1], v[3], v[1], v[3]}};
  }
  static Words LoadWeights(const int8_t* from) {
    Words weights;
    std::memcpy(&weights, from, sizeof weights);
    return weights;
  }
  // All values are within [-127, 127]: sums of two products fit into 16 bits.
  static Int AddDot(Int sum, Words weights, Quad quad) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the even byte is the lower one");
    const Words even = reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(weights) << 8) >> 8;
    const Int pairs = reinterpret_cast<Int>(even * quad.even + (weights >> 8) * quad.odd);
    return sum + (pairs >> 16) +
           (reinterpret_cast<Int>(reinterpret_cast<Unsigned>(pairs) << 16) >> 16);
  }
  static void StoreRounded(int8_t* to, Float value) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float half = value[lane] < 0.0f ? -0.5f : 0.5f;
      const float whole = value[lane] + half;
      to[lane] = static_cast<int8_t>(whole >= 127.0f ? 127 : whole > -127.0f ? whole : -127);
    }
  }

 private:
  static Int Bits(Float a) { return reinterpret_cast<Int>(a); }
  static Float Choose(Int mask, Float yes, Float no) {
    return reinterpret_cast<Float>((Bits(yes) & mask) | (Bits(no) & ~mask));
  }
};

}  // namespace
}  // namespace edgelstm
