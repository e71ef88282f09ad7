#include "delegate/lstm_node.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels/lstm.h"

namespace edgelstm {
namespace {

// Positions of one recurrence among an operator's inputs, of the first where there is one per gate;
// -1 where the operator has no such input.
struct Positions {
  int kernel, recurrent, peephole, bias, projection, projection_bias, h, c, layer_norm;
};

constexpr Positions kOneDirection = {1, 5, 9, 12, 16, 17, 18, 19, 20};
constexpr Positions kForward = {1, 5, 9, 12, 16, 17, 35, 36, -1};
constexpr Positions kBackward = {18, 22, 26, 29, 33, 34, 37, 38, -1};
constexpr int kInputs = 24, kInputsWithoutLayerNorm = 20, kInputsOfBoth = 48;
constexpr int kAuxInput = 39, kAuxWeights = 40;
constexpr int kIntermediates = 5, kHiddenIntermediate = 4;

// What the three operators' options have in common.
struct Options {
  int activation;
  float cell_clip, proj_clip;
  bool time_major, asymmetric;
};

// Reads one recurrence of an operator whose indices are all in range.
class Reader {
 public:
  Reader(TfLiteContext* context, const Graph& graph, const TfLiteNode& op,
         const Positions& positions, const Options& options, LstmNode* node)
      : context_(context),
        graph_(graph),
        op_(op),
        at_(positions),
        options_(options),
        node_(node) {}

  const char* Read() {
    const char* problem = ReadOptions();
    if (problem == nullptr) problem = ReadActivations();
    if (problem == nullptr) problem = ReadWeights();
    if (problem == nullptr && Integer()) problem = ReadQuantization();
    return problem != nullptr ? problem : LayerProblem(node_->layer);
  }

 private:
  bool InRange(int tensor) const {
    return tensor >= 0 && static_cast<size_t>(tensor) < context_->tensors_size;
  }
  const TfLiteTensor* Input(int position) const {
    if (position < 0 || position >= op_.inputs->size || op_.inputs->data[position] < 0) {
      return nullptr;
    }
    return &context_->tensors[op_.inputs->data[position]];
  }
  // Axes of an input; null where it has none. What DEQUANTIZE writes is asked for through what it reads:
  // its own result is empty once it was taken, and stays so when an interpreter applies delegates anew.
  const TfLiteIntArray* Dims(int position) const {
    const TfLiteTensor* tensor = Input(position);
    if (tensor == nullptr || tensor->allocation_type == kTfLiteMmapRo) {
      return tensor == nullptr ? nullptr : tensor->dims;
    }
    TfLiteNode* op = nullptr;
    if (ProducerOf(op_.inputs->data[position], kTfLiteBuiltinDequantize, &op) &&
        InRange(op->inputs->data[0])) {
      tensor = &context_->tensors[op->inputs->data[0]];
    }
    return tensor->dims;
  }
  bool Integer() const { return node_->layer.arithmetic == EDGELSTM_INTEGER || Wide(); }
  bool Wide() const { return node_->layer.arithmetic == EDGELSTM_INTEGER_WIDE; }

  const char* ReadOptions() {
    EdgeLstmLayer& layer = node_->layer;
    switch (options_.activation) {
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
    layer.cell_clip = options_.cell_clip;
    layer.projection_clip = options_.proj_clip;
    node_->time_major = options_.time_major;
    const TfLiteTensor& input = context_->tensors[node_->input];
    const TfLiteTensor* kernel = Input(at_.kernel + 3);
    if (kernel == nullptr) return "a gate has no kernel";
    if (input.type == kTfLiteInt8) {
      layer.arithmetic = EDGELSTM_INTEGER;
    } else if (input.type == kTfLiteInt16) {
      layer.arithmetic = EDGELSTM_INTEGER_WIDE;
    } else if (kernel->type != kTfLiteInt8) {
      layer.arithmetic = EDGELSTM_FLOAT;
    } else {
      layer.arithmetic = options_.asymmetric ? EDGELSTM_HYBRID_ASYMMETRIC : EDGELSTM_HYBRID;
    }
    return nullptr;
  }

  const char* ReadActivations() {
    const TfLiteTensor& x = context_->tensors[node_->input];
    const TfLiteTensor& y = context_->tensors[node_->output];
    const TfLiteTensor* h = Input(at_.h);
    const TfLiteTensor* c = Input(at_.c);
    if (h == nullptr || c == nullptr) return "it has no states";
    const TfLiteType type = Wide() ? kTfLiteInt16 : Integer() ? kTfLiteInt8 : kTfLiteFloat32;
    if (x.type != type || y.type != type) {
      return "its input and output are not both float32, both int8 or both int16";
    }
    if (x.dims == nullptr || x.dims->size != (node_->one_step ? 2 : 3)) {
      return "its input has a wrong number of axes";
    }
    if (h->type != type || c->type != (Integer() ? kTfLiteInt16 : kTfLiteFloat32)) {
      return "its states have not the type that its input demands";
    }
    if (!h->is_variable || !c->is_variable) return "its states are no variables";
    node_->h = op_.inputs->data[at_.h];
    node_->c = op_.inputs->data[at_.c];
    if (node_->h == node_->c || node_->input == node_->h || node_->input == node_->c ||
        node_->output == node_->h || node_->output == node_->c || node_->output == node_->input) {
      return "its input, output and states are not four tensors";
    }
    node_->layer.inputs = x.dims->data[x.dims->size - 1];
    return nullptr;
  }

  const char* ReadWeights() {
    EdgeLstmLayer& layer = node_->layer;
    const TfLiteIntArray* kernel = Dims(at_.kernel + 1);
    const TfLiteIntArray* recurrent = Dims(at_.recurrent + 1);
    if (kernel == nullptr || kernel->size != 2 || recurrent == nullptr) {
      return "a gate has no kernel of two axes";
    }
    layer.units = kernel->data[0];
    // The stock kernel goes by the axes as well; the option is only a mark of the version.
    layer.diagonal = recurrent->size == 1 ? 1 : 0;
    layer.outputs = layer.units;
    if (Input(at_.projection) != nullptr) {
      const TfLiteIntArray* projection = Dims(at_.projection);
      if (projection == nullptr || projection->size != 2) return "its projection has not two axes";
      layer.outputs = projection->data[0];
    }
    const TfLiteType matrix =
        layer.arithmetic == EDGELSTM_FLOAT ? kTfLiteFloat32 : kTfLiteInt8;
    const TfLiteType peephole = Integer() ? kTfLiteInt16 : matrix;
    const TfLiteType bias = Wide() ? kTfLiteInt64 : Integer() ? kTfLiteInt32 : kTfLiteFloat32;
    const TfLiteType norm = Integer() ? kTfLiteInt16 : kTfLiteFloat32;
    for (int gate = 0; gate < 4; ++gate) {
      Take(at_.kernel + gate, layer.units, layer.inputs, matrix, &layer.kernel[gate]);
      if (layer.diagonal) {
        Take(at_.recurrent + gate, layer.units, 0, kTfLiteFloat32, &layer.recurrent[gate]);
      } else {
        Take(at_.recurrent + gate, layer.units, layer.outputs, matrix, &layer.recurrent[gate]);
      }
      Take(at_.bias + gate, layer.units, 0, bias, &layer.bias[gate]);
      if (at_.layer_norm >= 0) {
        Take(at_.layer_norm + gate, layer.units, 0, norm, &layer.layer_norm[gate]);
      }
    }
    Take(at_.peephole, layer.units, 0, peephole, &layer.peephole[0]);
    Take(at_.peephole + 1, layer.units, 0, peephole, &layer.peephole[1]);
    Take(at_.peephole + 2, layer.units, 0, peephole, &layer.peephole[3]);
    Take(at_.projection, layer.outputs, layer.units, matrix, &layer.projection);
    Take(at_.projection_bias, layer.outputs, 0, bias, &layer.projection_bias);
    if (problem_ == nullptr && layer.bias[1].data == nullptr) return "its biases are missing";
    return problem_;
  }

  bool KnowsActivations() {
    EdgeLstmLayer& layer = node_->layer;
    const TfLiteTensor* tensors = context_->tensors;
    return Known(tensors[node_->input], &layer.input_quantization) &&
           Known(tensors[node_->output], &layer.output_quantization) &&
           Known(tensors[node_->h], &layer.h_quantization) &&
           Known(tensors[node_->c], &layer.c_quantization);
  }

  const char* ReadQuantization() {
    EdgeLstmLayer& layer = node_->layer;
    if (Wide()) {
      return KnowsActivations() ? nullptr : "a tensor has not one scale and one zero point";
    }
    const TfLiteIntArray* between = op_.intermediates;
    if (between == nullptr || between->size != kIntermediates) {
      return "an int8 LSTM has not five intermediates";
    }
    for (int i = 0; i < kIntermediates; ++i) {
      if (!InRange(between->data[i])) return "an intermediate is missing";
    }
    const TfLiteTensor* tensors = context_->tensors;
    bool known = KnowsActivations() &&
                 Known(tensors[between->data[kHiddenIntermediate]], &layer.hidden_quantization);
    for (int gate = Coupled(layer) ? 1 : 0; known && HasLayerNorm(layer) && gate < 4; ++gate) {
      EdgeLstmQuantization sum;
      known = Known(tensors[between->data[gate]], &sum);
      layer.gate_scale[gate] = sum.scale;
    }
    // The stock kernel then computes garbage; so it does with layer norm and no input gate if the
    // first intermediate has no scale.
    if (!known) return "a tensor or an intermediate has not one scale and one zero point";
    return nullptr;
  }

  static bool Known(const TfLiteTensor& tensor, EdgeLstmQuantization* quantization) {
    *quantization = {tensor.params.scale, tensor.params.zero_point};
    return PerTensor(tensor);
  }

  // A weight of shape [rows, columns], or [rows] when `columns` is 0; keeps the first problem.
  void Take(int position, int rows, int columns, TfLiteType type, EdgeLstmWeight* weight) {
    const TfLiteTensor* tensor = Input(position);
    if (tensor == nullptr || problem_ != nullptr) return;
    problem_ = TakeTensor(*tensor, position, rows, columns, type, weight);
  }

  const char* TakeTensor(const TfLiteTensor& tensor, int position, int rows, int columns,
                         TfLiteType type, EdgeLstmWeight* weight) {
    const TfLiteIntArray* dims = Dims(position);
    if (dims == nullptr || dims->size != (columns == 0 ? 1 : 2) || dims->data[0] != rows ||
        (columns != 0 && dims->data[1] != columns)) {
      return "a weight has another shape than its neighbours demand";
    }
    if (tensor.type != type) return "a weight has another type than its neighbours demand";
    if (tensor.is_variable) return "a weight is a variable";
    if (tensor.allocation_type != kTfLiteMmapRo && type == kTfLiteFloat32) {
      return TakeWidened(op_.inputs->data[position], int64_t{rows} * (columns == 0 ? 1 : columns), weight);
    }
    if (!Constant(tensor)) return "a weight is not constant";
    if (type == kTfLiteFloat32) {
      *weight = {tensor.data, EDGELSTM_FLOAT32, 1.0f};
      return nullptr;
    }
    // The scale of a bias is not read.
    if (type != kTfLiteInt32 && type != kTfLiteInt64 && !Symmetric(tensor)) {
      return "an integer weight has not one scale and zero point 0";
    }
    *weight = {tensor.data, StoredAs(type), tensor.params.scale};
    return nullptr;
  }

  static bool Symmetric(const TfLiteTensor& tensor) {
    return PerTensor(tensor) && tensor.params.zero_point == 0;
  }

  static int32_t StoredAs(TfLiteType type) {
    switch (type) {
      case kTfLiteInt8:
        return EDGELSTM_INT8;
      case kTfLiteInt16:
        return EDGELSTM_INT16;
      case kTfLiteInt64:
        return EDGELSTM_INT64;
      default:
        return EDGELSTM_INT32;
    }
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
    } else if ((stored.type == kTfLiteInt16 || stored.type == kTfLiteInt8) && Symmetric(stored)) {
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
  const Positions& at_;
  const Options& options_;
  LstmNode* node_;
  const char* problem_ = nullptr;
};

bool InRange(const TfLiteContext* context, int tensor) {
  return tensor >= 0 && static_cast<size_t>(tensor) < context->tensors_size;
}

// Null if an operator has inputs and outputs in one of these numbers, all in range.
const char* IndexProblem(const TfLiteContext* context, const TfLiteNode& op) {
  if (op.inputs == nullptr || op.outputs == nullptr || op.builtin_data == nullptr) {
    return "its inputs, outputs or options are missing";
  }
  for (int i = 0; i < op.inputs->size; ++i) {
    if (!InRange(context, op.inputs->data[i]) && op.inputs->data[i] != -1) {
      return "an input is missing";
    }
  }
  for (int i = 0; i < op.outputs->size; ++i) {
    if (!InRange(context, op.outputs->data[i])) return "its output is missing";
  }
  if (op.inputs->size < 1 || op.inputs->data[0] < 0) return "it has no input";
  return nullptr;
}

const char* ReadOneDirection(TfLiteContext* context, const Graph& graph, const TfLiteNode& op,
                             const Options& options, bool one_step, LstmNodes* nodes) {
  if ((op.inputs->size != kInputs && op.inputs->size != kInputsWithoutLayerNorm) ||
      op.outputs->size != 1) {
    return "it has not 20 or 24 inputs and one output";
  }
  LstmNode& node = nodes->node[0];
  nodes->count = 1;
  node.input = op.inputs->data[0];
  node.output = op.outputs->data[0];
  node.one_step = one_step;
  const char* problem = Reader(context, graph, op, kOneDirection, options, &node).Read();
  node.output_width = node.layer.outputs;
  return problem;
}

const char* ReadBothDirections(TfLiteContext* context, const Graph& graph, const TfLiteNode& op,
                               const Options& options, bool merged, LstmNodes* nodes) {
  if (op.inputs->size != kInputsOfBoth || op.outputs->size != (merged ? 1 : 2)) {
    return "it has not 48 inputs and one output per direction, or one if they are merged";
  }
  for (int i = kAuxWeights; i < kInputsOfBoth; ++i) {
    if (op.inputs->data[i] >= 0) return "it has weights of an auxiliary input";
  }
  nodes->count = 2;
  const int aux = op.inputs->data[kAuxInput];
  for (int direction = 0; direction < 2; ++direction) {
    LstmNode& node = nodes->node[direction];
    // Without weights of its own the auxiliary input is the backward direction's input.
    node.input = direction == 1 && aux >= 0 ? aux : op.inputs->data[0];
    node.output = op.outputs->data[merged ? 0 : direction];
    node.backward = direction == 1;
    const Positions& positions = direction == 0 ? kForward : kBackward;
    const char* problem = Reader(context, graph, op, positions, options, &node).Read();
    if (problem != nullptr) return problem;
    if (node.layer.arithmetic == EDGELSTM_INTEGER) return "it is an int8 operator";
    if (node.layer.arithmetic == EDGELSTM_INTEGER_WIDE) return "it is a 16x8 operator";
    node.output_width = node.layer.outputs;
  }
  LstmNode &forward = nodes->node[0], &backward = nodes->node[1];
  for (int tensor : {backward.h, backward.c, backward.output}) {
    if (tensor == forward.h || tensor == forward.c || tensor == forward.input ||
        (tensor == forward.output && !merged)) {
      return "its directions share a state or an output";
    }
  }
  if (backward.input == forward.output || backward.input == forward.h ||
      backward.input == forward.c) {
    return "its directions share a state or an output";
  }
  if (merged) {
    forward.output_width = backward.output_width = forward.layer.outputs + backward.layer.outputs;
    backward.output_column = forward.layer.outputs;
  }
  return nullptr;
}

}  // namespace

bool IsLstm(const TfLiteRegistration& registration) {
  return registration.builtin_code == kTfLiteBuiltinLstm ||
         registration.builtin_code == kTfLiteBuiltinUnidirectionalSequenceLstm ||
         registration.builtin_code == kTfLiteBuiltinBidirectionalSequenceLstm;
}

const char* ReadLstmNodes(TfLiteContext* context, const Graph& graph, int index,
                          LstmNodes* nodes) {
  std::memset(static_cast<void*>(nodes), 0, sizeof *nodes);
  TfLiteNode* op = nullptr;
  TfLiteRegistration* registration = nullptr;
  if (context->GetNodeAndRegistration(context, index, &op, &registration) != kTfLiteOk) {
    return "the interpreter does not show it";
  }
  const char* problem = IndexProblem(context, *op);
  if (problem != nullptr) return problem;
  switch (registration->builtin_code) {
    case kTfLiteBuiltinLstm: {
      const auto& lstm = *static_cast<const TfLiteLSTMParams*>(op->builtin_data);
      if (lstm.kernel_type != kTfLiteLstmFullKernel) {
        return ReadBasicStep(context, *op, &nodes->basic);
      }
      const Options options = {lstm.activation, lstm.cell_clip, lstm.proj_clip, false,
                               lstm.asymmetric_quantize_inputs};
      return ReadOneDirection(context, graph, *op, options, true, nodes);
    }
    case kTfLiteBuiltinUnidirectionalSequenceLstm: {
      const auto& lstm = *static_cast<const TfLiteUnidirectionalSequenceLSTMParams*>(
          op->builtin_data);
      const Options options = {lstm.activation, lstm.cell_clip, lstm.proj_clip, lstm.time_major,
                               lstm.asymmetric_quantize_inputs};
      return ReadOneDirection(context, graph, *op, options, false, nodes);
    }
    case kTfLiteBuiltinBidirectionalSequenceLstm: {
      const auto& lstm = *static_cast<const TfLiteBidirectionalSequenceLSTMParams*>(
          op->builtin_data);
      const Options options = {lstm.activation, lstm.cell_clip, lstm.proj_clip, lstm.time_major,
                               lstm.asymmetric_quantize_inputs};
      return ReadBothDirections(context, graph, *op, options, lstm.merge_outputs, nodes);
    }
    default:
      return "it is no LSTM";
  }
}

}  // namespace edgelstm
