// The TensorFlow Lite external delegate: takes fused LSTM operators, each as one kernel.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "delegate/lstm_node.h"
#include "delegate/tflite_abi.h"
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

// One LSTM operator of one interpreter.
struct Op {
  LstmNode node;
  EdgeLstm* lstm;
};

void FreeOp(TfLiteContext*, void* data) {
  Op* op = static_cast<Op*>(data);
  if (op == nullptr) return;
  edgelstm_delete(op->lstm);
  std::free(op);
}

// Null if memory is short: then `PrepareOp` fails.
void* InitOp(TfLiteContext* context, const char* buffer, size_t) {
  const auto* params = reinterpret_cast<const TfLiteDelegateParams*>(buffer);
  Op* op = static_cast<Op*>(std::malloc(sizeof(Op)));
  if (op == nullptr) return nullptr;
  op->lstm = nullptr;
  const Graph graph(context);
  for (int i = 0; graph.ok() && i < params->nodes_to_replace->size; ++i) {
    if (ReadLstmNode(context, graph, params->nodes_to_replace->data[i], &op->node) != nullptr) {
      continue;
    }
    op->lstm = MakeLstm(op->node.layer, *Ours(params->delegate)->kernels);
  }
  if (op->lstm == nullptr) {
    FreeOp(context, op);
    return nullptr;
  }
  return op;
}

struct Extent {
  int batch, steps;
};

Extent ExtentOf(const LstmNode& node, const TfLiteTensor& input) {
  const int* dims = input.dims->data;
  return node.time_major ? Extent{dims[1], dims[0]} : Extent{dims[0], dims[1]};
}

TfLiteStatus PrepareOp(TfLiteContext* context, TfLiteNode* node) {
  const Op* op = static_cast<const Op*>(node->user_data);
  if (op == nullptr) {
    context->ReportError(context, "edgelstm: no memory for the packed weights of an LSTM");
    return kTfLiteError;
  }
  const EdgeLstmLayer& layer = op->node.layer;
  const TfLiteTensor& input = context->tensors[op->node.input];
  if (input.dims->size != 3 || input.dims->data[2] != layer.inputs) {
    context->ReportError(context, "edgelstm: the input of an LSTM has not %d features",
                         layer.inputs);
    return kTfLiteError;
  }
  const int64_t batch = ExtentOf(op->node, input).batch;
  if (Elements(context->tensors[op->node.h]) != batch * layer.outputs ||
      Elements(context->tensors[op->node.c]) != batch * layer.units) {
    context->ReportError(context, "edgelstm: the states of an LSTM do not fit its batch of %d",
                         static_cast<int>(batch));
    return kTfLiteError;
  }
  auto* dims = static_cast<TfLiteIntArray*>(std::malloc(4 * sizeof(int)));
  if (dims == nullptr) return kTfLiteError;
  dims->size = 3;
  dims->data[0] = input.dims->data[0];
  int* rest = dims->data;
  rest[1] = input.dims->data[1];
  rest[2] = layer.outputs;
  return context->ResizeTensor(context, &context->tensors[op->node.output], dims);
}

TfLiteStatus InvokeOp(TfLiteContext* context, TfLiteNode* node) {
  const Op* op = static_cast<const Op*>(node->user_data);
  const EdgeLstmLayer& layer = op->node.layer;
  const TfLiteTensor& input = context->tensors[op->node.input];
  TfLiteTensor& output = context->tensors[op->node.output];
  const TfLiteTensor& h = context->tensors[op->node.h];
  const TfLiteTensor& c = context->tensors[op->node.c];
  const Extent extent = ExtentOf(op->node, input);
  const int64_t in = layer.inputs, out = layer.outputs;
  const int64_t rows = int64_t{extent.batch} * extent.steps;
  constexpr int64_t kFloat = sizeof(float);
  // Tensors that change size between preparing and invoking do not get here in a sound graph.
  if (rows * in * kFloat > static_cast<int64_t>(input.bytes) ||
      rows * out * kFloat > static_cast<int64_t>(output.bytes) ||
      extent.batch * out * kFloat > static_cast<int64_t>(h.bytes) ||
      extent.batch * layer.units * kFloat > static_cast<int64_t>(c.bytes)) {
    return kTfLiteError;
  }
  if (rows == 0) return kTfLiteOk;
  if (!input.data || !output.data || !h.data || !c.data) return kTfLiteError;
  EdgeLstmCall call;
  call.input = static_cast<const float*>(input.data);
  call.output = static_cast<float*>(output.data);
  call.h = static_cast<float*>(h.data);
  call.c = static_cast<float*>(c.data);
  call.batch = extent.batch;
  call.steps = extent.steps;
  const bool time_major = op->node.time_major;
  call.input_row = time_major ? in : in * extent.steps;
  call.input_step = time_major ? in * extent.batch : in;
  call.output_row = time_major ? out : out * extent.steps;
  call.output_step = time_major ? out * extent.batch : out;
  edgelstm_run(op->lstm, &call);
  return kTfLiteOk;
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
        registration->builtin_code != kTfLiteBuiltinUnidirectionalSequenceLstm) {
      continue;
    }
    LstmNode node;
    const char* problem = ReadLstmNode(context, graph, index, &node);
    if (problem != nullptr) {
      context->ReportError(context, "edgelstm: node %d is left to the interpreter: %s", index,
                           problem);
      delegate->reason.store(problem);
      delegate->refused.fetch_add(1);
      last_problem = problem;
      continue;
    }
    const TfLiteIntArray nodes = {1, {index}};
    const TfLiteStatus status = context->ReplaceNodeSubsetsWithDelegateKernels(
        context, OpRegistration(), &nodes, base);
    if (status != kTfLiteOk) return status;
    delegate->claimed.fetch_add(1);
    ++taken;
  }
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
  const edgelstm::LstmKernels* kernels = edgelstm::ChooseKernels(isa);
  if (kernels == nullptr) {
    edgelstm::Report(report_error,
                     "edgelstm: EDGELSTM_ISA or the option isa names no kernels of this machine");
    return nullptr;
  }
  void* memory = std::malloc(sizeof(edgelstm::Delegate));
  if (memory == nullptr) {
    edgelstm::Report(report_error, "edgelstm: out of memory");
    return nullptr;
  }
  auto* delegate = new (memory) edgelstm::Delegate();
  delegate->base.Prepare = edgelstm::PrepareDelegate;
  delegate->base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  delegate->kernels = kernels;
  delegate->claim_required = claim_required;
  return &delegate->base;
}

EDGELSTM_API void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  std::free(delegate);
}

int64_t edgelstm_delegate_claimed(const void* delegate) {
  return edgelstm::Ours(delegate)->claimed.load();
}

int64_t edgelstm_delegate_refused(const void* delegate) {
  return edgelstm::Ours(delegate)->refused.load();
}

const char* edgelstm_delegate_reason(const void* delegate) {
  return edgelstm::Ours(delegate)->reason.load();
}
