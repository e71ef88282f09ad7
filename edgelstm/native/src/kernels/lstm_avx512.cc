#include "kernels/vec_avx512.h"
#include "kernels/wide_avx512.h"

#include "kernels/kernels-inl.h"

#if defined(__AVX512VNNI__)
#error "this file must do without VNNI"
#endif

namespace edgelstm {

const LstmKernels kLstmAvx512 =
    KernelsOf<Avx512>("avx512", [](const CpuFeatures& cpu) { return cpu.avx512(); });

const LstmKernels kLstmAvx512Vnni = KernelsOf<Avx512, kDotAvx512Vnni>(
    "avx512vnni", [](const CpuFeatures& cpu) { return cpu.avx512() && cpu.avx512vnni; });

#if defined(EDGELSTM_AMX)
const LstmKernels kLstmAvx512Amx =
    KernelsOf<Avx512, kDotAvx512Amx>("avx512amx", [](const CpuFeatures& cpu) {
      return cpu.avx512() && cpu.avx512vnni && cpu.amxint8 && cpu.amxbf16 && MatrixTilesAllowed();
    });
#endif

}  // namespace edgelstm
