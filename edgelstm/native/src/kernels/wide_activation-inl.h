// sigmoid and tanh of 16x8 over a vector type V, bit for bit as in wide_scalar.cc.
#pragma once

#include <cstdint>

#include "kernels/memory.h"
#include "kernels/wide.h"

namespace edgelstm {
namespace {

// What 16x8 needs beside V; where there is none, loops that compilers may make vectors of.
template <class V>
struct WideVector {
  static constexpr bool kExists = false;
};

template <class V>
class WideActivation {
  using Words = typename V::Words;
  using More = WideVector<V>;
  static constexpr int64_t kUnits = 2 * V::kLanes;

 public:
  // What `PackTable` takes.
  static constexpr int64_t kTableBytes = 4 * 256;
  static void PackTable(void* to) {
    if constexpr (More::kExists) More::PackTable(kSigmoidTable, to);
  }

  // c has a scale of 2^c_exponent.
  WideActivation(const void* table, int c_exponent) : table_(table), c_exponent_(c_exponent) {}

  EDGELSTM_INLINE Words Sigmoid(Words a) const {
    if constexpr (More::kExists) {
      // 3 |a| in steps of 512, and what is left with as many bits as the product wants.
      const Words magnitude = More::Abs(a), by = V::SetWords(3 << 7);
      Words entry, delta;
      More::LookUp(table_, More::MulHighUnsigned(magnitude, by), &entry, &delta);
      const Words between = More::MulHighUnsigned(V::MulLow(magnitude, by), delta);
      return More::LessFrom(V::SetWords(INT16_MIN), More::MeanUnsigned(entry, between), a);
    } else {
      return Each(a, [](int16_t value) EDGELSTM_ALWAYS { return SigmoidOf(value); });
    }
  }
  EDGELSTM_INLINE Words TanhOfSum(Words a) const { return Tanh(a, -12); }
  EDGELSTM_INLINE Words TanhOfCell(Words a) const { return Tanh(a, c_exponent_); }

 private:
  EDGELSTM_INLINE Words Tanh(Words a, int exponent) const {
    if constexpr (More::kExists) {
      const Words magnitude = More::Abs(a);
      Words value;
      if (exponent >= -12) {
        // From 255 * 256 on all are the last of the table.
        const int times = 3 << (exponent + 12);
        value = V::MulLow(More::MinUnsigned(magnitude, V::SetWords(static_cast<int16_t>(65535 / times))),
                          V::SetWords(static_cast<int16_t>(times)));
      } else {
        // (3 |a| + half) / 2^right, of a negative value half - 1; the sum would have 17 bits.
        const int right = -12 - exponent;
        const auto half = static_cast<int16_t>(1 << (right - 1));
        const Words more = More::LessFrom(V::SetWords(static_cast<int16_t>(2 * half - 1)),
                                          V::SetWords(half), a);
        value = More::ShiftRightUnsigned(
            V::AddWords(magnitude, More::ShiftRightUnsigned(V::AddWords(magnitude, more), 1)),
            right - 1);
      }
      Words entry, delta;
      More::LookUp(table_, More::ShiftRightUnsigned(value, 8), &entry, &delta);
      const Words between = V::MulHigh(
          V::AndWords(V::template ShiftLeftWords<7>(value), V::SetWords(0x7f80)), delta);
      const Words tanh = V::AddWords(V::AddWords(entry, between), V::SetWords(INT16_MIN));
      return More::LessFrom(V::SetWords(0), tanh, a);
    } else {
      return Each(a, [exponent](int16_t value) EDGELSTM_ALWAYS { return TanhOf(value, exponent); });
    }
  }

  template <class Function>
  static Words Each(Words a, Function of) {
    alignas(kAlignment) int16_t values[kUnits];
    V::StoreWords(values, a);
    for (int64_t i = 0; i < kUnits; ++i) values[i] = of(values[i]);
    return V::LoadWords(values);
  }

  static EDGELSTM_INLINE int16_t SigmoidOf(int16_t value) {
    const int32_t magnitude = (value < 0 ? -value : value) * 3;
    const int32_t place = magnitude >> 9 < 255 ? magnitude >> 9 : 254;
    const int32_t entry = kSigmoidTable[place];
    const int32_t between = (magnitude & 511) * (kSigmoidTable[place + 1] - entry);
    const int32_t s = magnitude >> 9 < 255 ? (entry << 9) + between : 0x7fff << 10;
    return static_cast<int16_t>((value < 0 ? (1 << 25) - s + (1 << 9) - 1 : s + (1 << 9)) >> 10);
  }

  static EDGELSTM_INLINE int16_t TanhOf(int16_t a, int exponent) {
    const int left = exponent < -12 ? 0 : exponent + 12;
    const int right = exponent < -12 ? -12 - exponent : 0;
    const int32_t half = right == 0 ? 0 : 1 << (right - 1);
    const int32_t value = (a * (3 << left) + half) >> right;
    const int32_t magnitude = value < 0 ? -value : value;
    const int32_t place = magnitude >> 8 < 255 ? magnitude >> 8 : 254;
    const int32_t entry = kSigmoidTable[place];
    const int32_t between = (magnitude & 255) * (kSigmoidTable[place + 1] - entry);
    const int32_t s = (magnitude >> 8 < 255 ? (entry << 8) + between : 0xffff << 8) - (1 << 23);
    return static_cast<int16_t>((value < 0 ? -s + (1 << 7) - 1 : s + (1 << 7)) >> 8);
  }

  const void* const table_;
  const int c_exponent_;
};

}  // namespace
}  // namespace edgelstm
