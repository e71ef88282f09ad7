#include "edgelstm/stream.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract.h"
#include "tflite_c.h"

#define MAX_RANK 8
#define ERROR_BYTES 512

static const int32_t kFloat32 = 1; /* TfLiteType */

/* What a stream and its forks share; nothing of it changes after it was made. */
typedef struct Shared {
  atomic_int owners;
  TfLiteC api;
  DelegateLibrary delegate;
  TfLiteModel* model;
  Contract contract;
  int32_t threads;
} Shared;

/* A port of the model with its memory at the sizes of the last call. */
typedef struct Slot {
  EdgeLstmTensor info;
  const Port* port;
  int32_t sizes[MAX_RANK]; /* of one frame, where the time is open */
} Slot;

typedef struct State {
  EdgeLstmTensor info;
  const Port* input;
  const Port* output;
  int32_t sizes[MAX_RANK];
  unsigned char* held; /* now */
  unsigned char* next; /* being computed */
} State;

struct EdgeLstmStream {
  Shared* shared;
  TfLiteDelegate* delegate;
  TfLiteInterpreter* interpreter;
  Slot* inputs;
  Slot* outputs;
  State* states;
  int32_t input_count, output_count, state_count;
  int64_t frames;   /* per call, as allocated; 0: not allocated */
  int64_t per_call; /* that the file fixes; 0: any */
  char error[ERROR_BYTES];
};

int edgelstm_stream_abi(void) { return EDGELSTM_STREAM_ABI; }

static int Fail(EdgeLstmStream* stream, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(stream->error, sizeof stream->error, format, arguments);
  va_end(arguments);
  return -1;
}

/* The interpreter's own words, kept for whoever reports the failure. */
static void Report(void* stream, const char* format, va_list arguments) {
  EdgeLstmStream* to = stream;
  vsnprintf(to->error, sizeof to->error, format, arguments);
}

/* --- what is shared --- */

static void Release(Shared* shared) {
  if (shared == NULL || atomic_fetch_sub(&shared->owners, 1) != 1) return;
  if (shared->model != NULL) shared->api.ModelDelete(shared->model);
  edgelstm_contract_free(&shared->contract);
  edgelstm_library_close(shared->delegate.library);
  edgelstm_library_close(shared->api.library);
  free(shared);
}

static Shared* Share(
    const char* path, const EdgeLstmStreamOptions* options, char* error, size_t error_bytes) {
  static const EdgeLstmStreamOptions kDefaults = {NULL, NULL, 0};
  if (options == NULL) options = &kDefaults;
  if (options->threads < 0) {
    snprintf(error, error_bytes, "%d threads were asked for: use 1 or more", (int)options->threads);
    return NULL;
  }
  Shared* shared = calloc(1, sizeof *shared);
  if (shared == NULL) {
    snprintf(error, error_bytes, "memory is short");
    return NULL;
  }
  atomic_init(&shared->owners, 1);
  shared->threads = options->threads == 0 ? 1 : options->threads;
  if (edgelstm_contract_read(path, &shared->contract, error, error_bytes) != 0 ||
      edgelstm_tflite_find(options->interpreter, &shared->api, error, error_bytes) != 0 ||
      (options->delegate != NULL &&
       edgelstm_delegate_find(options->delegate, &shared->delegate, error, error_bytes) != 0)) {
    Release(shared);
    return NULL;
  }
  shared->model = shared->api.ModelCreateFromFile(path);
  if (shared->model == NULL) {
    snprintf(error, error_bytes, "%s: the interpreter cannot read the model", path);
    Release(shared);
    return NULL;
  }
  return shared;
}

/* --- tensors --- */

static const TfLiteTensor* TensorOf(const EdgeLstmStream* stream, const Port* port, int output) {
  const TfLiteC* api = &stream->shared->api;
  return output ? api->InterpreterGetOutputTensor(stream->interpreter, port->position)
                : api->InterpreterGetInputTensor(stream->interpreter, port->position);
}

/* Size in bytes of one number of a TfLiteType; 0 where a stream cannot carry it. */
static int32_t ElementBytes(int type) {
  static const int32_t kBytes[] = {0, 4, 4, 1, 8, 0, 1, 2, 8, 1, 2, 8, 16, 8, 0, 0, 4, 2};
  return type >= 0 && (size_t)type < sizeof kBytes / sizeof *kBytes ? kBytes[type] : 0;
}

/* What a tensor holds at the sizes allocated. */
static int Describe(
    EdgeLstmStream* stream, const Port* port, int output, int32_t* sizes, EdgeLstmTensor* info) {
  const TfLiteC* api = &stream->shared->api;
  const TfLiteTensor* tensor = TensorOf(stream, port, output);
  const int32_t rank = tensor == NULL ? -1 : api->TensorNumDims(tensor);
  if (rank < 0 || rank > MAX_RANK || port->time_axis >= rank) {
    return Fail(stream, "the tensor %s has %d axes", port->name, (int)rank);
  }
  int64_t frame = ElementBytes(api->TensorType(tensor));
  if (frame == 0) {
    return Fail(stream, "the tensor %s is of type %d, which a stream cannot carry", port->name,
                api->TensorType(tensor));
  }
  for (int32_t axis = 0; axis < rank; ++axis) {
    sizes[axis] = api->TensorDim(tensor, axis);
    if (sizes[axis] < 1 || frame > INT64_MAX / sizes[axis]) {
      return Fail(stream, "the tensor %s has the size %d", port->name, (int)sizes[axis]);
    }
    if (axis != port->time_axis) frame *= sizes[axis];
  }
  *info = (EdgeLstmTensor){
      port->name, api->TensorType(tensor), ElementBytes(api->TensorType(tensor)), rank, sizes,
      port->time_axis, frame};
  return 0;
}

/* Allocates for `frames` frames per call. */
static int Allocate(EdgeLstmStream* stream, int64_t frames) {
  const TfLiteC* api = &stream->shared->api;
  stream->frames = 0;
  stream->error[0] = '\0';
  for (int32_t i = 0; i < stream->input_count; ++i) {
    Slot* slot = &stream->inputs[i];
    if (!slot->port->open_time) continue;
    int sizes[MAX_RANK];
    for (int32_t axis = 0; axis < slot->info.rank; ++axis) sizes[axis] = slot->sizes[axis];
    sizes[slot->port->time_axis] = (int)frames;
    if (api->InterpreterResizeInputTensor(
            stream->interpreter, slot->port->position, sizes, slot->info.rank) != 0) {
      return stream->error[0] ? -1 : Fail(stream, "the interpreter does not take %lld frames",
                                          (long long)frames);
    }
  }
  if (api->InterpreterAllocateTensors(stream->interpreter) != 0) {
    return stream->error[0] ? -1 : Fail(stream, "the interpreter cannot prepare the model");
  }
  stream->frames = frames;
  return 0;
}

/* --- opening --- */

static void* Zeroed(int32_t count, size_t bytes) {
  return calloc(count > 0 ? (size_t)count : 1, bytes);
}

static int DescribeAll(EdgeLstmStream* stream) {
  const Contract* contract = &stream->shared->contract;
  const TfLiteC* api = &stream->shared->api;
  const int32_t given = api->InterpreterGetInputTensorCount(stream->interpreter);
  const int32_t made = api->InterpreterGetOutputTensorCount(stream->interpreter);
  for (int output = 0; output < 2; ++output) {
    const Port* ports = output ? contract->outputs : contract->inputs;
    const int32_t count = output ? contract->output_count : contract->input_count;
    for (int32_t i = 0; i < count; ++i) {
      if (ports[i].position >= (output ? made : given)) {
        return Fail(stream, "the model has no tensor for %s", ports[i].name);
      }
      if (ports[i].is_state) continue;
      Slot* slot = output ? &stream->outputs[stream->output_count++]
                          : &stream->inputs[stream->input_count++];
      slot->port = &ports[i];
      if (Describe(stream, slot->port, output, slot->sizes, &slot->info) != 0) return -1;
      if (output || slot->port->time_axis < 0 || slot->port->open_time) continue;
      const int64_t fixed = slot->sizes[slot->port->time_axis];
      if (stream->per_call != 0 && stream->per_call != fixed) {
        return Fail(stream, "inputs take different numbers of frames: %lld and %lld",
                    (long long)stream->per_call, (long long)fixed);
      }
      stream->per_call = fixed;
    }
  }
  for (int32_t i = 0; i < contract->pair_count; ++i) {
    State* state = &stream->states[i];
    int32_t sizes[MAX_RANK];
    EdgeLstmTensor after;
    state->input = &contract->inputs[contract->pairs[i].input];
    state->output = &contract->outputs[contract->pairs[i].output];
    if (Describe(stream, state->input, 0, state->sizes, &state->info) != 0 ||
        Describe(stream, state->output, 1, sizes, &after) != 0) {
      return -1;
    }
    if (state->info.type != kFloat32) {
      return Fail(stream, "the state %s is of type %d, not float32", contract->pairs[i].name,
                  (int)state->info.type);
    }
    if (state->info.frame_bytes != after.frame_bytes || state->info.type != after.type) {
      return Fail(stream, "the state %s goes in and comes out in unlike sizes",
                  contract->pairs[i].name);
    }
    state->info.name = contract->pairs[i].name;
    state->held = calloc(1, (size_t)state->info.frame_bytes);
    state->next = calloc(1, (size_t)state->info.frame_bytes);
    ++stream->state_count;
    if (state->held == NULL || state->next == NULL) return Fail(stream, "memory is short");
  }
  return 0;
}

/* A stream of `shared`, whose owners it joins; on failure the message is in `error`. */
static EdgeLstmStream* Make(Shared* shared, char* error, size_t error_bytes) {
  EdgeLstmStream* stream = calloc(1, sizeof *stream);
  if (stream == NULL) {
    snprintf(error, error_bytes, "memory is short");
    return NULL;
  }
  atomic_fetch_add(&shared->owners, 1);
  stream->shared = shared;
  const TfLiteC* api = &shared->api;
  TfLiteInterpreterOptions* options = api->InterpreterOptionsCreate();
  stream->inputs = Zeroed(shared->contract.input_count, sizeof(Slot));
  stream->outputs = Zeroed(shared->contract.output_count, sizeof(Slot));
  stream->states = Zeroed(shared->contract.pair_count, sizeof(State));
  int failed = options == NULL || !stream->inputs || !stream->outputs || !stream->states;
  if (!failed) {
    api->InterpreterOptionsSetNumThreads(options, shared->threads);
    api->InterpreterOptionsSetErrorReporter(options, Report, stream);
    if (shared->delegate.create != NULL) {
      stream->delegate = shared->delegate.create(NULL, NULL, 0, NULL);
      failed = stream->delegate == NULL;
      if (failed) Fail(stream, "the delegate refuses to be made");
      if (!failed) api->InterpreterOptionsAddDelegate(options, stream->delegate);
    }
  }
  if (!failed) {
    stream->interpreter = api->InterpreterCreate(shared->model, options);
    failed = stream->interpreter == NULL || Allocate(stream, 0) != 0 || DescribeAll(stream) != 0;
    stream->frames = 0; /* allocated at the file's own sizes */
  }
  if (options != NULL) api->InterpreterOptionsDelete(options);
  if (!failed) return stream;
  snprintf(error, error_bytes, "%s",
           stream->error[0] ? stream->error : "the interpreter refuses the model");
  edgelstm_stream_close(stream);
  return NULL;
}

EdgeLstmStream* edgelstm_stream_open(
    const char* model, const EdgeLstmStreamOptions* options, char* error, size_t error_bytes) {
  char own[ERROR_BYTES] = "no model was given";
  Shared* shared = model == NULL ? NULL : Share(model, options, own, sizeof own);
  EdgeLstmStream* stream = shared == NULL ? NULL : Make(shared, own, sizeof own);
  Release(shared);
  if (stream == NULL && error != NULL && error_bytes > 0) {
    snprintf(error, error_bytes, "%s", own);
  }
  return stream;
}

void edgelstm_stream_close(EdgeLstmStream* stream) {
  if (stream == NULL) return;
  Shared* shared = stream->shared;
  if (stream->interpreter != NULL) shared->api.InterpreterDelete(stream->interpreter);
  if (stream->delegate != NULL) shared->delegate.destroy(stream->delegate);
  for (int32_t i = 0; i < stream->state_count; ++i) {
    free(stream->states[i].held);
    free(stream->states[i].next);
  }
  free(stream->inputs);
  free(stream->outputs);
  free(stream->states);
  free(stream);
  Release(shared);
}

EdgeLstmStream* edgelstm_stream_fork(EdgeLstmStream* stream) {
  EdgeLstmStream* other = Make(stream->shared, stream->error, sizeof stream->error);
  for (int32_t i = 0; other != NULL && i < stream->state_count; ++i) {
    memcpy(other->states[i].held, stream->states[i].held,
           (size_t)stream->states[i].info.frame_bytes);
  }
  return other;
}

const char* edgelstm_stream_error(const EdgeLstmStream* stream) { return stream->error; }

/* --- what there is --- */

const EdgeLstmTensor* edgelstm_stream_input(const EdgeLstmStream* stream, int32_t index) {
  return index < 0 || index >= stream->input_count ? NULL : &stream->inputs[index].info;
}

const EdgeLstmTensor* edgelstm_stream_output(const EdgeLstmStream* stream, int32_t index) {
  return index < 0 || index >= stream->output_count ? NULL : &stream->outputs[index].info;
}

const EdgeLstmTensor* edgelstm_stream_state(const EdgeLstmStream* stream, int32_t index) {
  return index < 0 || index >= stream->state_count ? NULL : &stream->states[index].info;
}

typedef const EdgeLstmTensor* (*Listed)(const EdgeLstmStream*, int32_t);

static int32_t IndexOf(const EdgeLstmStream* stream, Listed listed, const char* name) {
  const EdgeLstmTensor* tensor;
  for (int32_t i = 0; (tensor = listed(stream, i)) != NULL; ++i) {
    if (strcmp(tensor->name, name) == 0) return i;
  }
  return -1;
}

int32_t edgelstm_stream_input_index(const EdgeLstmStream* stream, const char* name) {
  return IndexOf(stream, edgelstm_stream_input, name);
}

int32_t edgelstm_stream_output_index(const EdgeLstmStream* stream, const char* name) {
  return IndexOf(stream, edgelstm_stream_output, name);
}

int32_t edgelstm_stream_state_index(const EdgeLstmStream* stream, const char* name) {
  return IndexOf(stream, edgelstm_stream_state, name);
}

/* --- running --- */

enum Way { kIn, kOut };

/* Copies `count` frames from frame `start` of a caller's array of `frames` to or from a tensor. */
static int Move(
    EdgeLstmStream* stream, const Slot* slot, enum Way way, unsigned char* array, int64_t frames,
    int64_t start, int64_t count) {
  const TfLiteC* api = &stream->shared->api;
  const TfLiteTensor* tensor = TensorOf(stream, slot->port, way == kOut);
  unsigned char* own = tensor == NULL ? NULL : api->TensorData(tensor);
  const int32_t axis = slot->info.time_axis;
  int64_t inner = slot->info.element_bytes, outer = 1;
  for (int32_t i = 0; i < slot->info.rank; ++i) {
    if (i > axis) inner *= slot->sizes[i];
    if (i < axis) outer *= slot->sizes[i];
  }
  if (axis < 0) {
    frames = count = 1;
    start = 0;
  }
  if (own == NULL || api->TensorByteSize(tensor) != (size_t)(outer * count * inner)) {
    return Fail(stream, "the tensor %s has other sizes than the file says", slot->info.name);
  }
  for (int64_t row = 0; row < outer; ++row) {
    unsigned char* theirs = array + (row * frames + start) * inner;
    unsigned char* ours = own + row * count * inner;
    memcpy(way == kIn ? ours : theirs, way == kIn ? theirs : ours, (size_t)(count * inner));
  }
  return 0;
}

static int MoveState(EdgeLstmStream* stream, const State* state, enum Way way) {
  const TfLiteC* api = &stream->shared->api;
  const TfLiteTensor* tensor =
      TensorOf(stream, way == kIn ? state->input : state->output, way == kOut);
  void* own = tensor == NULL ? NULL : api->TensorData(tensor);
  if (own == NULL || api->TensorByteSize(tensor) != (size_t)state->info.frame_bytes) {
    return Fail(stream, "the state %s has other sizes than the file says", state->info.name);
  }
  memcpy(way == kIn ? own : state->next, way == kIn ? state->next : own,
         (size_t)state->info.frame_bytes);
  return 0;
}

/* One call of the interpreter; states go from `next` to `next`. */
static int Call(
    EdgeLstmStream* stream, int64_t frames, int64_t start, int64_t count, const void* const* inputs,
    void* const* outputs) {
  const int last = start + count == frames;
  for (int32_t i = 0; i < stream->input_count; ++i) {
    /* Only read from: Move copies either way. */
    if (Move(stream, &stream->inputs[i], kIn, (unsigned char*)inputs[i], frames, start, count)) {
      return -1;
    }
  }
  for (int32_t i = 0; i < stream->state_count; ++i) {
    if (MoveState(stream, &stream->states[i], kIn) != 0) return -1;
  }
  if (stream->shared->api.InterpreterInvoke(stream->interpreter) != 0) {
    return stream->error[0] ? -1 : Fail(stream, "the interpreter fails");
  }
  for (int32_t i = 0; i < stream->state_count; ++i) {
    if (MoveState(stream, &stream->states[i], kOut) != 0) return -1;
  }
  for (int32_t i = 0; i < stream->output_count; ++i) {
    const Slot* slot = &stream->outputs[i];
    if (outputs[i] == NULL || (slot->info.time_axis < 0 && !last)) continue;
    if (Move(stream, slot, kOut, outputs[i], frames, start, count) != 0) return -1;
  }
  return 0;
}

int edgelstm_stream_sequence(
    EdgeLstmStream* stream, int64_t frames, const void* const* inputs, void* const* outputs) {
  stream->error[0] = '\0';
  const int64_t per_call = stream->per_call == 0 ? frames : stream->per_call;
  if (frames < 1 || frames % per_call != 0 || per_call > INT32_MAX) {
    return Fail(stream, "%lld frames were given, the model takes multiples of %lld",
                (long long)frames, (long long)(stream->per_call == 0 ? 1 : per_call));
  }
  if (inputs == NULL || outputs == NULL) return Fail(stream, "no arrays were given");
  for (int32_t i = 0; i < stream->input_count; ++i) {
    if (inputs[i] == NULL) return Fail(stream, "input %s is NULL", stream->inputs[i].info.name);
  }
  if (stream->frames != per_call && Allocate(stream, per_call) != 0) return -1;
  for (int32_t i = 0; i < stream->state_count; ++i) {
    State* state = &stream->states[i];
    memcpy(state->next, state->held, (size_t)state->info.frame_bytes);
  }
  for (int64_t start = 0; start < frames; start += per_call) {
    if (Call(stream, frames, start, per_call, inputs, outputs) != 0) return -1;
  }
  for (int32_t i = 0; i < stream->state_count; ++i) {
    State* state = &stream->states[i];
    unsigned char* old = state->held;
    state->held = state->next;
    state->next = old;
  }
  return 0;
}

int edgelstm_stream_step(
    EdgeLstmStream* stream, const void* const* inputs, void* const* outputs) {
  return edgelstm_stream_sequence(stream, 1, inputs, outputs);
}

/* --- states --- */

void edgelstm_stream_reset(EdgeLstmStream* stream) {
  for (int32_t i = 0; i < stream->state_count; ++i) {
    memset(stream->states[i].held, 0, (size_t)stream->states[i].info.frame_bytes);
  }
}

static State* StateAt(EdgeLstmStream* stream, int32_t index, const void* content, size_t bytes) {
  stream->error[0] = '\0';
  if (index < 0 || index >= stream->state_count || content == NULL) {
    Fail(stream, "there is no state %d, or no memory was given for it", (int)index);
    return NULL;
  }
  State* state = &stream->states[index];
  if (bytes == (size_t)state->info.frame_bytes) return state;
  Fail(stream, "the state %s has %lld bytes, not %llu", state->info.name,
       (long long)state->info.frame_bytes, (unsigned long long)bytes);
  return NULL;
}

int edgelstm_stream_get_state(
    EdgeLstmStream* stream, int32_t index, void* content, size_t bytes) {
  const State* state = StateAt(stream, index, content, bytes);
  if (state == NULL) return -1;
  memcpy(content, state->held, bytes);
  return 0;
}

int edgelstm_stream_set_state(
    EdgeLstmStream* stream, int32_t index, const void* content, size_t bytes) {
  State* state = StateAt(stream, index, content, bytes);
  if (state == NULL) return -1;
  memcpy(state->held, content, bytes);
  return 0;
}
