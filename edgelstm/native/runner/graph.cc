#include "graph.h"

#include <algorithm>
#include <map>

#include "agent_error.h"

namespace {

constexpr int kDynamic = 4;  // TfLiteAllocationType

// Optional tensors that are not there are -1.
std::vector<int> Present(const TfLiteIntArray* array) {
  std::vector<int> found;
  for (int i = 0; array != nullptr && i < array->size; ++i) {
    if (array->data[i] >= 0) found.push_back(array->data[i]);
  }
  return found;
}

}  // namespace

Json::Object Operator::Described() const {
  Json custom = nullptr;
  if (registration->custom_name != nullptr) custom = registration->custom_name;
  return {{"code", registration->builtin_code},
          {"custom", custom},
          {"name", nullptr},
          {"outputs", Json::List(names)}};
}

Graph::Graph() {
  delegate_.data_ = this;
  delegate_.Prepare = Prepare;
  delegate_.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
}

TfLiteStatus Graph::Prepare(TfLiteContext* context, TfLiteDelegate* delegate) {
  auto* graph = static_cast<Graph*>(delegate->data_);
  for (const Known& each : graph->known_) {
    if (each.context == context) return kTfLiteOk;  // prepared again for other sizes
  }
  const Known known{context, context->GetExecutionPlan, context->GetNodeAndRegistration};
  graph->known_.push_back(known);
  try {
    const auto found = OperatorsOf(static_cast<int>(graph->known_.size()) - 1, known);
    graph->before_.insert(graph->before_.end(), found.begin(), found.end());
  } catch (const AgentError&) {
    return kTfLiteError;
  }
  return kTfLiteOk;
}

std::vector<Operator> Graph::OperatorsOf(int number, const Known& known) {
  TfLiteIntArray* plan = nullptr;
  std::vector<Operator> found;
  if (known.plan(known.context, &plan) != kTfLiteOk) {
    throw AgentError("operators", "the interpreter does not tell its operators");
  }
  for (const int index : Present(plan)) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    if (known.node(known.context, index, &node, &registration) != kTfLiteOk) {
      throw AgentError("operators", "the interpreter does not tell its operators");
    }
    Operator op{number, index, node, registration, Present(node->inputs), Present(node->outputs),
                {}};
    for (const int i : op.outputs) {
      const bool named = static_cast<size_t>(i) < known.context->tensors_size &&
                         known.context->tensors[i].name != nullptr;
      op.names.emplace_back(named ? known.context->tensors[i].name : "");
    }
    found.push_back(std::move(op));
  }
  return found;
}

std::vector<Operator> Graph::Operators() const {
  std::vector<Operator> found;
  for (size_t i = 0; i < known_.size(); ++i) {
    const auto here = OperatorsOf(static_cast<int>(i), known_[i]);
    found.insert(found.end(), here.begin(), here.end());
  }
  return found;
}

std::vector<int64_t> Graph::Codes() const {
  std::vector<int64_t> codes;
  for (const Operator& op : before_) {
    if (op.graph == 0) codes.push_back(op.registration->builtin_code);
  }
  for (const Operator& op : Operators()) {
    if (op.graph == 0 && op.registration->builtin_code == kTfLiteBuiltinDelegate) {
      codes.push_back(kTfLiteBuiltinDelegate);
    }
  }
  return codes;
}

int64_t Graph::PartsOf(const TfLiteDelegate* delegate) const {
  const auto operators = Operators();
  return std::count_if(operators.begin(), operators.end(), [delegate](const Operator& op) {
    return op.registration->builtin_code == kTfLiteBuiltinDelegate && op.node->delegate == delegate;
  });
}

std::vector<Operator> Graph::Covered(const Operator& part) const {
  std::map<int, const Operator*> producers;
  for (const Operator& op : before_) {
    if (op.graph != part.graph) continue;
    for (const int i : op.outputs) producers[i] = &op;
  }
  std::vector<int> wanted = part.outputs;
  std::vector<const Operator*> found;
  while (!wanted.empty()) {
    const auto producer = producers.find(wanted.back());
    wanted.pop_back();
    if (producer == producers.end()) continue;
    const Operator* op = producer->second;
    if (std::find(found.begin(), found.end(), op) != found.end()) continue;
    found.push_back(op);
    for (const int i : op->inputs) {
      if (std::find(part.inputs.begin(), part.inputs.end(), i) == part.inputs.end()) {
        wanted.push_back(i);
      }
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Operator* a, const Operator* b) { return a->index < b->index; });
  std::vector<Operator> covered;
  for (const Operator* op : found) covered.push_back(*op);
  return covered;
}

int64_t Graph::IndexOf(const TfLiteTensor* tensor) const {
  return known_.empty() ? -1 : tensor - known_[0].context->tensors;
}

Json::Object Graph::TensorBytes() const {
  int64_t arena = 0;
  std::map<int, int64_t> sums;
  for (const Known& known : known_) {
    const char *low = nullptr, *high = nullptr;
    for (size_t i = 0; i < known.context->tensors_size; ++i) {
      const TfLiteTensor& tensor = known.context->tensors[i];
      // Tensors without data belong to a delegate, or to nobody.
      if (tensor.data == nullptr || tensor.bytes == 0) continue;
      sums[tensor.allocation_type] += static_cast<int64_t>(tensor.bytes);
      if (tensor.allocation_type != kTfLiteArenaRw) continue;
      const char* start = static_cast<const char*>(tensor.data);
      if (low == nullptr || start < low) low = start;
      if (high == nullptr || start + tensor.bytes > high) high = start + tensor.bytes;
    }
    arena += high - low;
  }
  return {{"arena", arena},
          {"states", sums[kTfLiteArenaRwPersistent]},
          {"constants", sums[kTfLiteMmapRo]},
          {"dynamic", sums[kDynamic]}};
}
