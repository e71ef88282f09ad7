// One LSTM operator of a graph, read and checked.
#pragma once

#include "delegate/basic_step.h"
#include "delegate/graph.h"
#include "edgelstm/edgelstm.h"

namespace edgelstm {

// One recurrence: an operator has one, or one per direction.
struct LstmNode {
  EdgeLstmLayer layer;      // its weights point into the model
  int input, output, h, c;  // tensor indices
  bool time_major;
  bool one_step;  // no axis of time
  bool backward;  // from the last step to the first
  // Where its outputs stand in the output's last axis, and how long that is.
  int output_column, output_width;
};

constexpr int kMostNodes = 2;

struct LstmNodes {
  LstmNode node[kMostNodes];
  int count;  // 0: it is a basic step
  BasicStep basic;
};

// Whether an operator of this kind may be taken.
bool IsLstm(const TfLiteRegistration& registration);

// Reads node `index`. Returns null, or why the operator is left to the interpreter; never freed.
// Weights must be constants, or made of constants by DEQUANTIZE.
const char* ReadLstmNodes(TfLiteContext* context, const Graph& graph, int index, LstmNodes* nodes);

}  // namespace edgelstm
