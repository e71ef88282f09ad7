/* The functions of the TensorFlow Lite C API that a stream calls, found in a library at run time. */
#ifndef EDGELSTM_STREAM_TFLITE_C_H_
#define EDGELSTM_STREAM_TFLITE_C_H_

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "tflite_functions.h"

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteDelegate TfLiteDelegate;
typedef int TfLiteStatus; /* an enumeration; 0 is success */

/* What a stream alone needs. */
#define EDGELSTM_STREAM_FUNCTIONS(F) F(void, ModelDelete, (TfLiteModel*))

typedef struct TfLiteC {
  void* library;
#define EDGELSTM_MEMBER(result, name, arguments) result(*name) arguments;
  EDGELSTM_TFLITE_FUNCTIONS(EDGELSTM_MEMBER)
  EDGELSTM_STREAM_FUNCTIONS(EDGELSTM_MEMBER)
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
