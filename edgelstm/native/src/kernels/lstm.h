// What a set of LSTM kernels is: one table of functions per instruction set.
#pragma once

#include <cstddef>

#include "edgelstm/edgelstm.h"
#include "kernels/cpu_features.h"
#include "kernels/team.h"

namespace edgelstm {

// The functions of one arithmetic. All are free of allocations, locks, output and exceptions.
// Buffers that the caller provides are aligned to kAlignment.
struct LayerKernels {
  // Size of the packed weights; they depend on nothing but the layer.
  size_t (*packed_bytes)(const EdgeLstmLayer& layer);
  // `members`: how many may share the units.
  void (*pack)(const EdgeLstmLayer& layer, int members, void* packed);
  // Size of the scratch memory, for any batch and any number of steps.
  size_t (*scratch_bytes)(const EdgeLstmLayer& layer);
  // Whether the members of a team can share the units of one call; they then all run it.
  bool (*splits_units)(const EdgeLstmLayer& layer);
  // Of the layer's weight pointers only those that are null are told from the others. `scratch` is
  // the member's own, `shared` that of the first.
  void (*run)(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
              void* scratch, void* shared, const Member& member);
};

struct LstmKernels {
  const char* name;
  bool (*runs_on)(const CpuFeatures& features);
  LayerKernels floating;  // float and hybrid
  LayerKernels integer;
  LayerKernels wide;
  void (*sigmoid)(const float* in, float* out, int64_t n);
  void (*tanh)(const float* in, float* out, int64_t n);
  // By EdgeLstmProbe; null where there is nothing to know.
  int64_t (*probes[5])(void* memory, int64_t bytes, int64_t rounds);
};

constexpr size_t kAlignment = 64;

extern const LstmKernels kLstmScalar;
extern const LstmKernels kLstmGeneric;
#if defined(EDGELSTM_X86)
extern const LstmKernels kLstmAvx2;
#endif
#if defined(EDGELSTM_AVXVNNI)
extern const LstmKernels kLstmAvxVnni;
#endif
#if defined(EDGELSTM_AVX512)
extern const LstmKernels kLstmAvx512;
extern const LstmKernels kLstmAvx512Vnni;
#endif
#if defined(EDGELSTM_AMX)
extern const LstmKernels kLstmAvx512Amx;
#endif
#if defined(EDGELSTM_ARM)
extern const LstmKernels kLstmNeon;
#endif
#if defined(EDGELSTM_ARM64)
extern const LstmKernels kLstmNeonDot;
#endif
#if defined(EDGELSTM_I8MM)
extern const LstmKernels kLstmNeonI8mm;
#endif

// The layer's parts, told by which of its weights are null.
inline bool Coupled(const EdgeLstmLayer& layer) { return layer.kernel[0].data == nullptr; }
inline bool HasPeephole(const EdgeLstmLayer& layer) { return layer.peephole[1].data != nullptr; }
inline bool HasLayerNorm(const EdgeLstmLayer& layer) {
  return layer.layer_norm[1].data != nullptr;
}
inline bool HasProjection(const EdgeLstmLayer& layer) { return layer.projection.data != nullptr; }

inline bool Hybrid(const EdgeLstmLayer& layer) {
  return layer.arithmetic == EDGELSTM_HYBRID || layer.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC;
}

inline const LayerKernels& KernelsFor(const LstmKernels& kernels, const EdgeLstmLayer& layer) {
  switch (layer.arithmetic) {
    case EDGELSTM_INTEGER:
      return kernels.integer;
    case EDGELSTM_INTEGER_WIDE:
      return kernels.wide;
    default:
      return kernels.floating;
  }
}

// Bytes of an element of input, output and h, and of c.
inline int64_t VectorBytes(const EdgeLstmLayer& layer) {
  return layer.arithmetic == EDGELSTM_INTEGER ? 1 : layer.arithmetic == EDGELSTM_INTEGER_WIDE ? 2 : 4;
}
inline int64_t CellBytes(const EdgeLstmLayer& layer) {
  return layer.arithmetic == EDGELSTM_INTEGER || layer.arithmetic == EDGELSTM_INTEGER_WIDE ? 2 : 4;
}

// Whether all matrices that are multiplied are stored as float16.
bool AllHalf(const EdgeLstmLayer& layer);
// Element `index` of a weight as a real number; 0 where the layer has no such weight.
float WeightAt(const EdgeLstmWeight& weight, int64_t index);
// The same as stored in float16 or int8, without its scale.
uint16_t HalfAt(const EdgeLstmWeight& weight, int64_t index);
int8_t Int8At(const EdgeLstmWeight& weight, int64_t index);
// An int8, int16 or int32 weight as stored; 0 where the layer has no such weight.
int32_t IntegerAt(const EdgeLstmWeight& weight, int64_t index);
// An int64 weight as stored; 0 where the layer has no such weight.
int64_t Int64At(const EdgeLstmWeight& weight, int64_t index);

// Why a layer cannot be computed, or null. Never freed.
const char* LayerProblem(const EdgeLstmLayer& layer);
// A layer without problem; null if memory is short.
EdgeLstm* MakeLstm(const EdgeLstmLayer& layer, const LstmKernels& kernels, int threads);

// The kernels of a name, those that EDGELSTM_ISA names if it is null, else the best; null if they
// do not exist or do not run on this CPU.
const LstmKernels* ChooseKernels(const char* name);
// The kernels that run here, best first: those after `after`, the first if it is null; null at the
// end.
const LstmKernels* NextKernels(const LstmKernels* after);

}  // namespace edgelstm
