#include "machine.h"

#include <dlfcn.h>
#include <glob.h>
#include <sched.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "agent_error.h"
#include "layout.h"

namespace {

constexpr int kProtocol = 2;  // of agent/messages.py
constexpr size_t kMostText = 200;

int64_t Clock(clockid_t id) {
  timespec now;
  clock_gettime(id, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

std::string Trimmed(const std::string& text) {
  const char* const blanks = " \t\r\n";
  const size_t from = text.find_first_not_of(blanks);
  if (from == std::string::npos) return "";
  return text.substr(from, text.find_last_not_of(blanks) - from + 1);
}

// The first of each key of lines `key: value`; keys in lower case.
std::map<std::string, std::string> Fields(const std::string& path) {
  std::map<std::string, std::string> found;
  std::istringstream lines(ReadText(path).value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string key = Trimmed(line.substr(0, colon));
    std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return tolower(c); });
    found.emplace(key, Trimmed(line.substr(colon + 1)));
  }
  return found;
}

Json Bytes(const std::map<std::string, std::string>& fields, const std::string& key) {
  const auto found = fields.find(key);
  if (found == fields.end() || found->second.find("kB") == std::string::npos) return nullptr;
  return int64_t{std::atoll(found->second.c_str())} * 1024;
}

Json BusySeconds() {
  std::istringstream words(ReadText("/proc/stat").value_or(""));
  std::string name;
  int64_t user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  if (!(words >> name >> user >> nice >> system >> idle) || name != "cpu") return nullptr;
  words >> wait >> irq >> soft >> steal;
  const auto ticks = static_cast<double>(user + nice + system + irq + soft + steal);
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

Json LoadAverages() {
  double load[3];
  if (getloadavg(load, 3) != 3) return nullptr;
  return Json::Array{load[0], load[1], load[2]};
}

Json Texts(const Json& patterns) {
  std::set<std::string> paths;
  for (const Json& pattern : patterns.Items()) {
    glob_t found;
    if (glob(pattern.Text().c_str(), 0, nullptr, &found) == 0) {
      paths.insert(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    }
    globfree(&found);
  }
  Json::Object texts;
  for (const std::string& path : paths) {
    if (const auto text = ReadText(path)) texts.emplace_back(path, text->substr(0, kMostText));
  }
  return texts;
}

Json LibcVersion() {
  // Asked at run time: bionic and musl have no such function.
  if (void* symbol = dlsym(RTLD_DEFAULT, "gnu_get_libc_version")) {
    return Json::Array{"glibc", reinterpret_cast<const char* (*)()>(symbol)()};
  }
  return Json::Array{access("/system/bin/linker", F_OK) == 0 ? "bionic" : "", ""};
}

}  // namespace

std::optional<std::string> ReadText(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return std::nullopt;
  std::string text;
  char part[4096];
  size_t n;
  while ((n = std::fread(part, 1, sizeof part, file)) > 0) text.append(part, n);
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return std::nullopt;
  return Trimmed(text);
}

int64_t NowNs() { return Clock(CLOCK_MONOTONIC); }
int64_t ProcessorNs() { return Clock(CLOCK_PROCESS_CPUTIME_ID); }

Json::Object Facts() {
  utsname system{};
  uname(&system);
  auto fields = Fields("/proc/cpuinfo");
  std::string board = ReadText("/sys/firmware/devicetree/base/model").value_or("");
  board.erase(std::remove(board.begin(), board.end(), '\0'), board.end());
  Json name = nullptr;
  for (const std::string& each : {fields["model name"], board, fields["hardware"]}) {
    if (name.IsNull() && !each.empty()) name = each;
  }
  std::istringstream words(fields.count("flags") != 0 ? fields["flags"] : fields["features"]);
  std::vector<std::string> features;
  for (std::string word; words >> word;) features.push_back(word);
  cpu_set_t may;
  CPU_ZERO(&may);
  const bool known = sched_getaffinity(0, sizeof may, &may) == 0;
  const int64_t processors = known ? CPU_COUNT(&may) : sysconf(_SC_NPROCESSORS_ONLN);
  return {
      {"protocol", kProtocol},
      {"pid", int64_t{getpid()}},
      {"python", ""},
      {"numpy", nullptr},
      {"system", system.sysname},
      {"release", system.release},
      {"machine", system.machine},
      {"libc", LibcVersion()},
      {"pointer_bits", int64_t{8 * sizeof(void*)}},
      {"processors", processors},
      {"processor_name", name},
      {"features", Json::List(features)},
      {"layout", Layout()},
  };
}

Json::Object State(const Json& request) {
  Json::Object state{
      {"load", LoadAverages()},
      {"busy_s", BusySeconds()},
      {"clock_s", static_cast<double>(NowNs()) / 1e9},
  };
  for (const char* kind : {"governors", "frequencies", "temperatures", "batteries", "energies"}) {
    state.emplace_back(kind, Texts(request[kind]));
  }
  return state;
}

Json::Object Memory() {
  const auto status = Fields("/proc/self/status");
  const auto rollup = Fields("/proc/self/smaps_rollup");
  // VmHWM and never ru_maxrss, which an execve inherits from the parent.
  const Json peak = Bytes(status, "vmhwm");
  if (peak.IsNull()) throw AgentError("agent", "/proc does not tell memory here");
  const Json clean = Bytes(rollup, "private_clean"), dirty = Bytes(rollup, "private_dirty");
  Json own = nullptr;
  if (!clean.IsNull() && !dirty.IsNull()) own = clean.Integer() + dirty.Integer();
  return {
      {"peak_bytes", peak},
      {"peak_source", "VmHWM"},
      {"resident_bytes", Bytes(status, "vmrss")},
      {"proportional_bytes", Bytes(rollup, "pss")},
      {"private_bytes", own},
      {"cpu_ns", ProcessorNs()},
  };
}
