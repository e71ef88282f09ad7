// What the float and hybrid kernels do with the finished gate sums of a block: peepholes, layer
// norm, c and o tanh(c).
#pragma once

#include <cstdint>

#include "kernels/activation-inl.h"
#include "kernels/packing-inl.h"

namespace edgelstm {
namespace {

constexpr float kLayerNormEpsilon = 1e-8f;

template <class V>
class FloatCell {
  using Float = typename V::Float;
  static constexpr int64_t kLanes = V::kLanes;

 public:
  // Each vector holds the numbers of four gates, each of `units` padded to whole blocks.
  FloatCell(const EdgeLstmLayer& layer, int64_t units, const float* peephole,
            const float* layer_norm, const float* bias)
      : layer_(layer),
        units_(units),
        has_peephole_(HasPeephole(layer)),
        peephole_(peephole),
        layer_norm_(layer_norm),
        bias_(bias) {}

  template <int kGates>
  static void Gates(const float* row, int64_t block, Float* z) {
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      z[gate] = V::Load(row + (block * kGates + gate) * kLanes);
    }
  }

  static Float Clipped(Float x, float limit) {
    return limit > 0.0f ? V::Min(limit, V::Max(-limit, x)) : x;
  }

  Float Part(const float* values, int64_t block) const {
    const int64_t n = layer_.units - block * kLanes;
    return n >= kLanes ? V::Load(values + block * kLanes)
                       : V::LoadPart(values + block * kLanes, static_cast<int>(n));
  }

  // Writes c of one block, and o tanh(c) to `hidden`.
  template <int kGates>
  void Finish(const Float* sums, int64_t block, float* c, float* hidden) const {
    Float z[kGates];
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) z[gate] = sums[gate];
    const Float old = Part(c, block);
    if (has_peephole_) AddPeephole<kGates>(block, old, z);
    const Float next = NextC<kGates>(z, old);
    StorePart(c, block, next);
    if (has_peephole_) {
      const Float weight = V::Load(Vector(peephole_, 3) + block * kLanes);
      z[kGates - 1] = V::MulAdd(weight, next, z[kGates - 1]);
    }
    StorePart(hidden, block, V::Mul(Sigmoid<V>(z[kGates - 1]), Activate(next)));
  }

  // As Finish for all blocks of a row, with layer norm: each gate needs all its units first, and
  // the output gate needs the new c.
  template <int kGates>
  void Normalized(float* row, float* c, float* hidden) const {
    const int64_t blocks = units_ / kLanes;
    if (has_peephole_) {
      for (int64_t block = 0; block < blocks; ++block) {
        Float z[kGates];
        Gates<kGates>(row, block, z);
        AddPeephole<kGates>(block, Part(c, block), z);
        for (int gate = 0; gate < kGates - 2; ++gate) {
          V::Store(row + (block * kGates + gate) * kLanes, z[gate]);
        }
      }
    }
    for (int gate = 0; gate < kGates - 1; ++gate) Normalize<kGates>(row, gate);
    for (int64_t block = 0; block < blocks; ++block) {
      Float z[kGates];
      Gates<kGates>(row, block, z);
      const Float next = NextC<kGates>(z, Part(c, block));
      StorePart(c, block, next);
      if (has_peephole_) {
        const Float weight = V::Load(Vector(peephole_, 3) + block * kLanes);
        V::Store(row + (block * kGates + kGates - 1) * kLanes,
                 V::MulAdd(weight, next, z[kGates - 1]));
      }
    }
    Normalize<kGates>(row, kGates - 1);
    for (int64_t block = 0; block < blocks; ++block) {
      const Float z = V::Load(row + (block * kGates + kGates - 1) * kLanes);
      StorePart(hidden, block, V::Mul(Sigmoid<V>(z), Activate(Part(c, block))));
    }
  }

 private:
  void StorePart(float* values, int64_t block, Float value) const {
    const int64_t n = layer_.units - block * kLanes;
    if (n >= kLanes) {
      V::Store(values + block * kLanes, value);
    } else {
      V::StorePart(values + block * kLanes, value, static_cast<int>(n));
    }
  }

  Float Activate(Float x) const {
    switch (layer_.activation) {
      case EDGELSTM_RELU:
        return V::Max(0.0f, x);
      case EDGELSTM_RELU_N1_TO_1:
        return V::Min(1.0f, V::Max(-1.0f, x));
      case EDGELSTM_RELU6:
        return V::Min(6.0f, V::Max(0.0f, x));
      default:
        return Tanh<V>(x);
    }
  }

  // f c + i g from the sums of the gates.
  template <int kGates>
  Float NextC(const Float* z, Float c) const {
    const Float f = Sigmoid<V>(z[kGates - 3]);
    const Float i = kGates == 4 ? Sigmoid<V>(z[0]) : V::Sub(V::Set(1.0f), f);
    return Clipped(V::MulAdd(f, c, V::Mul(i, Activate(z[kGates - 2]))), layer_.cell_clip);
  }

  // Those of the input and forget gates, which see the c before.
  template <int kGates>
  void AddPeephole(int64_t block, Float c, Float* z) const {
    for (int gate = 0; gate < kGates - 2; ++gate) {
      const Float weight = V::Load(Vector(peephole_, gate + 4 - kGates) + block * kLanes);
      z[gate] = V::MulAdd(weight, c, z[gate]);
    }
  }

  // z = layer_norm (z - mean) / deviation + bias over the units of one gate.
  template <int kGates>
  void Normalize(float* row, int gate) const {
    const int64_t blocks = units_ / kLanes;
    const float count = static_cast<float>(layer_.units);
    Float total = V::Set(0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      total = V::Add(total, Part(row + block * (kGates - 1) * kLanes + gate * kLanes, block));
    }
    const float mean = V::Sum(total) / count;
    Float squares = V::Set(0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      float* z = row + (block * kGates + gate) * kLanes;
      const Float centred = V::Sub(V::Load(z), V::Set(mean));
      V::Store(z, centred);
      // Lanes beyond the units must not count.
      const Float counted = Part(z - block * kLanes, block);
      squares = V::MulAdd(counted, counted, squares);
    }
    const float variance = V::Sum(squares) / count;
    const Float factor = V::Set(1.0f / __builtin_sqrtf(variance + kLayerNormEpsilon));
    for (int64_t block = 0; block < blocks; ++block) {
      float* z = row + (block * kGates + gate) * kLanes;
      const int part = gate + 4 - kGates;
      const Float weight = V::Load(Vector(layer_norm_, part) + block * kLanes);
      const Float bias = V::Load(Vector(bias_, part) + block * kLanes);
      V::Store(z, V::MulAdd(V::Mul(V::Load(z), factor), weight, bias));
    }
  }

  const float* Vector(const float* vectors, int gate) const { return vectors + gate * units_; }

  const EdgeLstmLayer& layer_;
  const int64_t units_;
  const bool has_peephole_;
  const float* peephole_;
  const float* layer_norm_;
  const float* bias_;
};

}  // namespace
}  // namespace edgelstm
