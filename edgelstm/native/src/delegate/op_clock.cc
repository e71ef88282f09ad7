// Clocks around the operators of a prepared graph, put there from outside. Interpreters have a
// profiler, but give no way to reach it from Python or through the delegate interface; every node's
// registration is reachable, and its `invoke` is a pointer that can be replaced.
#include <time.h>

#include <atomic>
#include <cstdlib>

#include "delegate/tflite_abi.h"
#include "edgelstm/edgelstm.h"

namespace {

using Invoke = TfLiteStatus (*)(TfLiteContext*, TfLiteNode*);

struct Op {
  const TfLiteNode* node;
  TfLiteRegistration* registration;
  Invoke invoke;
  int64_t nanoseconds, calls;
};

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

size_t Hash(const void* node) { return reinterpret_cast<uintptr_t>(node) / sizeof(TfLiteNode); }

}  // namespace

struct EdgeLstmOpClock {
  Op* ops;
  Op** table;  // of operators by node; at most half full
  size_t table_size;
  int64_t capacity, count;
  int64_t nested;  // nanoseconds of what ran inside the operator that runs now

  Op** Find(const TfLiteNode* node) const {
    size_t at = Hash(node) & (table_size - 1);
    while (table[at] != nullptr && table[at]->node != node) at = (at + 1) & (table_size - 1);
    return &table[at];
  }
};

namespace {

// A node's `invoke` is called with the node alone, which leads back to its clock through this.
std::atomic<EdgeLstmOpClock*> g_clock;

TfLiteStatus TimedInvoke(TfLiteContext* context, TfLiteNode* node) {
  EdgeLstmOpClock* clock = g_clock.load(std::memory_order_relaxed);
  Op* op = clock == nullptr ? nullptr : *clock->Find(node);
  if (op == nullptr) return kTfLiteError;
  const int64_t outer = clock->nested;
  clock->nested = 0;
  const int64_t start = Now();
  const TfLiteStatus status = op->invoke(context, node);
  const int64_t spent = Now() - start;
  op->nanoseconds += spent - clock->nested;
  ++op->calls;
  clock->nested = outer + spent;
  return status;
}

}  // namespace

EdgeLstmOpClock* edgelstm_op_clock_create(int64_t operators) {
  constexpr int64_t kMost = int64_t{1} << 24;
  if (operators < 1 || operators > kMost || g_clock.load() != nullptr) return nullptr;
  size_t size = 4;
  while (size < 2 * static_cast<size_t>(operators)) size *= 2;
  auto* clock = static_cast<EdgeLstmOpClock*>(std::calloc(1, sizeof(EdgeLstmOpClock)));
  if (clock == nullptr) return nullptr;
  clock->ops = static_cast<Op*>(std::calloc(operators, sizeof(Op)));
  clock->table = static_cast<Op**>(std::calloc(size, sizeof(Op*)));
  clock->table_size = size;
  clock->capacity = operators;
  EdgeLstmOpClock* none = nullptr;
  if (clock->ops == nullptr || clock->table == nullptr ||
      !g_clock.compare_exchange_strong(none, clock)) {
    std::free(clock->ops);
    std::free(clock->table);
    std::free(clock);
    return nullptr;
  }
  return clock;
}

int64_t edgelstm_op_clock_watch(EdgeLstmOpClock* clock, const void* node, void* registration) {
  auto* entry = static_cast<TfLiteRegistration*>(registration);
  if (clock->count == clock->capacity || entry->invoke == nullptr) return -1;
  Op** place = clock->Find(static_cast<const TfLiteNode*>(node));
  if (*place != nullptr) return -1;
  Op* op = &clock->ops[clock->count];
  *op = {static_cast<const TfLiteNode*>(node), entry, entry->invoke, 0, 0};
  *place = op;
  entry->invoke = TimedInvoke;
  return clock->count++;
}

int64_t edgelstm_op_clock_read(EdgeLstmOpClock* clock, int64_t* nanoseconds, int64_t* calls) {
  for (int64_t i = 0; i < clock->count; ++i) {
    Op& op = clock->ops[i];
    nanoseconds[i] = op.nanoseconds;
    calls[i] = op.calls;
    op.nanoseconds = op.calls = 0;
  }
  return clock->count;
}

void edgelstm_op_clock_delete(EdgeLstmOpClock* clock) {
  if (clock == nullptr) return;
  for (int64_t i = 0; i < clock->count; ++i) {
    clock->ops[i].registration->invoke = clock->ops[i].invoke;
  }
  g_clock.store(nullptr);
  std::free(clock->ops);
  std::free(clock->table);
  std::free(clock);
}
