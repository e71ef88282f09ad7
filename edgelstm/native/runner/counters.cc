#include "counters.h"

#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace {

int Open(uint64_t config) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = PERF_TYPE_HARDWARE;
  attributes.config = config;
  attributes.disabled = 1;
  attributes.inherit = 1;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  return static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, 0));
}

}  // namespace

Json::Object Count(const std::function<void()>& call, const std::function<void()>& prepare, int n) {
  Json::Object found;
  const std::pair<const char*, uint64_t> events[] = {
      {"instructions", PERF_COUNT_HW_INSTRUCTIONS}, {"cycles", PERF_COUNT_HW_CPU_CYCLES}};
  for (const auto& [name, config] : events) {
    const int counter = Open(config);
    std::vector<int64_t> values;
    for (int i = 0; counter >= 0 && i < n; ++i) {
      prepare();
      ioctl(counter, PERF_EVENT_IOC_RESET, 0);
      ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
      call();
      ioctl(counter, PERF_EVENT_IOC_DISABLE, 0);
      int64_t value = 0;
      if (read(counter, &value, sizeof value) != sizeof value) value = 0;
      values.push_back(value);
    }
    if (counter >= 0) close(counter);
    // A counter that never got its turn on the processor reads 0.
    const bool any = std::any_of(values.begin(), values.end(), [](int64_t v) { return v != 0; });
    found.emplace_back(name, any ? Json::List(values) : Json(nullptr));
  }
  return found;
}
