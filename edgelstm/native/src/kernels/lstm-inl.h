// The LSTM over a vector type V, one instance per instruction set.
//
// Weights are packed as [block][k][gate][lane]: a block is as many units as V has lanes, k runs
// over the inputs (or the outputs before), so that one pass over k gives all gates of a block in
// registers. The input projection of many steps is computed first, as one product; a step then
// adds the recurrent part and finishes its gates where they are.
#pragma once

#include <cstdint>

#include "kernels/activation-inl.h"
#include "kernels/integer-inl.h"
#include "kernels/lstm.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

// Weights that as float32 exceed the first cache are kept as float16 if they are stored so. Smaller
// ones are not: widening them in every step made 16 -> 32 1.8 times slower.
constexpr int64_t kHalfFromBytes = 32 * 1024;
constexpr float kLayerNormEpsilon = 1e-8f;

template <class V>
class Lstm {
 public:
  static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }

  static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  static void Pack(const EdgeLstmLayer& layer, void* packed) {
    const Sizes sizes(layer);
    char* base = static_cast<char*>(packed);
    const int first = Coupled(layer) ? 1 : 0;
    PackMatrix(layer, layer.kernel + first, sizes.gates, layer.units, layer.inputs,
               sizes.input_depth, base + sizes.kernel);
    if (layer.diagonal) {
      PackVectors(layer.recurrent, layer.units, sizes.units, base + sizes.recurrent);
    } else {
      PackMatrix(layer, layer.recurrent + first, sizes.gates, layer.units, layer.outputs,
                 sizes.output_depth, base + sizes.recurrent);
    }
    PackVectors(layer.bias, layer.units, sizes.units, base + sizes.bias);
    if (HasPeephole(layer)) {
      PackVectors(layer.peephole, layer.units, sizes.units, base + sizes.peephole);
    }
    if (HasLayerNorm(layer)) {
      PackVectors(layer.layer_norm, layer.units, sizes.units, base + sizes.layer_norm);
    }
    if (HasProjection(layer)) {
      // The rows of four neighbouring blocks stand where a cell has its gates.
      PackMatrix(layer, nullptr, 4, layer.outputs, layer.units, sizes.unit_depth,
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
  }

  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch) {
    Lstm lstm(layer, packed, call, scratch);
    for (int64_t row = 0; row < call.batch; row += kMaxRows) {
      lstm.RunRows(row, Smaller(kMaxRows, call.batch - row));
    }
  }

 private:
  using Float = typename V::Float;
  using Int = typename V::Int;
  static constexpr int64_t kLanes = V::kLanes;

  // Offsets and sizes in bytes, `units` and `outputs` in padded elements, depths in elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      const bool hybrid = layer.arithmetic == EDGELSTM_HYBRID;
      gates = Coupled(layer) ? 3 : 4;
      units = RoundUp(layer.units, kLanes);
      outputs = RoundUp(layer.outputs, 4 * kLanes);
      // int8 is multiplied four values at a time.
      const int64_t group = hybrid ? 4 : 1;
      input_depth = RoundUp(layer.inputs, group);
      output_depth = RoundUp(layer.outputs, group);
      unit_depth = RoundUp(layer.units, group);
      const int64_t multiplied = units * gates * (input_depth + output_depth);
      half = V::kHasHalf && 4 * multiplied > kHalfFromBytes && AllHalf(layer);
      const int64_t element = hybrid ? 1 : half ? 2 : 4;
      Layout layout;
      kernel = layout.Place(units * gates * input_depth * element);
      recurrent = layout.Place(layer.diagonal ? 16 * units : units * gates * output_depth * element);
      bias = layout.Place(16 * units);
      peephole = layout.Place(HasPeephole(layer) ? 16 * units : 0);
      layer_norm = layout.Place(HasLayerNorm(layer) ? 16 * units : 0);
      projection = layout.Place(HasProjection(layer) ? outputs * unit_depth * element : 0);
      projection_bias = layout.Place(HasProjection(layer) ? 4 * outputs : 0);
      scales = layout.Place(9 * 4);
      packed = layout.end();

      Layout memory;
      sums_row = units * gates;
      chunk_rows = Larger(kMaxRows, kChunkBytes / (4 * sums_row));
      sums = memory.Place(4 * sums_row * chunk_rows);
      hidden = memory.Place(HasProjection(layer) ? 4 * units * kMaxRows : 0);
      projected = memory.Place(HasProjection(layer) ? 4 * outputs * kMaxRows : 0);
      const int64_t longest = Larger(input_depth, Larger(output_depth, unit_depth));
      vectors = memory.Place(hybrid ? kMaxRows * longest : 0);
      scratch = memory.end();
      vector_depth = longest;
    }

    int gates;
    bool half;
    int64_t units, outputs, input_depth, output_depth, unit_depth;
    int64_t kernel, recurrent, bias, peephole, layer_norm, projection, projection_bias, scales;
    int64_t packed;
    int64_t sums_row, chunk_rows, sums, hidden, projected, vectors, vector_depth;
    int64_t scratch;
  };

  // --- packing ---

  // Lane `lane` of block `block` is row block * kLanes + lane of each gate's matrix. Without
  // `gates`, gate g of a block is the next kLanes rows of the projection instead.
  static void PackMatrix(const EdgeLstmLayer& layer, const EdgeLstmWeight* gates, int count,
                         int64_t rows, int64_t columns, int64_t depth, char* to) {
    const bool hybrid = layer.arithmetic == EDGELSTM_HYBRID;
    const bool half = Sizes(layer).half;
    const int64_t group = hybrid ? 4 : 1;
    const int64_t blocks = RoundUp(rows, kLanes * (gates ? 1 : 4)) / (kLanes * (gates ? 1 : 4));
    float* floats = reinterpret_cast<float*>(to);
    uint16_t* halves = reinterpret_cast<uint16_t*>(to);
    int8_t* bytes = reinterpret_cast<int8_t*>(to);
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
                *bytes++ = there ? Int8At(weight, index) : static_cast<int8_t>(0);
              } else if (half) {
                *halves++ = there ? HalfAt(weight, index) : static_cast<uint16_t>(0);
              } else {
                *floats++ = there ? WeightAt(weight, index) : 0.0f;
              }
            }
          }
        }
      }
    }
  }

  // Four vectors, one per gate, each padded with zeros.
  static void PackVectors(const EdgeLstmWeight* gates, int64_t size, int64_t padded, char* to) {
    float* floats = reinterpret_cast<float*>(to);
    for (int gate = 0; gate < 4; ++gate) {
      for (int64_t i = 0; i < padded; ++i) {
        *floats++ = i < size ? WeightAt(gates[gate], i) : 0.0f;
      }
    }
  }

  // --- one call ---

  Lstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        hybrid_(layer.arithmetic == EDGELSTM_HYBRID),
        coupled_(Coupled(layer)),
        has_peephole_(HasPeephole(layer)),
        has_layer_norm_(HasLayerNorm(layer)),
        has_projection_(HasProjection(layer)),
        packed_(static_cast<const char*>(packed)),
        sums_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.sums)),
        hidden_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.hidden)),
        projected_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.projected)),
        vectors_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.vectors)) {}

  const float* Vector(int64_t offset, int gate) const {
    return reinterpret_cast<const float*>(packed_ + offset) + gate * sizes_.units;
  }

  // The whole sequence of rows [first, first + count).
  void RunRows(int64_t first, int64_t count) {
    const int64_t chunk = Larger(1, sizes_.chunk_rows / count);
    for (int64_t start = 0; start < call_.steps; start += chunk) {
      const int64_t steps = Smaller(chunk, call_.steps - start);
      Project(first, count, start, steps);
      for (int64_t step = 0; step < steps; ++step) {
        float* sums = sums_ + step * count * sizes_.sums_row;
        if (coupled_) {
          Step<3>(first, count, start + step, sums);
        } else {
          Step<4>(first, count, start + step, sums);
        }
      }
    }
    if (call_.steps == 0) return;
    for (int64_t row = first; row < first + count; ++row) {
      const float* last = Output(row, call_.steps - 1);
      float* h = static_cast<float*>(call_.h) + row * layer_.outputs;
      for (int64_t i = 0; i < layer_.outputs; ++i) h[i] = last[i];
    }
  }

  const float* Input(int64_t row, int64_t step) const {
    return static_cast<const float*>(call_.input) + row * call_.input_row + step * call_.input_step;
  }
  float* Output(int64_t row, int64_t step) const {
    return static_cast<float*>(call_.output) + row * call_.output_row + step * call_.output_step;
  }
  const float* Before(int64_t row, int64_t step) const {
    return step == 0 ? static_cast<const float*>(call_.h) + row * layer_.outputs : Output(row, step - 1);
  }

  // sums[step][row] = bias + kernel x; without the bias where layer norm adds it later.
  void Project(int64_t first, int64_t count, int64_t start, int64_t steps) {
    const int gates = sizes_.gates;
    const int64_t total = steps * count;
    for (int64_t block = 0; block < sizes_.units / kLanes; ++block) {
      Float initial[4];
      for (int gate = 0; gate < gates; ++gate) {
        initial[gate] = has_layer_norm_
                            ? V::Set(0.0f)
                            : V::Load(Vector(sizes_.bias, gate + 4 - gates) + block * kLanes);
      }
      for (int64_t i = 0; i < total; ++i) {
        float* to = sums_ + i * sizes_.sums_row + block * gates * kLanes;
        for (int gate = 0; gate < gates; ++gate) V::Store(to + gate * kLanes, initial[gate]);
      }
    }
    for (int64_t i = 0; i < total; i += kMaxRows) {
      const float* rows[kMaxRows];
      const int64_t some = Smaller(kMaxRows, total - i);
      for (int64_t r = 0; r < some; ++r) {
        rows[r] = Input(first + (i + r) % count, start + (i + r) / count);
      }
      const float* scales = reinterpret_cast<const float*>(packed_ + sizes_.scales) + 4 - gates;
      float* sums = sums_ + i * sizes_.sums_row;
      if (gates == 3) {
        Multiply<3>(packed_ + sizes_.kernel, sizes_.units / kLanes, layer_.inputs,
                    sizes_.input_depth, rows, some, scales, 1, sums, sizes_.sums_row);
      } else {
        Multiply<4>(packed_ + sizes_.kernel, sizes_.units / kLanes, layer_.inputs,
                    sizes_.input_depth, rows, some, scales, 1, sums, sizes_.sums_row);
      }
    }
  }

  template <int kGates>
  void Step(int64_t first, int64_t count, int64_t step, float* sums) {
    const float* before[kMaxRows];
    float* hidden[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      before[r] = Before(first + r, step);
      hidden[r] = has_projection_ ? hidden_ + r * sizes_.units : Output(first + r, step);
    }
    float* c = static_cast<float*>(call_.c) + first * layer_.units;
    const int64_t blocks = sizes_.units / kLanes;
    if (layer_.diagonal || hybrid_ || has_layer_norm_) {
      if (!layer_.diagonal) {
        const float* scales =
            reinterpret_cast<const float*>(packed_ + sizes_.scales) + 4 + 4 - kGates;
        Multiply<kGates>(packed_ + sizes_.recurrent, blocks, layer_.outputs, sizes_.output_depth,
                         before, count, scales, 1, sums, sizes_.sums_row);
      }
      for (int64_t r = 0; r < count; ++r) {
        float* row = sums + r * sizes_.sums_row;
        if (layer_.diagonal) AddDiagonal<kGates>(before[r], row);
        if (has_layer_norm_) {
          Normalized<kGates>(row, c + r * layer_.units, hidden[r]);
          continue;
        }
        for (int64_t block = 0; block < blocks; ++block) {
          Float z[kGates];
          Gates<kGates>(row, block, z);
          Cell<kGates>(z, block, c + r * layer_.units, hidden[r]);
        }
      }
    } else {
      if (V::kHasHalf && sizes_.half) {
        AllRecurrent<kGates, uint16_t>(before, count, sums, c, hidden);
      } else {
        AllRecurrent<kGates, float>(before, count, sums, c, hidden);
      }
    }
    if (has_projection_) ProjectHidden(first, count, step, hidden);
  }

  template <int kGates, class Element>
  void AllRecurrent(const float* const* before, int64_t count, const float* sums, float* c,
                    float* const* hidden) {
    const Element* weights = reinterpret_cast<const Element*>(packed_ + sizes_.recurrent);
    int64_t r = 0;
    for (; r + V::kFloatRows <= count; r += V::kFloatRows) {
      Recurrent<V::kFloatRows, 1, kGates>(weights, before + r, r, sums, c, hidden);
    }
    if (count - r == 2) Recurrent<2, 1, kGates>(weights, before + r, r, sums, c, hidden);
    if (count - r == 1) Recurrent<1, 2, kGates>(weights, before + r, r, sums, c, hidden);
  }

  // The recurrent part of kRows rows from row `r`, its gates finished while in registers.
  template <int kRows, int kBlocks, int kGates, class Element>
  void Recurrent(const Element* weights, const float* const* before, int64_t r, const float* sums,
                 float* c, float* const* hidden) {
    const int64_t blocks = sizes_.units / kLanes;
    const int64_t depth = layer_.outputs;
    int64_t block = 0;
    for (; block + kBlocks <= blocks; block += kBlocks) {
      FinishTile<kRows, kBlocks, kGates>(weights, depth, before, r, block, sums, c, hidden);
    }
    if (kBlocks > 1 && block < blocks) {
      FinishTile<kRows, 1, kGates>(weights, depth, before, r, block, sums, c, hidden);
    }
  }

  template <int kRows, int kBlocks, int kGates, class Element>
  inline void FinishTile(const Element* weights, int64_t depth, const float* const* before,
                         int64_t r, int64_t block, const float* sums, float* c,
                         float* const* hidden) {
    Float z[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const float* from = sums + (r + row) * sizes_.sums_row + block * kGates * kLanes;
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        z[row * kBlocks * kGates + i] = V::Load(from + i * kLanes);
      }
    }
    Accumulate<kRows, kBlocks, kGates>(weights + block * depth * kGates * kLanes, depth, before,
                                       z);
    for (int row = 0; row < kRows; ++row) {
      for (int b = 0; b < kBlocks; ++b) {
        Cell<kGates>(z + (row * kBlocks + b) * kGates, block + b, c + (r + row) * layer_.units,
                     hidden[r + row]);
      }
    }
  }

  // z[row][block][gate] += sum over k of weights[block][k][gate] * rows[row][k].
  template <int kRows, int kBlocks, int kGates, class Element>
  static inline void Accumulate(const Element* weights, int64_t depth, const float* const* rows,
                                Float* z) {
    const int64_t stride = depth * kGates * kLanes;
    Float sum[kRows * kBlocks * kGates];
    const float* row[kRows];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) sum[i] = z[i];
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) row[r] = rows[r];
    for (int64_t k = 0; k < depth; ++k) {
      Float x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = V::Set(row[r][k]);
      EDGELSTM_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          const Float w = V::Load(weights + b * stride + (k * kGates + gate) * kLanes);
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Float& to = sum[(r * kBlocks + b) * kGates + gate];
            to = V::MulAdd(w, x[r], to);
          }
        }
      }
    }
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) z[i] = sum[i];
  }

  // sums[row] += weights rows[row]. `depth` elements of a row are read; `padded` are packed.
  // `scales`, one per gate or the same for all when `scale_step` is 0, count for int8 only.
  template <int kGates>
  void Multiply(const char* weights, int64_t blocks, int64_t depth, int64_t padded,
                const float* const* rows, int64_t count, const float* scales, int scale_step,
                float* sums, int64_t sums_row) {
    if (hybrid_) {
      MultiplyInt8<kGates>(reinterpret_cast<const int8_t*>(weights), blocks, depth, padded, rows,
                           count, scales, scale_step, sums, sums_row);
      return;
    }
    if (V::kHasHalf && sizes_.half) {
      MultiplyFloat<kGates>(reinterpret_cast<const uint16_t*>(weights), blocks, depth, rows, count,
                            sums, sums_row);
    } else {
      MultiplyFloat<kGates>(reinterpret_cast<const float*>(weights), blocks, depth, rows, count,
                            sums, sums_row);
    }
  }

  template <int kGates, class Element>
  static void MultiplyFloat(const Element* weights, int64_t blocks, int64_t depth,
                            const float* const* rows, int64_t count, float* sums,
                            int64_t sums_row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const Element* from = weights + block * depth * kGates * kLanes;
      float* to = sums + block * kGates * kLanes;
      int64_t r = 0;
      for (; r + V::kFloatRows <= count; r += V::kFloatRows) {
        AddTile<V::kFloatRows, 1, kGates>(from, depth, rows + r, to + r * sums_row, sums_row);
      }
      if (count - r == 2) {
        AddTile<2, 1, kGates>(from, depth, rows + r, to + r * sums_row, sums_row);
      } else if (count - r == 1 && block + 1 < blocks && count == 1) {
        AddTile<1, 2, kGates>(from, depth, rows + r, to + r * sums_row, sums_row);
        ++block;
      } else if (count - r == 1) {
        AddTile<1, 1, kGates>(from, depth, rows + r, to + r * sums_row, sums_row);
      }
    }
  }

  template <int kRows, int kBlocks, int kGates, class Element>
  static inline void AddTile(const Element* weights, int64_t depth, const float* const* rows,
                             float* sums, int64_t sums_row) {
    Float z[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        z[row * kBlocks * kGates + i] = V::Load(sums + row * sums_row + i * kLanes);
      }
    }
    Accumulate<kRows, kBlocks, kGates>(weights, depth, rows, z);
    EDGELSTM_UNROLL
    for (int row = 0; row < kRows; ++row) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        V::Store(sums + row * sums_row + i * kLanes, z[row * kBlocks * kGates + i]);
      }
    }
  }

  // --- int8 ---

  template <int kGates>
  void MultiplyInt8(const int8_t* weights, int64_t blocks, int64_t depth, int64_t padded,
                    const float* const* rows, int64_t count, const float* scales, int scale_step,
                    float* sums, int64_t sums_row) {
    float row_scale[kMaxRows];
    int32_t corrections[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      int8_t* vector = vectors_ + r * sizes_.vector_depth;
      row_scale[r] = Quantize(rows[r], depth, padded, vector);
      corrections[r] = V::DotCorrection(vector, padded);
    }
    for (int64_t block = 0; block < blocks; ++block) {
      const int8_t* from = weights + block * padded * kGates * kLanes;
      float* to = sums + block * kGates * kLanes;
      int64_t r = 0;
      for (; r + V::kInt8Rows <= count; r += V::kInt8Rows) {
        AddInt8Tile<V::kInt8Rows, 1, kGates>(from, padded, vectors_ + r * sizes_.vector_depth,
                                             corrections + r, row_scale + r, scales, scale_step,
                                             to + r * sums_row, sums_row);
      }
      for (; r < count; ++r) {
        if (count == 1 && block + 1 < blocks) {
          AddInt8Tile<1, 2, kGates>(from, padded, vectors_, corrections, row_scale, scales, scale_step, to,
                                    sums_row);
          ++block;
        } else {
          AddInt8Tile<1, 1, kGates>(from, padded, vectors_ + r * sizes_.vector_depth,
                                    corrections + r, row_scale + r, scales, scale_step, to + r * sums_row,
                                    sums_row);
        }
      }
    }
  }

  template <int kRows, int kBlocks, int kGates>
  EDGELSTM_NOINLINE void AddInt8Tile(
      const int8_t* weights, int64_t depth, const int8_t* vectors, const int32_t* corrections,
      const float* row_scale, const float* scales, int scale_step,
                          float* sums, int64_t sums_row) const {
    const int64_t stride = depth * kGates * kLanes;
    const int64_t vector_depth = sizes_.vector_depth;
    Int sum[kRows * kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kBlocks * kGates; ++i) {
      sum[i] = V::SetInt(corrections[i / (kBlocks * kGates)]);
    }
    for (int64_t k = 0; k < depth; k += 4) {
      typename V::Quad x[kRows];
      EDGELSTM_UNROLL
      for (int r = 0; r < kRows; ++r) x[r] = V::LoadQuad(vectors + r * vector_depth + k);
      EDGELSTM_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) {
          const auto w =
              V::LoadWeights(weights + b * stride + k * kGates * kLanes + gate * 4 * kLanes);
          EDGELSTM_UNROLL
          for (int r = 0; r < kRows; ++r) {
            Int& to = sum[(r * kBlocks + b) * kGates + gate];
            to = V::AddDot(to, w, x[r]);
          }
        }
      }
    }
    EDGELSTM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      EDGELSTM_UNROLL
      for (int i = 0; i < kBlocks * kGates; ++i) {
        float* to = sums + r * sums_row + i * kLanes;
        const Float scale = V::Set(scales[i % kGates * scale_step] * row_scale[r]);
        V::Store(to, V::MulAdd(V::ToFloat(sum[r * kBlocks * kGates + i]), scale, V::Load(to)));
      }
    }
  }

  // Nearest int8 within [-127, 127], halves away from zero, and their scale, max|values| / 127;
  // a row of zeros has scale 1. Elements from `depth` to `padded` become 0.
  static float Quantize(const float* values, int64_t depth, int64_t padded, int8_t* to) {
    float largest = 0.0f;
    Float wide = V::Set(0.0f);
    int64_t k = 0;
    for (; k + kLanes <= depth; k += kLanes) wide = V::Larger(V::Abs(V::Load(values + k)), wide);
    if (k < depth) {
      wide = V::Larger(V::Abs(V::LoadPart(values + k, static_cast<int>(depth - k))), wide);
    }
    float lanes[kLanes];
    V::Store(lanes, wide);
    for (int64_t i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
    if (largest == 0.0f) {
      for (k = 0; k < padded; ++k) to[k] = 0;
      return 1.0f;
    }
    const float factor = 127.0f / largest;
    for (k = 0; k + kLanes <= depth; k += kLanes) {
      V::StoreRounded(to + k, V::Mul(V::Load(values + k), V::Set(factor)));
    }
    for (; k < padded; ++k) {
      const float scaled = k < depth ? values[k] * factor : 0.0f;
      const float half = scaled < 0.0f ? -0.5f : 0.5f;
      to[k] = scaled >= -127.0f && scaled <= 127.0f ? static_cast<int8_t>(scaled + half)
              : scaled > 0.0f                       ? static_cast<int8_t>(127)
                                                    : static_cast<int8_t>(-127);
    }
    return largest / 127.0f;
  }

  // --- finishing ---

  template <int kGates>
  static void Gates(const float* row, int64_t block, Float* z) {
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) {
      z[gate] = V::Load(row + (block * kGates + gate) * kLanes);
    }
  }

  template <int kGates>
  void AddDiagonal(const float* before, float* row) const {
    for (int64_t block = 0; block < sizes_.units / kLanes; ++block) {
      const Float h = Part(before, block);
      for (int gate = 0; gate < kGates; ++gate) {
        float* z = row + (block * kGates + gate) * kLanes;
        const Float weight =
            V::Load(Vector(sizes_.recurrent, gate + 4 - kGates) + block * kLanes);
        V::Store(z, V::MulAdd(weight, h, V::Load(z)));
      }
    }
  }

  Float Part(const float* values, int64_t block) const {
    const int64_t n = layer_.units - block * kLanes;
    return n >= kLanes ? V::Load(values + block * kLanes)
                       : V::LoadPart(values + block * kLanes, static_cast<int>(n));
  }
  void StorePart(float* values, int64_t block, Float value) const {
    const int64_t n = layer_.units - block * kLanes;
    if (n >= kLanes) {
      V::Store(values + block * kLanes, value);
    } else {
      V::StorePart(values + block * kLanes, value, static_cast<int>(n));
    }
  }

  Float Activate(Float x) const {
    switch (layer_.activation) {
      case EDGELSTM_RELU:
        return V::Max(0.0f, x);
      case EDGELSTM_RELU_N1_TO_1:
        return V::Min(1.0f, V::Max(-1.0f, x));
      case EDGELSTM_RELU6:
        return V::Min(6.0f, V::Max(0.0f, x));
      default:
        return Tanh<V>(x);
    }
  }

  static Float Clipped(Float x, float limit) {
    return limit > 0.0f ? V::Min(limit, V::Max(-limit, x)) : x;
  }

  // f c + i g from the sums of the gates.
  template <int kGates>
  Float NextC(const Float* z, Float c) const {
    const Float f = Sigmoid<V>(z[kGates - 3]);
    const Float i = kGates == 4 ? Sigmoid<V>(z[0]) : V::Sub(V::Set(1.0f), f);
    return Clipped(V::MulAdd(f, c, V::Mul(i, Activate(z[kGates - 2]))), layer_.cell_clip);
  }

  // Writes c of one block, and o tanh(c) to `hidden`.
  template <int kGates>
  void Cell(const Float* sums, int64_t block, float* c, float* hidden) const {
    Float z[kGates];
    EDGELSTM_UNROLL
    for (int gate = 0; gate < kGates; ++gate) z[gate] = sums[gate];
    const Float old = Part(c, block);
    if (has_peephole_) AddPeephole<kGates>(block, old, z);
    const Float next = NextC<kGates>(z, old);
    StorePart(c, block, next);
    if (has_peephole_) {
      const Float weight = V::Load(Vector(sizes_.peephole, 3) + block * kLanes);
      z[kGates - 1] = V::MulAdd(weight, next, z[kGates - 1]);
    }
    StorePart(hidden, block, V::Mul(Sigmoid<V>(z[kGates - 1]), Activate(next)));
  }

  // Those of the input and forget gates, which see the c before.
  template <int kGates>
  void AddPeephole(int64_t block, Float c, Float* z) const {
    for (int gate = 0; gate < kGates - 2; ++gate) {
      const Float weight = V::Load(Vector(sizes_.peephole, gate + 4 - kGates) + block * kLanes);
      z[gate] = V::MulAdd(weight, c, z[gate]);
    }
  }

  // As Cell for all blocks of a row, with layer norm: each gate needs all its units first, and
  // the output gate needs the new c.
  template <int kGates>
  void Normalized(float* row, float* c, float* hidden) const {
    const int64_t blocks = sizes_.units / kLanes;
    if (has_peephole_) {
      for (int64_t block = 0; block < blocks; ++block) {
        Float z[kGates];
        Gates<kGates>(row, block, z);
        AddPeephole<kGates>(block, Part(c, block), z);
        for (int gate = 0; gate < kGates - 2; ++gate) {
          V::Store(row + (block * kGates + gate) * kLanes, z[gate]);
        }
      }
    }
    for (int gate = 0; gate < kGates - 1; ++gate) Normalize<kGates>(row, gate);
    for (int64_t block = 0; block < blocks; ++block) {
      Float z[kGates];
      Gates<kGates>(row, block, z);
      const Float next = NextC<kGates>(z, Part(c, block));
      StorePart(c, block, next);
      if (has_peephole_) {
        const Float weight = V::Load(Vector(sizes_.peephole, 3) + block * kLanes);
        V::Store(row + (block * kGates + kGates - 1) * kLanes,
                 V::MulAdd(weight, next, z[kGates - 1]));
      }
    }
    Normalize<kGates>(row, kGates - 1);
    for (int64_t block = 0; block < blocks; ++block) {
      const Float z = V::Load(row + (block * kGates + kGates - 1) * kLanes);
      StorePart(hidden, block, V::Mul(Sigmoid<V>(z), Activate(Part(c, block))));
    }
  }

  // z = layer_norm (z - mean) / deviation + bias over the units of one gate.
  template <int kGates>
  void Normalize(float* row, int gate) const {
    const int64_t blocks = sizes_.units / kLanes;
    const float count = static_cast<float>(layer_.units);
    Float total = V::Set(0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      total = V::Add(total, Part(row + block * (kGates - 1) * kLanes + gate * kLanes, block));
    }
    const float mean = V::Sum(total) / count;
    Float squares = V::Set(0.0f);
    for (int64_t block = 0; block < blocks; ++block) {
      float* z = row + (block * kGates + gate) * kLanes;
      const Float centred = V::Sub(V::Load(z), V::Set(mean));
      V::Store(z, centred);
      // Lanes beyond the units must not count.
      const Float counted = Part(z - block * kLanes, block);
      squares = V::MulAdd(counted, counted, squares);
    }
    const float variance = V::Sum(squares) / count;
    const Float factor = V::Set(1.0f / __builtin_sqrtf(variance + kLayerNormEpsilon));
    for (int64_t block = 0; block < blocks; ++block) {
      float* z = row + (block * kGates + gate) * kLanes;
      const int part = gate + 4 - kGates;
      const Float weight = V::Load(Vector(sizes_.layer_norm, part) + block * kLanes);
      const Float bias = V::Load(Vector(sizes_.bias, part) + block * kLanes);
      V::Store(z, V::MulAdd(V::Mul(V::Load(z), factor), weight, bias));
    }
  }

  // output = projection hidden + bias, clipped.
  void ProjectHidden(int64_t first, int64_t count, int64_t step, float* const* hidden) {
    const int64_t width = 4 * kLanes;
    const int64_t blocks = sizes_.outputs / width;
    const float* bias = reinterpret_cast<const float*>(packed_ + sizes_.projection_bias);
    const float* scale = reinterpret_cast<const float*>(packed_ + sizes_.scales) + 8;
    const float* rows[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      rows[r] = hidden[r];
      for (int64_t i = 0; i < sizes_.outputs; i += kLanes) {
        V::Store(projected_ + r * sizes_.outputs + i, V::Load(bias + i));
      }
    }
    Multiply<4>(packed_ + sizes_.projection, blocks, layer_.units, sizes_.unit_depth, rows, count,
                scale, 0, projected_, sizes_.outputs);
    for (int64_t r = 0; r < count; ++r) {
      float* to = Output(first + r, step);
      for (int64_t i = 0; i < layer_.outputs; i += kLanes) {
        const Float value = Clipped(V::Load(projected_ + r * sizes_.outputs + i), layer_.projection_clip);
        if (i + kLanes <= layer_.outputs) {
          V::Store(to + i, value);
        } else {
          V::StorePart(to + i, value, static_cast<int>(layer_.outputs - i));
        }
      }
    }
  }

  const EdgeLstmLayer& layer_;
  const Sizes sizes_;
  const EdgeLstmCall& call_;
  const bool hybrid_, coupled_, has_peephole_, has_layer_norm_, has_projection_;
  const char* packed_;
  float* sums_;
  float* hidden_;
  float* projected_;
  int8_t* vectors_;
};

template <class V, typename V::Float (*kFunction)(typename V::Float)>
void ForEach(const float* in, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::Store(out + i, kFunction(V::Load(in + i)));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    V::StorePart(out + i, kFunction(V::LoadPart(in + i, rest)), rest);
  }
}

template <class V>
constexpr LstmKernels KernelsOf(const char* name, bool (*runs_on)(const CpuFeatures&)) {
  return {name,
          runs_on,
          {Lstm<V>::PackedBytes, Lstm<V>::Pack, Lstm<V>::ScratchBytes, Lstm<V>::Run},
          {IntegerLstm<V>::PackedBytes, IntegerLstm<V>::Pack, IntegerLstm<V>::ScratchBytes,
           IntegerLstm<V>::Run},
          ForEach<V, Sigmoid<V>>,
          ForEach<V, Tanh<V>>};
}

}  // namespace
}  // namespace edgelstm
