/* Streams of LSTM models in C, over any library with the TensorFlow Lite C API.
 *
 * The C interface of libedgelstm_stream. It is plain C, has no global state, and finds the
 * interpreter's library when a model is opened: nothing has to be linked but this.
 *
 * It takes files whose own signature has its states as inputs and outputs:
 *     edgelstm convert SOURCE -o OUT.tflite --state explicit      any number of frames per call
 *     edgelstm convert SOURCE -o OUT.tflite --step-only           one frame per call of the graph
 * States are paired by what the converter wrote into the file, never by order.
 *
 * A stream is for one thread at a time; forks of it may run on other threads.
 */
#ifndef EDGELSTM_STREAM_H_
#define EDGELSTM_STREAM_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

#if defined(_WIN32)
#define EDGELSTM_STREAM_API
#else
#define EDGELSTM_STREAM_API __attribute__((visibility("default")))
#endif

/* Raised whenever a function or a structure below changes its meaning or its layout; functions may
 * be added without that. A program compares it with edgelstm_stream_abi() once. */
#define EDGELSTM_STREAM_ABI 1
EDGELSTM_STREAM_API int edgelstm_stream_abi(void);

typedef struct EdgeLstmStream EdgeLstmStream;

/* Set every member; zero is the default of each. */
typedef struct EdgeLstmStreamOptions {
  /* Path of the interpreter's library, such as libtensorflowlite_c.so. NULL takes
   * $EDGELSTM_TFLITE, else what the process has loaded or linked, else the loader's search. */
  const char* interpreter;
  /* Path of an external delegate's library, such as libedgelstm_delegate.so; NULL for none. */
  const char* delegate;
  int32_t threads; /* 0: one */
} EdgeLstmStreamOptions;

/* An input, an output or a state. Strings and sizes live as long as the stream. */
typedef struct EdgeLstmTensor {
  const char* name;
  int32_t type;          /* TfLiteType: 1 float32, 2 int32, 3 uint8, 4 int64, 9 int8, 7 int16, ... */
  int32_t element_bytes; /* of one number */
  int32_t rank;
  const int32_t* sizes; /* rank of them; the time's is 1 where any number of frames may be given */
  int32_t time_axis;    /* -1 where it has no time */
  int64_t frame_bytes;  /* all numbers of one frame; of everything where it has no time */
} EdgeLstmTensor;

/* Opens a model with all states zero. `options` may be NULL. Returns NULL where it fails, and
 * writes why, NUL-terminated and cut at `error_bytes`, to `error`, which may be NULL. */
EDGELSTM_STREAM_API EdgeLstmStream* edgelstm_stream_open(
    const char* model, const EdgeLstmStreamOptions* options, char* error, size_t error_bytes);

/* Closes a stream; NULL is allowed. Forks stay open. */
EDGELSTM_STREAM_API void edgelstm_stream_close(EdgeLstmStream* stream);

/* A stream of its own that goes on from here; both share the model's memory. NULL where it fails,
 * edgelstm_stream_error(stream) says why. */
EDGELSTM_STREAM_API EdgeLstmStream* edgelstm_stream_fork(EdgeLstmStream* stream);

/* Why the last call on this stream failed; "" where none has. Never NULL, never freed; it lasts
 * until the next call on the stream. */
EDGELSTM_STREAM_API const char* edgelstm_stream_error(const EdgeLstmStream* stream);

/* What the model takes, gives and carries; NULL behind the last. States are not among the inputs
 * and outputs. */
EDGELSTM_STREAM_API const EdgeLstmTensor* edgelstm_stream_input(
    const EdgeLstmStream* stream, int32_t index);
EDGELSTM_STREAM_API const EdgeLstmTensor* edgelstm_stream_output(
    const EdgeLstmStream* stream, int32_t index);
EDGELSTM_STREAM_API const EdgeLstmTensor* edgelstm_stream_state(
    const EdgeLstmStream* stream, int32_t index);

/* The position of an input, an output or a state by name; -1 where there is none. */
EDGELSTM_STREAM_API int32_t edgelstm_stream_input_index(
    const EdgeLstmStream* stream, const char* name);
EDGELSTM_STREAM_API int32_t edgelstm_stream_output_index(
    const EdgeLstmStream* stream, const char* name);
EDGELSTM_STREAM_API int32_t edgelstm_stream_state_index(
    const EdgeLstmStream* stream, const char* name);

/* Runs the next frames.
 *
 * `inputs` and `outputs` hold one pointer per input and output in their order; each array holds
 * `frames` times the tensor's frame_bytes where it has a time axis (frames along that axis, in C
 * order of the whole), else frame_bytes. An output may be NULL: it is not wanted. Outputs without
 * a time axis are those after the last frame.
 *
 * Returns 0, or -1: the states are then as they were before, the outputs are undefined. Allocates
 * only where the number of frames differs from the last call's. */
EDGELSTM_STREAM_API int edgelstm_stream_sequence(
    EdgeLstmStream* stream, int64_t frames, const void* const* inputs, void* const* outputs);

/* edgelstm_stream_sequence of one frame. */
EDGELSTM_STREAM_API int edgelstm_stream_step(
    EdgeLstmStream* stream, const void* const* inputs, void* const* outputs);

/* Sets every state to zero. */
EDGELSTM_STREAM_API void edgelstm_stream_reset(EdgeLstmStream* stream);

/* Copies a state out, and in. `bytes` must be its frame_bytes. Returns 0, or -1. */
EDGELSTM_STREAM_API int edgelstm_stream_get_state(
    EdgeLstmStream* stream, int32_t index, void* content, size_t bytes);
EDGELSTM_STREAM_API int edgelstm_stream_set_state(
    EdgeLstmStream* stream, int32_t index, const void* content, size_t bytes);

#if defined(__cplusplus)
} /* extern "C" */
#endif

#endif /* EDGELSTM_STREAM_H_ */
