#include "kernels/vec_neon.h"

#include "kernels/kernels-inl.h"

namespace edgelstm {

// 64-bit CPUs name the feature otherwise.
const LstmKernels kLstmNeon = KernelsOf<Neon>(
    "neon", [](const CpuFeatures& cpu) { return cpu.asimd || (cpu.neon && cpu.vfpv4); });

}  // namespace edgelstm
