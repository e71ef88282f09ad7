// A request that could not be served; `kind` tells the host whose fault it is (agent/serve.py).
#pragma once

#include <stdexcept>
#include <string>

struct AgentError : std::runtime_error {
  AgentError(std::string kind_, const std::string& message)
      : std::runtime_error(message), kind(std::move(kind_)) {}
  std::string kind;
};
