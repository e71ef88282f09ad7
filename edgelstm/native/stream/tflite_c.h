/* The functions of the TensorFlow Lite C API that a stream calls, found in a library at run time. */
#ifndef EDGELSTM_STREAM_TFLITE_C_H_
#define EDGELSTM_STREAM_TFLITE_C_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteDelegate TfLiteDelegate;

/* Names, results and arguments as in tensorflow/lite/c/c_api.h; TfLiteStatus and TfLiteType are
 * int. */
#define EDGELSTM_TFLITE_FUNCTIONS(F)                                                              \
  F(TfLiteModel*, ModelCreateFromFile, (const char*))                                             \
  F(void, ModelDelete, (TfLiteModel*))                                                            \
  F(TfLiteInterpreterOptions*, InterpreterOptionsCreate, (void))                                  \
  F(void, InterpreterOptionsDelete, (TfLiteInterpreterOptions*))                                  \
  F(void, InterpreterOptionsSetNumThreads, (TfLiteInterpreterOptions*, int32_t))                  \
  F(void, InterpreterOptionsAddDelegate, (TfLiteInterpreterOptions*, TfLiteDelegate*))            \
  F(void, InterpreterOptionsSetErrorReporter,                                                     \
    (TfLiteInterpreterOptions*, void (*)(void*, const char*, va_list), void*))                    \
  F(TfLiteInterpreter*, InterpreterCreate, (const TfLiteModel*, const TfLiteInterpreterOptions*)) \
  F(void, InterpreterDelete, (TfLiteInterpreter*))                                                \
  F(int32_t, InterpreterGetInputTensorCount, (const TfLiteInterpreter*))                          \
  F(int32_t, InterpreterGetOutputTensorCount, (const TfLiteInterpreter*))                         \
  F(TfLiteTensor*, InterpreterGetInputTensor, (const TfLiteInterpreter*, int32_t))                \
  F(const TfLiteTensor*, InterpreterGetOutputTensor, (const TfLiteInterpreter*, int32_t))         \
  F(int, InterpreterResizeInputTensor, (TfLiteInterpreter*, int32_t, const int*, int32_t))        \
  F(int, InterpreterAllocateTensors, (TfLiteInterpreter*))                                        \
  F(int, InterpreterInvoke, (TfLiteInterpreter*))                                                 \
  F(int, TensorType, (const TfLiteTensor*))                                                       \
  F(int32_t, TensorNumDims, (const TfLiteTensor*))                                                \
  F(int32_t, TensorDim, (const TfLiteTensor*, int32_t))                                           \
  F(size_t, TensorByteSize, (const TfLiteTensor*))                                                \
  F(void*, TensorData, (const TfLiteTensor*))

typedef struct TfLiteC {
  void* library;
#define EDGELSTM_MEMBER(result, name, arguments) result(*name) arguments;
  EDGELSTM_TFLITE_FUNCTIONS(EDGELSTM_MEMBER)
#undef EDGELSTM_MEMBER
} TfLiteC;

/* The entry points of an external delegate's library. */
typedef struct DelegateLibrary {
  void* library;
  TfLiteDelegate* (*create)(
      const char* const* keys, const char* const* values, size_t count, void (*report)(const char*));
  void (*destroy)(TfLiteDelegate*);
} DelegateLibrary;

/* Each returns 0, or -1 with a message in `error`. `path` NULL: see EdgeLstmStreamOptions. */
int edgelstm_tflite_find(const char* path, TfLiteC* api, char* error, size_t error_bytes);
int edgelstm_delegate_find(
    const char* path, DelegateLibrary* delegate, char* error, size_t error_bytes);
void edgelstm_library_close(void* library);

#endif /* EDGELSTM_STREAM_TFLITE_C_H_ */
