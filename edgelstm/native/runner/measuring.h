// The measuring requests on a loaded model (agent/timing.py).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "json.h"
#include "model.h"

class Measuring {
 public:
  explicit Measuring(Model* model) : model_(model) {}

  Json::Object First();
  Json::Object Warm(const Json& request);
  Json::Object Cadence(const Json& request);
  Json::Object CountEvents(const Json& request);
  Json::Object TimeOperators(const Json& request);
  Json::Object Soak(const Json& request);

 private:
  // What runs before every inference and is not timed: empty, or the reset of the states.
  std::function<void()> Before(const Json& request);
  void Timed(int64_t n, int64_t limit_ns, const std::function<void()>& before,
             std::vector<int64_t>* samples);

  Model* model_;
};
