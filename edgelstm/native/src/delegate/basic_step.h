// The basic LSTM operator: one step from given states, all gates in one matrix.
#pragma once

#include "delegate/graph.h"
#include "edgelstm/edgelstm.h"
#include "kernels/lstm.h"

namespace edgelstm {

struct BasicStep {
  int inputs, units;
  int input, h, c, h_out, c_out;  // tensor indices
  const void* weights;            // float32 [4 units, inputs + units], gates in the order i, c, f, o
  const void* bias;               // float32 [4 units]
};

// Null, or why the operator is left to the interpreter; never freed.
const char* ReadBasicStep(TfLiteContext* context, const TfLiteNode& op, BasicStep* step);

// Packs its weights; null if memory is short.
EdgeLstm* MakeBasicLstm(const BasicStep& step, const LstmKernels& kernels, int threads);

// `spare`, [batch, units], stands in for an output that nobody reads; it is allocated anew.
TfLiteStatus PrepareBasicStep(TfLiteContext* context, const BasicStep& step, float** spare);

// As the stock kernel it leaves the new states in its inputs, too.
TfLiteStatus InvokeBasicStep(TfLiteContext* context, const BasicStep& step, EdgeLstm* lstm,
                             float* spare);

}  // namespace edgelstm
