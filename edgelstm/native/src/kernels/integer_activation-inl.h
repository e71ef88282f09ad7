// Sigmoid and tanh in 16-bit fixed point, as gemmlowp defines them: equal to TFLite's bit for bit.
// Sources: gemmlowp's fixedpoint.h, and TFLite's kernels that call it.
#pragma once

#include <cstdint>

#include "kernels/memory.h"

namespace edgelstm {
namespace {

// exp(a) for a < 0 with `bits` bits before the binary point, at most kStages - 2 or, with six stages,
// any number; 15 bits behind it in the result. For a = 0 it is anything.
template <class V, int kStages>
EDGELSTM_INLINE typename V::Words IntegerExp(typename V::Words a, int bits) {
  using Words = typename V::Words;
  // exp(-2^j) for j from -2, 15 bits behind the binary point.
  constexpr int16_t kPowers[] = {25520, 19875, 12055, 4435, 600, 11};
  // exp on [-1/4, 0), around -1/8: the lowest bits of a, less 1/4, plus 1/8.
  const Words rest = V::AndWords(V::ShiftLeftWords(a, bits), V::SetWords((1 << 13) - 1));
  const Words x = V::AddWords(rest, V::SetWords(-4096));
  const Words x2 = V::MulHigh(x, x);
  const Words x3 = V::MulHigh(x2, x);
  const Words x4 = V::MulHigh(x2, x2);
  const Words cubic = V::MulHigh(V::AddQuarter(x3, x4), V::SetWords(10923));
  const Words tail = V::Mean(cubic, x2);
  const Words eighth = V::SetWords(28918);
  Words e = V::AddMulHigh(eighth, eighth, V::AddWords(x, tail));
  // What is left of -a is the complement of its higher bits.
  EDGELSTM_UNROLL
  for (int i = 0; i < kStages; ++i) {
    // A bit that a does not have counts as set, since a is not 0.
    const int place = 13 - bits + i;
    const auto bit = static_cast<int16_t>(place < 15 ? 1 << place : -1);
    e = V::ChooseByBits(a, bit, e, V::MulHigh(e, V::SetWords(kPowers[i])));
  }
  if (bits > 4) e = V::ChooseByBits(a, static_cast<int16_t>(1 << (19 - bits)), e, V::SetWords(0));
  if (bits > 5) {
    const Words limit = V::SetWords(static_cast<int16_t>(-(1 << (20 - bits))));
    e = V::ChooseWords(V::GreaterWords(limit, a), V::SetWords(0), e);
  }
  return e;
}

// 1 / (1 + e) for e >= 0, 13 bits behind the binary point.
template <class V>
EDGELSTM_INLINE typename V::Words InverseOfOnePlus(typename V::Words e) {
  using Words = typename V::Words;
  const Words half = V::HalfOfOnePlus(e);
  Words x = V::AddMulHigh(V::SetWords(23130), half, V::SetWords(-15420));
  EDGELSTM_UNROLL
  for (int i = 0; i < 3; ++i) {
    const Words error = V::SubWords(V::SetWords(8192), V::MulHigh(half, x));
    x = V::AddWords(x, V::template ShiftLeftSaturated<2>(V::MulHigh(x, error)));
  }
  return x;
}

template <class V>
EDGELSTM_INLINE typename V::Words MinusMagnitude(typename V::Words a) {
  return V::MinWords(a, V::SubWords(V::SetWords(0), a));
}

// Of a gate sum, which has three bits before the binary point.
template <class V>
EDGELSTM_INLINE typename V::Words IntegerSigmoid(typename V::Words a) {
  using Words = typename V::Words;
  const Words zero = V::SetWords(0);
  const Words inverse = InverseOfOnePlus<V>(IntegerExp<V, 5>(MinusMagnitude<V>(a), 3));
  const Words p = V::template ShiftLeftSaturated<1>(inverse);
  const Words negative = V::SubWords(V::SetWords(INT16_MAX), p);
  const Words nonzero = V::ChooseWords(V::GreaterWords(a, zero), p, negative);
  return V::ChooseWords(V::EqualWords(a, zero), V::SetWords(1 << 14), nonzero);
}

template <class V>
EDGELSTM_INLINE typename V::Words IntegerTanh(typename V::Words a, int bits) {
  using Words = typename V::Words;
  const Words p = InverseOfOnePlus<V>(IntegerExp<V, 6>(MinusMagnitude<V>(a), bits + 1));
  const Words quarter = V::SubWords(p, V::SetWords(8192));
  return V::TimesSign(V::template ShiftLeftSaturated<2>(quarter), a);
}

}  // namespace
}  // namespace edgelstm
