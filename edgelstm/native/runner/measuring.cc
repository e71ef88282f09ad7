#include "measuring.h"

#include <time.h>

#include <algorithm>

#include "agent_error.h"
#include "counters.h"
#include "edgelstm/edgelstm.h"
#include "machine.h"

namespace {

constexpr int kRounds = 5;

void SleepUntil(int64_t due_ns) {
  const timespec due{static_cast<time_t>(due_ns / 1000000000),
                     static_cast<long>(due_ns % 1000000000)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, nullptr) != 0) {
  }
}

}  // namespace

std::function<void()> Measuring::Before(const Json& request) {
  if (request["variables"].Text() != "reset") return nullptr;
  return [this]() { model_->Reset(); };
}

void Measuring::Timed(int64_t n, int64_t limit_ns, const std::function<void()>& before,
                      std::vector<int64_t>* samples) {
  model_->Loaded();
  const int64_t end = NowNs() + limit_ns;
  for (int64_t i = 0; i < n; ++i) {
    if (before) before();
    model_->Feed();
    const int64_t started = NowNs();
    model_->Invoke();
    const int64_t stopped = NowNs();
    samples->push_back(stopped - started);
    if (limit_ns > 0 && stopped >= end) break;
  }
}

Json::Object Measuring::First() {
  std::vector<int64_t> samples;
  Timed(1, 0, nullptr, &samples);
  return {{"first_ns", samples[0]}};
}

Json::Object Measuring::Warm(const Json& request) {
  const int64_t processor = ProcessorNs(), started = NowNs();
  std::vector<int64_t> samples;
  Timed(request["n"].Integer(), request["limit_ns"].Integer(), Before(request), &samples);
  return {{"started_ns", started},
          {"samples_ns", Json::List(samples)},
          {"cpu_ns", ProcessorNs() - processor}};
}

Json::Object Measuring::Cadence(const Json& request) {
  model_->Loaded();
  const auto before = Before(request);
  const int64_t n = request["n"].Integer(), period = request["period_ns"].Integer();
  std::vector<int64_t> started, ended;
  const int64_t zero = NowNs() + period;
  for (int64_t k = 0; k < n; ++k) {
    if (before) before();
    model_->Feed();
    SleepUntil(zero + k * period);
    started.push_back(NowNs() - zero);
    model_->Invoke();
    ended.push_back(NowNs() - zero);
  }
  return {{"started_ns", Json::List(started)}, {"ended_ns", Json::List(ended)}};
}

Json::Object Measuring::CountEvents(const Json& request) {
  model_->Loaded();
  const auto before = Before(request);
  const auto prepare = [&]() {
    if (before) before();
    model_->Feed();
  };
  return Count([this]() { model_->Invoke(); }, prepare, static_cast<int>(request["n"].Integer()));
}

Json::Object Measuring::TimeOperators(const Json& request) {
  model_->Loaded();
  Graph& graph = model_->Shown();
  std::vector<Operator> operators = graph.Operators();
  if (operators.empty()) throw AgentError("operators", "the interpreter shows no operators");
  const auto before = Before(request);
  const int64_t runs = std::max<int64_t>(1, request["n"].Integer() / kRounds);
  const auto count = operators.size();
  std::vector<int64_t> plain, watched, calls(count);
  std::vector<std::vector<int64_t>> spent(count);
  for (int round = 0; round < kRounds; ++round) {
    Timed(runs, 0, before, &plain);
    EdgeLstmOpClock* clock = edgelstm_op_clock_create(static_cast<int64_t>(count));
    if (clock == nullptr) throw AgentError("operators", "no clocks can be made");
    std::vector<int64_t> numbers, its_spent(count), its_calls(count);
    for (const Operator& op : operators) {
      numbers.push_back(edgelstm_op_clock_watch(clock, op.node, op.registration));
    }
    for (int64_t run = 0; run < runs; ++run) {
      Timed(1, 0, before, &watched);
      edgelstm_op_clock_read(clock, its_spent.data(), its_calls.data());
      for (size_t k = 0; k < count; ++k) {
        // What could not be watched has no number.
        const auto at = static_cast<size_t>(numbers[k]);
        spent[k].push_back(numbers[k] < 0 ? 0 : its_spent[at]);
        calls[k] = numbers[k] < 0 ? 0 : its_calls[at];
      }
    }
    edgelstm_op_clock_delete(clock);
  }
  Json::Array described, times;
  for (size_t k = 0; k < count; ++k) {
    const Operator& op = operators[k];
    Json::Array covers;
    if (op.registration->builtin_code == kTfLiteBuiltinDelegate) {
      for (const Operator& each : graph.Covered(op)) covers.push_back(each.Described());
    }
    Json::Object one = op.Described();
    one.emplace_back("graph", op.graph);
    one.emplace_back("covers", covers);
    described.push_back(one);
    times.push_back(Json::List(spent[k]));
  }
  return {{"operators", described},           {"spent_ns", times},
          {"calls", Json::List(calls)},       {"watched_ns", Json::List(watched)},
          {"plain_ns", Json::List(plain)},    {"clock", "native"},
          {"tensor_bytes", graph.TensorBytes()}};
}

Json::Object Measuring::Soak(const Json& request) {
  const int64_t every = std::max<int64_t>(1, request["every"].Integer());
  Json::Array readings{Memory()};
  std::vector<int64_t> samples;
  for (int64_t left = request["n"].Integer(); left > 0; left -= every) {
    samples.clear();
    Timed(std::min(every, left), 0, nullptr, &samples);
    readings.push_back(Memory());
  }
  return {{"readings", readings}};
}
