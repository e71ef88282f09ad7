// The C interface of libedgelstm_delegate.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__cplusplus)
#define EDGELSTM_API extern "C" __attribute__((visibility("default")))
#else
#define EDGELSTM_API __attribute__((visibility("default")))
#endif

// Raised whenever a function below changes its meaning or its signature.
#define EDGELSTM_ABI_VERSION 3

// The EDGELSTM_ABI_VERSION that the library was built with.
EDGELSTM_API int edgelstm_abi_version(void);

// The package version that the library was built from, e.g. "0.1.0". Never freed.
EDGELSTM_API const char* edgelstm_version(void);

// Writes the instruction sets of this CPU that kernels may use, comma-separated, e.g.
// "sse4.2,avx2,fma", NUL-terminated and cut at `size` bytes. Returns the length of the whole list
// without the NUL, so that a result >= size means that it was cut. `buffer` may be NULL when
// `size` is 0.
EDGELSTM_API size_t edgelstm_cpu_features(char* buffer, size_t size);

// Writes the kernels that run on this CPU, best first, e.g. "avx2,generic,scalar", as
// `edgelstm_cpu_features` does.
EDGELSTM_API size_t edgelstm_kernels(char* buffer, size_t size);

// The kernels that are used: those that `name` or, if it is NULL, the environment variable
// EDGELSTM_ISA asks for, else the best. NULL if what is asked for does not exist or does not run
// on this CPU. Never freed.
EDGELSTM_API const char* edgelstm_kernels_chosen(const char* name);

// --- One LSTM layer, without any interpreter ---

// How a weight is stored. `scale` counts for integers only: value = scale * stored.
enum EdgeLstmType {
  EDGELSTM_FLOAT32 = 0,
  EDGELSTM_FLOAT16 = 1,
  EDGELSTM_INT16 = 2,
  EDGELSTM_INT8 = 3,
  EDGELSTM_INT32 = 4,
  EDGELSTM_INT64 = 5
};

enum EdgeLstmActivation {
  EDGELSTM_RELU = 0,
  EDGELSTM_RELU_N1_TO_1 = 1,
  EDGELSTM_RELU6 = 2,
  EDGELSTM_TANH = 3
};

// EDGELSTM_HYBRID multiplies int8 weights with vectors that are quantized symmetrically to int8,
// one scale per vector; all multiplied matrices must then be int8 within [-127, 127].
// EDGELSTM_HYBRID_ASYMMETRIC gives each vector a zero point as well.
//
// EDGELSTM_INTEGER is TFLite's "8x8_16", bit for bit: input, output and h are int8, c is int16 and
// has a scale of 2^-15 to 2^-9, matrices are int8 within [-127, 127], peephole and layer norm int16,
// biases int32. The activation is tanh whatever is asked for. `input_quantization` and its
// neighbours count for it alone. With a peephole O must be U or the equations are followed where
// the stock kernel reads its vectors with a wrong length.
//
// EDGELSTM_INTEGER_WIDE is TFLite Micro's "16x8", bit for bit: input, output, h and c are int16,
// matrices int8 within [-127, 127], biases int64; it has neither peephole, projection, layer norm nor
// coupled gates. The output has the scale of h, and c one of 2^-15 to 2^-9.
enum EdgeLstmArithmetic {
  EDGELSTM_FLOAT = 0,
  EDGELSTM_HYBRID = 1,
  EDGELSTM_INTEGER = 2,
  EDGELSTM_HYBRID_ASYMMETRIC = 3,
  EDGELSTM_INTEGER_WIDE = 4
};

typedef struct EdgeLstmWeight {
  const void* data;  // row-major, at any address; NULL if the layer has no such weight
  int32_t type;      // EdgeLstmType
  float scale;
} EdgeLstmWeight;

// real = scale * (stored - zero_point)
typedef struct EdgeLstmQuantization {
  float scale;
  int32_t zero_point;
} EdgeLstmQuantization;

// F inputs, U units, O outputs; O = U without projection. Gates stand in the order input, forget,
// cell, output. Without an input gate (coupled) the first of every four is NULL. Weights of
// peephole, layer norm and bias that are NULL otherwise count as not there, all four at once; the
// peephole of the cell gate is always NULL.
typedef struct EdgeLstmLayer {
  int32_t inputs, units, outputs;
  int32_t activation;  // EdgeLstmActivation, of the cell gate and of c
  int32_t arithmetic;  // EdgeLstmArithmetic
  int32_t diagonal;    // 1: recurrent weights are [U], multiplied element by element
  float cell_clip;     // 0: none
  float projection_clip;
  EdgeLstmWeight kernel[4];      // [U, F]
  EdgeLstmWeight recurrent[4];   // [U, O], or [U] when diagonal
  EdgeLstmWeight peephole[4];    // [U]
  EdgeLstmWeight bias[4];        // [U]
  EdgeLstmWeight layer_norm[4];  // [U]
  EdgeLstmWeight projection;     // [O, U]
  EdgeLstmWeight projection_bias;  // [O]
  EdgeLstmQuantization input_quantization, output_quantization, h_quantization, c_quantization;
  EdgeLstmQuantization hidden_quantization;  // of o tanh(c), before a projection
  float gate_scale[4];                       // of the gate sums before layer norm
} EdgeLstmLayer;

// One call: B rows of T steps. Row b of step t begins at element b * input_row + t * input_step of
// the input, and likewise for the output. All are float32 but in integer arithmetic. Arrays may
// begin at any element.
typedef struct EdgeLstmCall {
  const void* input;
  void* output;
  void* h;  // [B, O], read and written
  void* c;  // [B, U], read and written
  int64_t input_row, input_step, output_row, output_step;
  int32_t batch, steps;
} EdgeLstmCall;

typedef struct EdgeLstm EdgeLstm;

// Packs a layer's weights for the kernels called `kernels`; NULL means as
// `edgelstm_kernels_chosen(NULL)`. The weights are not needed afterwards. Returns NULL if the
// kernels do not exist here, the layer makes no sense, or memory is short.
EDGELSTM_API EdgeLstm* edgelstm_create(const EdgeLstmLayer* layer, const char* kernels);
// The same with as many threads at most, which a call uses where its sizes make it pay.
EDGELSTM_API EdgeLstm* edgelstm_create_threaded(const EdgeLstmLayer* layer, const char* kernels,
                                                int32_t threads);
EDGELSTM_API void edgelstm_delete(EdgeLstm* lstm);

// Computes a call. Allocates nothing. One EdgeLstm serves one thread at a time.
EDGELSTM_API void edgelstm_run(EdgeLstm* lstm, const EdgeLstmCall* call);

// Computes the same call `calls` times, states going on, and returns the nanoseconds that it took: what
// a program in C sees, however slow a language that asks is.
EDGELSTM_API int64_t edgelstm_time(EdgeLstm* lstm, const EdgeLstmCall* call, int64_t calls);

// Bytes of packed weights and of scratch memory that an EdgeLstm uses. Packed weights of equal
// layers are in memory once per process.
EDGELSTM_API size_t edgelstm_bytes(const EdgeLstm* lstm);

// Applies the kernels' sigmoid (function 0) or tanh (1) to n values. Returns 0, or -1 if there are
// no such kernels or functions.
EDGELSTM_API int edgelstm_activate(
    const char* kernels, int function, const float* in, float* out, int64_t n);

// What the machine can do at most: multiplications with addition of float32 in registers, of int8 from
// the nearest cache and in matrix tiles, reading memory, and what full int8 does for a unit in a step
// beside its products.
enum EdgeLstmProbe {
  EDGELSTM_PROBE_FLOAT = 0,
  EDGELSTM_PROBE_INT8 = 1,
  EDGELSTM_PROBE_READ = 2,
  EDGELSTM_PROBE_TILES = 3,
  EDGELSTM_PROBE_INTEGER_UNITS = 4
};
enum { EDGELSTM_PROBE_BYTES = 4096 };
// Does `rounds` rounds of one of them in `memory`, EDGELSTM_PROBE_BYTES or more, whose content is
// lost, and returns how many multiplications, bytes or units that were; -1 if these kernels have none.
EDGELSTM_API int64_t edgelstm_probe(
    const char* kernels, int probe, void* memory, int64_t bytes, int64_t rounds);

// --- The TFLite external delegate ---
// tflite_plugin_create_delegate and tflite_plugin_destroy_delegate are exported under these names.
// Options: "isa" names kernels as above; "claim" with the value "required" makes it an error of the
// interpreter if no operator of a graph is taken. There are no others.

// The same for programs that link the library, also statically: pass the result to
// TfLiteInterpreterOptionsAddDelegate, and delete it after the interpreter.
struct TfLiteDelegate;
typedef struct EdgeLstmDelegateOptions {
  const char* kernels;      // NULL: as `edgelstm_kernels_chosen(NULL)`
  int32_t claim_required;   // 1: a graph of which no operator is taken is an error
} EdgeLstmDelegateOptions;

EDGELSTM_API EdgeLstmDelegateOptions EdgeLstmDelegateOptionsDefault(void);
// NULL options mean the defaults. Returns NULL if the kernels do not exist here or memory is short.
EDGELSTM_API struct TfLiteDelegate* EdgeLstmDelegateCreate(const EdgeLstmDelegateOptions* options);
EDGELSTM_API void EdgeLstmDelegateDelete(struct TfLiteDelegate* delegate);

// How many fused LSTM operators a delegate has taken since it was created; graphs that are
// prepared again count again. `delegate` is what tflite_plugin_create_delegate returned.
EDGELSTM_API int64_t edgelstm_delegate_claimed(const void* delegate);

// How many it has left to the interpreter, and why it left the last one; NULL if it took all.
EDGELSTM_API int64_t edgelstm_delegate_refused(const void* delegate);
EDGELSTM_API const char* edgelstm_delegate_reason(const void* delegate);

// --- Time per operator, in any interpreter ---
// A clock around operators of a graph whose tensors are allocated. Without one nothing is measured
// and nothing costs anything. One per process at a time; its graph runs in one thread at a time.
typedef struct EdgeLstmOpClock EdgeLstmOpClock;

// For as many operators at most. NULL if there is one already, or memory is short.
EDGELSTM_API EdgeLstmOpClock* edgelstm_op_clock_create(int64_t operators);

// Puts the clock around an operator: the TfLiteNode and the TfLiteRegistration that
// TfLiteContext.GetNodeAndRegistration tells of it. Returns its number from 0, or -1 if it has no
// `invoke` to stand in for, is watched already, or is one too many.
EDGELSTM_API int64_t edgelstm_op_clock_watch(EdgeLstmOpClock* clock, const void* node,
                                             void* registration);

// Writes for each operator the nanoseconds that it took since the last reading, without what other
// watched operators took inside it (the body of a WHILE), and how often it ran. Returns how many
// operators there are. Allocates nothing.
EDGELSTM_API int64_t edgelstm_op_clock_read(EdgeLstmOpClock* clock, int64_t* nanoseconds,
                                            int64_t* calls);

// Takes the clock away again; before the graph is allocated anew or its interpreter deleted.
EDGELSTM_API void edgelstm_op_clock_delete(EdgeLstmOpClock* clock);
