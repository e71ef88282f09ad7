#include "kernels/dot-inl.h"
#include "kernels/vec_avx2.h"

#if !defined(__AVXVNNI__)
#error "this file needs the compiler's dot-product instructions"
#endif

namespace edgelstm {

const DotFunctions kDotAvxVnni = DotFunctionsOf<Avx2>();

}  // namespace edgelstm
