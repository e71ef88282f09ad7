// A delegate's kernel: one LSTM operator of one interpreter.
#pragma once

#include "delegate/tflite_abi.h"
#include "kernels/lstm.h"

namespace edgelstm {

// Reads and packs the operator of a delegate node. Null if memory is short: then `PrepareOp` fails.
void* MakeOp(TfLiteContext* context, const TfLiteDelegateParams& params,
             const LstmKernels& kernels);

// Whether an operator of `MakeOp` reads a tensor when it runs: its input and states, no weights.
bool OpReads(const void* data, int tensor);

// The node's life behind `MakeOp`, as TfLiteRegistration has it.
void FreeOp(TfLiteContext* context, void* data);
TfLiteStatus PrepareOp(TfLiteContext* context, TfLiteNode* node);
TfLiteStatus InvokeOp(TfLiteContext* context, TfLiteNode* node);

}  // namespace edgelstm
