// Products of packed int8 weights with rows on NEON: with matrix products, dot products, or the
// multiplications of every NEON, whichever the file is compiled with.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels/memory.h"
#include "kernels/words_neon.h"

namespace edgelstm {
namespace {

struct NeonDots : NeonWords {
  using Quad = int8x16_t;
  using Weights = int8x16_t;
  // Sums are those of the products, without corrections.
  static constexpr bool kDotsAreExact = true;

  // Four consecutive values for every lane.
  static Quad LoadQuad(const int8_t* values) {
    int32_t bits;
    std::memcpy(&bits, values, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
  }
  static Weights LoadWeights(const int8_t* from) { return vld1q_s8(from); }
  static constexpr uint8_t kWeightBias = 0;
  static int32_t DotCorrection(const int8_t*, int64_t) { return 0; }

#if defined(__ARM_FEATURE_DOTPROD)
  static Int AddDot(Int sum, Weights weights, Quad quad) {
    return vdotq_s32(sum, weights, quad);
  }
#else
  // Weights are within [-127, 127]: sums of two products fit into 16 bits.
  static Int AddDot(Int sum, Weights weights, Quad quad) {
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(quad));
#if defined(__aarch64__)
    const int16x8_t high = vmull_high_s8(weights, quad);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
#else
    const int16x8_t high = vmull_s8(vget_high_s8(weights), vget_high_s8(quad));
    return vpadalq_s16(sum, vcombine_s16(vpadd_s16(vget_low_s16(low), vget_high_s16(low)),
                                         vpadd_s16(vget_low_s16(high), vget_high_s16(high))));
#endif
  }
#endif
  static Int AddByteDot(Int sum, Weights weights, Quad quad) {
    return AddDot(sum, weights, quad);
  }

#if defined(__aarch64__)
  static constexpr bool kOwnDots = true;

  // How many of kCount vectors are loaded at a time.
  template <int kCount>
  static constexpr int kAtOnce = kCount % 4 == 0 ? 4 : kCount % 3 == 0 ? 3 : 2;

  // Loads vectors that stand side by side, with one instruction, and steps behind them. To be used
  // before the next are loaded: they are in neighbouring registers, of which the compiler would make
  // copies.
  template <int kCount>
  static EDGELSTM_INLINE void LoadNext(const int8_t*& from, Weights* to) {
    const auto copy = [to](const auto& vectors) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kCount; ++i) to[i] = vectors.val[i];
    };
    if constexpr (kCount == 4) {
      copy(vld1q_s8_x4(from));
    } else if constexpr (kCount == 3) {
      copy(vld1q_s8_x3(from));
    } else {
      copy(vld1q_s8_x2(from));
    }
    from += kCount * 16;
    // The load can do this step as well, unless the compiler counts from further back.
    __asm__("" : "+r"(from));
  }
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
  // Eight k of a lane stand together: two lanes are the second factor of a matrix product, whose
  // first are two rows. A row alone takes dot products, in two sums for every lane.
  static constexpr int kDotGroup = 8;
  static constexpr int kInt8Rows = 2;
  static constexpr int kIntegerRows = 2;

  template <int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddDots(const int8_t* weights, int64_t depth,
                                      const int8_t* const* rows, Int* sum) {
    static_assert(kRows <= 2);
    EDGELSTM_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      const int8_t* own = weights + block * depth * kParts * 4;
      if constexpr (kRows == 2) {
        AddPair<kParts>(own, depth, rows, sum + block * kParts, sum + (kBlocks + block) * kParts);
      } else {
        AddSingle<kParts>(own, depth, rows[0], sum + block * kParts);
      }
    }
  }

 private:
  template <int kParts>
  static EDGELSTM_INLINE void AddPair(const int8_t* weights, int64_t depth,
                                      const int8_t* const* rows, Int* first, Int* second) {
    // Of two lanes by two rows.
    Int square[2 * kParts];
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) {
      square[2 * i] = LowHalves(first[i], second[i]);
      square[2 * i + 1] = HighHalves(first[i], second[i]);
    }
    int64_t k = 0;
    for (; k + 16 <= depth; k += 16) {
      const int8x16_t a = vld1q_s8(rows[0] + k), b = vld1q_s8(rows[1] + k);
      AddEight<2 * kParts, true>(weights, LowHalves(a, b), square);
      AddEight<2 * kParts, true>(weights, HighHalves(a, b), square);
    }
    if (k < depth) {
      const int8x16_t x = vcombine_s8(vld1_s8(rows[0] + k), vld1_s8(rows[1] + k));
      AddEight<2 * kParts, true>(weights, x, square);
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) {
      first[i] = LowHalves(square[2 * i], square[2 * i + 1]);
      second[i] = HighHalves(square[2 * i], square[2 * i + 1]);
    }
  }

  template <int kParts>
  static EDGELSTM_INLINE void AddSingle(const int8_t* weights, int64_t depth, const int8_t* row,
                                        Int* sum) {
    Int halves[2 * kParts];
    EDGELSTM_UNROLL
    for (int i = 0; i < 2 * kParts; ++i) halves[i] = vdupq_n_s32(0);
    int64_t k = 0;
    for (; k + 16 <= depth; k += 16) {
      const int8x16_t x = vld1q_s8(row + k);
      AddEight<2 * kParts, false>(weights, LowHalves(x, x), halves);
      AddEight<2 * kParts, false>(weights, HighHalves(x, x), halves);
    }
    if (k < depth) {
      const int8x8_t x = vld1_s8(row + k);
      AddEight<2 * kParts, false>(weights, vcombine_s8(x, x), halves);
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kParts; ++i) {
      sum[i] = vaddq_s32(sum[i], vpaddq_s32(halves[2 * i], halves[2 * i + 1]));
    }
  }

  // The products of kCount vectors with a pair of rows, or with one row twice.
  template <int kCount, bool kPair>
  static EDGELSTM_INLINE void AddEight(const int8_t*& weights, int8x16_t x, Int* sum) {
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; i += kAtOnce<kCount>) {
      Weights w[kAtOnce<kCount>];
      LoadNext<kAtOnce<kCount>>(weights, w);
      EDGELSTM_UNROLL
      for (int j = 0; j < kAtOnce<kCount>; ++j) {
        sum[i + j] = kPair ? vmmlaq_s32(sum[i + j], x, w[j]) : vdotq_s32(sum[i + j], w[j], x);
      }
    }
  }

  template <class T>
  static T LowHalves(T a, T b) {
    return reinterpret_cast<T>(
        vzip1q_s64(reinterpret_cast<int64x2_t>(a), reinterpret_cast<int64x2_t>(b)));
  }
  template <class T>
  static T HighHalves(T a, T b) {
    return reinterpret_cast<T>(
        vzip2q_s64(reinterpret_cast<int64x2_t>(a), reinterpret_cast<int64x2_t>(b)));
  }
#elif defined(__ARM_FEATURE_DOTPROD)
  static constexpr int kInt8Rows = 4;
  static constexpr int kIntegerRows = 2;

  template <int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddDots(const int8_t* weights, int64_t depth,
                                      const int8_t* const* rows, Int* sum) {
    const int8_t* from[kBlocks];
    EDGELSTM_UNROLL
    for (int block = 0; block < kBlocks; ++block) from[block] = weights + block * depth * kParts * 4;
    int64_t k = 0;
    for (; k + 16 <= depth; k += 16) {
      int8x16_t x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = vld1q_s8(rows[r] + k);
      AddFour<0, kRows, kBlocks, kParts>(from, x, sum);
      AddFour<1, kRows, kBlocks, kParts>(from, x, sum);
      AddFour<2, kRows, kBlocks, kParts>(from, x, sum);
      AddFour<3, kRows, kBlocks, kParts>(from, x, sum);
    }
    for (; k < depth; k += 4) {
      int8x16_t x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = LoadQuad(rows[r] + k);
      AddFour<0, kRows, kBlocks, kParts>(from, x, sum);
    }
  }

 private:
  // Four k, of which lane kLane of x holds the row's.
  template <int kLane, int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddFour(const int8_t** from, const int8x16_t* x, Int* sum) {
    EDGELSTM_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kParts; i += kAtOnce<kParts>) {
        Weights w[kAtOnce<kParts>];
        LoadNext<kAtOnce<kParts>>(from[block], w);
        EDGELSTM_UNROLL
        for (int j = 0; j < kAtOnce<kParts>; ++j) {
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Int& to = sum[(r * kBlocks + block) * kParts + i + j];
            to = vdotq_laneq_s32(to, w[j], x[r], kLane);
          }
        }
      }
    }
  }
#elif defined(__aarch64__)
  // Rows whose products, in two sums for every lane, fit the registers.
  static constexpr int kInt8Rows = 2;
  static constexpr int kIntegerRows = 1;

  template <int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddDots(const int8_t* weights, int64_t depth,
                                      const int8_t* const* rows, Int* sum) {
    constexpr int kAll = kRows * kBlocks * kParts;
    Int pairs[2 * kAll];
    EDGELSTM_UNROLL
    for (int i = 0; i < 2 * kAll; ++i) pairs[i] = vdupq_n_s32(0);
    const int64_t stride = depth * kParts * 4;
    int64_t k = 0;
    for (; k + 8 <= depth; k += 8) {
      AddQuads<2, kRows, kBlocks, kParts>(weights + k * kParts * 4, stride, rows, k, pairs);
    }
    if (k < depth) {
      AddQuads<1, kRows, kBlocks, kParts>(weights + k * kParts * 4, stride, rows, k, pairs);
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kAll; ++i) {
      sum[i] = vaddq_s32(sum[i], vpaddq_s32(pairs[2 * i], pairs[2 * i + 1]));
    }
  }

 private:
  template <int kQuads, int kRows, int kBlocks, int kParts>
  static EDGELSTM_INLINE void AddQuads(const int8_t* weights, int64_t stride,
                                       const int8_t* const* rows, int64_t k, Int* pairs) {
    Quad x[kQuads * kRows];
    EDGELSTM_UNROLL
    for (int i = 0; i < kQuads * kRows; ++i) x[i] = LoadQuad(rows[i / kQuads] + k + i % kQuads * 4);
    EDGELSTM_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kParts; ++i) {
        const int8_t* from = weights + block * stride + i * 16;
        const Weights w = LoadWeights(from), next = LoadWeights(from + (kQuads - 1) * kParts * 16);
        EDGELSTM_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const Quad* own = x + r * kQuads;
          int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(own[0]));
          int16x8_t high = vmull_high_s8(w, own[0]);
          if constexpr (kQuads == 2) {
            // Weights are within [-127, 127]: sums of two products fit into 16 bits.
            low = vmlal_s8(low, vget_low_s8(next), vget_low_s8(own[1]));
            high = vmlal_high_s8(high, next, own[1]);
          }
          Int* to = pairs + ((r * kBlocks + block) * kParts + i) * 2;
          to[0] = vpadalq_s16(to[0], low);
          to[1] = vpadalq_s16(to[1], high);
        }
      }
    }
  }
#else
  static constexpr int kInt8Rows = 2;
  static constexpr int kIntegerRows = 1;
#endif
};

}  // namespace
}  // namespace edgelstm
