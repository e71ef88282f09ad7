// The part of TensorFlow Lite's C interface that a delegate sees, declared anew: no package ships
// its headers. The layout is the same in tflite-runtime 2.14, TensorFlow 2.21 and LiteRT 2.3;
// sizes and offsets are checked for 64-bit targets.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

struct TfLiteContext;
struct TfLiteNode;

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1, kTfLiteDelegateError = 2 };

enum TfLiteType : int {
  kTfLiteFloat32 = 1,
  kTfLiteInt32 = 2,
  kTfLiteInt64 = 4,
  kTfLiteInt16 = 7,
  kTfLiteInt8 = 9,
  kTfLiteFloat16 = 10,
};

enum TfLiteAllocationType : int { kTfLiteMmapRo = 1, kTfLiteArenaRw = 2, kTfLiteArenaRwPersistent = 3 };

enum TfLiteQuantizationType : int { kTfLiteNoQuantization = 0, kTfLiteAffineQuantization = 1 };

enum TfLiteDelegateFlags { kTfLiteDelegateFlagsAllowDynamicTensors = 1 };

enum TfLiteBuiltinOperator {
  kTfLiteBuiltinDequantize = 6,
  kTfLiteBuiltinLstm = 16,
  kTfLiteBuiltinReshape = 22,
  kTfLiteBuiltinUnidirectionalSequenceLstm = 44,
  kTfLiteBuiltinDelegate = 51,
  kTfLiteBuiltinBidirectionalSequenceLstm = 52,
};

enum TfLiteFusedActivation { kTfLiteActRelu = 1, kTfLiteActReluN1To1 = 2, kTfLiteActRelu6 = 3,
                             kTfLiteActTanh = 4 };

// Freed with free() by whoever owns it.
struct TfLiteIntArray {
  int size;
  int data[1];
};
struct TfLiteFloatArray {
  int size;
  float data[1];
};

struct TfLiteQuantizationParams {
  float scale;
  int32_t zero_point;
};
struct TfLiteQuantization {
  TfLiteQuantizationType type;
  void* params;
};
struct TfLiteAffineQuantization {
  TfLiteFloatArray* scale;
  TfLiteIntArray* zero_point;
  int32_t quantized_dimension;
};

struct TfLiteDelegate {
  void* data_;
  TfLiteStatus (*Prepare)(TfLiteContext*, TfLiteDelegate*);
  TfLiteStatus (*CopyFromBufferHandle)(TfLiteContext*, TfLiteDelegate*, int, struct TfLiteTensor*);
  TfLiteStatus (*CopyToBufferHandle)(TfLiteContext*, TfLiteDelegate*, int, struct TfLiteTensor*);
  void (*FreeBufferHandle)(TfLiteContext*, TfLiteDelegate*, int*);
  int64_t flags;
  void* opaque_delegate_builder;
};

struct TfLiteTensor {
  TfLiteType type;
  void* data;
  TfLiteIntArray* dims;
  TfLiteQuantizationParams params;
  TfLiteAllocationType allocation_type;
  size_t bytes;
  const void* allocation;
  const char* name;
  TfLiteDelegate* delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  TfLiteQuantization quantization;
  void* sparsity;
  const TfLiteIntArray* dims_signature;
};

struct TfLiteNode {
  TfLiteIntArray* inputs;
  TfLiteIntArray* outputs;
  TfLiteIntArray* intermediates;
  TfLiteIntArray* temporaries;
  void* user_data;
  void* builtin_data;
  const void* custom_initial_data;
  int custom_initial_data_size;
  TfLiteDelegate* delegate;
  bool might_have_side_effect;
};

struct TfLiteRegistration {
  void* (*init)(TfLiteContext*, const char* buffer, size_t length);
  void (*free)(TfLiteContext*, void* buffer);
  TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*);
  TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*);
  const char* (*profiling_string)(const TfLiteContext*, const TfLiteNode*);
  int32_t builtin_code;
  const char* custom_name;
  int version;
  void* registration_external;
  void* async_kernel;
  uint64_t inplace_operator;
};

struct TfLiteDelegateParams {
  TfLiteDelegate* delegate;
  TfLiteIntArray* nodes_to_replace;
  TfLiteIntArray* input_tensors;
  TfLiteIntArray* output_tensors;
};

struct TfLiteContext {
  size_t tensors_size;
  TfLiteStatus (*GetExecutionPlan)(TfLiteContext*, TfLiteIntArray**);
  TfLiteTensor* tensors;
  void* impl_;
  TfLiteStatus (*ResizeTensor)(TfLiteContext*, TfLiteTensor*, TfLiteIntArray* owned);
  void (*ReportError)(TfLiteContext*, const char* format, ...);
  TfLiteStatus (*AddTensors)(TfLiteContext*, int, int*);
  TfLiteStatus (*GetNodeAndRegistration)(TfLiteContext*, int, TfLiteNode**, TfLiteRegistration**);
  TfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(TfLiteContext*, TfLiteRegistration,
                                                        const TfLiteIntArray*, TfLiteDelegate*);
  int recommended_num_threads;
  void* (*GetExternalContext)(TfLiteContext*, int);
  void (*SetExternalContext)(TfLiteContext*, int, void*);
  bool allow_fp32_relax_to_fp16;
  void* profiler;
  // Null on desktop builds, except PreviewDelegatePartitioning and those behind GetEvalTensor.
  void* AllocatePersistentBuffer;
  void* AllocateBufferForEval;
  void* RequestScratchBufferInArena;
  void* GetScratchBuffer;
  void* ResizeTensorExplicit;
  TfLiteStatus (*PreviewDelegatePartitioning)(TfLiteContext*, const TfLiteIntArray*,
                                              TfLiteDelegateParams**, int*);
  void* GetTensor;
  void* GetEvalTensor;
  void* GetModelMetadata;
  void* AcquireSubgraphContext;
  void* ReleaseSubgraphContext;
};

struct TfLiteUnidirectionalSequenceLSTMParams {
  int activation;
  float cell_clip;
  float proj_clip;
  bool time_major;
  bool asymmetric_quantize_inputs;
  bool diagonal_recurrent_tensors;
};

enum TfLiteLSTMKernelType : int { kTfLiteLstmFullKernel = 0, kTfLiteLstmBasicKernel = 1 };

struct TfLiteLSTMParams {
  int activation;
  float cell_clip;
  float proj_clip;
  TfLiteLSTMKernelType kernel_type;
  bool asymmetric_quantize_inputs;
};

struct TfLiteBidirectionalSequenceLSTMParams {
  int activation;
  float cell_clip;
  float proj_clip;
  bool merge_outputs;
  bool time_major;
  bool asymmetric_quantize_inputs;
};

}  // extern "C"

#if UINTPTR_MAX == UINT64_MAX
#define EDGELSTM_OFFSET(type, member, offset) \
  static_assert(offsetof(type, member) == offset, #type "." #member)
static_assert(sizeof(TfLiteQuantizationParams) == 8 && sizeof(TfLiteQuantization) == 16 &&
                  sizeof(TfLiteAffineQuantization) == 24,
              "quantization");
static_assert(sizeof(TfLiteTensor) == 112, "TfLiteTensor");
EDGELSTM_OFFSET(TfLiteTensor, data, 8);
EDGELSTM_OFFSET(TfLiteTensor, dims, 16);
EDGELSTM_OFFSET(TfLiteTensor, params, 24);
EDGELSTM_OFFSET(TfLiteTensor, allocation_type, 32);
EDGELSTM_OFFSET(TfLiteTensor, bytes, 40);
EDGELSTM_OFFSET(TfLiteTensor, name, 56);
EDGELSTM_OFFSET(TfLiteTensor, delegate, 64);
EDGELSTM_OFFSET(TfLiteTensor, is_variable, 77);
EDGELSTM_OFFSET(TfLiteTensor, quantization, 80);
EDGELSTM_OFFSET(TfLiteTensor, sparsity, 96);
static_assert(sizeof(TfLiteNode) == 80, "TfLiteNode");
EDGELSTM_OFFSET(TfLiteNode, user_data, 32);
EDGELSTM_OFFSET(TfLiteNode, builtin_data, 40);
EDGELSTM_OFFSET(TfLiteNode, delegate, 64);
static_assert(sizeof(TfLiteRegistration) == 88, "TfLiteRegistration");
EDGELSTM_OFFSET(TfLiteRegistration, builtin_code, 40);
EDGELSTM_OFFSET(TfLiteRegistration, inplace_operator, 80);
static_assert(sizeof(TfLiteDelegate) == 56, "TfLiteDelegate");
EDGELSTM_OFFSET(TfLiteDelegate, flags, 40);
static_assert(sizeof(TfLiteDelegateParams) == 32, "TfLiteDelegateParams");
static_assert(sizeof(TfLiteContext) == 200, "TfLiteContext");
EDGELSTM_OFFSET(TfLiteContext, tensors, 16);
EDGELSTM_OFFSET(TfLiteContext, ResizeTensor, 32);
EDGELSTM_OFFSET(TfLiteContext, GetNodeAndRegistration, 56);
EDGELSTM_OFFSET(TfLiteContext, ReplaceNodeSubsetsWithDelegateKernels, 64);
EDGELSTM_OFFSET(TfLiteContext, recommended_num_threads, 72);
EDGELSTM_OFFSET(TfLiteContext, AllocatePersistentBuffer, 112);
EDGELSTM_OFFSET(TfLiteContext, PreviewDelegatePartitioning, 152);
EDGELSTM_OFFSET(TfLiteContext, ReleaseSubgraphContext, 192);
static_assert(sizeof(TfLiteUnidirectionalSequenceLSTMParams) == 16, "LSTM options");
EDGELSTM_OFFSET(TfLiteUnidirectionalSequenceLSTMParams, time_major, 12);
static_assert(sizeof(TfLiteLSTMParams) == 20, "LSTM options");
EDGELSTM_OFFSET(TfLiteLSTMParams, asymmetric_quantize_inputs, 16);
static_assert(sizeof(TfLiteBidirectionalSequenceLSTMParams) == 16, "LSTM options");
EDGELSTM_OFFSET(TfLiteBidirectionalSequenceLSTMParams, time_major, 13);
#undef EDGELSTM_OFFSET
#endif
