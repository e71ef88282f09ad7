// One model in one interpreter: load, allocate, run, and compare its outputs (agent/model.py).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arrays.h"
#include "graph.h"
#include "interpreter_library.h"
#include "json.h"

class Model {
 public:
  explicit Model(std::string library_path) : library_path_(std::move(library_path)) {}

  // The interpreter of the library and its version.
  Json::Object Backends();
  Json::Object Import();
  Json::Object Load(const Json& request);
  Json::Object Allocate(const Json& request);
  Json::Object Compare(const Json& request);

  // Raises AgentError where no model is loaded; forgets earlier complaints.
  TfLiteInterpreter* Loaded();
  Graph& Shown() { return *graph_; }
  void Reset();
  // Before every run: the planner may reuse an input's bytes, and an input may be a variable.
  void Feed();
  void Invoke();

 private:
  struct Input {
    TfLiteTensor* tensor;
    Array data;
  };

  const InterpreterLibrary& Library();
  void RunOn(const Json& processors);
  std::vector<TfLiteDelegate*> Delegates(const Json& request);
  TfLiteInterpreter* WithoutDefaultDelegates(const std::vector<TfLiteDelegate*>& delegates,
                                             int threads);
  TfLiteInterpreterOptions* Options(const std::vector<TfLiteDelegate*>& delegates, int threads);
  // Every name that a user may know a tensor by, the signature's first.
  std::vector<std::string> NamesOf(const TfLiteTensor* tensor, const char* side);
  std::vector<int64_t> ShapeOf(const TfLiteTensor* tensor);
  std::vector<int64_t> WantedShape(const TfLiteTensor* tensor, const Json& request);
  Array Output(const TfLiteTensor* tensor, const std::string& name);
  void CheckNames(const Json& request);
  Json Taken();

  std::string library_path_;
  std::unique_ptr<InterpreterLibrary> library_;
  TfLiteModel* model_ = nullptr;
  TfLiteInterpreter* interpreter_ = nullptr;
  std::unique_ptr<Graph> graph_;
  std::string kind_;
  int64_t not_loading_ns_ = 0;
  void* external_ = nullptr;
  TfLiteDelegate* delegate_ = nullptr;
  Json signature_;
  std::vector<Input> inputs_;
};
