#include "kernels/vec_neon.h"

#include "kernels/kernels-inl.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "this file needs the compiler's matrix-product instructions"
#endif

namespace edgelstm {

// Its rows alone take dot products.
const LstmKernels kLstmNeonI8mm = KernelsOf<Neon>("neoni8mm", [](const CpuFeatures& cpu) {
  return cpu.asimd && cpu.asimddp && cpu.i8mm;
});

}  // namespace edgelstm
