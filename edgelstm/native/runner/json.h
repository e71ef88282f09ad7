// JSON values, for one line of the protocol at a time.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

struct Json {
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of writing

  Json() : value(nullptr) {}
  Json(std::nullptr_t) : value(nullptr) {}
  Json(bool b) : value(b) {}
  Json(int n) : value(int64_t{n}) {}
  Json(int64_t n) : value(n) {}
  Json(double d) : value(d) {}
  Json(const char* s) : value(std::string(s)) {}
  Json(std::string s) : value(std::move(s)) {}
  Json(Array a) : value(std::move(a)) {}
  Json(Object o) : value(std::move(o)) {}

  template <typename T>
  static Json List(const std::vector<T>& items) {
    Array array;
    array.reserve(items.size());
    for (const T& item : items) array.emplace_back(item);
    return array;
  }

  // The member of an object; null where there is none, or this is no object.
  const Json& operator[](const std::string& key) const;
  bool IsNull() const { return std::holds_alternative<std::nullptr_t>(value); }
  const std::string& Text() const;   // "" where it is none
  int64_t Integer(int64_t otherwise = 0) const;
  double Number(double otherwise = 0) const;
  bool Truth() const;
  const Array& Items() const;        // none where it is no array
  const Object& Members() const;     // none where it is no object

  std::string Dump() const;
  // Raises AgentError where the text is no JSON.
  static Json Parse(const std::string& text);

  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value;
};
