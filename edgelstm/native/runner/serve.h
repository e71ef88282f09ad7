// The protocol of agent/serve.py: JSON lines on stdin and stdout.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "json.h"

using Handler = std::function<Json::Object(const Json& request)>;

// Answers requests until `bye` or the end of stdin; `at_end` is called before the process ends.
[[noreturn]] void Serve(const std::map<std::string, Handler>& handlers,
                        const std::function<void()>& at_end);
