/* The functions of the TensorFlow Lite C API that every caller here needs: names, results and
 * arguments as in tensorflow/lite/c/c_api.h. TfLiteType is int; whoever includes this declares the
 * other types. */
#ifndef EDGELSTM_STREAM_TFLITE_FUNCTIONS_H_
#define EDGELSTM_STREAM_TFLITE_FUNCTIONS_H_

#define EDGELSTM_TFLITE_FUNCTIONS(F)                                                              \
  F(TfLiteModel*, ModelCreateFromFile, (const char*))                                             \
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
  F(TfLiteStatus, InterpreterResizeInputTensor,                                                   \
    (TfLiteInterpreter*, int32_t, const int*, int32_t))                                           \
  F(TfLiteStatus, InterpreterAllocateTensors, (TfLiteInterpreter*))                               \
  F(TfLiteStatus, InterpreterInvoke, (TfLiteInterpreter*))                                        \
  F(int, TensorType, (const TfLiteTensor*))                                                       \
  F(int32_t, TensorNumDims, (const TfLiteTensor*))                                                \
  F(int32_t, TensorDim, (const TfLiteTensor*, int32_t))                                           \
  F(size_t, TensorByteSize, (const TfLiteTensor*))                                                \
  F(void*, TensorData, (const TfLiteTensor*))

#endif /* EDGELSTM_STREAM_TFLITE_FUNCTIONS_H_ */
