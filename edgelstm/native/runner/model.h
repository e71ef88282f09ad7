// One model in one interpreter: load, allocate, run, and compare its outputs (agent/model.py).
#pragma once

#include <functional>
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
  Json::Object First();
  Json::Object Warm(const Json& request);
  Json::Object Cadence(const Json& request);
  Json::Object CountEvents(const Json& request);
  Json::Object TimeOperators(const Json& request);
  Json::Object Soak(const Json& request);
  Json::Object Compare(const Json& request);

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
  TfLiteInterpreter* Loaded();
  // Every name that a user may know a tensor by, the signature's first.
  std::vector<std::string> NamesOf(const TfLiteTensor* tensor, const char* side);
  std::vector<int64_t> ShapeOf(const TfLiteTensor* tensor);
  std::vector<int64_t> WantedShape(const TfLiteTensor* tensor, const Json& request);
  Array Output(const TfLiteTensor* tensor, const std::string& name);
  void CheckNames(const Json& request);
  Json Taken();
  std::function<void()> Before(const Json& request);
  void Reset();
  void Feed();
  void Invoke();
  void Timed(int64_t n, int64_t limit_ns, const std::function<void()>& before,
             std::vector<int64_t>* samples);

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
