// Four float lanes of whatever the compiler targets; every CPU runs it.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/composed_words-inl.h"
#include "kernels/integer.h"

namespace edgelstm {
namespace {

struct Generic : ComposedWords<Generic> {
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
  typedef int16_t Words __attribute__((vector_size(16)));
  typedef uint16_t UnsignedWords __attribute__((vector_size(16)));
  static constexpr int kLanes = 4;
  // Whether products take one lane of a vector as their factor.
  static constexpr bool kLaneProducts = false;
  static constexpr int kFloatRows = 3;
  static constexpr int kFloatBlocks = 2;
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
  static constexpr bool kMixesHalf = false;
  static constexpr bool kHasCompact = false;
  static constexpr bool kReadsAhead = false;
  static constexpr bool kStreamsFloat = false;
  static constexpr bool kSplitsFloat = false;
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
  // Weights are within [-127, 127]: sums of two products fit into 16 bits.
  static Int AddDot(Int sum, Words weights, Quad quad) {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the even byte is the lower one");
    const Words even = reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(weights) << 8) >> 8;
    const Int pairs = reinterpret_cast<Int>(even * quad.even + (weights >> 8) * quad.odd);
    return sum + (pairs >> 16) +
           (reinterpret_cast<Int>(reinterpret_cast<Unsigned>(pairs) << 16) >> 16);
  }
  static constexpr uint8_t kWeightBias = 0;
  static int32_t DotCorrection(const int8_t*, int64_t) { return 0; }
  static void StoreRounded(int8_t* to, Float value, int lowest) {
    const auto limit = static_cast<float>(lowest);
    for (int lane = 0; lane < kLanes; ++lane) {
      const float half = value[lane] < 0.0f ? -0.5f : 0.5f;
      const float whole = value[lane] + half;
      to[lane] = static_cast<int8_t>(whole >= 127.0f    ? 127
                                    : whole > limit    ? whole
                                                       : limit);
    }
  }

  struct Pair {
    Int first, second;
  };
  static constexpr int kIntegerRows = 1;
  static constexpr int WordOf(int half, int lane) { return half * kLanes + lane; }

  static Words SetWords(int16_t v) { return Words{v, v, v, v, v, v, v, v}; }
  static Words LoadWords(const int16_t* from) {
    Words value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void StoreWords(int16_t* to, Words value) { std::memcpy(to, &value, sizeof value); }
  static void StoreBytes(int8_t* to, Words value, uint8_t) {
    for (int lane = 0; lane < 2 * kLanes; ++lane) {
      const int16_t word = value[lane];
      to[lane] = static_cast<int8_t>(word > INT8_MAX ? INT8_MAX : word < INT8_MIN ? INT8_MIN : word);
    }
  }
  static Words AddWords(Words a, Words b) {
    return reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(a) +
                                   reinterpret_cast<UnsignedWords>(b));
  }
  static Words SubWords(Words a, Words b) {
    return reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(a) -
                                   reinterpret_cast<UnsignedWords>(b));
  }
  static Words AddSaturated(Words a, Words b) {
    const Words sum = AddWords(a, b);
    const Words over = ((a ^ sum) & (b ^ sum)) >> 15;
    return ChooseWords(over, (a >> 15) ^ SetWords(INT16_MAX), sum);
  }
  static Words AndWords(Words a, Words b) { return a & b; }
  static Words MinWords(Words a, Words b) { return ChooseWords(a < b, a, b); }
  static Words MaxWords(Words a, Words b) { return ChooseWords(a > b, a, b); }
  static Words EqualWords(Words a, Words b) { return a == b; }
  static Words GreaterWords(Words a, Words b) { return a > b; }
  static Words ChooseWords(Words mask, Words yes, Words no) { return (yes & mask) | (no & ~mask); }
  template <int kBits>
  static Words ShiftLeftWords(Words a) {
    return reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(a) << kBits);
  }
  static Words MulLow(Words a, Words b) {
    return reinterpret_cast<Words>(reinterpret_cast<UnsignedWords>(a) *
                                   reinterpret_cast<UnsignedWords>(b));
  }
  static Words MulHigh(Words a, Words b) {
    Words high;
    for (int lane = 0; lane < 2 * kLanes; ++lane) {
      high[lane] = static_cast<int16_t>((a[lane] * b[lane] + (1 << 14)) >> 15);
    }
    return high;
  }
  static Words HalfOfOnePlus(Words a) {
    return reinterpret_cast<Words>((reinterpret_cast<UnsignedWords>(a) + 0x8000u) >> 1);
  }
  static Pair Product(Words a, Words b) {
    const Pair x = Widen(a), y = Widen(b);
    return {x.first * y.first, x.second * y.second};
  }
  static Pair Widen(Words a) {
    return {Int{a[0], a[1], a[2], a[3]}, Int{a[4], a[5], a[6], a[7]}};
  }
  static Words Narrow(Pair pair) {
    Words narrow;
    for (int lane = 0; lane < kLanes; ++lane) {
      narrow[lane] = Word(pair.first[lane]);
      narrow[kLanes + lane] = Word(pair.second[lane]);
    }
    return narrow;
  }
  static Words RoundedProduct(Words a, Words b, int bits) {
    const Pair product = Product(a, b);
    const int32_t half = 1 << (bits - 1);
    return Narrow({(product.first + half + (product.first >> 31)) >> bits,
                   (product.second + half + (product.second >> 31)) >> bits});
  }

  static Int SetInt(int32_t value) { return Int{value, value, value, value}; }
  static Int LoadInt(const int32_t* from) {
    Int value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static Int LoadHalf(const int32_t* from, int half) { return LoadInt(from + half * kLanes); }
  static Int AddInt(Int a, Int b) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(a) + reinterpret_cast<Unsigned>(b));
  }
  static Int SubInt(Int a, Int b) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(a) - reinterpret_cast<Unsigned>(b));
  }
  static Int MulInt(Int a, Int b) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(a) * reinterpret_cast<Unsigned>(b));
  }
  template <int kBits>
  static Int ShiftLeftInt(Int a) {
    return reinterpret_cast<Int>(reinterpret_cast<Unsigned>(a) << kBits);
  }
  static Int NearestOf1024(Int a) {
    const Unsigned sign = reinterpret_cast<Unsigned>(a >> 31);
    const Unsigned magnitude = (((reinterpret_cast<Unsigned>(a) ^ sign) - sign) + 512u) >> 10;
    return reinterpret_cast<Int>((magnitude ^ sign) - sign);
  }
  static constexpr int WidePlace(int lane, int k) { return k * kLanes + lane; }
  static Int AddWide(Int sum, const int8_t* weights, const int16_t* x) {
    for (int lane = 0; lane < kLanes; ++lane) {
      sum[lane] += weights[lane] * x[0] + weights[kLanes + lane] * x[1];
    }
    return sum;
  }
  static void StoreInt(int32_t* to, Int value) { std::memcpy(to, &value, sizeof value); }

  using Scaling = Multiplier;
  static Scaling ScalingOf(const Multiplier& by) { return by; }
  static Int Scaled(Int a, const Scaling& by) { return Scaled(a, by, -1); }
  static Int ScaledUp(Int a, const Scaling& by) { return Scaled(a, by, 0); }

 private:
  // `below` is added to the half where the product is negative.
  static Int Scaled(Int a, const Scaling& by, int below) {
    const int left = by.shift > 0 ? by.shift : 0, right = by.shift < 0 ? -by.shift : 0;
    Int scaled;
    for (int lane = 0; lane < kLanes; ++lane) {
      const auto shifted = static_cast<int32_t>(static_cast<uint32_t>(a[lane]) << left);
      const int64_t high = (int64_t{shifted} * by.factor + (int64_t{1} << 30)) >> 31;
      const int64_t half = right == 0 ? 0 : (int64_t{1} << (right - 1)) + (high < 0 ? below : 0);
      scaled[lane] = static_cast<int32_t>((high + half) >> right);
    }
    return scaled;
  }
  static int16_t Word(int32_t value) {
    return static_cast<int16_t>(value > INT16_MAX   ? INT16_MAX
                                : value < INT16_MIN ? INT16_MIN
                                                    : value);
  }
  static Int Bits(Float a) { return reinterpret_cast<Int>(a); }
  static Float Choose(Int mask, Float yes, Float no) {
    return reinterpret_cast<Float>((Bits(yes) & mask) | (Bits(no) & ~mask));
  }
};

}  // namespace
}  // namespace edgelstm
