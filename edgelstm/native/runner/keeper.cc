#include "keeper.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <sstream>
#include <thread>

#include "agent_error.h"
#include "machine.h"
#include "serve.h"

namespace {

namespace fs = std::filesystem;

constexpr int64_t kLongestSilenceNs = 60'000'000'000;

// Ends the process noted under a token, if it still runs.
Json Kill(const fs::path& folder, const std::string& token) {
  if (token.empty() || token.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw AgentError("agent", "a token has hexadecimal digits only");
  }
  const auto text = ReadText(folder / "pids" / token);
  if (!text || text->empty() || text->find_first_not_of("0123456789") != std::string::npos) {
    return nullptr;
  }
  const auto pid = static_cast<pid_t>(std::atoll(text->c_str()));
  if (pid < 2 || pid == getpid()) return nullptr;  // the keeper is noted too
  kill(pid, SIGKILL);
  return int64_t{pid};
}

void Clean(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& each : fs::directory_iterator(folder / "pids", ignored)) {
    try {
      Kill(folder, each.path().filename());
    } catch (const AgentError&) {
    }
  }
  fs::remove_all(folder, ignored);
  rmdir(folder.parent_path().c_str());  // only where it is empty
}

std::optional<int64_t> OomKills() {
  std::istringstream words(ReadText("/proc/vmstat").value_or(""));
  std::string name;
  for (int64_t value; words >> name >> value;) {
    if (name == "oom_kill") return value;
  }
  return std::nullopt;
}

// The kernel's last line about a process that it killed for memory.
Json OutOfMemoryLine(int64_t pid) {
  std::FILE* log = popen("dmesg 2>/dev/null", "r");
  if (log == nullptr) return nullptr;
  const std::string mark = "Killed process " + std::to_string(pid) + " ";
  Json found = nullptr;
  char line[1024];
  while (std::fgets(line, sizeof line, log) != nullptr) {
    std::string text(line);
    if (text.find(mark) == std::string::npos) continue;
    text.erase(text.find_last_not_of(" \n") + 1);
    found = text.substr(0, 300);
  }
  pclose(log);
  return found;
}

}  // namespace

void Keep(const std::string& folder) {
  static std::atomic<int64_t> heard{NowNs()};
  static std::optional<int64_t> kills = OomKills();
  std::thread([folder]() {
    while (NowNs() - heard < kLongestSilenceNs) std::this_thread::sleep_for(std::chrono::seconds(1));
    Clean(folder);
    _exit(1);
  }).detach();
  Serve(
      {
          {"beat",
           [](const Json&) {
             heard = NowNs();
             return Json::Object{};
           }},
          {"kill",
           [folder](const Json& request) {
             return Json::Object{{"pid", Kill(folder, request["token"].Text())}};
           }},
          {"why",
           [](const Json& request) {
             const auto before = kills;
             kills = OomKills();
             Json rose = nullptr;
             if (before && kills) rose = *kills - *before;
             return Json::Object{{"oom_kills", rose},
                                 {"log", OutOfMemoryLine(request["pid"].Integer())}};
           }},
      },
      [folder]() { Clean(folder); });
}
