#include "kernels/vec_generic.h"

#include "kernels/kernels-inl.h"

namespace edgelstm {

const LstmKernels kLstmGeneric =
    KernelsOf<Generic>("generic", [](const CpuFeatures&) { return true; });

}  // namespace edgelstm
