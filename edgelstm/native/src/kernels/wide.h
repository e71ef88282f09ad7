// TFLite Micro's "16x8" integer LSTM: what its kernel derives from the scales of a layer.
//
// Source: micro/kernels/lstm_eval_common.cc and the 16-bit logistic and tanh of its reference
// integer ops, which the results equal bit for bit.
#pragma once

#include <cstdint>

#include "kernels/integer.h"
#include "kernels/lstm.h"

namespace edgelstm {

// Of 64-bit sums: stands for factor * 2^-shift; factor has 15 bits, 1 <= shift <= 46.
struct SumMultiplier {
  int32_t factor, shift;
};

struct WideScales {
  SumMultiplier kernel[4], recurrent[4];  // from products to gate sums, by gate
  Multiplier keep, add, hidden;           // of f c, of i g, of o tanh(c)
  int32_t c_exponent;                     // c has a scale of 2^c_exponent
  int32_t input_zero, h_zero;
  int32_t cell_clip;  // 0: none
};

// Returns why a layer has no such arithmetic, or null. Never freed.
const char* DeriveWideScales(const EdgeLstmLayer& layer, WideScales* scales);

// What is added to the products of one row of a matrix before they are scaled.
int64_t WideKernelOffset(const EdgeLstmLayer& layer, const WideScales& scales, int gate,
                         int64_t unit);
int64_t WideRecurrentOffset(const EdgeLstmLayer& layer, const WideScales& scales, int gate,
                            int64_t unit);

// Wraps, as the kernel's int64 does where a bias is made to overflow it.
inline int64_t WrappedSum(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

// sigmoid(i / 24), 16 bits behind the binary point. The table is TFLite Micro's own: no formula gives
// it.
extern const int32_t kSigmoidTable[256];

extern const LayerKernels kWideScalar;

}  // namespace edgelstm
