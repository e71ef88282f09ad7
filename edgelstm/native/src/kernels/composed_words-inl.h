// Operations on 16-bit lanes that the int8 kernels need and some instruction sets have as one
// instruction: here of the others of V. A vector type inherits them, and hides what it does better.
#pragma once

#include <cstdint>

namespace edgelstm {
namespace {

template <class V>
struct ComposedWords {
  // How many k of a lane stand together in packed int8 weights, whether V has loops of its own over
  // them, and whether its sums need no corrections.
  static constexpr int kDotGroup = 4;
  static constexpr bool kOwnDots = false;
  static constexpr bool kDotsAreExact = false;
  // See DotFunctions.
  static constexpr uint8_t kValueBias = 0;
  // Activations that are computed side by side, as the registers allow.
  static constexpr int kTogether = 2;

  // Weights that several rows multiply are to be read once.
  template <class Weights>
  static void Keep(Weights*) {}
  // sum + products of weights with values that have kValueBias added.
  template <class Int, class Weights, class Quad>
  static Int AddByteDot(Int sum, Weights weights, Quad quad) {
    return V::AddDot(sum, weights, quad);
  }
  // a + b / 4 to nearest; b >= 0.
  template <class Words>
  static Words AddQuarter(Words a, Words b) {
    return V::AddWords(a, V::MulHigh(b, V::SetWords(1 << 13)));
  }
  // (a + b) / 2 to nearest, halves up; a + b does not overflow.
  template <class Words>
  static Words Mean(Words a, Words b) {
    return V::MulHigh(V::AddWords(a, b), V::SetWords(1 << 14));
  }
  // sum + MulHigh(a, b), cut to 16 bits.
  template <class Words>
  static Words AddMulHigh(Words sum, Words a, Words b) {
    return V::AddSaturated(sum, V::MulHigh(a, b));
  }
  // a * 2^kBits, cut to 16 bits.
  template <int kBits, class Words>
  static Words ShiftLeftSaturated(Words a) {
    for (int i = 0; i < kBits; ++i) a = V::AddSaturated(a, a);
    return a;
  }
  // By whether `a` has any of some bits.
  template <class Words>
  static Words ChooseByBits(Words a, Words bits, Words some, Words none) {
    return V::ChooseWords(V::EqualWords(V::AndWords(a, bits), V::SetWords(0)), none, some);
  }
  // MulHigh(value, factor) where `a` has any of some bits, else `value`.
  template <class Words>
  static Words MulHighIf(Words a, Words bits, Words value, Words factor) {
    return V::ChooseByBits(a, bits, V::MulHigh(value, factor), value);
  }
  // |a| - 1, or 0 if a is 0.
  template <class Words>
  static Words BelowMagnitude(Words a) {
    const Words minus_one = V::SetWords(-1);
    const Words negative = V::MinWords(a, V::SubWords(V::SetWords(0), a));
    return V::SubWords(minus_one, V::MinWords(negative, minus_one));
  }
  // The bits of b that a does not have.
  template <class Words>
  static Words NotAndWords(Words a, Words b) {
    return V::SubWords(b, V::AndWords(a, b));
  }
  // a, or 2^15 - 1 - a where `sign` is negative; a >= 0.
  template <class Words>
  static Words LessFromOne(Words a, Words sign) {
    return V::ChooseWords(V::GreaterWords(V::SetWords(0), sign),
                          V::SubWords(V::SetWords(INT16_MAX), a), a);
  }
  // a where `sign` > 0, -a where it is below, 0 where it is 0.
  template <class Words>
  static Words TimesSign(Words a, Words sign) {
    const Words zero = V::SetWords(0);
    const Words signed_a = V::ChooseWords(V::GreaterWords(zero, sign), V::SubWords(zero, a), a);
    return V::ChooseWords(V::EqualWords(sign, zero), zero, signed_a);
  }
  // a * b / 2^15 to nearest, halves away from zero; a >= 0.
  template <class Words>
  static Words UnitProduct(Words a, Words b) {
    return V::RoundedProduct(a, b, 15);
  }
  // a + b, cut to 16 bits once.
  template <class Words, class Pair>
  static Words AddNarrow(Words a, Pair b) {
    const Pair wide = V::Widen(a);
    return V::Narrow({V::AddInt(wide.first, b.first), V::AddInt(wide.second, b.second)});
  }
  // V::Scaled of |a| < 2^30 by a multiplier that ShiftsRight().
  template <class Int, class Scaling>
  static Int ScaledRight(Int a, const Scaling& by) {
    return V::Scaled(a, by);
  }
};

}  // namespace
}  // namespace edgelstm
