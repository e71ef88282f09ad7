#include "delegate/op.h"

#include <cstdlib>
#include <cstring>

#include "delegate/lstm_node.h"
#include "edgelstm/edgelstm.h"

namespace edgelstm {
namespace {

struct Op {
  LstmNodes nodes;
  EdgeLstm* lstm[kMostNodes];
  float* spare;  // of a basic step
};

struct Extent {
  int batch, steps;
};

Extent ExtentOf(const LstmNode& node, const TfLiteTensor& input) {
  const int* dims = input.dims->data;
  if (node.one_step) return {dims[0], 1};
  return node.time_major ? Extent{dims[1], dims[0]} : Extent{dims[0], dims[1]};
}

TfLiteStatus PrepareNode(TfLiteContext* context, const LstmNode& node) {
  const EdgeLstmLayer& layer = node.layer;
  const TfLiteTensor& input = context->tensors[node.input];
  const int axes = node.one_step ? 2 : 3;
  if (input.dims->size != axes || input.dims->data[axes - 1] != layer.inputs) {
    context->ReportError(context, "edgelstm: the input of an LSTM has not %d features",
                         layer.inputs);
    return kTfLiteError;
  }
  const int64_t batch = ExtentOf(node, input).batch;
  if (Elements(context->tensors[node.h]) != batch * layer.outputs ||
      Elements(context->tensors[node.c]) != batch * layer.units) {
    context->ReportError(context, "edgelstm: the states of an LSTM do not fit its batch of %d",
                         static_cast<int>(batch));
    return kTfLiteError;
  }
  auto* dims = static_cast<TfLiteIntArray*>(std::malloc(sizeof(TfLiteIntArray) + 2 * sizeof(int)));
  if (dims == nullptr) return kTfLiteError;
  dims->size = axes;
  int* sizes = dims->data;
  for (int axis = 0; axis + 1 < axes; ++axis) sizes[axis] = input.dims->data[axis];
  sizes[axes - 1] = node.output_width;
  return context->ResizeTensor(context, &context->tensors[node.output], dims);
}

TfLiteStatus InvokeNode(TfLiteContext* context, const LstmNode& node, EdgeLstm* lstm) {
  const EdgeLstmLayer& layer = node.layer;
  const TfLiteTensor& input = context->tensors[node.input];
  TfLiteTensor& output = context->tensors[node.output];
  const TfLiteTensor& h = context->tensors[node.h];
  const TfLiteTensor& c = context->tensors[node.c];
  const Extent extent = ExtentOf(node, input);
  const int64_t width = VectorBytes(layer), c_width = CellBytes(layer);
  const int64_t in = layer.inputs, out = node.output_width;
  const int64_t batch = extent.batch, steps = extent.steps;
  // Tensors that change size between preparing and invoking do not get here in a sound graph.
  if (batch * steps * in * width > static_cast<int64_t>(input.bytes) ||
      batch * steps * out * width > static_cast<int64_t>(output.bytes) ||
      batch * layer.outputs * width > static_cast<int64_t>(h.bytes) ||
      batch * layer.units * c_width > static_cast<int64_t>(c.bytes)) {
    return kTfLiteError;
  }
  if (batch * steps == 0) return kTfLiteOk;
  if (!input.data || !output.data || !h.data || !c.data) return kTfLiteError;
  EdgeLstmCall call;
  call.h = h.data;
  call.c = c.data;
  call.batch = extent.batch;
  call.steps = extent.steps;
  call.input_row = node.time_major ? in : in * steps;
  call.input_step = node.time_major ? in * batch : in;
  call.output_row = node.time_major ? out : out * steps;
  call.output_step = node.time_major ? out * batch : out;
  int64_t first_input = 0, first_output = node.output_column;
  if (node.backward) {
    first_input += (steps - 1) * call.input_step;
    first_output += (steps - 1) * call.output_step;
    call.input_step = -call.input_step;
    call.output_step = -call.output_step;
  }
  call.input = static_cast<const char*>(input.data) + first_input * width;
  call.output = static_cast<char*>(output.data) + first_output * width;
  edgelstm_run(lstm, &call);
  return kTfLiteOk;
}

}  // namespace

void FreeOp(TfLiteContext*, void* data) {
  Op* op = static_cast<Op*>(data);
  if (op == nullptr) return;
  for (EdgeLstm* lstm : op->lstm) edgelstm_delete(lstm);
  std::free(op->spare);
  std::free(op);
}

void* MakeOp(TfLiteContext* context, const TfLiteDelegateParams& params,
             const LstmKernels& kernels) {
  Op* op = static_cast<Op*>(std::calloc(1, sizeof(Op)));
  if (op == nullptr) return nullptr;
  const Graph graph(context);
  bool made = graph.ok() && params.nodes_to_replace->size == 1 &&
              ReadLstmNodes(context, graph, params.nodes_to_replace->data[0], &op->nodes) == nullptr;
  const int threads = context->recommended_num_threads;
  for (int i = 0; made && i < op->nodes.count; ++i) {
    op->lstm[i] = MakeLstm(op->nodes.node[i].layer, kernels, threads);
    made = op->lstm[i] != nullptr;
  }
  if (made && op->nodes.count == 0) {
    op->lstm[0] = MakeBasicLstm(op->nodes.basic, kernels, threads);
    made = op->lstm[0] != nullptr;
  }
  if (!made) {
    FreeOp(context, op);
    return nullptr;
  }
  return op;
}

bool OpReads(const void* data, int tensor) {
  const Op* op = static_cast<const Op*>(data);
  // A basic step's initial states may be anything.
  if (op == nullptr || op->nodes.count == 0) return true;
  for (int i = 0; i < op->nodes.count; ++i) {
    const LstmNode& node = op->nodes.node[i];
    if (tensor == node.input || tensor == node.h || tensor == node.c) return true;
  }
  return false;
}

TfLiteStatus PrepareOp(TfLiteContext* context, TfLiteNode* node) {
  Op* op = static_cast<Op*>(node->user_data);
  if (op == nullptr) {
    context->ReportError(context, "edgelstm: no memory for the packed weights of an LSTM");
    return kTfLiteError;
  }
  if (op->nodes.count == 0) return PrepareBasicStep(context, op->nodes.basic, &op->spare);
  for (int i = 0; i < op->nodes.count; ++i) {
    const TfLiteStatus status = PrepareNode(context, op->nodes.node[i]);
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

TfLiteStatus InvokeOp(TfLiteContext* context, TfLiteNode* node) {
  const Op* op = static_cast<const Op*>(node->user_data);
  if (op->nodes.count == 0) {
    return InvokeBasicStep(context, op->nodes.basic, op->lstm[0], op->spare);
  }
  for (int i = 0; i < op->nodes.count; ++i) {
    const TfLiteStatus status = InvokeNode(context, op->nodes.node[i], op->lstm[i]);
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

}  // namespace edgelstm
