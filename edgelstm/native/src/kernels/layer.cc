// One LSTM layer without any interpreter: the C functions around the kernels.
#include <cstdint>
#include <cstdlib>
#include <initializer_list>

#include "kernels/integer.h"
#include "kernels/lstm.h"

struct EdgeLstm {
  EdgeLstmLayer layer;
  const edgelstm::LayerKernels* kernels;
  void* packed;
  void* scratch;
};

namespace edgelstm {
namespace {

bool AllOrNone(const EdgeLstmWeight* gates, bool coupled, bool without_c) {
  const bool there = gates[1].data != nullptr;
  const bool input = gates[0].data != nullptr;
  const bool cell = gates[2].data != nullptr;
  return (gates[3].data != nullptr) == there && input == (there && !coupled) &&
         cell == (there && !without_c);
}

bool Int8(const EdgeLstmWeight& weight, int64_t count) {
  if (weight.data == nullptr) return true;
  if (weight.type != EDGELSTM_INT8) return false;
  for (int64_t i = 0; i < count; ++i) {
    if (Int8At(weight, i) == INT8_MIN) return false;
  }
  return true;
}

bool Int8Matrices(const EdgeLstmLayer& layer) {
  const int64_t units = layer.units;
  bool fits = Int8(layer.projection, units * layer.outputs);
  for (int gate = 0; gate < 4; ++gate) {
    fits = fits && Int8(layer.kernel[gate], units * layer.inputs) &&
           (layer.diagonal || Int8(layer.recurrent[gate], units * layer.outputs));
  }
  return fits;
}

bool IsOf(const EdgeLstmWeight& weight, int32_t type) {
  return weight.data == nullptr || weight.type == type;
}

const char* IntegerProblem(const EdgeLstmLayer& layer) {
  if (layer.diagonal) return "integer arithmetic has no diagonal recurrent kernel";
  for (int gate = 0; gate < 4; ++gate) {
    if (!IsOf(layer.peephole[gate], EDGELSTM_INT16) ||
        !IsOf(layer.layer_norm[gate], EDGELSTM_INT16) ||
        !IsOf(layer.bias[gate], EDGELSTM_INT32)) {
      return "an integer peephole or layer norm is not int16, or a bias not int32";
    }
  }
  if (!IsOf(layer.projection_bias, EDGELSTM_INT32)) return "the projection bias is not int32";
  IntegerScales scales;
  return DeriveScales(layer, &scales);
}

}  // namespace

const char* LayerProblem(const EdgeLstmLayer& layer) {
  constexpr int32_t kLargest = 1 << 20;
  for (int32_t size : {layer.inputs, layer.units, layer.outputs}) {
    if (size < 1 || size > kLargest) return "a size is below 1 or above 1048576";
  }
  const bool coupled = Coupled(layer);
  if (!layer.kernel[1].data || !layer.recurrent[1].data ||
      !AllOrNone(layer.kernel, coupled, false) || !AllOrNone(layer.recurrent, coupled, false)) {
    return "a gate has no kernel or no recurrent kernel";
  }
  if (!AllOrNone(layer.peephole, coupled, true)) return "the peephole is incomplete";
  if (!AllOrNone(layer.bias, coupled, false)) return "the biases are incomplete";
  if (!AllOrNone(layer.layer_norm, coupled, false)) return "the layer norm is incomplete";
  if (!HasProjection(layer) && (layer.outputs != layer.units || layer.projection_bias.data)) {
    return "without projection there are as many outputs as units, and no projection bias";
  }
  if (layer.diagonal && layer.outputs != layer.units) {
    return "a diagonal recurrent kernel needs as many outputs as units";
  }
  if (layer.activation < EDGELSTM_RELU || layer.activation > EDGELSTM_TANH) {
    return "the activation is not covered";
  }
  if (!(layer.cell_clip >= 0) || !(layer.projection_clip >= 0)) return "a clip is negative";
  switch (layer.arithmetic) {
    case EDGELSTM_FLOAT:
      return nullptr;
    case EDGELSTM_HYBRID:
    case EDGELSTM_HYBRID_ASYMMETRIC:
      return Int8Matrices(layer) ? nullptr : "hybrid weights are not int8 within [-127, 127]";
    case EDGELSTM_INTEGER:
      return Int8Matrices(layer) ? IntegerProblem(layer)
                                 : "integer matrices are not int8 within [-127, 127]";
    default:
      return "the arithmetic is not known";
  }
}

EdgeLstm* MakeLstm(const EdgeLstmLayer& layer, const LstmKernels& kernels) {
  EdgeLstm* lstm = static_cast<EdgeLstm*>(std::malloc(sizeof(EdgeLstm)));
  if (lstm == nullptr) return nullptr;
  const LayerKernels& chosen = KernelsFor(kernels, layer);
  *lstm = {layer, &chosen, nullptr, nullptr};
  if (posix_memalign(&lstm->packed, kAlignment, chosen.packed_bytes(layer)) != 0 ||
      posix_memalign(&lstm->scratch, kAlignment, chosen.scratch_bytes(layer)) != 0) {
    edgelstm_delete(lstm);
    return nullptr;
  }
  chosen.pack(layer, lstm->packed);
  return lstm;
}

}  // namespace edgelstm

EdgeLstm* edgelstm_create(const EdgeLstmLayer* layer, const char* kernels) {
  const edgelstm::LstmKernels* chosen = edgelstm::ChooseKernels(kernels);
  if (chosen == nullptr || edgelstm::LayerProblem(*layer) != nullptr) return nullptr;
  return edgelstm::MakeLstm(*layer, *chosen);
}

void edgelstm_delete(EdgeLstm* lstm) {
  if (lstm == nullptr) return;
  std::free(lstm->packed);
  std::free(lstm->scratch);
  std::free(lstm);
}

void edgelstm_run(EdgeLstm* lstm, const EdgeLstmCall* call) {
  lstm->kernels->run(lstm->layer, lstm->packed, *call, lstm->scratch);
}

size_t edgelstm_bytes(const EdgeLstm* lstm) {
  return lstm->kernels->packed_bytes(lstm->layer) + lstm->kernels->scratch_bytes(lstm->layer);
}

int edgelstm_activate(const char* kernels, int function, const float* in, float* out, int64_t n) {
  const edgelstm::LstmKernels* chosen = edgelstm::ChooseKernels(kernels);
  if (chosen == nullptr || function < 0 || function > 1) return -1;
  (function == 0 ? chosen->sigmoid : chosen->tanh)(in, out, n);
  return 0;
}
