#include "kernels/lstm.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace edgelstm {
namespace {

// Best first.
const LstmKernels* const kKernels[] = {
#if defined(EDGELSTM_AMX)
    &kLstmAvx512Amx,
#endif
#if defined(EDGELSTM_AVX512)
    &kLstmAvx512Vnni,
    &kLstmAvx512,
#endif
#if defined(EDGELSTM_AVXVNNI)
    &kLstmAvxVnni,
#endif
#if defined(EDGELSTM_X86)
    &kLstmAvx2,
#endif
#if defined(EDGELSTM_I8MM)
    &kLstmNeonI8mm,
#endif
#if defined(EDGELSTM_ARM64)
    &kLstmNeonDot,
#endif
#if defined(EDGELSTM_ARM)
    &kLstmNeon,
#endif
    &kLstmGeneric,
    &kLstmScalar,
};
// By memcpy: weights may stand at any address.
template <class T>
T At(const EdgeLstmWeight& weight, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(weight.data) + index * int64_t{sizeof value},
              sizeof value);
  return value;
}

float FromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  uint32_t bits;
  float value;
  if (exponent == 0) {
    // Zero and subnormals: fraction * 2^-24.
    value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    return sign ? -value : value;
  }
  if (exponent == 31) {
    bits = sign | 0x7f800000u | (fraction << 13);
  } else {
    bits = sign | ((exponent + 112) << 23) | (fraction << 13);
  }
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

float WeightAt(const EdgeLstmWeight& weight, int64_t index) {
  if (weight.data == nullptr) return 0.0f;
  switch (weight.type) {
    case EDGELSTM_FLOAT16:
      return FromHalf(At<uint16_t>(weight, index));
    case EDGELSTM_INT16:
      return weight.scale * static_cast<float>(At<int16_t>(weight, index));
    case EDGELSTM_INT8:
      return weight.scale * static_cast<float>(At<int8_t>(weight, index));
    default:
      return At<float>(weight, index);
  }
}

bool AllHalf(const EdgeLstmLayer& layer) {
  if (layer.arithmetic != EDGELSTM_FLOAT) return false;
  for (int gate = Coupled(layer) ? 1 : 0; gate < 4; ++gate) {
    if (layer.kernel[gate].type != EDGELSTM_FLOAT16) return false;
    if (!layer.diagonal && layer.recurrent[gate].type != EDGELSTM_FLOAT16) return false;
  }
  return !HasProjection(layer) || layer.projection.type == EDGELSTM_FLOAT16;
}

uint16_t HalfAt(const EdgeLstmWeight& weight, int64_t index) {
  return weight.data == nullptr ? static_cast<uint16_t>(0) : At<uint16_t>(weight, index);
}

int8_t Int8At(const EdgeLstmWeight& weight, int64_t index) {
  return weight.data == nullptr ? static_cast<int8_t>(0) : At<int8_t>(weight, index);
}

int64_t Int64At(const EdgeLstmWeight& weight, int64_t index) {
  return weight.data == nullptr ? int64_t{0} : At<int64_t>(weight, index);
}

int32_t IntegerAt(const EdgeLstmWeight& weight, int64_t index) {
  if (weight.data == nullptr) return 0;
  switch (weight.type) {
    case EDGELSTM_INT8:
      return At<int8_t>(weight, index);
    case EDGELSTM_INT16:
      return At<int16_t>(weight, index);
    default:
      return At<int32_t>(weight, index);
  }
}

const LstmKernels* NextKernels(const LstmKernels* after) {
  bool passed = after == nullptr;
  for (const LstmKernels* kernels : kKernels) {
    if (passed && kernels->runs_on(DetectCpuFeatures())) return kernels;
    if (kernels == after) passed = true;
  }
  return nullptr;
}

const LstmKernels* ChooseKernels(const char* name) {
  if (name == nullptr) name = std::getenv("EDGELSTM_ISA");
  if (name == nullptr || *name == '\0') return NextKernels(nullptr);
  for (const LstmKernels* k = NextKernels(nullptr); k != nullptr; k = NextKernels(k)) {
    if (std::strcmp(k->name, name) == 0) return k;
  }
  return nullptr;
}

}  // namespace edgelstm
