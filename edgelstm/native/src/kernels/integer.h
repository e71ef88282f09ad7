// TFLite's "8x8_16" integer LSTM: what its kernels derive from the scales of a layer.
//
// Source: PopulateQuantizedLstmParams8x8_16 and LstmStepInteger8x8_16 of TFLite's kernels, which
// the results equal bit for bit. Where its versions differ, LiteRT 2.3 and TensorFlow 2.21 count.
#pragma once

#include <cstdint>

#include "kernels/lstm.h"

namespace edgelstm {

// Stands for factor * 2^(shift - 31); factor is 0 or within [2^30, 2^31).
struct Multiplier {
  int32_t factor;
  int32_t shift;
};
Multiplier MultiplierOf(double value);
bool ShiftsRight(const Multiplier& multiplier);

struct IntegerScales {
  // From products to gate sums, by gate.
  Multiplier kernel[4], recurrent[4], peephole[4], layer_norm[4];
  Multiplier hidden, projection;
  int32_t variance_guard[4];
  // c has this many bits before its binary point, 0 to 6.
  int32_t c_bits;
  int32_t input_zero, h_zero;
  // What is added to o tanh(c); with a projection the stock kernel subtracts its zero point.
  int32_t hidden_offset;
  // Of the operand that the projection multiplies, as the stock kernel folds it.
  int32_t projected_zero;
  int32_t cell_clip, projection_clip;  // 0: none
};

// Returns why a layer has no such arithmetic, or null. Never freed.
const char* DeriveScales(const EdgeLstmLayer& layer, IntegerScales* scales);

// What is added to the products of one row of a matrix before they are scaled.
int32_t KernelOffset(const EdgeLstmLayer& layer, const IntegerScales& scales, int gate,
                     int64_t unit);
int32_t RecurrentOffset(const EdgeLstmLayer& layer, const IntegerScales& scales, int gate,
                        int64_t unit);
int32_t ProjectionOffset(const EdgeLstmLayer& layer, const IntegerScales& scales, int64_t output);

// The stock kernel multiplies peepholes sixteen units at a time and rounds halves up there, but
// those of the units behind the last sixteen away from zero. tflite-runtime 2.14 for x86 rounds all
// away from zero.
constexpr int32_t kPeepholeGroup = 16;
inline int32_t PeepholesRoundedUp(int32_t units) { return units / kPeepholeGroup * kPeepholeGroup; }

// Whatever the input and h are.
struct SumBounds {
  // Offset and products of each row of a matrix have a magnitude below 2^30.
  bool small_kernel, small_recurrent;
  // Scaled, those of the recurrent kernel fit 16 bits.
  bool recurrent_fits_words;
};
SumBounds BoundSums(const EdgeLstmLayer& layer, const IntegerScales& scales);

// 1 / sqrt(variance) in fixed point, by Newton's method; variance >= 1.
Multiplier InverseRoot(int32_t variance);

// The mean of one gate's sums, 1024 fold, and 1 / their deviation, from their sum and their sum of
// squares.
struct Moments {
  int32_t mean;
  Multiplier inverse_deviation;
};
Moments MomentsOf(int64_t sum, int64_t sum_of_squares, int32_t units, int32_t guard);

extern const LayerKernels kIntegerScalar;

}  // namespace edgelstm
