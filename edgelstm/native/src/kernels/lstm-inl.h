// The LSTM over a vector type V, one instance per instruction set.
//
// Weights are packed as [block][k][gate][lane]: a block is as many units as V has lanes, k runs
// over the inputs (or the outputs before), so that one pass over k gives all gates of a block in
// registers. The input projection of many steps is computed first, as one product; a step then
// adds the recurrent part and finishes its gates where they are.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/cell-inl.h"
#include "kernels/compact-inl.h"
#include "kernels/float_stream-inl.h"
#include "kernels/float_tiles-inl.h"
#include "kernels/hybrid-inl.h"
#include "kernels/lstm.h"
#include "kernels/memory.h"
#include "kernels/packing-inl.h"
#include "kernels/product-inl.h"

namespace edgelstm {
namespace {

template <class V>
class Lstm {
 public:
  // A projection and layer norm need all units before they begin.
  static bool SplitsUnits(const EdgeLstmLayer& layer) {
    return !HasLayerNorm(layer) && !HasProjection(layer);
  }

  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch, void*, const Member& member) {
    Lstm lstm(layer, packed, call, scratch, member);
    for (int64_t row = 0; row < call.batch; row += kMaxRows) {
      lstm.RunRows(row, Smaller(kMaxRows, call.batch - row));
    }
    if (lstm.tiles_ != nullptr) lstm.tiles_->end();
  }

 private:
  using Float = typename V::Float;
  using Sizes = typename LstmPacking<V>::Sizes;
  using MixedOrHalf = std::conditional_t<V::kMixesHalf, MixedElement, uint16_t>;
  using HybridRow = typename HybridProduct<V>::Row;
  static constexpr int64_t kLanes = V::kLanes;
  // A tile takes as long for one row as for all; with few values vectors are faster.
  static constexpr int64_t kRowsForTiles = 3;
  static constexpr int64_t kDepthForTiles = 48;

  // --- one call ---

  Lstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call, void* scratch,
       const Member& member)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        member_(member),
        first_block_(member.Begin(sizes_.units / kLanes)),
        end_block_(member.End(sizes_.units / kLanes)),
        hybrid_(Hybrid(layer)),
        asymmetric_(layer.arithmetic == EDGELSTM_HYBRID_ASYMMETRIC),
        coupled_(Coupled(layer)),
        has_layer_norm_(HasLayerNorm(layer)),
        has_projection_(HasProjection(layer)),
        packed_(static_cast<const char*>(packed)),
        compact_(V::kHasCompact && sizes_.compact && Header()->compact != 0),
        scales_(reinterpret_cast<const float*>(packed_ + sizes_.scales)),
        cell_(layer, sizes_.units, Vector(sizes_.peephole, 0), Vector(sizes_.layer_norm, 0),
              Vector(sizes_.bias, 0)),
        sums_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.sums)),
        hidden_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.hidden)),
        projected_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.projected)),
        vectors_(reinterpret_cast<int8_t*>(static_cast<char*>(scratch) + sizes_.vectors)),
        pieces_(reinterpret_cast<uint16_t*>(static_cast<char*>(scratch) + sizes_.pieces)),
        scaled_(reinterpret_cast<float*>(static_cast<char*>(scratch) + sizes_.scaled)) {}

  const CompactHeader* Header() const {
    return reinterpret_cast<const CompactHeader*>(packed_ + sizes_.header);
  }

  const float* Vector(int64_t offset, int gate) const {
    return reinterpret_cast<const float*>(packed_ + offset) + gate * sizes_.units;
  }

  // The whole sequence of rows [first, first + count).
  void RunRows(int64_t first, int64_t count) {
    if constexpr (FloatTiles<V>::kExist) {
      // By the rows of a batch alone, so that results do not depend on how steps are cut into calls.
      const bool filled = count == TileFunctions::kRows || count == kMaxRows;
      split_ = !hybrid_ && filled ? Dots()->tiles : nullptr;
      if (split_ != nullptr) {
        split_->begin(0);
        tiles_ = split_;
      }
    }
    if constexpr (V::kStreamsFloat) {
      if (count == 1 && Streams()) {
        Stream(first);
        return;
      }
    }
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
        member_.Wait();
      }
    }
    if (call_.steps == 0) return;
    for (int64_t row = first; row < first + count; ++row) {
      const float* last = Output(row, call_.steps - 1);
      float* h = static_cast<float*>(call_.h) + row * layer_.outputs;
      // Without a projection the outputs are the units.
      const int64_t begin = has_projection_ ? 0 : first_block_ * kLanes;
      const int64_t end =
          has_projection_ ? layer_.outputs : Smaller(end_block_ * kLanes, layer_.outputs);
      for (int64_t i = begin; i < end; ++i) h[i] = last[i];
    }
  }

  const DotFunctions* Dots() const {
    return *reinterpret_cast<const DotFunctions* const*>(packed_ + sizes_.dots);
  }

  // Whether FloatStream takes a row; it computes all units.
  bool Streams() const {
    return sizes_.streams && first_block_ == 0 && end_block_ == sizes_.units / kLanes;
  }

  void Stream(int64_t row) {
    FloatStream<V> stream(reinterpret_cast<const float*>(packed_ + sizes_.recurrent),
                          layer_.cell_clip, layer_.units, call_.steps, static_cast<float*>(call_.h) + row * layer_.outputs,
                          static_cast<float*>(call_.c) + row * layer_.units, Output(row, 0),
                          call_.output_step);
    const int64_t chunk = Smaller(sizes_.chunk_rows, FloatStream<V>::kChunk);
    for (int64_t start = 0; start < call_.steps; start += chunk) {
      const int64_t end = Smaller(start + chunk, call_.steps);
      Project(row, 1, start, end - start);
      for (int64_t step = start; step < end; ++step) {
        stream.Step(step, sums_ + (step - start) * sizes_.sums_row);
      }
    }
    stream.End();
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
    if (has_layer_norm_) {
      for (int64_t r = 0; r < total; ++r) {
        for (int64_t i = first_block_ * gates; i < end_block_ * gates; ++i) {
          V::Store(sums_ + r * sizes_.sums_row + i * kLanes, V::Set(0.0f));
        }
      }
    }
    for (int64_t i = 0; i < total; i += sizes_.product_rows) {
      const float* rows[kProjectedRows];
      const int64_t some = Smaller(sizes_.product_rows, total - i);
      for (int64_t r = 0; r < some; ++r) {
        rows[r] = Input(first + (i + r) % count, start + (i + r) / count);
      }
      const Matrix kernel = {sizes_.kernel,      first_block_,            end_block_, layer_.inputs,
                             sizes_.input_depth, sizes_.kernel_row_sums, 4 - gates,  1};
      float* sums = sums_ + i * sizes_.sums_row;
      const Initial initial =
          has_layer_norm_ ? Themselves(sums, sizes_.sums_row, gates)
                          : Initial{Vector(sizes_.bias, 4 - gates), 0, kLanes, sizes_.units};
      if (gates == 3) {
        Multiply<3>(kernel, rows, some, 0, initial, sums, sizes_.sums_row);
      } else {
        Multiply<4>(kernel, rows, some, 0, initial, sums, sizes_.sums_row);
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
    // Coupled gates in float16 are rare: gates finished in registers would be 8 kB of code for them.
    const bool rare = kGates == 3 && sizes_.half;
    if (layer_.diagonal || hybrid_ || has_layer_norm_ || compact_ || rare || count > 1) {
      if (compact_) {
        MultiplyCompact(before, count, step, sums);
      } else if (!layer_.diagonal) {
        const Matrix recurrent = {sizes_.recurrent,    first_block_, end_block_,
                                  layer_.outputs,      sizes_.output_depth,
                                  sizes_.recurrent_row_sums, 8 - kGates, 1};
        if constexpr (HybridProduct<V>::kTiles) {
          if (hybrid_ && !has_layer_norm_ &&
              FinishTiles<kGates>(HybridOf(recurrent, count), before, count, step, sums, c, hidden)) {
            if (has_projection_) ProjectHidden(first, count, step, hidden);
            return;
          }
        }
        Multiply<kGates>(recurrent, before, count, step, Themselves(sums, sizes_.sums_row, kGates), sums,
                         sizes_.sums_row);
      }
      for (int64_t r = 0; r < count; ++r) {
        float* row = sums + r * sizes_.sums_row;
        if (layer_.diagonal) AddDiagonal<kGates>(before[r], row);
        if (has_layer_norm_) {
          cell_.template Normalized<kGates>(row, c + r * layer_.units, hidden[r]);
          continue;
        }
        for (int64_t block = first_block_; block < end_block_; ++block) {
          Float z[kGates];
          FloatCell<V>::template Gates<kGates>(row, block, z);
          cell_.template Finish<kGates>(z, block, c + r * layer_.units, hidden[r]);
        }
      }
    } else {
      AsStored<kGates>(before[0], step, sums, c, hidden[0]);
    }
    if (has_projection_) ProjectHidden(first, count, step, hidden);
  }

  // The hybrid recurrent part of all rows, their gates finished while in registers; false without
  // matrix tiles for it.
  template <int kGates>
  bool FinishTiles(const HybridMatrix& matrix, const float* const* before, int64_t count, int64_t step,
                   const float* sums, float* c, float* const* hidden) {
    if (matrix.tiles == nullptr) return false;
    HybridRow rows[kMaxRows];
    HybridProduct<V>::Quantize(matrix, before, count, vectors_, sizes_.vector_depth, rows);
    HybridProduct<V>::template MultiplyTiles<kGates>(
        matrix, rows, count, step,
        [&](int64_t r, int64_t block, const Float* products, const Float* scales) {
          Float z[kGates];
          FloatCell<V>::template Gates<kGates>(sums + r * sizes_.sums_row, block, z);
          EDGELSTM_UNROLL
          for (int gate = 0; gate < kGates; ++gate) {
            z[gate] = V::MulAdd(products[gate], scales[gate], z[gate]);
          }
          cell_.template Finish<kGates>(z, block, c + r * layer_.units, hidden[r]);
        });
    return true;
  }

  EDGELSTM_NOINLINE void MultiplyCompact(const float* const* before, int64_t count, int64_t step,
                                         float* sums) const {
    if constexpr (V::kHasCompact) {
      CompactMatrix<V>(packed_ + sizes_.recurrent, Vector(sizes_.factors, 0),
                       reinterpret_cast<const CompactOther*>(packed_ + sizes_.others),
                       Header()->others, layer_.outputs)
          .Multiply(first_block_, end_block_, before, count, step, scaled_, sums, sizes_.sums_row);
    }
  }

  // Recurrent with the type that the weights are kept in.
  template <int kGates>
  void AsStored(const float* before, int64_t step, const float* sums, float* c, float* hidden) {
    if constexpr (V::kMixesHalf && kGates == kMixedGates) {
      if (sizes_.mixed) {
        Recurrent<V::kFloatBlocks, kMixedGates, MixedOrHalf>(before, step, sums, c, hidden);
        return;
      }
    }
    if constexpr (V::kHasHalf && kGates == 4) {
      if (sizes_.half) {
        Recurrent<V::kFloatBlocks, kGates, uint16_t>(before, step, sums, c, hidden);
        return;
      }
    }
    Recurrent<V::kFloatBlocks, kGates, float>(before, step, sums, c, hidden);
  }

  // The recurrent part of one row, its gates finished while in registers.
  template <int kBlocks, int kGates, class Element>
  void Recurrent(const float* before, int64_t step, const float* sums, float* c, float* hidden) {
    const Element* weights = reinterpret_cast<const Element*>(packed_ + sizes_.recurrent);
    const int64_t depth = layer_.outputs;
    const int64_t tiles = (end_block_ - first_block_ + kBlocks - 1) / kBlocks;
    BackAndForth(step, tiles, [&](int64_t tile) {
      int64_t block = first_block_ + tile * kBlocks;
      if (block + kBlocks <= end_block_) {
        FinishTile<kBlocks, kGates>(weights, depth, before, block, sums, c, hidden);
        return;
      }
      if constexpr (kBlocks > 2) {
        for (; block + 2 <= end_block_; block += 2) {
          FinishTile<2, kGates>(weights, depth, before, block, sums, c, hidden);
        }
      }
      for (; block < end_block_; ++block) {
        FinishTile<1, kGates>(weights, depth, before, block, sums, c, hidden);
      }
    });
  }

  template <int kBlocks, int kGates, class Element>
  inline void FinishTile(const Element* weights, int64_t depth, const float* before, int64_t block,
                         const float* sums, float* c, float* hidden) {
    Float z[kBlocks * kGates];
    EDGELSTM_UNROLL
    for (int i = 0; i < kBlocks * kGates; ++i) {
      z[i] = V::Load(sums + (block * kGates + i) * kLanes);
    }
    FloatProduct<V>::template Accumulate<1, kBlocks, kGates>(
        weights + block * depth * PackedRow<V, Element, kGates>::kElements, depth, &before, z);
    for (int b = 0; b < kBlocks; ++b) {
      cell_.template Finish<kGates>(z + b * kGates, block + b, c, hidden);
    }
  }

  // One of the layer's matrices; offsets and depths as `Sizes` has them.
  struct Matrix {
    int64_t offset, first_block, end_block, depth, padded, row_sums;
    int first_scale, scale_step;
  };

  // For the products of `count` rows.
  HybridMatrix HybridOf(const Matrix& matrix, int64_t count) {
    const auto* row_sums = reinterpret_cast<const int32_t*>(packed_ + matrix.row_sums);
    const auto* dots = Dots();
    const TileFunctions* tiles = nullptr;
    if constexpr (HybridProduct<V>::kTiles) {
      if (count >= kRowsForTiles && matrix.depth >= kDepthForTiles) tiles = dots->tiles;
      if (tiles != nullptr) tiles->begin(matrix.padded);
      tiles_ = tiles != nullptr ? tiles : tiles_;
    }
    return {dots,
            reinterpret_cast<const int8_t*>(packed_ + matrix.offset),
            asymmetric_ ? row_sums : nullptr,
            scales_ + matrix.first_scale,
            matrix.scale_step,
            matrix.first_block,
            matrix.end_block,
            matrix.depth,
            matrix.padded,
            tiles};
  }

  // What sums begin with that are added to.
  static Initial Themselves(const float* sums, int64_t sums_row, int gates) {
    return {sums, sums_row, gates * kLanes, kLanes};
  }

  // sums[row] = initial + matrix rows[row].
  template <int kGates>
  void Multiply(const Matrix& matrix, const float* const* rows, int64_t count, int64_t step,
                const Initial& initial, float* sums, int64_t sums_row) {
    const char* weights = packed_ + matrix.offset;
    if (hybrid_) {
      const HybridMatrix hybrid = HybridOf(matrix, count);
      HybridRow quantized[kProjectedRows];
      HybridProduct<V>::Quantize(hybrid, rows, count, vectors_, sizes_.vector_depth, quantized);
      HybridProduct<V>::template Multiply<kGates>(hybrid, quantized, count, step, initial, sums,
                                                  sums_row);
      return;
    }
    if constexpr (V::kMixesHalf && kGates == kMixedGates) {
      if (sizes_.mixed && matrix.offset == sizes_.recurrent) {
        MultiplyFloat<kGates>(reinterpret_cast<const MixedElement*>(weights), matrix, rows, count, step,
                              initial, sums, sums_row);
        return;
      }
    }
    if (V::kHasHalf && sizes_.half) {
      MultiplyFloat<kGates>(reinterpret_cast<const uint16_t*>(weights), matrix, rows, count, step,
                            initial, sums, sums_row);
    } else {
      MultiplyFloat<kGates>(reinterpret_cast<const float*>(weights), matrix, rows, count, step, initial,
                            sums, sums_row);
    }
  }

  template <int kGates, class Element>
  void MultiplyFloat(const Element* weights, const Matrix& matrix, const float* const* rows,
                     int64_t count, int64_t step, const Initial& initial, float* sums,
                     int64_t sums_row) {
    if constexpr (FloatTiles<V>::kExist) {
      if (split_ != nullptr && matrix.depth >= kDepthForTiles &&
          FloatTiles<V>::Split(rows, count, matrix.depth, pieces_)) {
        using Row = PackedRow<V, Element, kGates>;
        FloatTiles<V>::template Multiply<kGates>(
            *split_, pieces_, count, matrix.end_block - matrix.first_block, matrix.depth, step,
            [&](int64_t block, int64_t k, Float* both) {
              const Element* from =
                  weights + ((matrix.first_block + block) * matrix.depth + k) * Row::kElements;
              EDGELSTM_UNROLL
              for (int i = 0; i < 2 * kGates; ++i) {
                both[i] = k + i / kGates < matrix.depth
                              ? Row::Load(from + i / kGates * Row::kElements, i % kGates)
                              : V::Set(0.0f);
              }
            },
            [&](int64_t block, int64_t row, int gate, Float sum) {
              block += matrix.first_block;
              V::Store(sums + row * sums_row + (block * kGates + gate) * kLanes,
                       V::Add(V::Load(initial.At(row, block, gate)), sum));
            });
        return;
      }
    }
    FloatProduct<V>::template Multiply<kGates>(
        weights + matrix.first_block * matrix.depth * PackedRow<V, Element, kGates>::kElements,
        matrix.end_block - matrix.first_block, matrix.depth, rows, count, step,
        initial.From(0, matrix.first_block), sums + matrix.first_block * kGates * kLanes, sums_row);
  }

  template <int kGates>
  void AddDiagonal(const float* before, float* row) const {
    for (int64_t block = first_block_; block < end_block_; ++block) {
      const Float h = cell_.Part(before, block);
      for (int gate = 0; gate < kGates; ++gate) {
        float* z = row + (block * kGates + gate) * kLanes;
        const Float weight =
            V::Load(Vector(sizes_.recurrent, gate + 4 - kGates) + block * kLanes);
        V::Store(z, V::MulAdd(weight, h, V::Load(z)));
      }
    }
  }

  // output = projection hidden + bias, clipped.
  void ProjectHidden(int64_t first, int64_t count, int64_t step, float* const* hidden) {
    const int64_t width = 4 * kLanes;
    const int64_t blocks = sizes_.outputs / width;
    const float* bias = reinterpret_cast<const float*>(packed_ + sizes_.projection_bias);
    const float* rows[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      rows[r] = hidden[r];
      for (int64_t i = 0; i < sizes_.outputs; i += kLanes) {
        V::Store(projected_ + r * sizes_.outputs + i, V::Load(bias + i));
      }
    }
    const Matrix projection = {sizes_.projection, 0, blocks, layer_.units, sizes_.unit_depth,
                               sizes_.projection_row_sums, 8, 0};
    Multiply<4>(projection, rows, count, 0, Themselves(projected_, sizes_.outputs, 4), projected_,
                sizes_.outputs);
    for (int64_t r = 0; r < count; ++r) {
      float* to = Output(first + r, step);
      for (int64_t i = 0; i < layer_.outputs; i += kLanes) {
        const Float sum = V::Load(projected_ + r * sizes_.outputs + i);
        const Float value = FloatCell<V>::Clipped(sum, layer_.projection_clip);
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
  const Member& member_;
  // Its own units.
  const int64_t first_block_, end_block_;
  const bool hybrid_, asymmetric_, coupled_, has_layer_norm_, has_projection_;
  const char* packed_;
  const bool compact_;
  const float* scales_;
  const FloatCell<V> cell_;
  float* sums_;
  float* hidden_;
  float* projected_;
  int8_t* vectors_;
  uint16_t* pieces_;
  float* scaled_;
  // What multiplies floats, or null.
  const TileFunctions* split_ = nullptr;
  // That were begun, or null.
  const TileFunctions* tiles_ = nullptr;
};

}  // namespace
}  // namespace edgelstm
