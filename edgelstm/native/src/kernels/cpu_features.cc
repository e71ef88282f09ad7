#include "kernels/cpu_features.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__linux__) && (defined(__aarch64__) || defined(__arm__))
#include <sys/auxv.h>
#endif

namespace edgelstm {
namespace {

#if defined(__x86_64__) || defined(__i386__)

// Older compilers do not know this name in __builtin_cpu_supports: CPUID leaf 7.1, EAX bit 4.
bool HasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && ((eax >> 4) & 1u) != 0;
}

// Likewise: tiles (leaf 7, EDX bit 24) and one of their products.
bool HasAmx(int product_bit) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const unsigned both = 1u << 24 | 1u << product_bit;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & both) == both;
}

// Likewise: CPUID leaf 1, ECX bit 29.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && ((ecx >> 29) & 1u) != 0;
}

CpuFeatures Detect() {
  __builtin_cpu_init();
  CpuFeatures features;
  features.sse42 = __builtin_cpu_supports("sse4.2") != 0;
  features.avx2 = __builtin_cpu_supports("avx2") != 0;
  features.fma = __builtin_cpu_supports("fma") != 0;
  features.avx512f = __builtin_cpu_supports("avx512f") != 0;
  features.avx512bw = __builtin_cpu_supports("avx512bw") != 0;
  features.avx512dq = __builtin_cpu_supports("avx512dq") != 0;
  features.avx512vl = __builtin_cpu_supports("avx512vl") != 0;
  features.avx512vnni = __builtin_cpu_supports("avx512vnni") != 0;
  // avx2 stands for the operating system saving the wide registers.
  features.f16c = features.avx2 && HasF16c();
  features.avxvnni = features.avx2 && HasAvxVnni();
  features.amxint8 = features.avx512f && HasAmx(25);
  features.amxbf16 = features.avx512f && HasAmx(22);
  return features;
}

#elif defined(__linux__) && defined(__aarch64__)

// Bits of the kernel's ABI (asm/hwcap.h), spelled out because older headers lack some.
CpuFeatures Detect() {
  const unsigned long hwcap = getauxval(AT_HWCAP);
  const unsigned long hwcap2 = getauxval(AT_HWCAP2);
  CpuFeatures features;
  features.asimd = ((hwcap >> 1) & 1ul) != 0;
  features.asimddp = ((hwcap >> 20) & 1ul) != 0;
  features.i8mm = ((hwcap2 >> 13) & 1ul) != 0;
  return features;
}

#elif defined(__linux__) && defined(__arm__)

CpuFeatures Detect() {
  const unsigned long hwcap = getauxval(AT_HWCAP);
  CpuFeatures features;
  features.neon = ((hwcap >> 12) & 1ul) != 0;
  features.vfpv4 = ((hwcap >> 16) & 1ul) != 0;
  features.asimddp = ((hwcap >> 24) & 1ul) != 0;
  features.i8mm = ((hwcap >> 27) & 1ul) != 0;
  return features;
}

#else

CpuFeatures Detect() {
  CpuFeatures features;
#if defined(__aarch64__)
  features.asimd = true;
#endif
  return features;
}

#endif

// Filled while the library is loaded: its static locals are not thread-safe.
const CpuFeatures kFeatures = Detect();

}  // namespace

bool MatrixTilesAllowed() {
#if defined(__x86_64__) && defined(__linux__)
  // Of the kernel's ABI (asm/prctl.h), spelled out because older headers lack them.
  constexpr long kRequestState = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
#else
  return false;
#endif
}

const CpuFeatures& DetectCpuFeatures() { return kFeatures; }

}  // namespace edgelstm
