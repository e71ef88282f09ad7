#include "delegate/weight_ops.h"

#include <cstdlib>
#include <cstring>

#include "delegate/graph.h"
#include "delegate/op.h"

namespace edgelstm {
namespace {

// Results become empty, so that the interpreter gives them no memory and still finds nothing missing.
TfLiteStatus PrepareNothing(TfLiteContext* context, TfLiteNode* node) {
  for (int i = 0; i < node->outputs->size; ++i) {
    auto* dims = static_cast<TfLiteIntArray*>(std::malloc(sizeof(TfLiteIntArray) + sizeof(int)));
    if (dims == nullptr) return kTfLiteError;
    dims->size = 1;
    dims->data[0] = 0;
    const TfLiteStatus status =
        context->ResizeTensor(context, &context->tensors[node->outputs->data[i]], dims);
    if (status != kTfLiteOk) return status;
  }
  return kTfLiteOk;
}

TfLiteStatus InvokeNothing(TfLiteContext*, TfLiteNode*) { return kTfLiteOk; }

bool Contains(const TfLiteIntArray& list, int value) {
  for (int i = 0; i < list.size; ++i) {
    if (list.data[i] == value) return true;
  }
  return false;
}

// Which operators of a graph to take.
class Search {
 public:
  Search(TfLiteContext* context, const Graph& graph, TfLiteDelegate* delegate, TfLiteIntArray* found)
      : context_(context), graph_(graph), delegate_(delegate), found_(found) {}

  // From the end, as a RESHAPE is taken for the sake of a DEQUANTIZE.
  void Run() {
    for (int position = graph_.size() - 1; position >= 0; --position) {
      const int index = graph_.node(position);
      if (MakesWeights(index)) found_->data[found_->size++] = index;
    }
  }

 private:
  bool MakesWeights(int index) const {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* registration = nullptr;
    if (context_->GetNodeAndRegistration(context_, index, &node, &registration) != kTfLiteOk ||
        (registration->builtin_code != kTfLiteBuiltinDequantize &&
         registration->builtin_code != kTfLiteBuiltinReshape) ||
        node->outputs->size != 1) {
      return false;
    }
    return OnlyWeights(node->outputs->data[0]);
  }

  // Whether a tensor is read, and all its readers are taken LSTMs that do not, or were found.
  bool OnlyWeights(int tensor) const {
    bool read = false;
    for (int position = 0; position < graph_.size(); ++position) {
      TfLiteNode* node = nullptr;
      TfLiteRegistration* registration = nullptr;
      const int index = graph_.node(position);
      if (context_->GetNodeAndRegistration(context_, index, &node, &registration) != kTfLiteOk) {
        return false;
      }
      if (!Contains(*node->inputs, tensor)) continue;
      read = true;
      if (Contains(*found_, index)) continue;
      if (node->delegate != delegate_ || OpReads(node->user_data, tensor)) return false;
    }
    return read && !graph_.Gives(tensor);
  }

  TfLiteContext* context_;
  const Graph& graph_;
  TfLiteDelegate* delegate_;
  TfLiteIntArray* found_;
};

}  // namespace

TfLiteStatus TakeWeightOps(TfLiteContext* context, TfLiteDelegate* delegate) {
  const Graph graph(context);
  if (!graph.ok()) return kTfLiteError;
  const size_t bytes = sizeof(TfLiteIntArray) + sizeof(int) * static_cast<size_t>(graph.size());
  auto* found = static_cast<TfLiteIntArray*>(std::calloc(1, bytes));
  if (found == nullptr) return kTfLiteError;
  Search(context, graph, delegate, found).Run();
  TfLiteRegistration registration;
  std::memset(&registration, 0, sizeof registration);
  registration.prepare = PrepareNothing;
  registration.invoke = InvokeNothing;
  registration.builtin_code = kTfLiteBuiltinDelegate;
  registration.custom_name = "EdgeLstmWeights";
  registration.version = 1;
  const TfLiteStatus status =
      found->size == 0 ? kTfLiteOk
                       : context->ReplaceNodeSubsetsWithDelegateKernels(context, registration, found,
                                                                        delegate);
  std::free(found);
  return status;
}

}  // namespace edgelstm
