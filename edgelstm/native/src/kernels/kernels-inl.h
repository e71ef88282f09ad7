// The table of kernels over a vector type.
#pragma once

#include <cstdint>

#include "kernels/activation-inl.h"
#include "kernels/dot-inl.h"
#include "kernels/integer-inl.h"
#include "kernels/lstm-inl.h"
#include "kernels/lstm.h"
#include "kernels/probe-inl.h"
#include "kernels/wide-inl.h"

namespace edgelstm {
namespace {

template <class V, typename V::Float (*kFunction)(typename V::Float)>
void ForEach(const float* in, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::Store(out + i, kFunction(V::Load(in + i)));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    V::StorePart(out + i, kFunction(V::LoadPart(in + i, rest)), rest);
  }
}

template <class Packing, const DotFunctions& kDots>
void PackFor(const EdgeLstmLayer& layer, int members, void* packed) {
  Packing::Pack(layer, kDots, members, packed);
}

template <const DotFunctions& kDots>
int64_t ProbeDots(void* memory, int64_t bytes, int64_t rounds) {
  return kDots.probe(memory, bytes, rounds);
}

template <const DotFunctions& kDots>
int64_t ProbeTiles(void*, int64_t, int64_t rounds) {
  return kDots.tiles == nullptr ? -1 : kDots.tiles->probe(rounds);
}

template <const DotFunctions& kDots>
int64_t ProbeUnits(void* memory, int64_t bytes, int64_t rounds) {
  return kDots.probe_units == nullptr ? -1 : kDots.probe_units(memory, bytes, rounds);
}

// Constant: `kDots` may stand in another file, so that only its address is known here.
template <class V, const DotFunctions& kDots = kDotOf<V>>
constexpr LstmKernels KernelsOf(const char* name, bool (*runs_on)(const CpuFeatures&)) {
  return {name,
          runs_on,
          {LstmPacking<V>::PackedBytes, PackFor<LstmPacking<V>, kDots>,
           LstmPacking<V>::ScratchBytes, Lstm<V>::SplitsUnits, Lstm<V>::Run},
          {IntegerPacking<V>::PackedBytes, PackFor<IntegerPacking<V>, kDots>,
           IntegerPacking<V>::ScratchBytes, IntegerLstm<V>::SplitsUnits, IntegerLstm<V>::Run},
          {WidePacking<V>::PackedBytes, PackFor<WidePacking<V>, kDots>,
           WidePacking<V>::ScratchBytes, WideLstm<V>::SplitsUnits, WideLstm<V>::Run},
          ForEach<V, Sigmoid<V>>,
          ForEach<V, Tanh<V>>,
          {Probe<V>::MultiplyAdds, ProbeDots<kDots>, Probe<V>::Read, ProbeTiles<kDots>,
           ProbeUnits<kDots>}};
}

}  // namespace
}  // namespace edgelstm
