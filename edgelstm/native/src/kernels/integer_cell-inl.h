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
  // `peephole` holds the weights of four gates, each of `padded` units.
  IntegerCell(const EdgeLstmLayer& layer, const IntegerScales& scales, const int16_t* peephole,
              int64_t padded)
      : has_peephole(HasPeephole(layer)),
        scales_(scales),
        peephole_(peephole),
        padded_(padded),
        rounded_up_(PeepholesRoundedUp(layer.units)),
        hidden_scaling_(V::ScalingOf(scales.hidden)) {
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

  // The next c from finished sums.
  template <int kGates>
  EDGELSTM_INLINE Words NextC(const Words* z, Words c) const {
    const Words f = IntegerSigmoid<V>(z[kGates - 3]);
    const Words i =
        kGates == 4 ? IntegerSigmoid<V>(z[0]) : V::SubWords(V::SetWords(INT16_MAX), f);
    const Words g = IntegerTanh<V>(z[kGates - 2], 3);
    const Words next = V::AddSaturated(V::UnitProduct(f, c),
                                       V::RoundedProduct(i, g, 15 + scales_.c_bits));
    if (scales_.cell_clip == 0) return next;
    const auto limit = static_cast<int16_t>(scales_.cell_clip);
    return V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                       V::SetWords(limit));
  }

  // o tanh(c), not yet cut to 8 bits.
  EDGELSTM_INLINE Words Hidden(Words output_sum, Words c) const {
    const Words o = IntegerSigmoid<V>(output_sum);
    const Pair product = V::Product(o, IntegerTanh<V>(c, scales_.c_bits));
    const Words offset = V::SetWords(static_cast<int16_t>(scales_.hidden_offset));
    return V::AddSaturated(offset, V::Narrow({V::Scaled(product.first, hidden_scaling_),
                                              V::Scaled(product.second, hidden_scaling_)}));
  }

  // The whole cell of a block: the next c to `c`, o tanh(c) as int8 to `hidden`.
  template <int kGates>
  void Finish(Words* z, int64_t block, int16_t* c, int8_t* hidden) const {
    const Words old = V::LoadWords(c);
    if (has_peephole) {
      for (int gate = 0; gate < kGates - 2; ++gate) {
        z[gate] = WithPeephole(z[gate], gate + 4 - kGates, block, old);
      }
    }
    const Words next = NextC<kGates>(z, old);
    V::StoreWords(c, next);
    if (has_peephole) z[kGates - 1] = WithPeephole(z[kGates - 1], 3, block, next);
    V::StoreBytes(hidden, Hidden(z[kGates - 1], next));
  }

 private:
  const IntegerScales& scales_;
  const int16_t* peephole_;
  const int64_t padded_, rounded_up_;
  Scaling peephole_scaling_[4];
  const Scaling hidden_scaling_;
};

}  // namespace
}  // namespace edgelstm
