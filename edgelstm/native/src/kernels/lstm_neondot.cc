#include "kernels/vec_neon.h"

#include "kernels/kernels-inl.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "this file needs the compiler's dot-product instructions"
#endif

namespace edgelstm {

const LstmKernels kLstmNeonDot =
    KernelsOf<Neon>("neondot", [](const CpuFeatures& cpu) { return cpu.asimd && cpu.asimddp; });

}  // namespace edgelstm
