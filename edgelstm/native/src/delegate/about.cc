// What the library says about itself and about the CPU it runs on.
#include "edgelstm/edgelstm.h"
#include "kernels/cpu_features.h"
#include "kernels/lstm.h"

namespace {

struct NamedFeature {
  const char* name;
  bool edgelstm::CpuFeatures::*present;
};

constexpr NamedFeature kNamedFeatures[] = {
    {"sse4.2", &edgelstm::CpuFeatures::sse42},
    {"avx2", &edgelstm::CpuFeatures::avx2},
    {"fma", &edgelstm::CpuFeatures::fma},
    {"f16c", &edgelstm::CpuFeatures::f16c},
    {"avx512f", &edgelstm::CpuFeatures::avx512f},
    {"avx512bw", &edgelstm::CpuFeatures::avx512bw},
    {"avx512dq", &edgelstm::CpuFeatures::avx512dq},
    {"avx512vl", &edgelstm::CpuFeatures::avx512vl},
    {"avx512vnni", &edgelstm::CpuFeatures::avx512vnni},
    {"amxint8", &edgelstm::CpuFeatures::amxint8},
    {"amxbf16", &edgelstm::CpuFeatures::amxbf16},
    {"avxvnni", &edgelstm::CpuFeatures::avxvnni},
    {"neon", &edgelstm::CpuFeatures::neon},
    {"vfpv4", &edgelstm::CpuFeatures::vfpv4},
    {"asimd", &edgelstm::CpuFeatures::asimd},
    {"asimddp", &edgelstm::CpuFeatures::asimddp},
    {"i8mm", &edgelstm::CpuFeatures::i8mm},
};

// Appends to a buffer that may be too short, and counts what a long enough one would hold.
class Text {
 public:
  Text(char* buffer, size_t size) : buffer_(buffer), size_(size) {}

  void Append(const char* text) {
    for (; *text != '\0'; ++text, ++length_) {
      if (length_ + 1 < size_) buffer_[length_] = *text;
    }
  }

  size_t Finish() {
    if (size_ > 0) buffer_[length_ < size_ ? length_ : size_ - 1] = '\0';
    return length_;
  }

  bool empty() const { return length_ == 0; }

 private:
  char* buffer_;
  size_t size_;
  size_t length_ = 0;
};

}  // namespace

int edgelstm_abi_version(void) { return EDGELSTM_ABI_VERSION; }

const char* edgelstm_version(void) { return EDGELSTM_VERSION; }

size_t edgelstm_cpu_features(char* buffer, size_t size) {
  const edgelstm::CpuFeatures& features = edgelstm::DetectCpuFeatures();
  Text text(buffer, size);
  for (const NamedFeature& feature : kNamedFeatures) {
    if (!(features.*feature.present)) continue;
    if (!text.empty()) text.Append(",");
    text.Append(feature.name);
  }
  return text.Finish();
}

size_t edgelstm_kernels(char* buffer, size_t size) {
  Text text(buffer, size);
  const edgelstm::LstmKernels* kernels = edgelstm::NextKernels(nullptr);
  for (; kernels != nullptr; kernels = edgelstm::NextKernels(kernels)) {
    if (!text.empty()) text.Append(",");
    text.Append(kernels->name);
  }
  return text.Finish();
}

const char* edgelstm_kernels_chosen(const char* name) {
  const edgelstm::LstmKernels* kernels = edgelstm::ChooseKernels(name);
  return kernels == nullptr ? nullptr : kernels->name;
}
