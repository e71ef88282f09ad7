// Layer norm of the gate sums of the int8 kernels, and the cell behind it: it needs all units of a
// gate before it begins.
#pragma once

#include <cstdint>

#include "kernels/integer_cell-inl.h"

namespace edgelstm {
namespace {

template <class V>
class IntegerNorm {
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  static constexpr int64_t kWords = 2 * V::kLanes;

 public:
  // `weights` and `bias` hold four gates, each of `padded` units.
  IntegerNorm(int64_t units, int64_t padded, const IntegerScales& scales, const int16_t* weights,
              const int32_t* bias, const IntegerCell<V>& cell)
      : units_(units),
        padded_(padded),
        scales_(scales),
        weights_(weights),
        bias_(bias),
        cell_(cell) {}

  // The cells of one row: c in place, o tanh(c) as int8 to `hidden`; the sums are overwritten.
  template <int kGates>
  void Finish(int16_t* sums, int16_t* c, int8_t* hidden) const {
    const int64_t blocks = padded_ / kWords;
    for (int gate = 0; gate < kGates - 1; ++gate) {
      if (cell_.has_peephole && gate < kGates - 2) AddPeephole<kGates>(gate, c, sums);
      Normalize<kGates>(gate, sums);
    }
    for (int64_t block = 0; block < blocks; ++block) {
      Words z[kGates];
      for (int gate = 0; gate < kGates - 1; ++gate) {
        z[gate] = V::LoadWords(sums + (block * kGates + gate) * kWords);
      }
      int16_t* at = c + block * kWords;
      V::StoreWords(at, cell_.template NextC<kGates, kGates - 1>(z, V::LoadWords(at)));
    }
    if (cell_.has_peephole) AddPeephole<kGates>(kGates - 1, c, sums);
    Normalize<kGates>(kGates - 1, sums);
    int16_t* o = sums + (kGates - 1) * kWords;
    for (int64_t block = 0; block < blocks; ++block) {
      int16_t* at = o + block * kGates * kWords;
      V::StoreWords(at, cell_.Sigmoid(V::LoadWords(at)));
    }
    cell_.Hidden(o, kGates * kWords, c, blocks, hidden);
  }

 private:
  template <int kGates>
  void AddPeephole(int gate, const int16_t* c, int16_t* sums) const {
    for (int64_t block = 0; block < padded_ / kWords; ++block) {
      int16_t* at = sums + (block * kGates + gate) * kWords;
      V::StoreWords(at, cell_.WithPeephole(V::LoadWords(at), gate + 4 - kGates, block,
                                           V::LoadWords(c + block * kWords)));
    }
  }

  // In place; lanes behind the units become anything, and are never used.
  template <int kGates>
  void Normalize(int gate, int16_t* sums) const {
    int64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < units_; ++i) {
      const int64_t z = sums[(i / kWords * kGates + gate) * kWords + i % kWords];
      sum += z;
      squares += z * z;
    }
    const int part = gate + 4 - kGates;
    const Moments moments = MomentsOf(sum, squares, static_cast<int32_t>(units_),
                                      scales_.variance_guard[part]);
    const Scaling deviation = V::ScalingOf(moments.inverse_deviation);
    const Multiplier norm = scales_.layer_norm[part];
    const Scaling scaling = V::ScalingOf({norm.factor, norm.shift + 12});
    const Int mean = V::SetInt(moments.mean);
    for (int64_t i = 0; i < units_; i += kWords) {
      int16_t* at = sums + (i / kWords * kGates + gate) * kWords;
      const int32_t* bias = bias_ + part * padded_ + i;
      const Pair z = V::Widen(V::LoadWords(at));
      const Pair weight = V::Widen(V::LoadWords(weights_ + part * padded_ + i));
      Pair result;
      result.first = Normal(z.first, weight.first, V::LoadHalf(bias, 0), mean, deviation, scaling);
      result.second =
          Normal(z.second, weight.second, V::LoadHalf(bias, 1), mean, deviation, scaling);
      V::StoreWords(at, V::Narrow(result));
    }
  }

  static Int Normal(Int z, Int weight, Int bias, Int mean, const Scaling& deviation,
                    const Scaling& scaling) {
    const Int y = V::Scaled(V::SubInt(V::template ShiftLeftInt<10>(z), mean), deviation);
    return V::Scaled(V::NearestOf1024(V::AddInt(V::MulInt(y, weight), bias)), scaling);
  }

  const int64_t units_, padded_;
  const IntegerScales& scales_;
  const int16_t* weights_;
  const int32_t* bias_;
  const IntegerCell<V>& cell_;
};

}  // namespace
}  // namespace edgelstm
