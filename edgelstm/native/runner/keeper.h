// Keeps watch on the device: when the host goes, nothing of ours stays (agent/keeper.py).
#pragma once

#include <string>

[[noreturn]] void Keep(const std::string& folder);
