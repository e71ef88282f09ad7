// Sigmoid and tanh in 16-bit fixed point, as gemmlowp defines them: equal to TFLite's bit for bit.
// Sources: gemmlowp's fixedpoint.h, and TFLite's kernels that call it.
#pragma once

#include <cstdint>

namespace edgelstm {
namespace {

// exp(a) for a <= 0 with `bits` bits before the binary point; 15 bits behind it in the result.
template <class V>
inline typename V::Words IntegerExp(typename V::Words a, int bits) {
  using Words = typename V::Words;
  // exp(-2^j) for j from -2, 15 bits behind the binary point.
  constexpr int16_t kPowers[] = {25520, 19875, 12055, 4435, 600, 11, 0};
  const int fraction = 15 - bits;
  const Words quarter = V::SetWords(static_cast<int16_t>(1 << (fraction - 2)));
  const Words below = V::SetWords(static_cast<int16_t>((1 << (fraction - 2)) - 1));
  const Words rest = V::SubWords(V::AndWords(a, below), quarter);
  // exp on [-1/4, 0), around -1/8.
  const Words x = V::AddWords(V::ShiftLeftWords(rest, bits), V::SetWords(4096));
  const Words x2 = V::MulHigh(x, x);
  const Words x3 = V::MulHigh(x2, x);
  const Words x4 = V::MulHigh(x2, x2);
  const Words cubic = V::MulHigh(V::AddWords(V::template RoundedWords<2>(x4), x3),
                                 V::SetWords(10923));
  const Words tail = V::template RoundedWords<1>(V::AddWords(cubic, x2));
  const Words eighth = V::SetWords(28918);
  Words e = V::AddSaturated(eighth, V::MulHigh(eighth, V::AddWords(x, tail)));
  const Words whole = V::SubWords(rest, a);
  for (int j = -2; j < bits; ++j) {
    const Words bit = V::SetWords(static_cast<int16_t>(1 << (fraction + j)));
    const Words less = j < 5 ? V::MulHigh(e, V::SetWords(kPowers[j + 2])) : e;
    e = V::ChooseWords(V::EqualWords(V::AndWords(whole, bit), bit), less, e);
  }
  if (bits > 5) {
    const Words limit = V::SetWords(static_cast<int16_t>(-(1 << (20 - bits))));
    e = V::ChooseWords(V::GreaterWords(limit, a), V::SetWords(0), e);
  }
  return V::ChooseWords(V::EqualWords(a, V::SetWords(0)), V::SetWords(INT16_MAX), e);
}

// 1 / (1 + e) for e >= 0, 13 bits behind the binary point.
template <class V>
inline typename V::Words InverseOfOnePlus(typename V::Words e) {
  using Words = typename V::Words;
  const Words half = V::HalfOfOnePlus(e);
  Words x = V::AddWords(V::SetWords(23130), V::MulHigh(half, V::SetWords(-15420)));
  for (int i = 0; i < 3; ++i) {
    const Words error = V::SubWords(V::SetWords(8192), V::MulHigh(half, x));
    const Words step = V::MulHigh(x, error);
    const Words twice = V::AddSaturated(step, step);
    x = V::AddWords(x, V::AddSaturated(twice, twice));
  }
  return x;
}

template <class V>
inline typename V::Words MinusMagnitude(typename V::Words a) {
  return V::MinWords(a, V::SubWords(V::SetWords(0), a));
}

// Of a gate sum, which has three bits before the binary point.
template <class V>
inline typename V::Words IntegerSigmoid(typename V::Words a) {
  using Words = typename V::Words;
  const Words zero = V::SetWords(0);
  const Words inverse = InverseOfOnePlus<V>(IntegerExp<V>(MinusMagnitude<V>(a), 3));
  const Words p = V::AddSaturated(inverse, inverse);
  const Words negative = V::SubWords(V::SetWords(INT16_MAX), p);
  const Words nonzero = V::ChooseWords(V::GreaterWords(a, zero), p, negative);
  return V::ChooseWords(V::EqualWords(a, zero), V::SetWords(1 << 14), nonzero);
}

template <class V>
inline typename V::Words IntegerTanh(typename V::Words a, int bits) {
  using Words = typename V::Words;
  const Words zero = V::SetWords(0);
  const Words p = InverseOfOnePlus<V>(IntegerExp<V>(MinusMagnitude<V>(a), bits + 1));
  const Words quarter = V::SubWords(p, V::SetWords(8192));
  const Words half = V::AddSaturated(quarter, quarter);
  const Words t = V::AddSaturated(half, half);
  const Words signed_t = V::ChooseWords(V::GreaterWords(zero, a), V::SubWords(zero, t), t);
  return V::ChooseWords(V::EqualWords(a, zero), zero, signed_t);
}

}  // namespace
}  // namespace edgelstm
