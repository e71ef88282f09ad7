// The table of kernels over a vector type.
#pragma once

#include <cstdint>

#include "kernels/activation-inl.h"
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

template <class V>
constexpr LstmKernels KernelsOf(const char* name, bool (*runs_on)(const CpuFeatures&)) {
  return {name,
          runs_on,
          {LstmPacking<V>::PackedBytes, LstmPacking<V>::Pack, LstmPacking<V>::ScratchBytes,
           Lstm<V>::SplitsUnits, Lstm<V>::Run},
          {IntegerPacking<V>::PackedBytes, IntegerPacking<V>::Pack, IntegerPacking<V>::ScratchBytes,
           IntegerLstm<V>::SplitsUnits, IntegerLstm<V>::Run},
          {WideLstm<V>::PackedBytes, WideLstm<V>::Pack, WideLstm<V>::ScratchBytes,
           WideLstm<V>::SplitsUnits, WideLstm<V>::Run},
          ForEach<V, Sigmoid<V>>,
          ForEach<V, Tanh<V>>,
          {Probe<V>::MultiplyAdds, Probe<V>::Int8MultiplyAdds, Probe<V>::Read}};
}

}  // namespace
}  // namespace edgelstm
