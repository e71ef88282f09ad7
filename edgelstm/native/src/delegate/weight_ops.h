// The operators that only make weights of LSTMs: DEQUANTIZE of constants, and RESHAPE before it.
#pragma once

#include "delegate/tflite_abi.h"

namespace edgelstm {

// Takes those that nothing reads but LSTMs that `delegate` has taken already, which read the
// constants themselves: they are no longer called, and their results take no memory.
TfLiteStatus TakeWeightOps(TfLiteContext* context, TfLiteDelegate* delegate);

}  // namespace edgelstm
