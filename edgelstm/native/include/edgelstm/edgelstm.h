// The C interface of libedgelstm_delegate.
#pragma once

#include <stddef.h>

#if defined(__cplusplus)
#define EDGELSTM_API extern "C" __attribute__((visibility("default")))
#else
#define EDGELSTM_API __attribute__((visibility("default")))
#endif

// Raised whenever a function below changes its meaning or its signature.
#define EDGELSTM_ABI_VERSION 1

// The EDGELSTM_ABI_VERSION that the library was built with.
EDGELSTM_API int edgelstm_abi_version(void);

// The package version that the library was built from, e.g. "0.1.0". Never freed.
EDGELSTM_API const char* edgelstm_version(void);

// Writes the instruction sets of this CPU that kernels may use, comma-separated, e.g.
// "sse4.2,avx2,fma", NUL-terminated and cut at `size` bytes. Returns the length of the whole list
// without the NUL, so that a result >= size means that it was cut. `buffer` may be NULL when
// `size` is 0.
EDGELSTM_API size_t edgelstm_cpu_features(char* buffer, size_t size);
