// The integer LSTM over a vector type V: results equal kIntegerScalar's bit for bit.
//
// A block is as many units as V has 16-bit lanes. Weights are packed as
// [block][four k][gate][half][lane][k]: each of a block's two halves fills the 32-bit lanes of one
// vector of sums, in the order in which V::Narrow makes 16-bit lanes of two of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dot-inl.h"
#include "kernels/integer.h"
#include "kernels/integer_activation-inl.h"
#include "kernels/memory.h"

namespace edgelstm {
namespace {

template <class V>
class IntegerLstm {
 public:
  static size_t PackedBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).packed);
  }
  static size_t ScratchBytes(const EdgeLstmLayer& layer) {
    return static_cast<size_t>(Sizes(layer).scratch);
  }

  static void Pack(const EdgeLstmLayer& layer, void* packed) {
    const Sizes sizes(layer);
    char* to = static_cast<char*>(packed);
    std::memset(to, 0, static_cast<size_t>(sizes.packed));
    IntegerScales scales;
    DeriveScales(layer, &scales);
    std::memcpy(to, &scales, sizeof scales);
    const int first = 4 - sizes.gates;
    PackMatrix(layer.kernel + first, sizes.gates, layer.units, layer.inputs, sizes.input_depth,
               to + sizes.kernel);
    PackMatrix(layer.recurrent + first, sizes.gates, layer.units, layer.outputs,
               sizes.output_depth, to + sizes.recurrent);
    PackOffsets(sizes.gates, layer.units, to + sizes.kernel_offsets, [&](int gate, int64_t unit) {
      return KernelOffset(layer, scales, first + gate, unit);
    });
    PackOffsets(sizes.gates, layer.units, to + sizes.recurrent_offsets,
                [&](int gate, int64_t unit) {
                  return RecurrentOffset(layer, scales, first + gate, unit);
                });
    for (int gate = 0; gate < 4; ++gate) {
      for (int64_t i = 0; i < layer.units; ++i) {
        const int64_t at = gate * sizes.units + i;
        if (HasPeephole(layer)) {
          reinterpret_cast<int16_t*>(to + sizes.peephole)[at] =
              static_cast<int16_t>(IntegerAt(layer.peephole[gate], i));
        }
        if (HasLayerNorm(layer)) {
          reinterpret_cast<int16_t*>(to + sizes.layer_norm)[at] =
              static_cast<int16_t>(IntegerAt(layer.layer_norm[gate], i));
          reinterpret_cast<int32_t*>(to + sizes.bias)[at] = IntegerAt(layer.bias[gate], i);
        }
      }
    }
    if (HasProjection(layer)) {
      PackMatrix(&layer.projection, 1, layer.outputs, layer.units, sizes.unit_depth,
                 to + sizes.projection);
      PackOffsets(1, layer.outputs, to + sizes.projection_offsets, [&](int, int64_t output) {
        return ProjectionOffset(layer, scales, output);
      });
    }
  }

  // A projection and layer norm need all units before they begin.
  static bool SplitsUnits(const EdgeLstmLayer& layer) {
    return !HasLayerNorm(layer) && !HasProjection(layer);
  }

  static void Run(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
                  void* scratch, void* shared, const Member& member) {
    IntegerLstm lstm(layer, packed, call, scratch, shared, member);
    for (int64_t row = 0; row < call.batch; row += kMaxRows) {
      const int64_t count = Smaller(kMaxRows, call.batch - row);
      if (lstm.sizes_.gates == 3) {
        lstm.template RunRows<3>(row, count);
      } else {
        lstm.template RunRows<4>(row, count);
      }
    }
  }

 private:
  using Int = typename V::Int;
  using Words = typename V::Words;
  using Pair = typename V::Pair;
  using Scaling = typename V::Scaling;
  static constexpr int64_t kLanes = V::kLanes;
  static constexpr int64_t kWords = 2 * V::kLanes;

  // Offsets and sizes in bytes; `units`, `outputs` and depths in padded elements.
  struct Sizes {
    explicit Sizes(const EdgeLstmLayer& layer) {
      gates = Coupled(layer) ? 3 : 4;
      units = RoundUp(layer.units, kWords);
      outputs = RoundUp(layer.outputs, kWords);
      input_depth = RoundUp(layer.inputs, 4);
      output_depth = RoundUp(layer.outputs, 4);
      unit_depth = RoundUp(layer.units, 4);
      Layout layout;
      layout.Place(sizeof(IntegerScales));
      kernel = layout.Place(units * gates * input_depth);
      recurrent = layout.Place(units * gates * output_depth);
      kernel_offsets = layout.Place(units * gates * 4);
      recurrent_offsets = layout.Place(units * gates * 4);
      peephole = layout.Place(HasPeephole(layer) ? units * 4 * 2 : 0);
      layer_norm = layout.Place(HasLayerNorm(layer) ? units * 4 * 2 : 0);
      bias = layout.Place(HasLayerNorm(layer) ? units * 4 * 4 : 0);
      projection = layout.Place(HasProjection(layer) ? outputs * unit_depth : 0);
      projection_offsets = layout.Place(HasProjection(layer) ? outputs * 4 : 0);
      packed = layout.end();

      Layout memory;
      sums_row = units * gates;
      chunk_rows = Larger(kMaxRows, kChunkBytes / (2 * sums_row));
      sums = memory.Place(2 * sums_row * chunk_rows);
      x = memory.Place(kMaxRows * input_depth);
      h_row = RoundUp(outputs, kAlignment);
      h = memory.Place(2 * kMaxRows * h_row);
      c = memory.Place(2 * kMaxRows * units);
      hidden = memory.Place(kMaxRows * units);
      scratch = memory.end();
    }

    int gates;
    int64_t units, outputs, input_depth, output_depth, unit_depth;
    int64_t kernel, recurrent, kernel_offsets, recurrent_offsets, peephole, layer_norm, bias;
    int64_t projection, projection_offsets, packed;
    int64_t sums_row, chunk_rows, sums, x, h_row, h, c, hidden, scratch;
  };

  static void PackMatrix(const EdgeLstmWeight* gates, int count, int64_t rows, int64_t columns,
                         int64_t depth, char* packed) {
    int8_t* to = reinterpret_cast<int8_t*>(packed);
    for (int64_t block = 0; block < RoundUp(rows, kWords); block += kWords) {
      for (int64_t k = 0; k < depth; k += 4) {
        for (int i = 0; i < 2 * count; ++i) {
          for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t row = block + V::WordOf(i % 2, lane);
            for (int64_t j = k; j < k + 4; ++j) {
              *to++ = row < rows && j < columns ? Int8At(gates[i / 2], row * columns + j)
                                                : static_cast<int8_t>(0);
            }
          }
        }
      }
    }
  }

  template <class Offset>
  static void PackOffsets(int count, int64_t rows, char* packed, Offset offset) {
    int32_t* to = reinterpret_cast<int32_t*>(packed);
    for (int64_t block = 0; block < RoundUp(rows, kWords); block += kWords) {
      for (int i = 0; i < 2 * count; ++i) {
        for (int lane = 0; lane < kLanes; ++lane) {
          const int64_t row = block + V::WordOf(i % 2, lane);
          *to++ = row < rows ? offset(i / 2, row) : 0;
        }
      }
    }
  }

  // --- one call ---

  IntegerLstm(const EdgeLstmLayer& layer, const void* packed, const EdgeLstmCall& call,
              void* scratch, void* shared, const Member& member)
      : layer_(layer),
        sizes_(layer),
        call_(call),
        member_(member),
        first_block_(member.Begin(sizes_.units / kWords)),
        end_block_(member.End(sizes_.units / kWords)),
        scales_(*static_cast<const IntegerScales*>(packed)),
        has_peephole_(HasPeephole(layer)),
        has_layer_norm_(HasLayerNorm(layer)),
        has_projection_(HasProjection(layer)),
        packed_(static_cast<const char*>(packed)),
        sums_(static_cast<char*>(scratch) + sizes_.sums),
        x_(static_cast<char*>(scratch) + sizes_.x),
        h_(static_cast<char*>(shared) + sizes_.h),
        c_(static_cast<char*>(scratch) + sizes_.c),
        hidden_(static_cast<char*>(scratch) + sizes_.hidden),
        hidden_scaling_(V::ScalingOf(scales_.hidden)) {
    for (int gate = 0; gate < 4; ++gate) {
      kernel_scaling_[gate] = V::ScalingOf(scales_.kernel[gate]);
      recurrent_scaling_[gate] = V::ScalingOf(scales_.recurrent[gate]);
      peephole_scaling_[gate] = V::ScalingOf(scales_.peephole[gate]);
    }
  }

  template <class T>
  const T* Packed(int64_t offset) const {
    return reinterpret_cast<const T*>(packed_ + offset);
  }
  int16_t* Sums(int64_t row) const {
    return reinterpret_cast<int16_t*>(sums_) + row * sizes_.sums_row;
  }
  int16_t* C(int64_t row) const { return reinterpret_cast<int16_t*>(c_) + row * sizes_.units; }
  // h before and after a step take turns.
  int8_t* H(int64_t turn, int64_t row) const {
    return reinterpret_cast<int8_t*>(h_) + ((turn & 1) * kMaxRows + row) * sizes_.h_row;
  }
  int8_t* Hidden(int64_t row) const {
    return reinterpret_cast<int8_t*>(hidden_) + row * sizes_.units;
  }

  template <int kGates>
  void RunRows(int64_t first, int64_t count) {
    if (call_.steps == 0) return;
    int8_t* h = static_cast<int8_t*>(call_.h) + first * layer_.outputs;
    int16_t* c = static_cast<int16_t*>(call_.c) + first * layer_.units;
    // Its own outputs and cells; without a projection they are its units.
    const int64_t begin = has_projection_ ? 0 : first_block_ * kWords;
    const int64_t end =
        has_projection_ ? layer_.outputs : Smaller(end_block_ * kWords, layer_.outputs);
    const auto own = static_cast<size_t>(end > begin ? end - begin : 0);
    const int64_t c_begin = first_block_ * kWords;
    const int64_t c_end = Smaller(end_block_ * kWords, layer_.units);
    const size_t c_bytes = sizeof(int16_t) * static_cast<size_t>(c_end > c_begin ? c_end - c_begin : 0);
    for (int64_t r = 0; r < count; ++r) {
      if (member_.index == 0) {
        std::memset(H(0, r), 0, static_cast<size_t>(sizes_.h_row));
        std::memcpy(H(0, r), h + r * layer_.outputs, static_cast<size_t>(layer_.outputs));
      }
      std::memset(C(r), 0, sizeof(int16_t) * static_cast<size_t>(sizes_.units));
      std::memcpy(C(r) + c_begin, c + r * layer_.units + c_begin, c_bytes);
    }
    member_.Wait();
    const int64_t chunk = Larger(1, sizes_.chunk_rows / count);
    for (int64_t start = 0; start < call_.steps; start += chunk) {
      const int64_t steps = Smaller(chunk, call_.steps - start);
      Project<kGates>(first, count, start, steps);
      for (int64_t step = start; step < start + steps; ++step) {
        Step<kGates>(count, step, (step - start) * count);
        for (int64_t r = 0; r < count; ++r) {
          std::memcpy(Output(first + r, step) + begin, H(step + 1, r) + begin, own);
        }
        member_.Wait();
      }
    }
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(h + r * layer_.outputs + begin, H(call_.steps, r) + begin, own);
      std::memcpy(c + r * layer_.units + c_begin, C(r) + c_begin, c_bytes);
    }
    // The next rows begin with the same memory.
    member_.Wait();
  }

  const int8_t* Input(int64_t row, int64_t step) const {
    return static_cast<const int8_t*>(call_.input) + row * call_.input_row +
           step * call_.input_step;
  }
  int8_t* Output(int64_t row, int64_t step) const {
    return static_cast<int8_t*>(call_.output) + row * call_.output_row + step * call_.output_step;
  }

  // Sums of `steps` steps from the kernel alone, cut to 16 bits as the stock kernel does.
  template <int kGates>
  void Project(int64_t first, int64_t count, int64_t start, int64_t steps) {
    const int64_t total = steps * count;
    for (int64_t i = 0; i < total; i += kMaxRows) {
      const int8_t* rows[kMaxRows];
      int32_t corrections[kMaxRows];
      const int64_t some = Smaller(kMaxRows, total - i);
      for (int64_t r = 0; r < some; ++r) {
        int8_t* x = reinterpret_cast<int8_t*>(x_) + r * sizes_.input_depth;
        std::memcpy(x, Input(first + (i + r) % count, start + (i + r) / count),
                    static_cast<size_t>(layer_.inputs));
        for (int64_t k = layer_.inputs; k < sizes_.input_depth; ++k) x[k] = 0;
        rows[r] = x;
        corrections[r] = V::DotCorrection(x, sizes_.input_depth);
      }
      for (int64_t block = first_block_; block < end_block_; ++block) {
        ForTiles<V::kIntegerRows>(some, [&](auto tile, int64_t r) {
          ProjectTile<tile.kRows, kGates>(block, rows + r, corrections + r, i + r);
        });
      }
    }
  }

  template <int kRows, int kGates>
  void ProjectTile(int64_t block, const int8_t* const* rows, const int32_t* corrections,
                   int64_t row) {
    Int sum[kRows * kGates * 2];
    Dot<kRows, kGates>(sizes_.kernel, sizes_.kernel_offsets, sizes_.input_depth, block, rows,
                       corrections, sum);
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kGates; ++i) {
      const Scaling& scaling = kernel_scaling_[i % kGates + 4 - kGates];
      const Pair scaled = {V::Scaled(sum[2 * i], scaling), V::Scaled(sum[2 * i + 1], scaling)};
      V::StoreWords(Sums(row + i / kGates) + (block * kGates + i % kGates) * kWords,
                    V::Narrow(scaled));
    }
  }

  template <int kGates>
  void Step(int64_t count, int64_t step, int64_t sums) {
    const int8_t* before[kMaxRows];
    int32_t corrections[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      before[r] = H(step, r);
      corrections[r] = V::DotCorrection(before[r], sizes_.output_depth);
    }
    for (int64_t block = first_block_; block < end_block_; ++block) {
      ForTiles<V::kIntegerRows>(count, [&](auto tile, int64_t r) {
        StepTile<tile.kRows, kGates>(block, before + r, corrections + r, r, step, sums + r);
      });
    }
    if (has_layer_norm_) {
      for (int64_t r = 0; r < count; ++r) Normalized<kGates>(r, step, Sums(sums + r));
    }
    if (has_projection_) ProjectHidden(count, step);
  }

  template <int kRows, int kGates>
  void StepTile(int64_t block, const int8_t* const* before, const int32_t* corrections,
                int64_t row, int64_t step, int64_t sums) {
    Int sum[kRows * kGates * 2];
    Dot<kRows, kGates>(sizes_.recurrent, sizes_.recurrent_offsets, sizes_.output_depth, block,
                       before, corrections, sum);
    for (int r = 0; r < kRows; ++r) {
      int16_t* from = Sums(sums + r) + block * kGates * kWords;
      Words z[kGates];
      EDGELSTM_UNROLL
      for (int gate = 0; gate < kGates; ++gate) {
        const Scaling& scaling = recurrent_scaling_[gate + 4 - kGates];
        const Int* parts = sum + (r * kGates + gate) * 2;
        const Pair old = V::Widen(V::LoadWords(from + gate * kWords));
        z[gate] = V::Narrow({V::AddInt(old.first, V::Scaled(parts[0], scaling)),
                             V::AddInt(old.second, V::Scaled(parts[1], scaling))});
      }
      if (has_layer_norm_) {
        EDGELSTM_UNROLL
        for (int gate = 0; gate < kGates; ++gate) V::StoreWords(from + gate * kWords, z[gate]);
      } else {
        Cell<kGates>(z, block, row + r, step);
      }
    }
  }

  // sum[row][gate][half] = offset + the products of a row with one block of a matrix.
  template <int kRows, int kGates>
  void Dot(int64_t matrix, int64_t offsets, int64_t depth, int64_t block,
           const int8_t* const* rows, const int32_t* corrections, Int* sum) const {
    constexpr int kParts = 2 * kGates;
    const int32_t* offset = Packed<int32_t>(offsets) + block * kParts * kLanes;
    const int8_t* weights = Packed<int8_t>(matrix) + block * kParts * kLanes * depth;
    EDGELSTM_UNROLL
    for (int i = 0; i < kRows * kParts; ++i) {
      sum[i] = V::AddInt(V::LoadInt(offset + i % kParts * kLanes),
                         V::SetInt(corrections[i / kParts]));
    }
    Int8Product<V>::template Add<kRows, 1, kParts>(weights, depth, rows, sum);
  }

  // Adds the peephole of one gate, cut to 16 bits.
  Words WithPeephole(Words z, int gate, int64_t block, Words c) const {
    const Words weight =
        V::LoadWords(Packed<int16_t>(sizes_.peephole) + gate * sizes_.units + block * kWords);
    const Pair product = V::Product(weight, c), old = V::Widen(z);
    const Scaling& scaling = peephole_scaling_[gate];
    const int64_t up = PeepholesRoundedUp(layer_.units) - block * kWords;
    const Words away = V::Narrow({V::AddInt(old.first, V::Scaled(product.first, scaling)),
                                  V::AddInt(old.second, V::Scaled(product.second, scaling))});
    if (up <= 0) return away;
    const Words upward = V::Narrow({V::AddInt(old.first, V::ScaledUp(product.first, scaling)),
                                    V::AddInt(old.second, V::ScaledUp(product.second, scaling))});
    if (up >= kWords) return upward;
    alignas(kAlignment) int16_t lanes[kWords];
    V::StoreWords(lanes, upward);
    alignas(kAlignment) int16_t rest[kWords];
    V::StoreWords(rest, away);
    for (int64_t lane = up; lane < kWords; ++lane) lanes[lane] = rest[lane];
    return V::LoadWords(lanes);
  }

  // The next c from finished sums.
  template <int kGates>
  Words NextC(const Words* z, Words c) const {
    const Words f = IntegerSigmoid<V>(z[kGates - 3]);
    const Words i =
        kGates == 4 ? IntegerSigmoid<V>(z[0]) : V::SubWords(V::SetWords(INT16_MAX), f);
    const Words g = IntegerTanh<V>(z[kGates - 2], 3);
    const Words next = V::AddSaturated(V::RoundedProduct(f, c, 15),
                                       V::RoundedProduct(i, g, 15 + scales_.c_bits));
    if (scales_.cell_clip == 0) return next;
    const auto limit = static_cast<int16_t>(scales_.cell_clip);
    return V::MinWords(V::MaxWords(next, V::SetWords(static_cast<int16_t>(-limit))),
                       V::SetWords(limit));
  }

  void StoreHidden(Words output_sum, Words c, int64_t block, int64_t row, int64_t step) {
    const Words o = IntegerSigmoid<V>(output_sum);
    const Pair product = V::Product(o, IntegerTanh<V>(c, scales_.c_bits));
    const Int offset = V::SetInt(scales_.hidden_offset);
    const Words m = V::Narrow({V::AddInt(V::Scaled(product.first, hidden_scaling_), offset),
                               V::AddInt(V::Scaled(product.second, hidden_scaling_), offset)});
    V::StoreBytes((has_projection_ ? Hidden(row) : H(step + 1, row)) + block * kWords, m);
  }

  template <int kGates>
  void Cell(Words* z, int64_t block, int64_t row, int64_t step) {
    int16_t* at = C(row) + block * kWords;
    const Words old = V::LoadWords(at);
    if (has_peephole_) {
      for (int gate = 0; gate < kGates - 2; ++gate) {
        z[gate] = WithPeephole(z[gate], gate + 4 - kGates, block, old);
      }
    }
    const Words next = NextC<kGates>(z, old);
    V::StoreWords(at, next);
    if (has_peephole_) z[kGates - 1] = WithPeephole(z[kGates - 1], 3, block, next);
    StoreHidden(z[kGates - 1], next, block, row, step);
  }

  // As Cell for all blocks of a row: layer norm needs all units of a gate first.
  template <int kGates>
  void Normalized(int64_t row, int64_t step, int16_t* sums) {
    const int64_t blocks = sizes_.units / kWords;
    int16_t* c = C(row);
    for (int gate = 0; gate < kGates - 1; ++gate) {
      if (has_peephole_ && gate < kGates - 2) AddPeephole<kGates>(gate, c, sums);
      Normalize<kGates>(gate, sums);
    }
    for (int64_t block = 0; block < blocks; ++block) {
      Words z[kGates];
      for (int gate = 0; gate < kGates - 1; ++gate) {
        z[gate] = V::LoadWords(sums + (block * kGates + gate) * kWords);
      }
      V::StoreWords(c + block * kWords, NextC<kGates>(z, V::LoadWords(c + block * kWords)));
    }
    if (has_peephole_) AddPeephole<kGates>(kGates - 1, c, sums);
    Normalize<kGates>(kGates - 1, sums);
    for (int64_t block = 0; block < blocks; ++block) {
      StoreHidden(V::LoadWords(sums + (block * kGates + kGates - 1) * kWords),
                  V::LoadWords(c + block * kWords), block, row, step);
    }
  }

  template <int kGates>
  void AddPeephole(int gate, const int16_t* c, int16_t* sums) const {
    for (int64_t block = 0; block < sizes_.units / kWords; ++block) {
      int16_t* at = sums + (block * kGates + gate) * kWords;
      V::StoreWords(at, WithPeephole(V::LoadWords(at), gate + 4 - kGates, block,
                                     V::LoadWords(c + block * kWords)));
    }
  }

  // In place; lanes behind the units become anything, and are never used.
  template <int kGates>
  void Normalize(int gate, int16_t* sums) const {
    int64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < layer_.units; ++i) {
      const int64_t z = sums[(i / kWords * kGates + gate) * kWords + i % kWords];
      sum += z;
      squares += z * z;
    }
    const int part = gate + 4 - kGates;
    const Moments moments =
        MomentsOf(sum, squares, layer_.units, scales_.variance_guard[part]);
    const Scaling deviation = V::ScalingOf(moments.inverse_deviation);
    const Multiplier norm = scales_.layer_norm[part];
    const Scaling scaling = V::ScalingOf({norm.factor, norm.shift + 12});
    const Int mean = V::SetInt(moments.mean);
    for (int64_t i = 0; i < layer_.units; i += kWords) {
      int16_t* at = sums + (i / kWords * kGates + gate) * kWords;
      const int32_t* bias = Packed<int32_t>(sizes_.bias) + part * sizes_.units + i;
      const Pair z = V::Widen(V::LoadWords(at));
      const Pair weight = V::Widen(
          V::LoadWords(Packed<int16_t>(sizes_.layer_norm) + part * sizes_.units + i));
      Pair result;
      result.first = Normal(z.first, weight.first, V::LoadHalf(bias, 0), mean, deviation, scaling);
      result.second =
          Normal(z.second, weight.second, V::LoadHalf(bias, 1), mean, deviation, scaling);
      V::StoreWords(at, V::Narrow(result));
    }
  }

  static Int Normal(Int z, Int weight, Int bias, Int mean, const Scaling& deviation,
                    const Scaling& scaling) {
    const Int y = V::Scaled(V::SubInt(V::template ShiftLeftInt<10>(z), mean), deviation);
    return V::Scaled(V::NearestOf1024(V::AddInt(V::MulInt(y, weight), bias)), scaling);
  }

  void ProjectHidden(int64_t count, int64_t step) {
    const Scaling scaling = V::ScalingOf(scales_.projection);
    const Int zero = V::SetInt(scales_.h_zero);
    const auto limit = static_cast<int16_t>(scales_.projection_clip);
    int32_t corrections[kMaxRows];
    for (int64_t r = 0; r < count; ++r) {
      corrections[r] = V::DotCorrection(Hidden(r), sizes_.unit_depth);
    }
    for (int64_t block = 0; block < sizes_.outputs / kWords; ++block) {
      for (int64_t r = 0; r < count; ++r) {
        const int8_t* hidden = Hidden(r);
        Int sum[2];
        Dot<1, 1>(sizes_.projection, sizes_.projection_offsets, sizes_.unit_depth, block, &hidden,
                  corrections + r, sum);
        Words y = V::Narrow({V::AddInt(V::Scaled(sum[0], scaling), zero),
                             V::AddInt(V::Scaled(sum[1], scaling), zero)});
        if (limit > 0) {
          y = V::MinWords(V::MaxWords(y, V::SetWords(static_cast<int16_t>(-limit))),
                          V::SetWords(limit));
        }
        V::StoreBytes(H(step + 1, r) + block * kWords, y);
      }
    }
  }

  const EdgeLstmLayer& layer_;
  const Sizes sizes_;
  const EdgeLstmCall& call_;
  const Member& member_;
  // Its own units.
  const int64_t first_block_, end_block_;
  const IntegerScales& scales_;
  const bool has_peephole_, has_layer_norm_, has_projection_;
  const char* packed_;
  char *sums_, *x_, *h_, *c_, *hidden_;
  Scaling kernel_scaling_[4], recurrent_scaling_[4], peephole_scaling_[4];
  const Scaling hidden_scaling_;
};

}  // namespace
}  // namespace edgelstm
