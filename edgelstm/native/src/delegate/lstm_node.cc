#include "delegate/lstm_node.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels/lstm.h"

namespace edgelstm {
namespace {

constexpr int kInputs = 24;
constexpr int kInputsWithoutLayerNorm = 20;
// Positions of the first of each kind.
constexpr int kKernel = 1, kRecurrent = 5, kPeephole = 9, kBias = 12, kProjection = 16,
              kProjectionBias = 17, kH = 18, kC = 19, kLayerNorm = 20;

int64_t ElementBytes(TfLiteType type) {
  switch (type) {
    case kTfLiteFloat32:
      return 4;
    case kTfLiteFloat16:
    case kTfLiteInt16:
      return 2;
    case kTfLiteInt8:
      return 1;
    default:
      return 0;
  }
}

bool Constant(const TfLiteTensor& tensor) {
  const int64_t elements = Elements(tensor);
  return tensor.allocation_type == kTfLiteMmapRo && tensor.data != nullptr && elements >= 0 &&
         static_cast<uint64_t>(elements) * static_cast<uint64_t>(ElementBytes(tensor.type)) ==
             tensor.bytes &&
         tensor.sparsity == nullptr;
}

// One scale and zero point 0.
bool PerTensor(const TfLiteTensor& tensor) {
  if (tensor.quantization.type != kTfLiteAffineQuantization || !tensor.quantization.params) {
    return false;
  }
  const auto* affine = static_cast<const TfLiteAffineQuantization*>(tensor.quantization.params);
  return affine->scale != nullptr && affine->scale->size == 1 && affine->zero_point != nullptr &&
         affine->zero_point->size >= 1 && affine->zero_point->data[0] == 0 &&
         tensor.params.scale > 0 && tensor.params.zero_point == 0;
}

class Reader {
 public:
  Reader(TfLiteContext* context, const Graph& graph, const TfLiteNode& op, LstmNode* node)
      : context_(context), graph_(graph), op_(op), node_(node) {}

  const char* Read() {
    if (op_.inputs == nullptr || op_.outputs == nullptr || op_.builtin_data == nullptr ||
        (op_.inputs->size != kInputs && op_.inputs->size != kInputsWithoutLayerNorm) ||
        op_.outputs->size != 1) {
      return "it has not 20 or 24 inputs and one output";
    }
    for (int i = 0; i < op_.inputs->size; ++i) {
      if (!InRange(op_.inputs->data[i]) && op_.inputs->data[i] != -1) return "an input is missing";
    }
    if (!InRange(op_.outputs->data[0])) return "its output is missing";
    const char* problem = ReadOptions();
    if (problem == nullptr) problem = ReadActivations();
    if (problem == nullptr) problem = ReadWeights();
    return problem != nullptr ? problem : LayerProblem(node_->layer);
  }

 private:
  bool InRange(int tensor) const {
    return tensor >= 0 && static_cast<size_t>(tensor) < context_->tensors_size;
  }
  const TfLiteTensor* Input(int position) const {
    if (position >= op_.inputs->size || op_.inputs->data[position] < 0) return nullptr;
    return &context_->tensors[op_.inputs->data[position]];
  }

  const char* ReadOptions() {
    const auto& options =
        *static_cast<const TfLiteUnidirectionalSequenceLSTMParams*>(op_.builtin_data);
    EdgeLstmLayer& layer = node_->layer;
    switch (options.activation) {
      case kTfLiteActRelu:
        layer.activation = EDGELSTM_RELU;
        break;
      case kTfLiteActReluN1To1:
        layer.activation = EDGELSTM_RELU_N1_TO_1;
        break;
      case kTfLiteActRelu6:
        layer.activation = EDGELSTM_RELU6;
        break;
      case kTfLiteActTanh:
        layer.activation = EDGELSTM_TANH;
        break;
      default:
        return "its activation is not covered";
    }
    layer.cell_clip = options.cell_clip;
    layer.projection_clip = options.proj_clip;
    node_->time_major = options.time_major;
    const TfLiteTensor* output_kernel = Input(kKernel + 3);
    if (output_kernel == nullptr) return "a gate has no kernel";
    layer.arithmetic = output_kernel->type == kTfLiteInt8 ? EDGELSTM_HYBRID : EDGELSTM_FLOAT;
    if (layer.arithmetic == EDGELSTM_HYBRID && options.asymmetric_quantize_inputs) {
      return "asymmetric hybrid arithmetic is not covered";
    }
    return nullptr;
  }

  const char* ReadActivations() {
    const TfLiteTensor* x = Input(0);
    const TfLiteTensor* h = Input(kH);
    const TfLiteTensor* c = Input(kC);
    const TfLiteTensor& y = context_->tensors[op_.outputs->data[0]];
    if (x == nullptr || h == nullptr || c == nullptr) return "it has no input or no states";
    if (x->type != kTfLiteFloat32 || y.type != kTfLiteFloat32) {
      return "its input or output is not float32";
    }
    if (x->dims == nullptr || x->dims->size != 3) return "its input has not three axes";
    for (const TfLiteTensor* state : {h, c}) {
      if (state->type != kTfLiteFloat32 || !state->is_variable) {
        return "its states are not float32 variables";
      }
    }
    node_->input = op_.inputs->data[0];
    node_->output = op_.outputs->data[0];
    node_->h = op_.inputs->data[kH];
    node_->c = op_.inputs->data[kC];
    if (node_->h == node_->c || node_->input == node_->h || node_->input == node_->c ||
        node_->output == node_->h || node_->output == node_->c || node_->output == node_->input) {
      return "its input, output and states are not four tensors";
    }
    node_->layer.inputs = x->dims->data[2];
    return nullptr;
  }

  const char* ReadWeights() {
    EdgeLstmLayer& layer = node_->layer;
    const TfLiteTensor* kernel = Input(kKernel + 1);
    const TfLiteTensor* recurrent = Input(kRecurrent + 1);
    if (kernel == nullptr || kernel->dims == nullptr || kernel->dims->size != 2 ||
        recurrent == nullptr || recurrent->dims == nullptr) {
      return "a gate has no kernel of two axes";
    }
    layer.units = kernel->dims->data[0];
    // The stock kernel goes by the axes as well; the option is only a mark of the version.
    layer.diagonal = recurrent->dims->size == 1 ? 1 : 0;
    const TfLiteTensor* projection = Input(kProjection);
    layer.outputs = layer.units;
    if (projection != nullptr) {
      if (projection->dims == nullptr || projection->dims->size != 2) {
        return "its projection has not two axes";
      }
      layer.outputs = projection->dims->data[0];
    }
    const bool hybrid = layer.arithmetic == EDGELSTM_HYBRID;
    const TfLiteType matrix = hybrid ? kTfLiteInt8 : kTfLiteFloat32;
    for (int gate = 0; gate < 4; ++gate) {
      Take(kKernel + gate, layer.units, layer.inputs, matrix, &layer.kernel[gate]);
      if (layer.diagonal) {
        Take(kRecurrent + gate, layer.units, 0, kTfLiteFloat32, &layer.recurrent[gate]);
      } else {
        Take(kRecurrent + gate, layer.units, layer.outputs, matrix, &layer.recurrent[gate]);
      }
      Take(kBias + gate, layer.units, 0, kTfLiteFloat32, &layer.bias[gate]);
      Take(kLayerNorm + gate, layer.units, 0, kTfLiteFloat32, &layer.layer_norm[gate]);
    }
    Take(kPeephole, layer.units, 0, matrix, &layer.peephole[0]);
    Take(kPeephole + 1, layer.units, 0, matrix, &layer.peephole[1]);
    Take(kPeephole + 2, layer.units, 0, matrix, &layer.peephole[3]);
    Take(kProjection, layer.outputs, layer.units, matrix, &layer.projection);
    Take(kProjectionBias, layer.outputs, 0, kTfLiteFloat32, &layer.projection_bias);
    if (problem_ == nullptr && layer.bias[1].data == nullptr) return "its biases are missing";
    return problem_;
  }

  // A weight of shape [rows, columns], or [rows] when `columns` is 0; keeps the first problem.
  void Take(int position, int rows, int columns, TfLiteType type, EdgeLstmWeight* weight) {
    const TfLiteTensor* tensor = Input(position);
    if (tensor == nullptr || problem_ != nullptr) return;
    problem_ = TakeTensor(*tensor, op_.inputs->data[position], rows, columns, type, weight);
  }

  const char* TakeTensor(const TfLiteTensor& tensor, int index, int rows, int columns,
                         TfLiteType type, EdgeLstmWeight* weight) {
    if (tensor.dims == nullptr || tensor.dims->size != (columns == 0 ? 1 : 2) ||
        tensor.dims->data[0] != rows || (columns != 0 && tensor.dims->data[1] != columns)) {
      return "a weight has another shape than its neighbours demand";
    }
    if (tensor.type != type) return "a weight has another type than its neighbours demand";
    if (tensor.is_variable) return "a weight is a variable";
    if (tensor.allocation_type != kTfLiteMmapRo && type == kTfLiteFloat32) {
      return TakeWidened(index, int64_t{rows} * (columns == 0 ? 1 : columns), weight);
    }
    if (!Constant(tensor)) return "a weight is not constant";
    if (type == kTfLiteInt8 && !PerTensor(tensor)) {
      return "an int8 weight has not one scale and zero point 0";
    }
    *weight = {tensor.data, type == kTfLiteInt8 ? EDGELSTM_INT8 : EDGELSTM_FLOAT32,
               type == kTfLiteInt8 ? tensor.params.scale : 1.0f};
    return nullptr;
  }

  // DEQUANTIZE of a constant, possibly through RESHAPE: the constant itself is taken.
  const char* TakeWidened(int tensor, int64_t elements, EdgeLstmWeight* weight) {
    constexpr const char* kComputed = "a weight is computed";
    TfLiteNode* op = nullptr;
    if (!ProducerOf(tensor, kTfLiteBuiltinDequantize, &op)) return kComputed;
    int source = op->inputs->data[0];
    if (InRange(source) && !Constant(context_->tensors[source])) {
      if (!ProducerOf(source, kTfLiteBuiltinReshape, &op)) return kComputed;
      source = op->inputs->data[0];
    }
    if (!InRange(source)) return kComputed;
    const TfLiteTensor& stored = context_->tensors[source];
    if (!Constant(stored) || Elements(stored) != elements) return kComputed;
    if (stored.type == kTfLiteFloat16) {
      *weight = {stored.data, EDGELSTM_FLOAT16, 1.0f};
    } else if ((stored.type == kTfLiteInt16 || stored.type == kTfLiteInt8) && PerTensor(stored)) {
      *weight = {stored.data, stored.type == kTfLiteInt16 ? EDGELSTM_INT16 : EDGELSTM_INT8,
                 stored.params.scale};
    } else {
      return "a weight is widened from a type that is not covered";
    }
    return nullptr;
  }

  // The node that writes `tensor`, if it is of this kind and has one output.
  bool ProducerOf(int tensor, int builtin, TfLiteNode** op) const {
    const int index = graph_.Producer(tensor);
    TfLiteRegistration* registration = nullptr;
    return index >= 0 &&
           context_->GetNodeAndRegistration(context_, index, op, &registration) == kTfLiteOk &&
           registration->builtin_code == builtin && (*op)->inputs->size >= 1 &&
           (*op)->outputs->size == 1;
  }

  TfLiteContext* context_;
  const Graph& graph_;
  const TfLiteNode& op_;
  LstmNode* node_;
  const char* problem_ = nullptr;
};

}  // namespace

int64_t Elements(const TfLiteTensor& tensor) {
  if (tensor.dims == nullptr) return -1;
  int64_t count = 1;
  for (int i = 0; i < tensor.dims->size; ++i) {
    if (tensor.dims->data[i] < 0) return -1;
    count *= tensor.dims->data[i];
    if (count > INT32_MAX) return -1;
  }
  return count;
}

Graph::Graph(TfLiteContext* context) : context_(context), plan_(nullptr) {
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk || plan == nullptr) return;
  const size_t bytes = sizeof(int) * (static_cast<size_t>(plan->size) + 1);
  plan_ = static_cast<TfLiteIntArray*>(std::malloc(bytes));
  if (plan_ != nullptr) std::memcpy(static_cast<void*>(plan_), plan, bytes);
}

Graph::~Graph() { std::free(plan_); }

int Graph::Producer(int tensor) const {
  for (int position = 0; position < size(); ++position) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    const int index = plan_->data[position];
    if (context_->GetNodeAndRegistration(context_, index, &node, &registration) != kTfLiteOk) {
      continue;
    }
    for (int i = 0; i < node->outputs->size; ++i) {
      if (node->outputs->data[i] == tensor) return index;
    }
  }
  return -1;
}

const char* ReadLstmNode(TfLiteContext* context, const Graph& graph, int index, LstmNode* node) {
  std::memset(static_cast<void*>(node), 0, sizeof *node);
  TfLiteNode* op = nullptr;
  TfLiteRegistration* registration = nullptr;
  if (context->GetNodeAndRegistration(context, index, &op, &registration) != kTfLiteOk) {
    return "the interpreter does not show it";
  }
  return Reader(context, graph, *op, node).Read();
}

}  // namespace edgelstm
