#include "kernels/vec_generic.h"

#include "kernels/lstm-inl.h"

namespace edgelstm {

const LstmKernels kLstmGeneric =
    KernelsOf<Generic>("generic", [](const CpuFeatures&) { return true; });

}  // namespace edgelstm
