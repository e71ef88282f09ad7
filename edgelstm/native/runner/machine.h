// The machine that the runner runs on: what it is, how busy and warm it is, what memory is used.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "json.h"

// A small file of /proc or /sys without blanks at its ends; none where it cannot be read.
std::optional<std::string> ReadText(const std::string& path);
int64_t NowNs();          // monotonic
int64_t ProcessorNs();    // processor time of this process
Json::Object Facts();     // what does not change, but `backends`
Json::Object State(const Json& request);
Json::Object Memory();
