// Runs one layer for counting instructions or time: steps KERNELS float32|float16|hybrid|int8|int16
// INPUTS UNITS STEPS REPEATS [THREADS [BATCH]]. Marks begin and end of the measured calls by a system
// call that does not exist, which an emulator's plugin can see; prints ns per step.
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "random_layer.h"

namespace {
constexpr long kMarker = 424242;
}

int main(int argc, char** argv) {
  if (argc < 7) return 2;
  const char* kind = argv[2];
  const int32_t arithmetic = std::strcmp(kind, "hybrid") == 0 ? EDGELSTM_HYBRID
                             : std::strcmp(kind, "int8") == 0 ? EDGELSTM_INTEGER
                             : std::strcmp(kind, "int16") == 0 ? EDGELSTM_INTEGER_WIDE
                                                              : EDGELSTM_FLOAT;
  const int32_t inputs = std::atoi(argv[3]), units = std::atoi(argv[4]);
  const int32_t steps = std::atoi(argv[5]), repeats = std::atoi(argv[6]);
  edgelstm_test::RandomLayer layer(1, arithmetic, std::strcmp(kind, "float16") == 0,
                                   {inputs, units, 0, false, false, false, false});
  EdgeLstm* lstm = edgelstm_create_threaded(&layer.layer(), argv[1], argc > 7 ? std::atoi(argv[7]) : 1);
  if (lstm == nullptr) return 2;
  edgelstm_test::RandomCall call(layer, argc > 8 ? std::atoi(argv[8]) : 1, steps, false);
  edgelstm_run(lstm, &call.call());
  syscall(kMarker, 0);
  const auto started = std::chrono::steady_clock::now();
  for (int32_t i = 0; i < repeats; ++i) edgelstm_run(lstm, &call.call());
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - started;
  syscall(kMarker, 1);
  std::printf("%s %s %dx%d: %.1f ns per step\n", argv[1], kind, inputs, units,
              took.count() / steps / repeats);
  edgelstm_delete(lstm);
  return 0;
}
