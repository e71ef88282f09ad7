#include "kernels/vec_avx512.h"

#include "kernels/kernels-inl.h"

#if !defined(__AVX512VNNI__)
#error "this file needs the compiler's dot-product instructions"
#endif

namespace edgelstm {

const LstmKernels kLstmAvx512Vnni = KernelsOf<Avx512>(
    "avx512vnni", [](const CpuFeatures& cpu) { return cpu.avx512() && cpu.avx512vnni; });

}  // namespace edgelstm
