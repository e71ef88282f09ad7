#include "layout.h"

#include <sys/personality.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern char** environ;

namespace {

constexpr unsigned long kAsk = 0xffffffff;
constexpr char kStartedAnew[] = "EDGELSTM_AGENT_STARTED_ANEW";

}  // namespace

void FixLayout(char** arguments) {
  const int now = personality(kAsk);
  if (std::getenv(kStartedAnew) != nullptr || now < 0) return;
  if (personality(static_cast<unsigned long>(now) | ADDR_NO_RANDOMIZE) < 0) return;
  std::string mark = std::string(kStartedAnew) + "=1";
  // The environment lies on the stack, and ssh's part has another length for every port.
  std::vector<char*> kept;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, "SSH_", 4) != 0) kept.push_back(*each);
  }
  kept.push_back(mark.data());
  kept.push_back(nullptr);
  execve("/proc/self/exe", arguments, kept.data());
}

Json Layout() {
  const int now = personality(kAsk);
  if (now < 0) return nullptr;
  return (now & ADDR_NO_RANDOMIZE) != 0 ? "fixed" : "random";
}
