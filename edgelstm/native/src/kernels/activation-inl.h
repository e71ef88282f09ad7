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

#include "kernels/memory.h"

namespace edgelstm {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kTanhOfHalf = 0.46211716532707214f;
// Below that tanh has a polynomial of its own.
constexpr float kSmallTanh = 0.5f;
// Minimax for (2^f - 1) / f, error relative to 2^f: 8e-8.
constexpr float kExp2[] = {0.0018671301659196615f, 0.009017029777169228f, 0.05579991266131401f,
                           0.24016444385051727f, 0.6931512951850891f};
// Minimax for (tanh(x) / x - 1) / x^2 up to kSmallTanh.
constexpr float kTanh[] = {0.01725699193775654f, -0.05305295065045357f, 0.1332598775625229f,
                           -0.33333149552345276f};

// 2^t, t within [-126, 128]; NaN for NaN. Relative error 2e-7.
template <class V>
inline typename V::Float Exp2(typename V::Float t) {
  const typename V::Float whole = V::Floor(t);
  const typename V::Float f = V::Sub(t, whole);
  typename V::Float q = V::Set(kExp2[0]);
  q = V::MulAdd(q, f, V::Set(kExp2[1]));
  q = V::MulAdd(q, f, V::Set(kExp2[2]));
  q = V::MulAdd(q, f, V::Set(kExp2[3]));
  q = V::MulAdd(q, f, V::Set(kExp2[4]));
  const typename V::Float power = V::Min(2.0f, V::MulAdd(q, f, V::Set(1.0f)));
  return V::TimesPowerOfTwo(power, whole);
}

template <class V>
inline typename V::Float Sigmoid(typename V::Float x) {
  // At 128 the power is infinite, and the quotient 0.
  typename V::Float t = V::Mul(x, V::Set(-kLog2E));
  t = V::Min(128.0f, V::Max(-126.0f, t));
  return V::Div(V::Set(1.0f), V::Add(V::Set(1.0f), Exp2<V>(t)));
}

template <class V>
inline typename V::Float Tanh(typename V::Float x) {
  const typename V::Float magnitude = V::Abs(x);
  const typename V::Float t = V::Min(126.0f, V::Mul(magnitude, V::Set(2.0f * kLog2E)));
  const typename V::Float quotient =
      V::Div(V::Set(2.0f), V::Add(V::Set(1.0f), Exp2<V>(t)));
  // Not below the polynomial's value at kSmallTanh.
  const typename V::Float large = V::Max(kTanhOfHalf, V::Sub(V::Set(1.0f), quotient));
  const typename V::Float square = V::Mul(magnitude, magnitude);
  typename V::Float p = V::Set(kTanh[0]);
  p = V::MulAdd(p, square, V::Set(kTanh[1]));
  p = V::MulAdd(p, square, V::Set(kTanh[2]));
  p = V::MulAdd(p, square, V::Set(kTanh[3]));
  const typename V::Float small = V::MulAdd(V::Mul(square, p), magnitude, magnitude);
  return V::WithSign(V::SelectLess(magnitude, V::Set(kSmallTanh), small, large), x);
}

// How often ActivateAmong calls `between`.
template <int kSigmoids, int kTanhs>
constexpr int kStepsAmong = (kSigmoids + kTanhs) / 2 * 2 + 4 + kSigmoids + 3 * kTanhs;

// Sigmoid of the first kSigmoids of z, Tanh of the kTanhs after them, `between` called among their
// steps: for each lane what they are alone.
template <class V, int kSigmoids, int kTanhs, class Between>
EDGELSTM_INLINE void ActivateAmong(typename V::Float* z, const Between& between) {
  using Float = typename V::Float;
  constexpr int kCount = kSigmoids + kTanhs;
  Float f[kCount], whole[kCount], q[kCount];
  EDGELSTM_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const Float t = i < kSigmoids
                        ? V::Min(128.0f, V::Max(-126.0f, V::Mul(z[i], V::Set(-kLog2E))))
                        : V::Min(126.0f, V::Mul(V::Abs(z[i]), V::Set(2.0f * kLog2E)));
    whole[i] = V::Floor(t);
    f[i] = V::Sub(t, whole[i]);
    q[i] = V::Set(kExp2[0]);
    if (i % 2 != 0) between();
  }
  EDGELSTM_UNROLL
  for (int term = 1; term < 5; ++term) {
    EDGELSTM_UNROLL
    for (int i = 0; i < kCount; ++i) q[i] = V::MulAdd(q[i], f[i], V::Set(kExp2[term]));
    between();
  }
  EDGELSTM_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const Float power = V::Min(2.0f, V::MulAdd(q[i], f[i], V::Set(1.0f)));
    q[i] = V::Add(V::Set(1.0f), V::TimesPowerOfTwo(power, whole[i]));
    if (i % 2 != 0) between();
  }
  EDGELSTM_UNROLL
  for (int i = 0; i < kCount; ++i) {
    q[i] = V::Div(V::Set(i < kSigmoids ? 1.0f : 2.0f), q[i]);
    between();
  }
  EDGELSTM_UNROLL
  for (int i = 0; i < kSigmoids; ++i) z[i] = q[i];
  EDGELSTM_UNROLL
  for (int i = kSigmoids; i < kCount; ++i) {
    const Float magnitude = V::Abs(z[i]), square = V::Mul(magnitude, magnitude);
    Float p = V::Set(kTanh[0]);
    EDGELSTM_UNROLL
    for (int term = 1; term < 4; ++term) p = V::MulAdd(p, square, V::Set(kTanh[term]));
    between();
    const Float large = V::Max(kTanhOfHalf, V::Sub(V::Set(1.0f), q[i]));
    const Float small = V::MulAdd(V::Mul(square, p), magnitude, magnitude);
    z[i] = V::WithSign(V::SelectLess(magnitude, V::Set(kSmallTanh), small, large), z[i]);
    between();
  }
}

}  // namespace
}  // namespace edgelstm
