#include "kernels/vec_avx2.h"
#include "kernels/wide_avx2.h"

#include "kernels/kernels-inl.h"

#if defined(__AVXVNNI__)
#error "this file must do without AVX-VNNI"
#endif

namespace edgelstm {

const LstmKernels kLstmAvx2 =
    KernelsOf<Avx2>("avx2", [](const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c; });

#if defined(EDGELSTM_AVXVNNI)
const LstmKernels kLstmAvxVnni =
    KernelsOf<Avx2, kDotAvxVnni>("avxvnni", [](const CpuFeatures& cpu) {
      return cpu.avx2 && cpu.fma && cpu.f16c && cpu.avxvnni;
    });
#endif

}  // namespace edgelstm
