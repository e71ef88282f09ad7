// How the float and hybrid kernels lay out weights and scratch memory.
//
// Weights are packed as [block][k][gate][lane]: a block is as many units as V has lanes, k runs
// over the inputs (or the outputs before), so that one pass over k gives all gates of a block in
// registers. In hybrid arithmetic V::kDotGroup k of a lane stand together.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/compact_packing-inl.h"
#include "kernels/dot-inl.h"
#include "kernels/float_tiles-inl.h"
#include "kernels/lstm.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

// Weights that as float32 exceed the first cache are kept as float16 if they are stored so. Smaller
// ones are not: widening them in every step made 16 -> 32 1.8 times slower.
constexpr int64_t kHalfFromBytes = 32 * 1024;
// What FloatStream takes: beyond them it took up to 1.13 times as long as gates after the products
// (128 -> 256).
constexpr int64_t kLeastStreamedUnits = 112;
constexpr int64_t kMostStreamedBytes = 512 * 1024;
// Recurrent weights that as float32 fit a second cache are kept half and half where V::kMixesHalf:
// widening all of them takes as many instructions as reading float32 takes time, and more.
constexpr int64_t kMixedUpToBytes = 1024 * 1024;

// Recurrent weights of which a thread's part exceeds a second cache are kept compact where
// V::kHasCompact; from that cache, unpacking takes longer than reading.
constexpr int64_t kCompactFromBytes = 2 * 1024 * 1024;
static_assert(kMostStreamedBytes <= kCompactFromBytes, "FloatStream reads no compact weights");
// Padding to an even number takes no more than that saves.
constexpr int32_t kCompactFromOutputs = 8;

// How a matrix is kept: the elements of all gates of one k and block stand in a row.
template <class V, class Element, int kGates>
struct PackedRow {
  static constexpr int64_t kElements = kGates * V::kLanes;
  static inline typename V::Float Load(const Element* row, int gate) {
    return V::Load(row + gate * V::kLanes);
  }
};

// The first gates as float32, the others as float16, in units of 16 bits.
struct MixedElement {
  uint16_t bits;
};
// Coupled gates are not mixed: 5 kB of code for a rare layer.
constexpr int kMixedGates = 4, kWideGates = 2;
template <class V>
struct PackedRow<V, MixedElement, kMixedGates> {
  static constexpr int64_t kElements = (kMixedGates + kWideGates) * V::kLanes;
  static inline typename V::Float Load(const MixedElement* row, int gate) {
    if (gate < kWideGates) return V::Load(reinterpret_cast<const float*>(row + 2 * gate * V::kLanes));
    return V::Load(reinterpret_cast<const uint16_t*>(row + (gate + kWideGates) * V::kLanes));
  }
};

template <class V>
class LstmPacking {
 public:
  // Offsets and sizes in bytes, `units` and `outputs` in padded elements, depths in elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      const bool hybrid = Hybrid(layer);
      const bool asymmetric = layer.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC;
      gates = Coupled(layer) ? 3 : 4;
      units = RoundUp(layer.units, kLanes);
      outputs = RoundUp(layer.outputs, 4 * kLanes);
      const int64_t group = hybrid ? V::kDotGroup : 1;
      input_depth = RoundUp(layer.inputs, group);
      output_depth = RoundUp(layer.outputs, group);
      unit_depth = RoundUp(layer.units, group);
      const int64_t multiplied = units * gates * (input_depth + output_depth);
      half = V::kHasHalf && 4 * multiplied > kHalfFromBytes && AllHalf(layer);
      streams = V::kStreamsFloat && !half && !hybrid && gates == 4 && !layer.diagonal &&
                !HasPeephole(layer) && !HasLayerNorm(layer) && !HasProjection(layer) &&
                layer.activation == EDGELSTM_TANH && layer.units >= kLeastStreamedUnits &&
                4 * multiplied <= kMostStreamedBytes;
      mixed = V::kMixesHalf && half && gates == kMixedGates && !layer.diagonal && !HasLayerNorm(layer) &&
              RecurrentBytes() <= kMixedUpToBytes;
      compact = V::kHasCompact && !hybrid && !half && gates == 4 && !layer.diagonal &&
                layer.outputs >= kCompactFromOutputs &&
                RecurrentBytes() > kCompactFromBytes;
      const int64_t element = hybrid ? 1 : half ? 2 : 4;
      const int64_t row = units * (gates * element + (mixed ? 2 * kWideGates : 0));
      Layout layout;
      kernel = layout.Place(units * gates * input_depth * element);
      recurrent = layout.Place(layer.diagonal ? 16 * units : row * output_depth);
      bias = layout.Place(16 * units);
      peephole = layout.Place(HasPeephole(layer) ? 16 * units : 0);
      layer_norm = layout.Place(HasLayerNorm(layer) ? 16 * units : 0);
      projection = layout.Place(HasProjection(layer) ? outputs * unit_depth * element : 0);
      projection_bias = layout.Place(HasProjection(layer) ? 4 * outputs : 0);
      kernel_row_sums = layout.Place(asymmetric ? 4 * units * gates : 0);
      recurrent_row_sums = layout.Place(asymmetric ? 4 * units * gates : 0);
      projection_row_sums = layout.Place(asymmetric && HasProjection(layer) ? 4 * outputs : 0);
      scales = layout.Place(9 * 4);
      const bool split = FloatTiles<V>::kExist && !hybrid;
      dots = layout.Place(hybrid || split ? sizeof(DotFunctions*) : 0);
      header = layout.Place(compact ? sizeof(CompactHeader) : 0);
      factors = layout.Place(compact ? 4 * units * gates : 0);
      others = layout.Place(compact ? CompactPacking<V>::MostOthers(units * gates * output_depth) *
                                          int64_t{sizeof(CompactOther)}
                                    : 0);
      packed = layout.end();

      Layout memory;
      sums_row = units * gates;
      product_rows = V::kReadsAhead ? kProjectedRows : kMaxRows;
      chunk_rows = Larger(product_rows, kChunkBytes / (4 * sums_row));
      sums = memory.Place(4 * sums_row * chunk_rows);
      hidden = memory.Place(HasProjection(layer) ? 4 * units * kMaxRows : 0);
      projected = memory.Place(HasProjection(layer) ? 4 * outputs * kMaxRows : 0);
      const int64_t longest = Larger(input_depth, Larger(output_depth, unit_depth));
      vectors = memory.Place(hybrid ? product_rows * longest : 0);
      pieces = memory.Place(split ? 2 * FloatTiles<V>::Pieces(product_rows, longest) : 0);
      scaled = memory.Place(compact ? 4 * kMaxRows * CompactPacking<V>::ScaledRow(output_depth) : 0);
      scratch = memory.end();
      vector_depth = longest;
    }

    // As float32.
    int64_t RecurrentBytes() const { return 4 * units * gates * output_depth; }

    int gates;
    // `streams`: what FloatStream takes. `mixed`, `compact`: the recurrent weights; compact only if
    // their header says so too.
    bool half, streams, mixed, compact;
    int64_t units, outputs, input_depth, output_depth, unit_depth;
    int64_t kernel, recurrent, bias, peephole, layer_norm, projection, projection_bias, scales;
    int64_t kernel_row_sums, recurrent_row_sums, projection_row_sums, dots, packed;
    int64_t header, factors, others;
    int64_t sums_row, chunk_rows, product_rows, sums, hidden, projected, vectors, pieces, scaled;
    int64_t vector_depth;
    int64_t scratch;
  };

  EDGELSTM_COLD static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }

  EDGELSTM_COLD static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  EDGELSTM_COLD static void Pack(const EdgeLstmLayer& layer, const DotFunctions& dots, int members,
                                 void* packed) {
    const Sizes sizes(layer);
    char* base = static_cast<char*>(packed);
    const int first = Coupled(layer) ? 1 : 0;
    PackMatrix(layer, dots, layer.kernel + first, sizes.gates, layer.units, layer.inputs,
               sizes.input_depth, 0, base + sizes.kernel);
    if (layer.diagonal) {
      PackVectors(layer.recurrent, layer.units, sizes.units, base + sizes.recurrent);
    } else {
      PackMatrix(layer, dots, layer.recurrent + first, sizes.gates, layer.units, layer.outputs,
                 sizes.output_depth, sizes.mixed ? kWideGates : 0,
                 base + sizes.recurrent);
    }
    if constexpr (V::kHasCompact) {
      // Each member has a second cache.
      if (sizes.compact && sizes.RecurrentBytes() > members * kCompactFromBytes) {
        const CompactHeader header = CompactPacking<V>::Pack(
            base + sizes.recurrent, sizes.units / kLanes, sizes.output_depth,
            reinterpret_cast<float*>(base + sizes.factors),
            reinterpret_cast<CompactOther*>(base + sizes.others));
        std::memcpy(base + sizes.header, &header, sizeof header);
      }
    }
    if (layer.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC) PackAllRowSums(layer, sizes, base);
    PackVectors(layer.bias, layer.units, sizes.units, base + sizes.bias);
    if (HasPeephole(layer)) {
      PackVectors(layer.peephole, layer.units, sizes.units, base + sizes.peephole);
    }
    if (HasLayerNorm(layer)) {
      PackVectors(layer.layer_norm, layer.units, sizes.units, base + sizes.layer_norm);
    }
    if (HasProjection(layer)) {
      // The rows of four neighbouring blocks stand where a cell has its gates.
      PackMatrix(layer, dots, nullptr, 4, layer.outputs, layer.units, sizes.unit_depth, 0,
                 base + sizes.projection);
      float* bias = reinterpret_cast<float*>(base + sizes.projection_bias);
      for (int64_t o = 0; o < sizes.outputs; ++o) {
        bias[o] = o < layer.outputs ? WeightAt(layer.projection_bias, o) : 0.0f;
      }
    }
    float* scales = reinterpret_cast<float*>(base + sizes.scales);
    for (int gate = 0; gate < 4; ++gate) {
      scales[gate] = layer.kernel[gate].scale;
      scales[4 + gate] = layer.recurrent[gate].scale;
    }
    scales[8] = layer.projection.scale;
    if (Hybrid(layer) || FloatTiles<V>::kExist) {
      const DotFunctions* at = &dots;
      std::memcpy(base + sizes.dots, &at, sizeof at);
    }
  }

 private:
  static constexpr int64_t kLanes = V::kLanes;

  // Lane `lane` of block `block` is row block * kLanes + lane of each gate's matrix. Without
  // `gates`, gate g of a block is the next kLanes rows of the projection instead. Of float16 the
  // first `wide` gates become float32.
  EDGELSTM_COLD static void PackMatrix(const EdgeLstmLayer& layer, const DotFunctions& dots,
                         const EdgeLstmWeight* gates, int count, int64_t rows, int64_t columns,
                         int64_t depth, int wide, char* to) {
    const bool hybrid = Hybrid(layer);
    const bool half = Sizes(layer).half;
    const int64_t group = hybrid ? V::kDotGroup : 1;
    const int64_t blocks = RoundUp(rows, kLanes * (gates ? 1 : 4)) / (kLanes * (gates ? 1 : 4));
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t k = 0; k < depth; k += group) {
        for (int gate = 0; gate < count; ++gate) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            const EdgeLstmWeight& weight = gates ? gates[gate] : layer.projection;
            const int64_t row = gates ? block * kLanes + lane
                                      : (block * count + gate) * kLanes + lane;
            for (int64_t i = 0; i < group; ++i) {
              const bool there = row < rows && k + i < columns;
              const int64_t index = row * columns + k + i;
              if (hybrid) {
                *to++ = static_cast<char>(Biased(dots.weight_bias, there ? Int8At(weight, index) : 0));
              } else if (half && gate >= wide) {
                to = Put(to, there ? HalfAt(weight, index) : uint16_t{0});
              } else {
                to = Put(to, there ? WeightAt(weight, index) : 0.0f);
              }
            }
          }
        }
      }
    }
  }

  template <class T>
  static char* Put(char* to, T value) {
    std::memcpy(to, &value, sizeof value);
    return to + sizeof value;
  }

  // Four vectors, one per gate, each padded with zeros.
  EDGELSTM_COLD static void PackVectors(const EdgeLstmWeight* gates, int64_t size, int64_t padded, char* to) {
    float* floats = reinterpret_cast<float*>(to);
    for (int gate = 0; gate < 4; ++gate) {
      for (int64_t i = 0; i < padded; ++i) {
        *floats++ = i < size ? WeightAt(gates[gate], i) : 0.0f;
      }
    }
  }

  // Sums of the rows of a matrix, in the order of the sums that its product makes.
  EDGELSTM_COLD static void PackRowSums(const EdgeLstmWeight* gates, int count, const EdgeLstmWeight& projection,
                          int64_t rows, int64_t columns, char* to) {
    int32_t* sums = reinterpret_cast<int32_t*>(to);
    const int64_t width = kLanes * (gates ? 1 : count);
    for (int64_t block = 0; block < RoundUp(rows, width) / width; ++block) {
      for (int gate = 0; gate < count; ++gate) {
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const EdgeLstmWeight& weight = gates ? gates[gate] : projection;
          const int64_t row = block * width + (gates ? 0 : gate * kLanes) + lane;
          int32_t sum = 0;
          for (int64_t k = 0; row < rows && k < columns; ++k) {
            sum += Int8At(weight, row * columns + k);
          }
          *sums++ = sum;
        }
      }
    }
  }

  EDGELSTM_COLD static void PackAllRowSums(const EdgeLstmLayer& layer, const Sizes& sizes, char* base) {
    const int first = 4 - sizes.gates;
    PackRowSums(layer.kernel + first, sizes.gates, layer.projection, layer.units, layer.inputs,
                base + sizes.kernel_row_sums);
    if (!layer.diagonal) {
      PackRowSums(layer.recurrent + first, sizes.gates, layer.projection, layer.units,
                  layer.outputs, base + sizes.recurrent_row_sums);
    }
    if (HasProjection(layer)) {
      PackRowSums(nullptr, 4, layer.projection, layer.outputs, layer.units,
                  base + sizes.projection_row_sums);
    }
  }
};

}  // namespace
}  // namespace edgelstm
