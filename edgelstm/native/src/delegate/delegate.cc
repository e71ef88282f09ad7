// The TensorFlow Lite external delegate: takes fused LSTM operators, each as one kernel.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "delegate/lstm_node.h"
#include "delegate/op.h"
#include "delegate/tflite_abi.h"
#include "delegate/weight_ops.h"
#include "edgelstm/edgelstm.h"
#include "kernels/lstm.h"

namespace edgelstm {
namespace {

// Several interpreters may prepare with one delegate at the same time; everything that changes is
// atomic.
struct Delegate {
  TfLiteDelegate base;  // first, so that a pointer to one is a pointer to the other
  const LstmKernels* kernels;
  bool claim_required;
  std::atomic<int64_t> claimed;
  std::atomic<int64_t> refused;
  std::atomic<const char*> reason;
};

Delegate* Ours(TfLiteDelegate* delegate) { return reinterpret_cast<Delegate*>(delegate); }

void* InitOp(TfLiteContext* context, const char* buffer, size_t) {
  const auto& params = *reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  return MakeOp(context, params, *Ours(params.delegate)->kernels);
}

TfLiteRegistration OpRegistration() {
  TfLiteRegistration registration;
  std::memset(&registration, 0, sizeof registration);
  registration.init = InitOp;
  registration.free = FreeOp;
  registration.prepare = PrepareOp;
  registration.invoke = InvokeOp;
  registration.builtin_code = kTfLiteBuiltinDelegate;
  registration.custom_name = "EdgeLstm";
  registration.version = 1;
  return registration;
}

// Takes each operator by a call of its own: neighbours in one call would become one kernel.
TfLiteStatus PrepareDelegate(TfLiteContext* context, TfLiteDelegate* base) {
  Delegate* delegate = Ours(base);
  const Graph graph(context);
  if (!graph.ok()) return kTfLiteError;
  int taken = 0;
  const char* last_problem = "the graph has none";
  for (int position = 0; position < graph.size(); ++position) {
    const int index = graph.node(position);
    TfLiteNode* op = nullptr;
    TfLiteRegistration* registration = nullptr;
    if (context->GetNodeAndRegistration(context, index, &op, &registration) != kTfLiteOk ||
        !IsLstm(*registration)) {
      continue;
    }
    LstmNodes nodes;
    const char* problem = ReadLstmNodes(context, graph, index, &nodes);
    if (problem != nullptr) {
      context->ReportError(context, "edgelstm: node %d is left to the interpreter: %s", index,
                           problem);
      delegate->reason.store(problem);
      delegate->refused.fetch_add(1);
      last_problem = problem;
      continue;
    }
    const TfLiteIntArray taken_node = {1, {index}};
    const TfLiteStatus status = context->ReplaceNodeSubsetsWithDelegateKernels(
        context, OpRegistration(), &taken_node, base);
    if (status != kTfLiteOk) return status;
    delegate->claimed.fetch_add(1);
    ++taken;
  }
  if (taken > 0 && TakeWeightOps(context, base) != kTfLiteOk) return kTfLiteError;
  if (delegate->claim_required && taken == 0) {
    context->ReportError(context, "edgelstm: no fused LSTM op was taken: %s", last_problem);
    return kTfLiteError;
  }
  return kTfLiteOk;
}

void Report(void (*report_error)(const char*), const char* text) {
  if (report_error != nullptr) report_error(text);
}

const Delegate* Ours(const void* delegate) { return static_cast<const Delegate*>(delegate); }

}  // namespace
}  // namespace edgelstm

EDGELSTM_API TfLiteDelegate* tflite_plugin_create_delegate(const char* const* keys,
                                                           const char* const* values,
                                                           size_t count,
                                                           void (*report_error)(const char*)) {
  const char* isa = nullptr;
  bool claim_required = false;
  for (size_t i = 0; i < count; ++i) {
    if (std::strcmp(keys[i], "isa") == 0) {
      isa = values[i];
    } else if (std::strcmp(keys[i], "claim") == 0 && std::strcmp(values[i], "required") == 0) {
      claim_required = true;
    } else {
      edgelstm::Report(report_error,
                       "edgelstm: the options are isa, the name of kernels, and claim: required");
      return nullptr;
    }
  }
  if (edgelstm::ChooseKernels(isa) == nullptr) {
    edgelstm::Report(report_error,
                     "edgelstm: EDGELSTM_ISA or the option isa names no kernels of this machine");
    return nullptr;
  }
  const EdgeLstmDelegateOptions options = {isa, claim_required ? 1 : 0};
  TfLiteDelegate* delegate = EdgeLstmDelegateCreate(&options);
  if (delegate == nullptr) edgelstm::Report(report_error, "edgelstm: out of memory");
  return delegate;
}

EDGELSTM_API void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  EdgeLstmDelegateDelete(delegate);
}

EdgeLstmDelegateOptions EdgeLstmDelegateOptionsDefault(void) { return {nullptr, 0}; }

TfLiteDelegate* EdgeLstmDelegateCreate(const EdgeLstmDelegateOptions* given) {
  const EdgeLstmDelegateOptions options =
      given == nullptr ? EdgeLstmDelegateOptionsDefault() : *given;
  const edgelstm::LstmKernels* kernels = edgelstm::ChooseKernels(options.kernels);
  void* memory = kernels == nullptr ? nullptr : std::malloc(sizeof(edgelstm::Delegate));
  if (memory == nullptr) return nullptr;
  auto* delegate = new (memory) edgelstm::Delegate();
  delegate->base.Prepare = edgelstm::PrepareDelegate;
  delegate->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  delegate->kernels = kernels;
  delegate->claim_required = options.claim_required != 0;
  return &delegate->base;
}

void EdgeLstmDelegateDelete(TfLiteDelegate* delegate) { std::free(delegate); }

int64_t edgelstm_delegate_claimed(const void* delegate) {
  return edgelstm::Ours(delegate)->claimed.load();
}

int64_t edgelstm_delegate_refused(const void* delegate) {
  return edgelstm::Ours(delegate)->refused.load();
}

const char* edgelstm_delegate_reason(const void* delegate) {
  return edgelstm::Ours(delegate)->reason.load();
}
