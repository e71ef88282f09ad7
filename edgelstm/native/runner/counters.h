// Processor instructions and cycles by perf_event_open (agent/counters.py).
#pragma once

#include <functional>

#include "json.h"

// User-space events of each of `n` calls by name; null where they cannot be counted.
Json::Object Count(const std::function<void()>& call, const std::function<void()>& prepare, int n);
