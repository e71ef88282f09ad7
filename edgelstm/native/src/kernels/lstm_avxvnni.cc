#include "kernels/vec_avx2.h"

#include "kernels/kernels-inl.h"

#if !defined(__AVXVNNI__)
#error "this file needs the compiler's dot-product instructions"
#endif

namespace edgelstm {

const LstmKernels kLstmAvxVnni = KernelsOf<Avx2>("avxvnni", [](const CpuFeatures& cpu) {
  return cpu.avx2 && cpu.fma && cpu.f16c && cpu.avxvnni;
});

}  // namespace edgelstm
