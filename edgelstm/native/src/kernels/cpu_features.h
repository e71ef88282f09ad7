// What this CPU and its operating system offer.
#pragma once

namespace edgelstm {

struct CpuFeatures {
  // x86
  bool sse42 = false;
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool avx512vnni = false;
  bool avxvnni = false;
  // Matrix tiles with int8 and with bfloat16, by the CPU; see MatrixTilesAllowed.
  bool amxint8 = false;
  bool amxbf16 = false;
  // F, BW, DQ and VL
  bool avx512() const { return avx512f && avx512bw && avx512dq && avx512vl; }
  // ARM; `neon` is 32-bit, `asimd` is its 64-bit form
  bool neon = false;
  bool vfpv4 = false;
  bool asimd = false;
  bool asimddp = false;
  bool i8mm = false;
};

// Asks the operating system to let this process use matrix tiles, whose registers take 8 KiB in every
// context; what was allowed once stays so.
bool MatrixTilesAllowed();

// The features found when the library was loaded.
const CpuFeatures& DetectCpuFeatures();

}  // namespace edgelstm
