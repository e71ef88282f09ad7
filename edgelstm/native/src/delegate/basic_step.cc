#include "delegate/basic_step.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace edgelstm {
namespace {

constexpr int kInputs = 5, kOutputs = 4, kGates = 4;
// Where gates i, f, c, o stand among the rows.
constexpr int kPlaces[kGates] = {0, 2, 1, 3};

bool IsMatrix(const TfLiteTensor& tensor, int rows, int columns) {
  return tensor.type == kTfLiteFloat32 && tensor.dims != nullptr && tensor.dims->size == 2 &&
         (rows < 0 || tensor.dims->data[0] == rows) && tensor.dims->data[1] == columns;
}

// A float32 output of that size that somebody reads, or null.
float* Allocated(const TfLiteTensor& tensor, size_t bytes) {
  return tensor.data != nullptr && tensor.bytes >= bytes ? static_cast<float*>(tensor.data)
                                                         : nullptr;
}

TfLiteStatus Resize(TfLiteContext* context, int tensor, int rows, int columns) {
  auto* dims = static_cast<TfLiteIntArray*>(std::malloc(sizeof(TfLiteIntArray) + sizeof(int)));
  if (dims == nullptr) return kTfLiteError;
  dims->size = 2;
  int* sizes = dims->data;
  sizes[0] = rows;
  sizes[1] = columns;
  return context->ResizeTensor(context, &context->tensors[tensor], dims);
}

}  // namespace

const char* ReadBasicStep(TfLiteContext* context, const TfLiteNode& op, BasicStep* step) {
  if (op.inputs->size != kInputs || op.outputs->size != kOutputs) {
    return "it is a basic step without 5 inputs and 4 outputs";
  }
  for (int i = 0; i < kInputs; ++i) {
    if (op.inputs->data[i] < 0) return "an input is missing";
  }
  const int* in = op.inputs->data;
  const TfLiteTensor* tensors = context->tensors;
  const TfLiteTensor &x = tensors[in[0]], &weights = tensors[in[2]], &bias = tensors[in[3]];
  if (x.type != kTfLiteFloat32) return "it is a basic step that is not float32";
  if (x.dims == nullptr || x.dims->size != 2 || weights.dims == nullptr ||
      weights.dims->size != 2) {
    return "the input or the weights of a basic step have not two axes";
  }
  step->inputs = x.dims->data[1];
  step->units = weights.dims->data[0] / kGates;
  constexpr int kLargest = 1 << 20;
  if (step->inputs < 1 || step->units < 1 || step->inputs > kLargest || step->units > kLargest ||
      !IsMatrix(weights, kGates * step->units, step->inputs + step->units) ||
      bias.type != kTfLiteFloat32 || Elements(bias) != int64_t{kGates} * step->units ||
      !IsMatrix(tensors[in[1]], -1, step->units) || !IsMatrix(tensors[in[4]], -1, step->units)) {
    return "a tensor of a basic step has another shape or type than its neighbours demand";
  }
  if (!Constant(weights) || !Constant(bias)) return "a weight is not constant";
  step->input = in[0];
  step->h = in[1];
  step->c = in[4];
  step->h_out = op.outputs->data[0];
  step->c_out = op.outputs->data[1];
  for (int state : {step->h, step->c}) {
    if (tensors[state].allocation_type == kTfLiteMmapRo) return "a state is constant";
  }
  if (step->h == step->c || step->input == step->h || step->input == step->c) {
    return "its input and states are not three tensors";
  }
  step->weights = weights.data;
  step->bias = bias.data;
  return nullptr;
}

EdgeLstm* MakeBasicLstm(const BasicStep& step, const LstmKernels& kernels, int threads) {
  const auto inputs = static_cast<size_t>(step.inputs), units = static_cast<size_t>(step.units);
  const size_t row = inputs + units;
  auto* split = static_cast<float*>(std::malloc(kGates * units * row * sizeof(float)));
  if (split == nullptr) return nullptr;
  EdgeLstmLayer layer = EdgeLstmLayer();
  layer.inputs = step.inputs;
  layer.units = layer.outputs = step.units;
  // The operator's own activation and clips count for nothing.
  layer.activation = EDGELSTM_TANH;
  float* to = split;
  const auto* from = static_cast<const char*>(step.weights);
  for (int gate = 0; gate < kGates; ++gate) {
    const size_t place = static_cast<size_t>(kPlaces[gate]) * units;
    layer.kernel[gate] = {to, EDGELSTM_FLOAT32, 1.0f};
    for (size_t unit = 0; unit < units; ++unit, to += inputs) {
      std::memcpy(to, from + (place + unit) * row * sizeof(float), inputs * sizeof(float));
    }
    layer.recurrent[gate] = {to, EDGELSTM_FLOAT32, 1.0f};
    for (size_t unit = 0; unit < units; ++unit, to += units) {
      std::memcpy(to, from + ((place + unit) * row + inputs) * sizeof(float),
                  units * sizeof(float));
    }
    layer.bias[gate] = {static_cast<const char*>(step.bias) + place * sizeof(float),
                        EDGELSTM_FLOAT32, 1.0f};
  }
  EdgeLstm* lstm = MakeLstm(layer, kernels, threads);
  std::free(split);
  return lstm;
}

TfLiteStatus PrepareBasicStep(TfLiteContext* context, const BasicStep& step, float** spare) {
  const TfLiteTensor& input = context->tensors[step.input];
  if (!IsMatrix(input, -1, step.inputs)) {
    context->ReportError(context, "edgelstm: the input of an LSTM has not %d features",
                         step.inputs);
    return kTfLiteError;
  }
  const int batch = input.dims->data[0];
  for (int state : {step.h, step.c}) {
    TfLiteTensor& tensor = context->tensors[state];
    if (!IsMatrix(tensor, batch, step.units)) {
      context->ReportError(context, "edgelstm: the states of an LSTM do not fit its batch of %d",
                           batch);
      return kTfLiteError;
    }
    // The stock kernel does so, since it writes them.
    if (tensor.allocation_type == kTfLiteArenaRw) tensor.allocation_type = kTfLiteArenaRwPersistent;
  }
  std::free(*spare);
  *spare = static_cast<float*>(
      std::malloc((static_cast<size_t>(batch) * static_cast<size_t>(step.units) + 1) *
                  sizeof(float)));
  if (*spare == nullptr) return kTfLiteError;
  const TfLiteStatus status = Resize(context, step.h_out, batch, step.units);
  return status != kTfLiteOk ? status : Resize(context, step.c_out, batch, step.units);
}

TfLiteStatus InvokeBasicStep(TfLiteContext* context, const BasicStep& step, EdgeLstm* lstm,
                             float* spare) {
  const TfLiteTensor& input = context->tensors[step.input];
  TfLiteTensor &h = context->tensors[step.h], &c = context->tensors[step.c];
  const auto batch = static_cast<size_t>(input.dims->data[0]);
  const size_t bytes = batch * static_cast<size_t>(step.units) * sizeof(float);
  if (input.bytes < batch * static_cast<size_t>(step.inputs) * sizeof(float) || h.bytes < bytes ||
      c.bytes < bytes) {
    return kTfLiteError;
  }
  if (batch == 0) return kTfLiteOk;
  if (!input.data || !h.data || !c.data) return kTfLiteError;
  float* output = Allocated(context->tensors[step.h_out], bytes);
  EdgeLstmCall call = EdgeLstmCall();
  call.input = input.data;
  call.output = output != nullptr ? output : spare;
  call.h = h.data;
  call.c = c.data;
  call.input_row = step.inputs;
  call.output_row = step.units;
  call.batch = static_cast<int32_t>(batch);
  call.steps = 1;
  edgelstm_run(lstm, &call);
  if (float* c_out = Allocated(context->tensors[step.c_out], bytes)) {
    std::memcpy(c_out, c.data, bytes);
  }
  return kTfLiteOk;
}

}  // namespace edgelstm
