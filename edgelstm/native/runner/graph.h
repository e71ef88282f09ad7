// The graph inside an interpreter, as a delegate sees it (agent/graph.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "delegate/tflite_abi.h"
#include "json.h"

struct Operator {
  int graph, index;
  const TfLiteNode* node;
  TfLiteRegistration* registration;
  std::vector<int> inputs, outputs;
  std::vector<std::string> names;  // of the outputs

  Json::Object Described() const;
};

// Takes nothing; it remembers where the graphs are. Give it as the first delegate, so that it sees
// them before another has taken parts.
class Graph {
 public:
  Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  TfLiteDelegate* Delegate() { return &delegate_; }
  // As each graph was before other delegates.
  const std::vector<Operator>& Before() const { return before_; }
  // All that run, as the graphs are now, the bodies of loops included.
  std::vector<Operator> Operators() const;
  // Builtin codes of all nodes of the model's own graph, of those that a delegate replaced too.
  std::vector<int64_t> Codes() const;
  // How many parts of the graphs a delegate has taken.
  int64_t PartsOf(const TfLiteDelegate* delegate) const;
  // What a delegate took as this part: what leads to its outputs.
  std::vector<Operator> Covered(const Operator& part) const;
  Json::Object TensorBytes() const;
  // Of a tensor of the model's own graph; -1 where the interpreter showed no graph.
  int64_t IndexOf(const TfLiteTensor* tensor) const;

 private:
  struct Known {
    TfLiteContext* context;
    // Kept, because the context forbids these two outside of a delegate's preparation.
    TfLiteStatus (*plan)(TfLiteContext*, TfLiteIntArray**);
    TfLiteStatus (*node)(TfLiteContext*, int, TfLiteNode**, TfLiteRegistration**);
  };

  static TfLiteStatus Prepare(TfLiteContext* context, TfLiteDelegate* delegate);
  static std::vector<Operator> OperatorsOf(int number, const Known& known);

  TfLiteDelegate delegate_{};
  std::vector<Known> known_;
  std::vector<Operator> before_;
};
