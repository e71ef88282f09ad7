// The float LSTM of one row over a vector type V: plain layers, as most are. While the gates of two
// blocks of units are computed, the weights of the next two stream in.
#pragma once

#include <cstdint>

#include "kernels/activation-inl.h"
#include "kernels/cell-inl.h"
#include "kernels/memory.h"
#include "kernels/packing-inl.h"

namespace edgelstm {
namespace {

// A step takes its pairs of blocks in order. The gates, c and h of pair i - 1 are computed among the
// products of pair i; those of a step's last pair among products of the next step with what is known
// of h. Every sum is made in the order of h, so that results do not depend on how steps are cut into
// calls; every second step from the end, both, would find 32 KiB more in the first cache.
template <class V>
class FloatStream {
  using Float = typename V::Float;
  static constexpr int kGates = 4, kBlocks = 2, kParts = kBlocks * kGates;
  static constexpr int64_t kLanes = V::kLanes, kUnits = kBlocks * kLanes, kRow = kGates * kLanes;
  // Values of h that a piece of the products multiplies. A loop in each piece took 15 cycles more
  // apiece, as its end was not foreseen. Two values are 2 % faster at 64 -> 128, for 4 kB of code.
  static constexpr int64_t kPiece = 1;
  // Values that are multiplied among a pair's gates.
  static constexpr int64_t kAmongGates =
      kPiece * (2 + kStepsAmong<3, 1> + kStepsAmong<3, 2> + kStepsAmong<0, 1>);
  static_assert(kAmongGates + kUnits <= kLeastStreamedUnits, "values of h known before a step ends");

 public:
  // Steps whose input is projected at a time.
  static constexpr int64_t kChunk = 24;

  // Of `steps` steps from h and c, which it leaves in `output`, whose rows stand `output_step` apart,
  // and c.
  FloatStream(const float* weights, float cell_clip, int64_t units, int64_t steps, float* h,
              float* c, float* output, int64_t output_step)
      : weights_(weights),
        cell_clip_(cell_clip),
        units_(units),
        blocks_((units_ + kLanes - 1) / kLanes),
        pairs_((units_ + kUnits - 1) / kUnits),
        steps_(steps),
        h_(h),
        c_(c),
        output_(output),
        output_step_(output_step) {
    if (steps == 0) return;
    Products first = Begin(0, h);
    Keep(&first);
  }

  // All but the products of the first pair, which the step before has made. `own`: the part of the
  // gate sums that does not depend on h.
  EDGELSTM_NOINLINE void Step(int64_t step, const float* own) {
    const float* before = step == 0 ? h_ : output_ + (step - 1) * output_step_;
    float* after = output_ + step * output_step_;
    for (int64_t index = 0; index < pairs_; ++index) {
      // Those behind the last step are of no use, and read nothing that is not there.
      const bool same_step = index + 1 < pairs_;
      Products products = same_step ? Begin(index + 1, before) : Begin(0, after);
      Finish(own, index * kBlocks, after, [&]() EDGELSTM_ALWAYS { products.Piece(); });
      Keep(&products);
    }
  }

  // Leaves the last h where the first was.
  void End() const {
    if (steps_ == 0) return;
    const float* last = output_ + (steps_ - 1) * output_step_;
    for (int64_t i = 0; i < units_; ++i) h_[i] = last[i];
  }

 private:
  // The products of one pair, made piece by piece.
  struct Products {
    const float *weights, *second;
    const float *h, *end;
    Float sum[kParts];

    EDGELSTM_INLINE void One() {
      const Float x = V::Set(*h);
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        sum[gate] = V::MulAdd(V::Load(weights + gate * kLanes), x, sum[gate]);
      }
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        sum[kGates + gate] = V::MulAdd(V::Load(second + gate * kLanes), x, sum[kGates + gate]);
      }
      weights += kRow;
      second += kRow;
      ++h;
      asm("" : "+r"(weights), "+r"(second), "+r"(h));
    }
    EDGELSTM_INLINE void Piece() {
      EDGELSTM_UNROLL
      for (int64_t i = 0; i < kPiece; ++i) One();
    }
  };

  // Of a pair with what lies at `h`.
  EDGELSTM_INLINE Products Begin(int64_t pair, const float* h) const {
    const int64_t block = pair * kBlocks;
    Products products;
    products.weights = weights_ + block * units_ * kRow;
    // Without a second block the first counts twice.
    products.second = products.weights + (block + 1 < blocks_ ? units_ * kRow : 0);
    products.h = h;
    products.end = h + units_;
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) products.sum[i] = V::Set(0.0f);
    return products;
  }
  EDGELSTM_INLINE void Keep(Products* products) {
    while (products->h != products->end) products->One();
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) V::Store(products_ + i * kLanes, products->sum[i]);
  }

  // Gates, c and h of a pair from `block` on; `between` is called among their steps.
  template <class Between>
  EDGELSTM_INLINE void Finish(const float* own, int64_t block, float* after, const Between& between) {
    const int first_lanes = Lanes(block), second_lanes = Lanes(block + 1);
    // i, f, o, g; then tanh(c) of the first block beside those of the second.
    Float z[kGates + 1];
    Sums(own + block * kRow, products_, z);
    between();
    ActivateAmong<V, 3, 1>(z, between);
    z[kGates] = NextC(c_ + block * kLanes, first_lanes, z);
    const Float o = z[2];
    Sums(own + (second_lanes > 0 ? block + 1 : block) * kRow, products_ + kRow, z);
    between();
    ActivateAmong<V, 3, 2>(z, between);
    V::StorePart(after + block * kLanes, V::Mul(o, z[kGates]), first_lanes);
    Float tanh = NextC(c_ + (block + 1) * kLanes, second_lanes, z);
    ActivateAmong<V, 0, 1>(&tanh, between);
    V::StorePart(after + (block + 1) * kLanes, V::Mul(z[2], tanh), second_lanes);
  }

  // How many of a block are units; none of the second of the last pair of an odd number.
  int Lanes(int64_t block) const {
    return static_cast<int>(Smaller(kLanes, Larger(0, units_ - block * kLanes)));
  }

  // The gate sums of a block, in the order of Finish.
  static EDGELSTM_INLINE void Sums(const float* own, const float* products, Float* z) {
    constexpr int kOrder[kGates] = {0, 1, 3, 2};
    EDGELSTM_UNROLL
    for (int i = 0; i < kGates; ++i) {
      z[i] = V::Add(V::Load(own + kOrder[i] * kLanes), V::Load(products + kOrder[i] * kLanes));
    }
  }

  EDGELSTM_INLINE Float NextC(float* c, int lanes, const Float* z) const {
    const Float next = FloatCell<V>::Clipped(
        V::MulAdd(z[1], V::LoadPart(c, lanes), V::Mul(z[0], z[3])), cell_clip_);
    V::StorePart(c, next, lanes);
    return next;
  }

  const float* const weights_;
  const float cell_clip_;
  const int64_t units_, blocks_, pairs_, steps_;
  float *const h_, *const c_, *const output_;
  const int64_t output_step_;
  alignas(kAlignment) float products_[kParts * kLanes];
};

}  // namespace
}  // namespace edgelstm
