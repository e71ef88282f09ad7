// What the int8 kernels do with the finished gate sums of a block: peepholes, c and o tanh(c).
#pragma once

#include <cstdint>

#include "kernels/integer.h"
#include "kernels/integer_activation-inl.h"
#include "kernels/integer_packing-inl.h"

namespace edgelstm {
namespace {

template <class V>
class IntegerCell {
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  static constexpr int64_t kWords = 2 * V::kLanes;

 public:
  // `peephole` holds the weights of four gates, each of `padded` units; `value_bias` see
  // DotFunctions.
  IntegerCell(const EdgeLstmLayer& layer, const IntegerScales& scales, const int16_t* peephole,
              int64_t padded, uint8_t value_bias)
      : has_peephole(HasPeephole(layer)),
        scales_(scales),
        activation_(scales.c_bits),
        peephole_(peephole),
        padded_(padded),
        value_bias_(value_bias),
        rounded_up_(PeepholesRoundedUp(layer.units)),
        hidden_scaling_(V::ScalingOf(scales.hidden)),
        hidden_shifts_right_(ShiftsRight(scales.hidden)) {
    for (int gate = 0; gate < 4; ++gate) {
      peephole_scaling_[gate] = V::ScalingOf(scales.peephole[gate]);
    }
  }

  const bool has_peephole;

  // Adds the peephole of one gate, cut to 16 bits.
  Words WithPeephole(Words z, int gate, int64_t block, Words c) const {
    const Words weight = V::LoadWords(peephole_ + gate * padded_ + block * kWords);
    const Pair product = V::Product(weight, c);
    const Scaling& scaling = peephole_scaling_[gate];
    const int64_t up = rounded_up_ - block * kWords;
    const Words away = V::AddNarrow(
        z, Pair{V::Scaled(product.first, scaling), V::Scaled(product.second, scaling)});
    if (up <= 0) return away;
    const Words upward = V::AddNarrow(
        z, Pair{V::ScaledUp(product.first, scaling), V::ScaledUp(product.second, scaling)});
    if (up >= kWords) return upward;
    alignas(kAlignment) int16_t lanes[kWords];
    V::StoreWords(lanes, upward);
    alignas(kAlignment) int16_t rest[kWords];
    V::StoreWords(rest, away);
    for (int64_t lane = up; lane < kWords; ++lane) lanes[lane] = rest[lane];
    return V::LoadWords(lanes);
  }

  // The next c from finished sums, of which the first kActive become their gates.
  template <int kGates, int kActive>
  EDGELSTM_INLINE Words NextC(Words* z, Words c) const {
    activation_.template Gates<kActive, kGates - 2>(z);
    const Words f = z[kGates - 3];
    const Words i = kGates == 4 ? z[0] : V::SubWords(V::SetWords(INT16_MAX), f);
    const Words next = V::AddSaturated(V::UnitProduct(f, c),
                                       V::RoundedProduct(i, z[kGates - 2], 15 + scales_.c_bits));
    if (scales_.cell_clip == 0) return next;
    const auto limit = static_cast<int16_t>(scales_.cell_clip);
    return V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                       V::SetWords(limit));
  }

  Words Sigmoid(Words z) const {
    activation_.template Gates<1, -1>(&z);
    return z;
  }

  // o tanh(c) of all blocks of a row as int8; o of a block stands `stride` behind that of the last.
  void Hidden(const int16_t* o, int64_t stride, const int16_t* c, int64_t blocks,
              int8_t* hidden) const {
    int64_t block = 0;
    for (; block + kTogether <= blocks; block += kTogether) {
      HiddenOf<kTogether>(o + block * stride, stride, c + block * kWords, hidden + block * kWords);
    }
    for (; block < blocks; ++block) {
      HiddenOf<1>(o + block * stride, stride, c + block * kWords, hidden + block * kWords);
    }
  }

  // The cell of a block but for tanh(c): the next c to `c`, o to `o`.
  template <int kGates>
  void Finish(Words* z, int64_t block, int16_t* c, int16_t* o) const {
    const Words old = V::LoadWords(c);
    if (!has_peephole) {
      V::StoreWords(c, NextC<kGates, kGates>(z, old));
      V::StoreWords(o, z[kGates - 1]);
      return;
    }
    for (int gate = 0; gate < kGates - 2; ++gate) {
      z[gate] = WithPeephole(z[gate], gate + 4 - kGates, block, old);
    }
    const Words next = NextC<kGates, kGates - 1>(z, old);
    V::StoreWords(c, next);
    V::StoreWords(o, Sigmoid(WithPeephole(z[kGates - 1], 3, block, next)));
  }

 private:
  static constexpr int kTogether = V::kTogether;

  template <int kCount>
  EDGELSTM_INLINE void HiddenOf(const int16_t* o, int64_t stride, const int16_t* c,
                                int8_t* hidden) const {
    Words tanh[kCount];
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) tanh[i] = V::LoadWords(c + i * kWords);
    activation_.template TanhOfC<kCount>(tanh);
    const Words offset = V::SetWords(static_cast<int16_t>(scales_.hidden_offset));
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const Pair product = V::Product(V::LoadWords(o + i * stride), tanh[i]);
      const Pair scaled = hidden_shifts_right_
                              ? Pair{V::ScaledRight(product.first, hidden_scaling_),
                                     V::ScaledRight(product.second, hidden_scaling_)}
                              : Pair{V::Scaled(product.first, hidden_scaling_),
                                     V::Scaled(product.second, hidden_scaling_)};
      V::StoreBytes(hidden + i * kWords, V::AddSaturated(offset, V::Narrow(scaled)), value_bias_);
    }
  }

  const IntegerScales& scales_;
  const IntegerActivation<V> activation_;
  const int16_t* peephole_;
  const int64_t padded_;
  const uint8_t value_bias_;
  const int64_t rounded_up_;
  Scaling peephole_scaling_[4];
  const Scaling hidden_scaling_;
  const bool hidden_shifts_right_;
};

}  // namespace
}  // namespace edgelstm
