// A library with the TensorFlow Lite C API, opened at run time, and delegates of other libraries.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "delegate/tflite_abi.h"
#include "stream/tflite_functions.h"

extern "C" {
struct TfLiteModel;
struct TfLiteInterpreter;
struct TfLiteInterpreterOptions;

// tensorflow/lite/delegates/nnapi/nnapi_delegate_c_api.h.
struct TfLiteNnapiDelegateOptions {
  int execution_preference;
  const char* accelerator_name;
  const char* cache_dir;
  const char* model_token;
  int disallow_nnapi_cpu;
  int allow_fp16;
  int max_number_delegated_partitions;
  void* nnapi_support_library_handle;
};
}

// What the runner alone needs.
#define EDGELSTM_RUNNER_FUNCTIONS(F) \
  F(const char*, Version, (void))    \
  F(const char*, TensorName, (const TfLiteTensor*))

// Not in every library.
#define EDGELSTM_RUNNER_OPTIONAL_FUNCTIONS(F)                                                    \
  F(TfLiteStatus, InterpreterResetVariableTensors, (TfLiteInterpreter*))                         \
  F(TfLiteInterpreter*, InterpreterCreateWithSelectedOps,                                        \
    (const TfLiteModel*, const TfLiteInterpreterOptions*))                                       \
  F(void, InterpreterOptionsSetOpResolver,                                                       \
    (TfLiteInterpreterOptions*, const TfLiteRegistration* (*)(void*, int, int),                  \
     const TfLiteRegistration* (*)(void*, const char*, int), void*))                             \
  F(TfLiteDelegate*, NnapiDelegateCreate, (const TfLiteNnapiDelegateOptions*))

struct InterpreterLibrary {
#define EDGELSTM_MEMBER(result, name, arguments) result(*name) arguments = nullptr;
  EDGELSTM_TFLITE_FUNCTIONS(EDGELSTM_MEMBER)
  EDGELSTM_RUNNER_FUNCTIONS(EDGELSTM_MEMBER)
  EDGELSTM_RUNNER_OPTIONAL_FUNCTIONS(EDGELSTM_MEMBER)
#undef EDGELSTM_MEMBER

  // Raises AgentError of kind `library` where it does not load or is no such library.
  static InterpreterLibrary Open(const std::string& path);
};

// Raise AgentError of kind `delegate`.
TfLiteDelegate* ExternalDelegate(const std::string& path,
                                 const std::map<std::string, std::string>& options, void** library);
TfLiteDelegate* NnapiDelegate(const InterpreterLibrary& api,
                              const std::map<std::string, std::string>& options);
