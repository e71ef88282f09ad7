#include "kernels/wide.h"

#include <cmath>
#include <initializer_list>

namespace edgelstm {
namespace {

constexpr double kSumsPerUnit = 4096;
constexpr double kUnit = 1.0 / 32768;

bool Positive(float scale) { return scale > 0 && scale < INFINITY; }

// The kernel cuts the factor of 31 bits to 15.
SumMultiplier SumMultiplierOf(double value) {
  const Multiplier whole = MultiplierOf(value);
  const int32_t factor =
      whole.factor < 0x7fff0000 ? (whole.factor + (1 << 15)) >> 16 : int32_t{0x7fff};
  return {factor, 15 - whole.shift};
}

int64_t RowSum(const EdgeLstmWeight& weight, int64_t row, int64_t columns) {
  int64_t sum = 0;
  for (int64_t k = 0; k < columns; ++k) sum += Int8At(weight, row * columns + k);
  return sum;
}

bool IsWord(int32_t value) { return value >= INT16_MIN && value <= INT16_MAX; }

}  // namespace

const char* DeriveWideScales(const EdgeLstmLayer& layer, WideScales* scales) {
  const EdgeLstmQuantization &x = layer.input_quantization, &h = layer.h_quantization;
  const EdgeLstmQuantization &y = layer.output_quantization, &c = layer.c_quantization;
  int exponent = 0;
  if (!Positive(c.scale) || std::frexp(c.scale, &exponent) != 0.5f || exponent < -14 ||
      exponent > -8 || c.zero_point != 0) {
    return "the scale of c is not a power of two from 2^-15 to 2^-9";
  }
  if (!Positive(x.scale) || !Positive(h.scale)) return "a scale of the input or of h is missing";
  if (y.scale != h.scale || y.zero_point != h.zero_point) {
    return "the output and h have not the same scale";
  }
  if (!IsWord(x.zero_point) || !IsWord(h.zero_point)) return "a zero point is not an int16";
  *scales = WideScales();
  for (int gate = 0; gate < 4; ++gate) {
    const float kernel = layer.kernel[gate].scale, recurrent = layer.recurrent[gate].scale;
    if (!Positive(kernel) || !Positive(recurrent)) return "a scale of a matrix is missing";
    scales->kernel[gate] = SumMultiplierOf(double{x.scale} * double{kernel} * kSumsPerUnit);
    scales->recurrent[gate] = SumMultiplierOf(double{h.scale} * double{recurrent} * kSumsPerUnit);
    for (const SumMultiplier& by : {scales->kernel[gate], scales->recurrent[gate]}) {
      if (by.shift < 1) return "its scales differ by more than integer arithmetic can hold";
    }
  }
  const double cell = double{c.scale};
  scales->keep = MultiplierOf(kUnit);
  scales->add = MultiplierOf(kUnit * kUnit / cell);
  scales->hidden = MultiplierOf(kUnit * kUnit / double{h.scale});
  if (scales->hidden.shift > 0) return "the scale of h is below 2^-30";
  scales->c_exponent = exponent - 1;
  scales->input_zero = x.zero_point;
  scales->h_zero = h.zero_point;
  if (layer.cell_clip > 0) {
    const double steps = double{layer.cell_clip} / cell;
    scales->cell_clip = static_cast<int32_t>(steps > INT16_MAX ? INT16_MAX : steps);
  }
  return nullptr;
}

int64_t WideKernelOffset(const EdgeLstmLayer& layer, const WideScales& scales, int gate,
                         int64_t unit) {
  const int64_t sum = RowSum(layer.kernel[gate], unit, layer.inputs);
  return WrappedSum(Int64At(layer.bias[gate], unit), -scales.input_zero * sum);
}

int64_t WideRecurrentOffset(const EdgeLstmLayer& layer, const WideScales& scales, int gate,
                            int64_t unit) {
  return -scales.h_zero * RowSum(layer.recurrent[gate], unit, layer.outputs);
}

const int32_t kSigmoidTable[256] = {
    32768, 33451, 34133, 34813, 35493, 36169, 36843, 37513, 38180, 38841, 39498, 40149, 40794,
    41432, 42064, 42688, 43304, 43912, 44511, 45102, 45683, 46255, 46817, 47369, 47911, 48443,
    48964, 49475, 49975, 50464, 50942, 51409, 51865, 52311, 52745, 53169, 53581, 53983, 54374,
    54755, 55125, 55485, 55834, 56174, 56503, 56823, 57133, 57433, 57724, 58007, 58280, 58544,
    58800, 59048, 59288, 59519, 59743, 59959, 60168, 60370, 60565, 60753, 60935, 61110, 61279,
    61441, 61599, 61750, 61896, 62036, 62172, 62302, 62428, 62549, 62666, 62778, 62886, 62990,
    63090, 63186, 63279, 63368, 63454, 63536, 63615, 63691, 63765, 63835, 63903, 63968, 64030,
    64090, 64148, 64204, 64257, 64308, 64357, 64405, 64450, 64494, 64536, 64576, 64614, 64652,
    64687, 64721, 64754, 64786, 64816, 64845, 64873, 64900, 64926, 64950, 64974, 64997, 65019,
    65039, 65060, 65079, 65097, 65115, 65132, 65149, 65164, 65179, 65194, 65208, 65221, 65234,
    65246, 65258, 65269, 65280, 65291, 65301, 65310, 65319, 65328, 65337, 65345, 65352, 65360,
    65367, 65374, 65381, 65387, 65393, 65399, 65404, 65410, 65415, 65420, 65425, 65429, 65433,
    65438, 65442, 65445, 65449, 65453, 65456, 65459, 65462, 65465, 65468, 65471, 65474, 65476,
    65479, 65481, 65483, 65485, 65488, 65489, 65491, 65493, 65495, 65497, 65498, 65500, 65501,
    65503, 65504, 65505, 65507, 65508, 65509, 65510, 65511, 65512, 65513, 65514, 65515, 65516,
    65517, 65517, 65518, 65519, 65520, 65520, 65521, 65522, 65522, 65523, 65523, 65524, 65524,
    65525, 65525, 65526, 65526, 65526, 65527, 65527, 65528, 65528, 65528, 65529, 65529, 65529,
    65529, 65530, 65530, 65530, 65530, 65531, 65531, 65531, 65531, 65531, 65532, 65532, 65532,
    65532, 65532, 65532, 65533, 65533, 65533, 65533, 65533, 65533, 65533, 65533, 65534, 65534,
    65534, 65534, 65534, 65534, 65534, 65534, 65534, 65534, 65535};

}  // namespace edgelstm
