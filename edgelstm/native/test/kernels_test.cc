// Every set of kernels that runs here against the reference: the suite for machines without Python,
// for emulators and for sanitizers. Prints what it ran; exits with 1 if anything differs.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "random_layer.h"

namespace {

using edgelstm_test::RandomCall;
using edgelstm_test::RandomLayer;
using edgelstm_test::Shape;

struct Arithmetic {
  const char* name;
  int32_t arithmetic;
  bool half;
  double tolerance;
};

constexpr Arithmetic kArithmetics[] = {
    {"float32", EDGELSTM_FLOAT, false, 3e-6},
    {"float16", EDGELSTM_FLOAT, true, 3e-6},
    {"hybrid", EDGELSTM_HYBRID, false, 3e-6},
    {"asymmetric hybrid", EDGELSTM_HYBRID_ASYMMETRIC, false, 3e-6},
    {"int8", EDGELSTM_INTEGER, false, 0},
    {"16x8", EDGELSTM_INTEGER_WIDE, false, 0},
};
// In hybrid arithmetic a computed vector that is multiplied again may round otherwise in one place.
constexpr double kOneRounding = 0.05;

int failures = 0, layers = 0;

void Expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

std::vector<std::string> Kernels() {
  char names[256];
  edgelstm_kernels(names, sizeof names);
  std::vector<std::string> found;
  for (char* name = std::strtok(names, ","); name; name = std::strtok(nullptr, ",")) {
    found.emplace_back(name);
  }
  return found;
}

void Compare(const std::string& kernels, const Arithmetic& arithmetic, unsigned seed,
             const Shape& of, int32_t batch, int32_t steps, int32_t threads = 1) {
  Shape shape = of;
  // It has none of the rest.
  if (arithmetic.arithmetic == EDGELSTM_INTEGER_WIDE) shape = {of.inputs, of.units, 0, false, false, false, false};
  RandomLayer layer(seed, arithmetic.arithmetic, arithmetic.half, shape);
  EdgeLstm* tested = edgelstm_create_threaded(&layer.layer(), kernels.c_str(), threads);
  EdgeLstm* reference = edgelstm_create(&layer.layer(), "scalar");
  const std::string what = kernels + " " + arithmetic.name + " inputs " +
                           std::to_string(shape.inputs) + " units " + std::to_string(shape.units) +
                           " outputs " + std::to_string(shape.outputs) + " batch " +
                           std::to_string(batch) + " steps " + std::to_string(steps) + " seed " +
                           std::to_string(seed) + " threads " + std::to_string(threads);
  Expect(tested && reference, what + ": refused");
  if (tested && reference) {
    const bool hybrid = arithmetic.arithmetic == EDGELSTM_HYBRID ||
                        arithmetic.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC;
    RandomCall one(layer, batch, hybrid ? 1 : steps, seed % 2 == 0);
    RandomCall other(one);
    // Twice: a team must be ready again, and states go on.
    for (int call = 0; call < (hybrid ? 1 : 2); ++call) {
      edgelstm_run(tested, &one.call());
      edgelstm_run(reference, &other.call());
    }
    const double limit = hybrid && shape.outputs ? kOneRounding : arithmetic.tolerance;
    const double difference = one.Difference(other);
    Expect(difference <= limit, what + ": differs by " + std::to_string(difference));
    ++layers;
  }
  edgelstm_delete(tested);
  edgelstm_delete(reference);
}

void Layers(const std::string& kernels) {
  const int32_t sizes[] = {1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 66};
  for (const Arithmetic& arithmetic : kArithmetics) {
    unsigned seed = 0;
    for (int32_t units : sizes) {
      for (int32_t batch : {1, 2, 3, 5, 7}) {
        ++seed;
        Shape shape = {static_cast<int32_t>(1 + seed % 11), units, 0, seed % 2 == 0,
                       seed % 3 == 0, seed % 5 == 0 && units > 2, false};
        if (seed % 4 == 1) shape.outputs = 1 + static_cast<int32_t>(seed % 37);
        // The reference's wrong lengths are the stock kernel's, not ours: all agree there too.
        if (seed % 7 == 0 && arithmetic.arithmetic != EDGELSTM_INTEGER) {
          shape.diagonal = true;
          shape.outputs = 0;
        }
        Compare(kernels, arithmetic, seed, shape, batch, 1 + static_cast<int32_t>(seed % 6));
      }
    }
    for (int32_t steps : {1, 150}) {
      Compare(kernels, arithmetic, 1000, {40, 96, 0, false, false, false, false}, 1, steps);
      Compare(kernels, arithmetic, 1002, {9, 130, 0, false, false, false, false}, 1, steps / 3 + 1);
      Compare(kernels, arithmetic, 1001, {5, 50, 20, true, true, true, false}, 26, steps / 9 + 1);
    }
  }
}

// Sizes at which a team splits units, and batches of which it splits rows.
void Teams(const std::string& kernels) {
  for (const Arithmetic& arithmetic : kArithmetics) {
    for (int32_t threads : {2, 3}) {
      Compare(kernels, arithmetic, 4, {100, 512, 0, false, false, false, false}, 1, 3, threads);
      Compare(kernels, arithmetic, 9, {70, 403, 0, true, true, false, false}, 2, 4, threads);
      Compare(kernels, arithmetic, 6, {90, 260, 50, false, true, true, false}, 5, 3, threads);
    }
  }
}

// Hybrid products are exact: however many rows of the input are projected together, and in whichever
// way, a call of many steps equals as many calls of one.
void CompareSteps(const std::string& kernels, const Arithmetic& arithmetic, unsigned seed,
                  const Shape& shape, int32_t batch, int32_t steps) {
  RandomLayer layer(seed, arithmetic.arithmetic, false, shape);
  EdgeLstm* tested = edgelstm_create(&layer.layer(), kernels.c_str());
  const std::string what = kernels + " " + arithmetic.name + " steps of batch " +
                           std::to_string(batch) + " seed " + std::to_string(seed);
  Expect(tested != nullptr, what + ": refused");
  if (tested != nullptr) {
    RandomCall whole(layer, batch, steps, true);
    RandomCall parts(whole);
    edgelstm_run(tested, &whole.call());
    for (int64_t step = 0; step < steps; ++step) {
      EdgeLstmCall one = parts.call();
      one.steps = 1;
      one.input = static_cast<const float*>(one.input) + step * one.input_step;
      one.output = static_cast<float*>(one.output) + step * one.output_step;
      edgelstm_run(tested, &one);
    }
    const double difference = whole.Difference(parts);
    Expect(difference == 0, what + ": differs by " + std::to_string(difference));
    ++layers;
  }
  edgelstm_delete(tested);
}

// Batches of which matrix tiles take all rows, one part of them, and some in the place of others.
void Batches(const std::string& kernels) {
  for (int arithmetic : {2, 3, 4}) {
    const Arithmetic& of = kArithmetics[arithmetic];
    for (int32_t batch : {2, 3, 16, 19, 42}) {
      Compare(kernels, of, 6, {50, 70, 0, false, false, false, false}, batch, 5);
      Compare(kernels, of, 7, {64, 64, 0, false, true, true, false}, batch, 9);
      Compare(kernels, of, 8, {70, 90, 53, false, true, false, false}, batch, 4);
      Compare(kernels, of, 10, {130, 65, 0, true, true, false, false}, batch, 3);
      if (arithmetic == 4) continue;
      CompareSteps(kernels, of, 6, {50, 70, 0, false, false, false, false}, batch, 60 / batch);
      CompareSteps(kernels, of, 7, {64, 130, 0, true, true, true, false}, batch, 60 / batch);
      CompareSteps(kernels, of, 8, {130, 90, 53, false, true, false, false}, batch, 60 / batch);
    }
    if (arithmetic != 4) CompareSteps(kernels, of, 5, {70, 50, 0, false, false, false, false}, 1, 101);
    Compare(kernels, of, 9, {60, 520, 0, false, false, false, false}, 5, 3, 2);
  }
}

// Weights beyond a second cache of every thread; 16x8 whose sums may exceed 32 bits.
void Large(const std::string& kernels) {
  for (const Arithmetic& arithmetic : kArithmetics) {
    if (arithmetic.arithmetic != EDGELSTM_INTEGER) continue;
    Compare(kernels, arithmetic, 2, {1500, 190, 0, false, false, false, false}, 1, 60);
    Compare(kernels, arithmetic, 2, {1500, 190, 0, false, false, false, false}, 17, 3);
  }
  Compare(kernels, kArithmetics[5], 4, {1500, 35, 0, false, false, false, false}, 2, 5);
  Compare(kernels, kArithmetics[5], 5, {60, 1100, 0, false, false, false, false}, 1, 2);
  for (int32_t batch : {1, 3, 6}) {
    Compare(kernels, kArithmetics[0], 4, {9, 370, 0, false, true, false, false}, batch, 3);
    Compare(kernels, kArithmetics[0], 8, {9, 390, 351, false, false, true, false}, batch, 2);
  }
  Compare(kernels, kArithmetics[0], 1, {9, 530, 0, false, false, false, false}, 1, 4, 2);
  Compare(kernels, kArithmetics[0], 1, {9, 530, 0, false, false, false, false}, 4, 2, 2);
}

void Activations(const std::string& kernels) {
  std::vector<float> in;
  for (float x = -20; x < 20; x += 0.0137f) in.push_back(x);
  for (float x : {-INFINITY, INFINITY, 0.0f, -0.0f, 1e-30f, 88.5f, -104.0f}) in.push_back(x);
  std::vector<float> out(in.size());
  for (int function = 0; function < 2; ++function) {
    edgelstm_activate(kernels.c_str(), function, in.data(), out.data(),
                      static_cast<int64_t>(in.size()));
    double largest = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      const double x = in[i], exact = function == 0 ? 1 / (1 + std::exp(-x)) : std::tanh(x);
      largest = std::fmax(largest, std::fabs(out[i] - exact));
    }
    Expect(largest <= 1.5e-7, kernels + " activation " + std::to_string(function) + " is off by " +
                                  std::to_string(largest));
  }
}

// Each thread its own layer: nothing is shared but the tables.
void Threads(const std::string& kernels) {
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) {
    threads.emplace_back([i, kernels] {
      RandomLayer layer(i, i % 2 ? EDGELSTM_INTEGER : EDGELSTM_FLOAT, false,
                        {8, 40, 0, false, false, false, false});
      EdgeLstm* lstm = edgelstm_create(&layer.layer(), kernels.c_str());
      RandomCall call(layer, 3, 20, false);
      for (int round = 0; round < 20; ++round) edgelstm_run(lstm, &call.call());
      edgelstm_delete(lstm);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
  char features[256];
  edgelstm_cpu_features(features, sizeof features);
  std::printf("features %s; chosen %s\n", features, edgelstm_kernels_chosen(nullptr));
  for (const std::string& kernels : Kernels()) {
    Activations(kernels);
    Layers(kernels);
    if (kernels != "scalar") Teams(kernels);
    if (kernels != "scalar") Large(kernels);
    if (kernels != "scalar") Batches(kernels);
    Threads(kernels);
    std::printf("%s: %d layers, %d failures\n", kernels.c_str(), layers, failures);
  }
  return failures == 0 ? 0 : 1;
}
