// One LSTM layer without any interpreter: the C functions around the kernels.
#include <time.h>

#include <cstdint>
#include <cstdlib>
#include <initializer_list>

#include "kernels/integer.h"
#include "kernels/lstm.h"
#include "kernels/shared_weights.h"
#include "kernels/wide.h"

struct EdgeLstm {
  EdgeLstmLayer layer;
  const edgelstm::LayerKernels* kernels;
  const void* packed;  // of all layers with these weights
  char* scratch;  // of every thread
  int64_t scratch_bytes;  // of one
  edgelstm::Team* team;   // null: one thread
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

const char* WideProblem(const EdgeLstmLayer& layer) {
  if (layer.diagonal || Coupled(layer) || HasPeephole(layer) || HasLayerNorm(layer) ||
      HasProjection(layer)) {
    return "16x8 arithmetic has no diagonal or coupled gates, peephole, layer norm or projection";
  }
  for (const EdgeLstmWeight& bias : layer.bias) {
    if (!IsOf(bias, EDGELSTM_INT64)) return "a 16x8 bias is not int64";
  }
  WideScales scales;
  return DeriveWideScales(layer, &scales);
}

// Products of one step and row.
int64_t StepProducts(const EdgeLstmLayer& layer) {
  const int64_t recurrent = layer.diagonal ? 1 : layer.outputs;
  return (Coupled(layer) ? 3 : 4) * int64_t{layer.units} * (layer.inputs + recurrent);
}

// A barrier costs about as much as this many products.
constexpr int64_t kProductsPerBarrier = 300 * 1000;
// Waking the others, if they have parked.
constexpr int64_t kProductsPerCall = 1000 * 1000;

struct Job {
  EdgeLstm* lstm;
  const EdgeLstmCall* call;
};

void RunUnits(void* context, const Member& member) {
  const Job& job = *static_cast<const Job*>(context);
  EdgeLstm& lstm = *job.lstm;
  lstm.kernels->run(lstm.layer, lstm.packed, *job.call,
                    lstm.scratch + member.index * lstm.scratch_bytes, lstm.scratch, member);
}

void RunRows(void* context, const Member& member) {
  const Job& job = *static_cast<const Job*>(context);
  EdgeLstm& lstm = *job.lstm;
  const int64_t width = VectorBytes(lstm.layer), c_width = CellBytes(lstm.layer);
  const int64_t begin = member.Begin(job.call->batch), end = member.End(job.call->batch);
  EdgeLstmCall part = *job.call;
  part.input = static_cast<const char*>(part.input) + begin * part.input_row * width;
  part.output = static_cast<char*>(part.output) + begin * part.output_row * width;
  part.h = static_cast<char*>(part.h) + begin * lstm.layer.outputs * width;
  part.c = static_cast<char*>(part.c) + begin * lstm.layer.units * c_width;
  part.batch = static_cast<int32_t>(end - begin);
  char* scratch = lstm.scratch + member.index * lstm.scratch_bytes;
  lstm.kernels->run(lstm.layer, lstm.packed, part, scratch, scratch, Member());
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
    case EDGELSTM_INTEGER_WIDE:
      return Int8Matrices(layer) ? WideProblem(layer)
                                 : "integer matrices are not int8 within [-127, 127]";
    default:
      return "the arithmetic is not known";
  }
}

EdgeLstm* MakeLstm(const EdgeLstmLayer& layer, const LstmKernels& kernels, int threads) {
  EdgeLstm* lstm = static_cast<EdgeLstm*>(std::malloc(sizeof(EdgeLstm)));
  if (lstm == nullptr) return nullptr;
  const LayerKernels& chosen = KernelsFor(kernels, layer);
  const auto bytes =
      static_cast<int64_t>((chosen.scratch_bytes(layer) + kAlignment - 1) / kAlignment * kAlignment);
  *lstm = {layer, &chosen, nullptr, nullptr, bytes, nullptr};
  // One thread computes what the others would take longer to be told of.
  if (threads > 1 && StepProducts(layer) >= kProductsPerBarrier / 64) {
    lstm->team = Team::Start(threads);
  }
  const int members = lstm->team == nullptr ? 1 : lstm->team->size();
  const size_t packed_bytes = chosen.packed_bytes(layer);
  void* packed = MapWeights(packed_bytes);
  void* scratch = nullptr;
  if (packed != nullptr) {
    chosen.pack(layer, members, packed);
    lstm->packed = ShareWeights(packed, packed_bytes);
  }
  if (lstm->packed == nullptr ||
      posix_memalign(&scratch, kAlignment, static_cast<size_t>(bytes * members)) != 0) {
    edgelstm_delete(lstm);
    return nullptr;
  }
  lstm->scratch = static_cast<char*>(scratch);
  return lstm;
}

}  // namespace edgelstm

EdgeLstm* edgelstm_create(const EdgeLstmLayer* layer, const char* kernels) {
  return edgelstm_create_threaded(layer, kernels, 1);
}

EdgeLstm* edgelstm_create_threaded(const EdgeLstmLayer* layer, const char* kernels,
                                   int32_t threads) {
  const edgelstm::LstmKernels* chosen = edgelstm::ChooseKernels(kernels);
  if (chosen == nullptr || edgelstm::LayerProblem(*layer) != nullptr) return nullptr;
  return edgelstm::MakeLstm(*layer, *chosen, threads);
}

void edgelstm_delete(EdgeLstm* lstm) {
  if (lstm == nullptr) return;
  edgelstm::Team::Stop(lstm->team);
  edgelstm::ReleaseWeights(lstm->packed);
  std::free(lstm->scratch);
  std::free(lstm);
}

void edgelstm_run(EdgeLstm* lstm, const EdgeLstmCall* call) {
  using namespace edgelstm;
  const int64_t products = StepProducts(lstm->layer);
  Job job = {lstm, call};
  if (lstm->team != nullptr && products * call->steps * call->batch >= kProductsPerCall) {
    if (call->batch >= lstm->team->size()) {
      lstm->team->Run(RunRows, &job);
      return;
    }
    if (products * call->batch >= kProductsPerBarrier && lstm->kernels->splits_units(lstm->layer)) {
      lstm->team->Run(RunUnits, &job);
      return;
    }
  }
  RunUnits(&job, Member());
}

int64_t edgelstm_time(EdgeLstm* lstm, const EdgeLstmCall* call, int64_t calls) {
  timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int64_t i = 0; i < calls; ++i) edgelstm_run(lstm, call);
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (int64_t{end.tv_sec} - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec;
}

size_t edgelstm_bytes(const EdgeLstm* lstm) {
  const int64_t members = lstm->team == nullptr ? 1 : lstm->team->size();
  return lstm->kernels->packed_bytes(lstm->layer) +
         static_cast<size_t>(lstm->scratch_bytes * members);
}

int edgelstm_activate(const char* kernels, int function, const float* in, float* out, int64_t n) {
  const edgelstm::LstmKernels* chosen = edgelstm::ChooseKernels(kernels);
  if (chosen == nullptr || function < 0 || function > 1) return -1;
  (function == 0 ? chosen->sigmoid : chosen->tanh)(in, out, n);
  return 0;
}

int64_t edgelstm_probe(const char* kernels, int probe, void* memory, int64_t bytes,
                       int64_t rounds) {
  const edgelstm::LstmKernels* chosen = edgelstm::ChooseKernels(kernels);
  if (chosen == nullptr || probe < EDGELSTM_PROBE_FLOAT || probe > EDGELSTM_PROBE_INTEGER_UNITS ||
      bytes < EDGELSTM_PROBE_BYTES || rounds < 0 || chosen->probes[probe] == nullptr) {
    return -1;
  }
  return chosen->probes[probe](memory, bytes, rounds);
}
