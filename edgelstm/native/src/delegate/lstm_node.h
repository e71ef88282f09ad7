// One fused LSTM operator of a graph, read and checked.
#pragma once

#include "delegate/tflite_abi.h"
#include "edgelstm/edgelstm.h"

namespace edgelstm {

struct LstmNode {
  EdgeLstmLayer layer;  // its weights point into the model
  int input, output, h, c;  // tensor indices
  bool time_major;
};

// A copy of the execution plan and what its nodes read; the interpreter's own changes while
// delegates are applied.
class Graph {
 public:
  // `ok` is false if memory is short or the interpreter fails.
  explicit Graph(TfLiteContext* context);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  bool ok() const { return plan_ != nullptr; }
  int size() const { return plan_->size; }
  int node(int position) const { return plan_->data[position]; }
  // Node that writes a tensor, or -1.
  int Producer(int tensor) const;

 private:
  TfLiteContext* context_;
  TfLiteIntArray* plan_;
};

// Reads node `index`. Returns null, or why the operator is left to the interpreter; never freed.
// Weights must be constants, or made of constants by DEQUANTIZE.
const char* ReadLstmNode(TfLiteContext* context, const Graph& graph, int index, LstmNode* node);

// Number of elements; -1 if a dimension is negative or the number does not fit 31 bits.
int64_t Elements(const TfLiteTensor& tensor);

}  // namespace edgelstm
