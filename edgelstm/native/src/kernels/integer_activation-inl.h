// Sigmoid and tanh in 16-bit fixed point, as gemmlowp defines them: equal to TFLite's bit for bit.
// Sources: gemmlowp's fixedpoint.h, and TFLite's kernels that call it.
#pragma once

#include <cstdint>

#include "kernels/memory.h"

namespace edgelstm {
namespace {

// What is computed between the steps of an activation: nothing.
struct NothingBetween {
  void operator()() const {}
};

// Several vectors are computed side by side: each is one chain of some sixty operations that wait for
// each other, and the next vector's are too far behind for a CPU to find them.
template <class V>
class IntegerActivation {
  using Words = typename V::Words;

 public:
  // c has `c_bits` bits before its binary point, gate sums three.
  explicit IntegerActivation(int c_bits) : c_bits_(c_bits) {
    for (int i = 0; i < kPlaces; ++i) {
      const int place = kFirstPlace + i;
      bits_[i] = V::SetWords(static_cast<int16_t>(place < 15 ? 1 << place : 0));
    }
    for (int i = 0; i < kStages; ++i) factors_[i] = V::SetWords(kFactors[i]);
    for (int i = 0; i < kConstants; ++i) constants_[i] = V::SetWords(kValues[i]);
    for (int bits = 0; bits < kMostBits; ++bits) {
      powers_[bits] = V::SetWords(static_cast<int16_t>(1 << bits));
      low_bits_[bits] = V::SetWords(static_cast<int16_t>(kLowBits >> bits << bits));
    }
    // From here on they are memory. Known to the compiler they were made anew wherever they are
    // used, by two instructions each, one of them on the port of half of the arithmetic.
    asm volatile("" : : "r"(this) : "memory");
  }

  // In place, of the gate sums `a`: the tanh of the one at kTanh, which may be none, the sigmoid of
  // the others.
  template <int kCount, int kTanh>
  EDGELSTM_INLINE void Gates(Words* a) const {
    if constexpr (kCount > V::kTogether) {
      Gates<V::kTogether, kTanh>(a);
      Gates<kCount - V::kTogether, kTanh - V::kTogether>(a + V::kTogether);
    } else {
      GatesAndCells<kCount, kTanh, 0>(a, NothingBetween());
    }
  }

  // The tanh of kCount vectors of c.
  template <int kCount>
  EDGELSTM_INLINE void TanhOfC(Words* c) const {
    GatesAndCells<kCount, -1, kCount>(c, NothingBetween());
  }

  // In place: Gates() of all but the last kCells vectors, TanhOfC() of those; calls `between` some
  // twenty times on the way.
  template <int kCount, int kTanh, int kCells, class Between>
  EDGELSTM_INLINE void GatesAndCells(Words* a, const Between& between) const {
    using Of = Each<kCount, kTanh, kCells>;
    Words p[kCount];
    InverseOfOnePlusExp<Of>(a, p, between);
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      a[i] = Of::Doubled(i) ? Tanh(p[i], a[i]) : Sigmoid(p[i], a[i]);
    }
  }

 private:
  static constexpr int kStages = 6;
  // exp(-2^j) for j from -2, 15 bits behind the binary point.
  static constexpr int16_t kFactors[kStages] = {25520, 19875, 12055, 4435, 600, 11};
  // Of bits that exponents are made of; `bits` of an exponent are at most 7.
  static constexpr int kFirstPlace = 6, kPlaces = 13, kMostBits = 8;
  // Of the numbers whose exp a polynomial gives.
  static constexpr int kLowBits = (1 << 13) - 1;
  enum Constant { kEighth, kThird, kExpOfEighth, kFirst, kSlope, kOne, kConstants };
  // 1/8 with 15 bits behind the binary point; 1/3; exp(-1/8); 48/17 and -32/17, and 1,
  // with 13 bits.
  static constexpr int16_t kValues[kConstants] = {-4096, 10923, 28918, 23130, -15420, 8192};

  // Which of kCount vectors are c's, and of which the tanh is wanted.
  template <int kVectors, int kTanh, int kCells>
  struct Each {
    static constexpr int kCount = kVectors;
    static constexpr bool IsCell(int i) { return i >= kCount - kCells; }
    static constexpr bool Doubled(int i) { return IsCell(i) || i == kTanh; }
  };

  // Bits before the binary point of what is raised to e.
  template <class Of>
  int BitsOf(int i) const {
    return (Of::IsCell(i) ? c_bits_ : 3) + (Of::Doubled(i) ? 1 : 0);
  }

  // 1 / (1 + exp(-|a|)) with 13 bits behind the binary point, of -2 |a| where the tanh is wanted. For
  // a = 0 it is that of |a| = 1, whose sigmoid rounds to 1/2.
  template <class Of, class Between>
  EDGELSTM_INLINE void InverseOfOnePlusExp(const Words* a, Words* x, const Between& between) const {
    constexpr int kCount = Of::kCount;
    Words e[kCount];
    {
      Words below[kCount];
      EDGELSTM_UNROLL
      for (int i = 0; i < kCount; ++i) {
        below[i] = V::BelowMagnitude(a[i]);
      }
      Exp<Of>(below, e, between);
    }
    // By Newton's method.
    Words half[kCount];
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      half[i] = V::HalfOfOnePlus(e[i]);
      x[i] = V::AddMulHigh(constants_[kFirst], half[i], constants_[kSlope]);
    }
    EDGELSTM_UNROLL
    for (int round = 0; round < 3; ++round) {
      Words error[kCount];
      between();
      EDGELSTM_UNROLL
      for (int i = 0; i < kCount; ++i) {
        error[i] = V::SubWords(constants_[kOne], V::MulHigh(half[i], x[i]));
      }
      between();
      EDGELSTM_UNROLL
      for (int i = 0; i < kCount; ++i) {
        // |error| is below 1/16: nothing is cut.
        x[i] = V::AddWords(x[i], V::template ShiftLeftWords<2>(V::MulHigh(x[i], error[i])));
      }
    }
    between();
  }

  // exp(-1 - a) for a >= 0 with 15 bits behind the binary point: the bits of -1 - a are those of a,
  // inverted.
  template <class Of, class Between>
  EDGELSTM_INLINE void Exp(const Words* a, Words* e, const Between& between) const {
    constexpr int kCount = Of::kCount;
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      // exp on [-1/4, 0), around -1/8: the lowest bits of -1 - a, less 1/4, plus 1/8.
      const int bits = BitsOf<Of>(i);
      const Words low = V::NotAndWords(V::MulLow(a[i], powers_[bits]), low_bits_[bits]);
      const Words x = V::AddWords(low, constants_[kEighth]);
      const Words x2 = V::MulHigh(x, x);
      const Words x3 = V::MulHigh(x2, x);
      const Words x4 = V::MulHigh(x2, x2);
      const Words cubic = V::MulHigh(V::AddQuarter(x3, x4), constants_[kThird]);
      const Words tail = V::Mean(cubic, x2);
      const Words eighth = constants_[kExpOfEighth];
      e[i] = V::AddMulHigh(eighth, eighth, V::AddWords(x, tail));
      between();
    }
    // What is left are the higher bits of a.
    EDGELSTM_UNROLL
    for (int stage = 0; stage < kStages; ++stage) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kCount; ++i) {
        // Gate sums have no such bit.
        if (stage == kStages - 1 && !Of::Doubled(i)) continue;
        e[i] = V::MulHighIf(a[i], bits_[13 - BitsOf<Of>(i) + stage - kFirstPlace], e[i],
                                factors_[stage]);
      }
      between();
    }
    if (!Of::IsCell(kCount - 1) || c_bits_ < 4) return;
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (!Of::IsCell(i)) continue;
      const Words last = V::SetWords(static_cast<int16_t>(1 << (18 - c_bits_)));
      e[i] = V::ChooseByBits(a[i], last, V::SetWords(0), e[i]);
      if (c_bits_ == 4) continue;
      const Words limit = V::SetWords(static_cast<int16_t>((1 << (19 - c_bits_)) - 1));
      e[i] = V::ChooseWords(V::GreaterWords(a[i], limit), V::SetWords(0), e[i]);
    }
  }

  static EDGELSTM_INLINE Words Sigmoid(Words p, Words a) {
    return V::LessFromOne(V::template ShiftLeftSaturated<1>(p), a);
  }

  EDGELSTM_INLINE Words Tanh(Words p, Words a) const {
    return V::TimesSign(V::template ShiftLeftSaturated<2>(V::SubWords(p, constants_[kOne])), a);
  }

  Words bits_[kPlaces], factors_[kStages], constants_[kConstants], powers_[kMostBits], low_bits_[kMostBits];
  const int c_bits_;
};

}  // namespace
}  // namespace edgelstm
