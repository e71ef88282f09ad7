#include "json.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "agent_error.h"

namespace {

constexpr int kDeepest = 64;

void WriteText(const std::string& text, std::string* out) {
  *out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      *out += '\\';
      *out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
      *out += escaped;
    } else {
      *out += c;
    }
  }
  *out += '"';
}

void Write(const Json& json, std::string* out) {
  if (const auto* b = std::get_if<bool>(&json.value)) {
    *out += *b ? "true" : "false";
  } else if (const auto* n = std::get_if<int64_t>(&json.value)) {
    *out += std::to_string(*n);
  } else if (const auto* d = std::get_if<double>(&json.value)) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", *d);
    *out += std::isfinite(*d) ? text : "null";
  } else if (const auto* s = std::get_if<std::string>(&json.value)) {
    WriteText(*s, out);
  } else if (const auto* a = std::get_if<Json::Array>(&json.value)) {
    *out += '[';
    for (const Json& each : *a) {
      if (&each != a->data()) *out += ',';
      Write(each, out);
    }
    *out += ']';
  } else if (const auto* o = std::get_if<Json::Object>(&json.value)) {
    *out += '{';
    for (const auto& [key, value] : *o) {
      if (&key != &o->front().first) *out += ',';
      WriteText(key, out);
      *out += ':';
      Write(value, out);
    }
    *out += '}';
  } else {
    *out += "null";
  }
}

class Parser {
 public:
  explicit Parser(const std::string& text) : at_(text.c_str()), end_(at_ + text.size()) {}

  Json Whole() {
    Json found = Value(0);
    Blanks();
    if (at_ != end_) Fail();
    return found;
  }

 private:
  [[noreturn]] static void Fail() { throw AgentError("agent", "the request is no JSON"); }

  void Blanks() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) ++at_;
  }

  bool Take(char c) {
    Blanks();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  void Need(char c) {
    if (!Take(c)) Fail();
  }

  Json Word(const char* word, Json value) {
    for (; *word != '\0'; ++word, ++at_) {
      if (at_ == end_ || *at_ != *word) Fail();
    }
    return value;
  }

  Json Value(int depth) {
    Blanks();
    if (at_ == end_ || depth > kDeepest) Fail();
    if (*at_ == 'n') return Word("null", nullptr);
    if (*at_ == 't') return Word("true", true);
    if (*at_ == 'f') return Word("false", false);
    if (*at_ == '"') return Text();
    if (Take('[')) {
      Json::Array items;
      if (Take(']')) return items;
      do items.push_back(Value(depth + 1));
      while (Take(','));
      Need(']');
      return items;
    }
    if (Take('{')) {
      Json::Object members;
      if (Take('}')) return members;
      do {
        Blanks();
        std::string key = Text();
        Need(':');
        members.emplace_back(std::move(key), Value(depth + 1));
      } while (Take(','));
      Need('}');
      return members;
    }
    return Number();
  }

  Json Number() {
    char* stop = nullptr;
    const double value = std::strtod(at_, &stop);
    if (stop == at_ || stop > end_) Fail();
    const std::string word(at_, static_cast<const char*>(stop));
    at_ = stop;
    if (word.find_first_of(".eEnN") != std::string::npos) return value;
    return static_cast<int64_t>(std::strtoll(word.c_str(), nullptr, 10));
  }

  unsigned Hex() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ == end_) Fail();
      const char c = *at_;
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) Fail();
      code = code * 16 + static_cast<unsigned>(digit);
    }
    return code;
  }

  static void Utf8(unsigned code, std::string* out) {
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char kHead[] = {0x00, 0xC0, 0xE0, 0xF0};
    *out += static_cast<char>(kHead[more] | (code >> (6 * more)));
    for (int i = more - 1; i >= 0; --i) *out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
  }

  std::string Text() {
    Need('"');
    std::string found;
    while (true) {
      if (at_ == end_) Fail();
      const char c = *at_++;
      if (c == '"') return found;
      if (c != '\\') {
        found += c;
        continue;
      }
      if (at_ == end_) Fail();
      const char escape = *at_++;
      if (escape == 'u') {
        unsigned code = Hex();
        if (code >= 0xD800 && code < 0xDC00 && end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u') {
          at_ += 2;
          code = 0x10000 + ((code - 0xD800) << 10) + (Hex() - 0xDC00);
        }
        Utf8(code & 0x1FFFFF, &found);
        continue;
      }
      static const std::string kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
      const size_t which = kFrom.find(escape);
      if (which == std::string::npos) Fail();
      found += kTo[which];
    }
  }

  const char* at_;
  const char* end_;
};

}  // namespace

const Json& Json::operator[](const std::string& key) const {
  static const Json kNull;
  for (const auto& [name, member] : Members()) {
    if (name == key) return member;
  }
  return kNull;
}

const std::string& Json::Text() const {
  static const std::string kNone;
  const auto* text = std::get_if<std::string>(&value);
  return text == nullptr ? kNone : *text;
}

int64_t Json::Integer(int64_t otherwise) const {
  if (const auto* n = std::get_if<int64_t>(&value)) return *n;
  if (const auto* d = std::get_if<double>(&value)) return static_cast<int64_t>(*d);
  return otherwise;
}

double Json::Number(double otherwise) const {
  if (const auto* n = std::get_if<int64_t>(&value)) return static_cast<double>(*n);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  return otherwise;
}

bool Json::Truth() const {
  const auto* b = std::get_if<bool>(&value);
  return b != nullptr && *b;
}

const Json::Array& Json::Items() const {
  static const Array kNone;
  const auto* items = std::get_if<Array>(&value);
  return items == nullptr ? kNone : *items;
}

const Json::Object& Json::Members() const {
  static const Object kNone;
  const auto* members = std::get_if<Object>(&value);
  return members == nullptr ? kNone : *members;
}

std::string Json::Dump() const {
  std::string out;
  Write(*this, &out);
  return out;
}

Json Json::Parse(const std::string& text) { return Parser(text).Whole(); }
