#include "kernels/vec_avx2.h"

#include "kernels/kernels-inl.h"

namespace edgelstm {

const LstmKernels kLstmAvx2 =
    KernelsOf<Avx2>("avx2", [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c; });

}  // namespace edgelstm
