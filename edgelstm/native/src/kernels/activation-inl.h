// Sigmoid and tanh of a vector of floats.
//
// For every float32 argument: absolute error at most kActivationError, results within [0, 1] and
// [-1, 1], never decreasing, exact at both infinities, NaN for NaN. Below 0.5 in magnitude tanh is
// also exact to 4 units in the last place, so that small signals keep their digits.
//
// Never decreasing: each operation is monotone in the argument, and rounding keeps that. 2^t is
// split at floor(t), so its polynomial, all of whose coefficients are positive, has an argument
// in [0, 1]; its value is cut at 2, where the next power of two begins.
#pragma once

namespace edgelstm {
namespace {

// 2^t, t within [-126, 128]; NaN for NaN. Relative error 2e-7.
template <class V>
inline typename V::Float Exp2(typename V::Float t) {
  const typename V::Float whole = V::Floor(t);
  const typename V::Float f = V::Sub(t, whole);
  // Minimax for (2^f - 1) / f, error relative to 2^f: 8e-8.
  typename V::Float q = V::Set(0.0018671301659196615f);
  q = V::MulAdd(q, f, V::Set(0.009017029777169228f));
  q = V::MulAdd(q, f, V::Set(0.05579991266131401f));
  q = V::MulAdd(q, f, V::Set(0.24016444385051727f));
  q = V::MulAdd(q, f, V::Set(0.6931512951850891f));
  const typename V::Float power = V::Min(2.0f, V::MulAdd(q, f, V::Set(1.0f)));
  return V::TimesPowerOfTwo(power, whole);
}

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kTanhOfHalf = 0.46211716532707214f;

template <class V>
inline typename V::Float Sigmoid(typename V::Float x) {
  // At 128 the power is infinite, and the quotient 0.
  typename V::Float t = V::Mul(x, V::Set(-kLog2E));
  t = V::Min(128.0f, V::Max(-126.0f, t));
  return V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), Exp2<V>(t)));
}

template <class V>
inline typename V::Float Tanh(typename V::Float x) {
  constexpr float kSmall = 0.5f;
  const typename V::Float magnitude = V::Abs(x);
  const typename V::Float t = V::Min(126.0f, V::Mul(magnitude, V::Set(2.0f * kLog2E)));
  const typename V::Float quotient =
      V::Div(V::Set(2.0f), V::Add(V::Set(1.0f), Exp2<V>(t)));
  // Not below the polynomial's value at kSmall.
  const typename V::Float large = V::Max(kTanhOfHalf, V::Sub(V::Set(1.0f), quotient));
  // Minimax for (tanh(x) / x - 1) / x^2 up to kSmall.
  const typename V::Float square = V::Mul(magnitude, magnitude);
  typename V::Float p = V::Set(0.01725699193775654f);
  p = V::MulAdd(p, square, V::Set(-0.05305295065045357f));
  p = V::MulAdd(p, square, V::Set(0.1332598775625229f));
  p = V::MulAdd(p, square, V::Set(-0.33333149552345276f));
  const typename V::Float small = V::MulAdd(V::Mul(square, p), magnitude, magnitude);
  return V::WithSign(V::SelectLess(magnitude, V::Set(kSmall), small, large), x);
}

}  // namespace
}  // namespace edgelstm
