// Arrays of any tensor type as numbers: random ones, those of an .npz file, and how far two differ.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "json.h"

// TfLiteType, with numpy's names.
struct ElementType {
  int code;
  const char* name;
  size_t bytes;
};

// Raises AgentError of kind `unsupported` for types without numbers.
const ElementType& ElementOf(int code, const std::string& tensor);

struct Array {
  const ElementType* type;
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;  // in C order

  size_t Count() const { return bytes.size() / type->bytes; }
  double At(size_t i) const;
  void Set(size_t i, double value);
};

// Lowest and highest value, both inclusive.
using Limits = std::pair<int64_t, int64_t>;

// Random numbers as agent/inputs.py draws them, of another generator.
Array Draw(const ElementType& type, const std::vector<int64_t>& shape, bool quantized,
           const std::optional<Limits>& limits, std::mt19937_64* random);

// The arrays of an uncompressed .npz. Raises AgentError where it is damaged.
std::map<std::string, Array> ReadNpz(const std::string& path);

Array Converted(const Array& array, const ElementType& type);

// As agent/accuracy.py tells it; `steps` is 0 where the truth has no time axis.
Json::Object Difference(const std::string& name, const Array& found, const Array& truth,
                        double tolerance, int64_t steps);
