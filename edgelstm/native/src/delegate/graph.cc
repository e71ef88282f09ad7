#include "delegate/graph.h"

#include <cstdlib>
#include <cstring>

namespace edgelstm {
namespace {

int64_t ElementBytes(TfLiteType type) {
  switch (type) {
    case kTfLiteInt64:
      return 8;
    case kTfLiteFloat32:
    case kTfLiteInt32:
      return 4;
    case kTfLiteFloat16:
    case kTfLiteInt16:
      return 2;
    case kTfLiteInt8:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

bool Constant(const TfLiteTensor& tensor) {
  const int64_t elements = Elements(tensor);
  return tensor.allocation_type == kTfLiteMmapRo && tensor.data != nullptr && elements >= 0 &&
         static_cast<uint64_t>(elements) * static_cast<uint64_t>(ElementBytes(tensor.type)) ==
             tensor.bytes &&
         tensor.sparsity == nullptr;
}

bool PerTensor(const TfLiteTensor& tensor) {
  if (tensor.quantization.type != kTfLiteAffineQuantization || !tensor.quantization.params) {
    return false;
  }
  const auto* affine = static_cast<const TfLiteAffineQuantization*>(tensor.quantization.params);
  return affine->scale != nullptr && affine->scale->size == 1 && affine->zero_point != nullptr &&
         affine->zero_point->size >= 1 &&
         tensor.params.scale > 0;
}

int64_t Elements(const TfLiteTensor& tensor) {
  if (tensor.dims == nullptr) return -1;
  int64_t count = 1;
  for (int i = 0; i < tensor.dims->size; ++i) {
    if (tensor.dims->data[i] < 0) return -1;
    count *= tensor.dims->data[i];
    if (count > INT32_MAX) return -1;
  }
  return count;
}

Graph::Graph(TfLiteContext* context) : context_(context), plan_(nullptr) {
  TfLiteIntArray* plan = nullptr;
  if (context->GetExecutionPlan(context, &plan) != kTfLiteOk || plan == nullptr) return;
  const size_t bytes = sizeof(int) * (static_cast<size_t>(plan->size) + 1);
  plan_ = static_cast<TfLiteIntArray*>(std::malloc(bytes));
  if (plan_ != nullptr) std::memcpy(static_cast<void*>(plan_), plan, bytes);
}

Graph::~Graph() { std::free(plan_); }

int Graph::Producer(int tensor) const {
  for (int position = 0; position < size(); ++position) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    const int index = plan_->data[position];
    if (context_->GetNodeAndRegistration(context_, index, &node, &registration) != kTfLiteOk) {
      continue;
    }
    for (int i = 0; i < node->outputs->size; ++i) {
      if (node->outputs->data[i] == tensor) return index;
    }
  }
  return -1;
}

// The interpreter tells the outputs of what a delegate would take: here of everything.
bool Graph::Gives(int tensor) const {
  TfLiteDelegateParams* parts = nullptr;
  int count = 0;
  if (context_->PreviewDelegatePartitioning == nullptr ||
      context_->PreviewDelegatePartitioning(context_, plan_, &parts, &count) != kTfLiteOk) {
    return true;
  }
  for (int part = 0; part < count; ++part) {
    const TfLiteIntArray& outputs = *parts[part].output_tensors;
    for (int i = 0; i < outputs.size; ++i) {
      if (outputs.data[i] == tensor) return true;
    }
  }
  return false;
}

}  // namespace edgelstm
