// The graph that a delegate sees while it is applied, and what its tensors say about themselves.
#pragma once

#include "delegate/tflite_abi.h"

namespace edgelstm {

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
  // Whether a tensor is an output of the graph. True as well where the interpreter does not tell, and
  // for what a graph that cannot run in one piece passes on.
  bool Gives(int tensor) const;

 private:
  TfLiteContext* context_;
  TfLiteIntArray* plan_;
};

// Number of elements; -1 if a dimension is negative or the number does not fit 31 bits.
int64_t Elements(const TfLiteTensor& tensor);

// Whether all elements are there to be read, already before the graph is prepared.
bool Constant(const TfLiteTensor& tensor);

// Whether it has one scale and one zero point.
bool PerTensor(const TfLiteTensor& tensor);

}  // namespace edgelstm
