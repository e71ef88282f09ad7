#include "kernels/dot-inl.h"
#include "kernels/integer_stream-inl.h"
#include "kernels/vec_avx512.h"

#if !defined(__AVX512VNNI__)
#error "this file needs the compiler's dot-product instructions"
#endif

namespace edgelstm {

const DotFunctions kDotAvx512Vnni =
    DotFunctionsOf<Avx512>(IntegerStream<Avx512>::Run, IntegerStream<Avx512>::ProbeUnits);
#if defined(EDGELSTM_AMX)
const DotFunctions kDotAvx512Amx =
    DotFunctionsOf<Avx512>(IntegerStream<Avx512>::Run, IntegerStream<Avx512>::ProbeUnits, &kTilesAmx);
#endif

}  // namespace edgelstm
