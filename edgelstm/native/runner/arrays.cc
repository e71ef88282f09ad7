#include "arrays.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "agent_error.h"

namespace {

const ElementType kTypes[] = {
    {1, "float32", 4}, {2, "int32", 4},   {3, "uint8", 1},    {4, "int64", 8},
    {6, "bool", 1},    {7, "int16", 2},   {9, "int8", 1},     {10, "float16", 2},
    {11, "float64", 8}, {13, "uint64", 8}, {16, "uint32", 4}, {17, "uint16", 2},
};

// By numpy's letter and size; '?' is bool.
const ElementType* ByLetter(char letter, size_t bytes) {
  for (const ElementType& type : kTypes) {
    const std::string name = type.name;
    const char its = name == "bool" ? 'b' : name[0];
    if (its == letter && type.bytes == bytes) return &type;
  }
  return nullptr;
}

double FromHalf(uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 1023;
  double value;
  if (exponent == 31) {
    value = fraction == 0 ? std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::quiet_NaN();
  } else if (exponent == 0) {
    value = std::ldexp(fraction, -24);
  } else {
    value = std::ldexp(1024 + fraction, exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

uint16_t ToHalf(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return 0x7E00;
  value = std::fabs(value);
  if (value >= 65520.0) return sign | 0x7C00;
  if (value < std::ldexp(1.0, -14)) {
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(value, 24)));
  }
  int exponent;
  const double fraction = std::frexp(value, &exponent);  // in [0.5, 1)
  const auto scaled = static_cast<uint32_t>(std::nearbyint(std::ldexp(fraction, 11)));
  // A fraction that rounds up to 2048 carries into the exponent, as it should.
  return sign | static_cast<uint16_t>(((exponent + 13) << 10) + scaled);
}

template <typename T>
double Load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<double>(value);
}

template <typename T>
void Store(uint8_t* at, double value) {
  const T stored = static_cast<T>(value);
  std::memcpy(at, &stored, sizeof stored);
}

[[noreturn]] void Damaged(const char* what) {
  throw AgentError("input", std::string("the golden data cannot be read: ") + what);
}

// Little-endian integers of a zip file.
uint32_t U16(const std::string& text, size_t at) {
  if (at + 2 > text.size()) Damaged("it is cut off");
  return static_cast<uint8_t>(text[at]) | static_cast<uint8_t>(text[at + 1]) << 8;
}

uint32_t U32(const std::string& text, size_t at) { return U16(text, at) | U16(text, at + 2) << 16; }

std::string WholeFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) Damaged("there is no such file");
  std::string text;
  char part[65536];
  size_t n;
  while ((n = std::fread(part, 1, sizeof part, file)) > 0) text.append(part, n);
  std::fclose(file);
  return text;
}

// The value of a key in an .npy header, which is a Python literal: up to the closing character.
std::string Field(const std::string& header, const std::string& key, char closing) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) Damaged("an array has no such header");
  const size_t from = at + key.size() + 3;
  const size_t to = header.find(closing, from);
  return header.substr(from, to == std::string::npos ? to : to - from);
}

Array ReadNpy(const std::string& npy) {
  if (npy.size() < 10 || npy.compare(0, 6, "\x93NUMPY") != 0) Damaged("a member is no array");
  const bool old = npy[6] == 1;
  const size_t start = old ? 10 : 12, length = old ? U16(npy, 8) : U32(npy, 8);
  if (start + length > npy.size()) Damaged("it is cut off");
  const std::string header = npy.substr(start, length);
  std::string descr = Field(header, "descr", ',');
  const size_t quote = descr.find('\'');
  if (quote == std::string::npos || descr.size() < quote + 4) Damaged("an array's type");
  descr = descr.substr(quote + 1);
  if (descr[0] == '>') Damaged("an array is big-endian");
  const ElementType* type = ByLetter(descr[1], static_cast<size_t>(descr[2] - '0'));
  if (type == nullptr) Damaged("an array's type has no numbers");
  if (Field(header, "fortran_order", ',').find("False") == std::string::npos) {
    Damaged("an array is in Fortran order");
  }
  Array array{type, {}, {}};
  size_t count = 1;
  std::string shape = Field(header, "shape", ')');
  for (char& c : shape) {
    if (c < '0' || c > '9') c = ' ';
  }
  const char* at = shape.c_str();
  char* stop;
  for (int64_t size = std::strtoll(at, &stop, 10); stop != at; size = std::strtoll(at, &stop, 10)) {
    array.shape.push_back(size);
    if (size != 0 && count > npy.size() / static_cast<size_t>(size)) Damaged("an array's shape");
    count *= static_cast<size_t>(size);
    at = stop;
  }
  if (npy.size() - start - length < count * type->bytes) Damaged("it is cut off");
  const auto* data = reinterpret_cast<const uint8_t*>(npy.data()) + start + length;
  array.bytes.assign(data, data + count * type->bytes);
  return array;
}

}  // namespace

const ElementType& ElementOf(int code, const std::string& tensor) {
  for (const ElementType& type : kTypes) {
    if (type.code == code) return type;
  }
  throw AgentError("unsupported",
                   "tensor '" + tensor + "' has type " + std::to_string(code) + ": no numbers");
}

double Array::At(size_t i) const {
  const uint8_t* at = bytes.data() + i * type->bytes;
  switch (type->code) {
    case 1: return Load<float>(at);
    case 2: return Load<int32_t>(at);
    case 4: return Load<int64_t>(at);
    case 7: return Load<int16_t>(at);
    case 9: return Load<int8_t>(at);
    case 10: {
      uint16_t half;
      std::memcpy(&half, at, 2);
      return FromHalf(half);
    }
    case 11: return Load<double>(at);
    case 13: return Load<uint64_t>(at);
    case 16: return Load<uint32_t>(at);
    case 17: return Load<uint16_t>(at);
    default: return Load<uint8_t>(at);
  }
}

void Array::Set(size_t i, double value) {
  uint8_t* at = bytes.data() + i * type->bytes;
  switch (type->code) {
    case 1: return Store<float>(at, value);
    case 2: return Store<int32_t>(at, value);
    case 4: return Store<int64_t>(at, value);
    case 6: return Store<uint8_t>(at, value != 0 ? 1 : 0);
    case 7: return Store<int16_t>(at, value);
    case 9: return Store<int8_t>(at, value);
    case 10: {
      const uint16_t half = ToHalf(value);
      std::memcpy(at, &half, 2);
      return;
    }
    case 11: return Store<double>(at, value);
    case 13: return Store<uint64_t>(at, value);
    case 16: return Store<uint32_t>(at, value);
    case 17: return Store<uint16_t>(at, value);
    default: return Store<uint8_t>(at, value);
  }
}

Array Draw(const ElementType& type, const std::vector<int64_t>& shape, bool quantized,
           const std::optional<Limits>& limits, std::mt19937_64* random) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  Array array{&type, shape, std::vector<uint8_t>(count * type.bytes)};
  const char kind = type.name[0];
  Limits span{0, 1};
  if (limits && kind != 'f' && kind != 'b') {
    span = *limits;
  } else if (quantized && kind == 'i') {
    const int64_t half = int64_t{1} << (8 * type.bytes - 1);
    span = {-half, half - 1};
  } else if (quantized && kind == 'u') {
    span = {0, (int64_t{1} << (8 * type.bytes)) - 1};
  }
  std::uniform_real_distribution<double> real(-1.0, 1.0);
  std::uniform_int_distribution<int64_t> whole(span.first, span.second);
  for (size_t i = 0; i < count; ++i) {
    array.Set(i, kind == 'f' ? real(*random) : static_cast<double>(whole(*random)));
  }
  return array;
}

std::map<std::string, Array> ReadNpz(const std::string& path) {
  constexpr uint32_t kEnd = 0x06054b50, kMember = 0x02014b50, kStored = 0;
  const std::string zip = WholeFile(path);
  size_t end = zip.size() < 22 ? 0 : zip.size() - 22;
  while (end > 0 && U32(zip, end) != kEnd) --end;
  if (zip.size() < 22 || U32(zip, end) != kEnd) Damaged("it is no .npz");
  const uint32_t members = U16(zip, end + 10);
  size_t at = U32(zip, end + 16);
  std::map<std::string, Array> arrays;
  for (uint32_t i = 0; i < members; ++i) {
    if (U32(zip, at) != kMember) Damaged("it is no .npz");
    if (U16(zip, at + 10) != kStored) Damaged("it is compressed");
    const size_t size = U32(zip, at + 24), name_size = U16(zip, at + 28);
    const size_t local = U32(zip, at + 42);
    std::string name = zip.substr(std::min(zip.size(), at + 46), name_size);
    const size_t data = local + 30 + U16(zip, local + 26) + U16(zip, local + 28);
    if (data > zip.size() || size > zip.size() - data) Damaged("it is cut off");
    const size_t suffix = name.rfind(".npy");
    if (suffix != std::string::npos) name.resize(suffix);
    arrays.emplace(name, ReadNpy(zip.substr(data, size)));
    at += 46 + name_size + U16(zip, at + 30) + U16(zip, at + 32);
  }
  return arrays;
}

Array Converted(const Array& array, const ElementType& type) {
  if (array.type == &type) return array;
  Array converted{&type, array.shape, std::vector<uint8_t>(array.Count() * type.bytes)};
  for (size_t i = 0; i < array.Count(); ++i) converted.Set(i, array.At(i));
  return converted;
}

Json::Object Difference(const std::string& name, const Array& found, const Array& truth,
                        double tolerance, int64_t steps) {
  double range = 0, worst = 0;
  bool truth_is_zero = true, found_is_zero = true;
  const size_t count = truth.Count();
  for (size_t i = 0; i < count; ++i) {
    const double value = truth.At(i);
    if (std::fabs(value) > range) range = std::fabs(value);
    truth_is_zero = truth_is_zero && value == 0;
    found_is_zero = found_is_zero && found.At(i) == 0;
  }
  const double limit = tolerance * (range != 0 ? range : 1.0);
  size_t inner = 1;
  for (size_t axis = 2; axis < truth.shape.size(); ++axis) {
    inner *= static_cast<size_t>(truth.shape[axis]);
  }
  const bool timed = truth.shape.size() >= 3 && steps > 0 && truth.shape[1] == steps;
  int64_t first = -1;
  bool within = true;
  for (size_t i = 0; i < count; ++i) {
    const double here = found.At(i), there = truth.At(i);
    double error = std::fabs(here - there);
    // NaN on one side only is the largest of errors; on both sides it is agreement.
    if (std::isnan(here) && std::isnan(there)) error = 0;
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    if (error > worst) worst = error;
    if (error > limit) {
      within = false;
      const auto step = static_cast<int64_t>(i / inner) % (timed ? steps : 1);
      if (timed && (first < 0 || step < first)) first = step;
    }
  }
  return {
      {"name", name},
      {"worst", worst},  // infinity is written as null
      {"range", range},
      {"first_step", first < 0 ? Json(nullptr) : Json(first)},
      {"within", within},
      {"zero", !truth_is_zero && found_is_zero},
  };
}
