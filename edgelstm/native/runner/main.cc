// The native runner: measures a model on a device without Python, through a library with the
// TensorFlow Lite C API. It speaks the protocol of the Python agent (profiles/agent/serve.py).
//
//   edgelstm_runner serve LIBRARY    answers requests about one model
//   edgelstm_runner keep FOLDER      removes FOLDER and ends what runs there when the host goes
#include <cstdio>
#include <cstring>

#include "agent_error.h"
#include "keeper.h"
#include "layout.h"
#include "machine.h"
#include "measuring.h"
#include "model.h"
#include "serve.h"

namespace {

// Times a call that does nothing exactly as `warm` times an inference.
Json::Object Overhead(const Json& request) {
  const std::function<void()> nothing = []() {};
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < request["runs"].Integer(); ++i) {
    const int64_t started = NowNs();
    nothing();
    samples.push_back(NowNs() - started);
  }
  return {{"samples_ns", Json::List(samples)}};
}

Json::Object Hello(Model* model) {
  Json::Object facts = Facts();
  facts.emplace_back("backends", model->Backends());
  return facts;
}

[[noreturn]] void ServeModel(const char* library) {
  static Model model(library);
  static Measuring measuring(&model);
  Serve(
      {
          {"hello", [](const Json&) { return Hello(&model); }},
          {"state", [](const Json& request) { return State(request); }},
          {"overhead", [](const Json& request) { return Overhead(request); }},
          {"import", [](const Json&) { return model.Import(); }},
          {"load", [](const Json& request) { return model.Load(request); }},
          {"allocate", [](const Json& request) { return model.Allocate(request); }},
          {"first", [](const Json&) { return measuring.First(); }},
          {"warm", [](const Json& request) { return measuring.Warm(request); }},
          {"cadence", [](const Json& request) { return measuring.Cadence(request); }},
          {"count", [](const Json& request) { return measuring.CountEvents(request); }},
          {"operators", [](const Json& request) { return measuring.TimeOperators(request); }},
          {"memory", [](const Json&) { return Memory(); }},
          {"soak", [](const Json& request) { return measuring.Soak(request); }},
          {"compare", [](const Json& request) { return model.Compare(request); }},
      },
      []() {});
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 3 && std::strcmp(arguments[1], "serve") == 0) {
    FixLayout(arguments);
    ServeModel(arguments[2]);
  }
  if (count == 3 && std::strcmp(arguments[1], "keep") == 0) Keep(arguments[2]);
  std::fprintf(stderr, "usage: edgelstm_runner serve LIBRARY | keep FOLDER\n");
  return 2;
}
