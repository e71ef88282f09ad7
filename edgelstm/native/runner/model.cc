#include "model.h"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "agent_error.h"
#include "machine.h"

namespace {

constexpr char kBackend[] = "tflite-c";

// The interpreter's last complaint.
std::string g_complaint;

void Complain(void*, const char* format, va_list arguments) {
  char text[400];
  std::vsnprintf(text, sizeof text, format, arguments);
  g_complaint = text;
  for (char& c : g_complaint) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
}

[[noreturn]] void Refuse(const char* kind, const std::string& otherwise) {
  // "Didn't find op for builtin opcode": a whole model with an op this library is too old for.
  const bool op = g_complaint.find(" op ") != std::string::npos;
  throw AgentError(op ? "unsupported" : kind, g_complaint.empty() ? otherwise : g_complaint);
}

// The operators that another interpreter of the same model uses, by code or name, and version.
struct Registrations {
  std::map<std::pair<int, int>, const TfLiteRegistration*> builtin;
  std::map<std::pair<std::string, int>, const TfLiteRegistration*> custom;

  static const TfLiteRegistration* FindBuiltin(void* self, int code, int version) {
    const auto& known = static_cast<Registrations*>(self)->builtin;
    const auto found = known.find({code, version});
    return found == known.end() ? nullptr : found->second;
  }
  static const TfLiteRegistration* FindCustom(void* self, const char* name, int version) {
    const auto& known = static_cast<Registrations*>(self)->custom;
    const auto found = known.find({name, version});
    return found == known.end() ? nullptr : found->second;
  }
};

std::map<std::string, std::string> Texts(const Json& object) {
  std::map<std::string, std::string> found;
  for (const auto& [key, value] : object.Members()) found.emplace(key, value.Text());
  return found;
}

}  // namespace

const InterpreterLibrary& Model::Library() {
  if (!library_) library_ = std::make_unique<InterpreterLibrary>(InterpreterLibrary::Open(library_path_));
  return *library_;
}

Json::Object Model::Backends() { return {{kBackend, Library().Version()}}; }

Json::Object Model::Import() {
  const int64_t started = NowNs();
  const char* version = Library().Version();
  return {{"backend", kBackend}, {"version", version}, {"import_ns", NowNs() - started}};
}

void Model::RunOn(const Json& processors) {
  if (processors.Items().empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const Json& each : processors.Items()) {
    const int64_t n = each.Integer(-1);
    if (n >= 0 && n < CPU_SETSIZE) CPU_SET(static_cast<size_t>(n), &set);
  }
  if (sched_setaffinity(0, sizeof set, &set) != 0) {
    throw AgentError("cores", processors.Dump());
  }
}

std::vector<TfLiteDelegate*> Model::Delegates(const Json& request) {
  graph_ = std::make_unique<Graph>();
  std::vector<TfLiteDelegate*> delegates{graph_->Delegate()};
  const auto options = Texts(request["options"]);
  for (const Json& path : request["libraries"].Items()) {
    delegate_ = ExternalDelegate(path.Text(), options, &external_);
    delegates.push_back(delegate_);
  }
  if (kind_ == "nnapi") {
    delegate_ = NnapiDelegate(Library(), options);
    delegates.push_back(delegate_);
  }
  return delegates;
}

TfLiteInterpreterOptions* Model::Options(const std::vector<TfLiteDelegate*>& delegates,
                                         int threads) {
  const InterpreterLibrary& api = Library();
  TfLiteInterpreterOptions* options = api.InterpreterOptionsCreate();
  api.InterpreterOptionsSetNumThreads(options, threads);
  api.InterpreterOptionsSetErrorReporter(options, Complain, nullptr);
  for (TfLiteDelegate* each : delegates) api.InterpreterOptionsAddDelegate(options, each);
  return options;
}

TfLiteInterpreter* Model::WithoutDefaultDelegates(const std::vector<TfLiteDelegate*>& delegates,
                                                  int threads) {
  // The C API has no operators without XNNPACK. Those of a first interpreter, which is never
  // allocated, are given to a second one by hand.
  const int64_t started = NowNs();
  const InterpreterLibrary& api = Library();
  Graph seen;
  TfLiteInterpreterOptions* options = Options({seen.Delegate()}, threads);
  TfLiteInterpreter* first = api.InterpreterCreate(model_, options);
  api.InterpreterOptionsDelete(options);
  if (first == nullptr) return nullptr;
  Registrations known;
  for (const Operator& op : seen.Before()) {
    const TfLiteRegistration* each = op.registration;
    if (each->custom_name != nullptr) known.custom[{each->custom_name, each->version}] = each;
    known.builtin[{each->builtin_code, each->version}] = each;
  }
  not_loading_ns_ = NowNs() - started;
  options = Options(delegates, threads);
  api.InterpreterOptionsSetOpResolver(options, Registrations::FindBuiltin,
                                      Registrations::FindCustom, &known);
  TfLiteInterpreter* made = api.InterpreterCreateWithSelectedOps(model_, options);
  api.InterpreterOptionsDelete(options);
  api.InterpreterDelete(first);
  return made;
}

Json::Object Model::Load(const Json& request) {
  RunOn(request["processors"]);
  const InterpreterLibrary& api = Library();
  kind_ = request["delegate"].Text();
  signature_ = request["signature"];
  const char* const kinds[] = {"cpu", "xnnpack", "edgelstm", "external", "nnapi"};
  if (std::find(std::begin(kinds), std::end(kinds), kind_) == std::end(kinds)) {
    throw AgentError("input", "the native runner has no delegate '" + kind_ + "'");
  }
  const auto threads = static_cast<int>(request["threads"].Integer(1));
  g_complaint.clear();
  const int64_t started = NowNs();
  const std::vector<TfLiteDelegate*> delegates = Delegates(request);
  model_ = api.ModelCreateFromFile(request["path"].Text().c_str());
  if (model_ == nullptr) Refuse("model", "the file is no model");
  const bool bare = kind_ == "cpu" && api.InterpreterOptionsSetOpResolver != nullptr &&
                    api.InterpreterCreateWithSelectedOps != nullptr;
  if (bare) {
    interpreter_ = WithoutDefaultDelegates(delegates, threads);
  } else {
    TfLiteInterpreterOptions* options = Options(delegates, threads);
    interpreter_ = api.InterpreterCreate(model_, options);
    api.InterpreterOptionsDelete(options);
  }
  if (interpreter_ == nullptr) Refuse("model", "no interpreter can be made");
  return {{"load_ns", NowNs() - started - not_loading_ns_}, {"backend", kBackend}};
}

TfLiteInterpreter* Model::Loaded() {
  if (interpreter_ == nullptr) throw AgentError("agent", "no model is loaded");
  g_complaint.clear();
  return interpreter_;
}

std::vector<std::string> Model::NamesOf(const TfLiteTensor* tensor, const char* side) {
  std::vector<std::string> names;
  const int64_t index = graph_->IndexOf(tensor);
  for (const auto& [name, its] : signature_[side].Members()) {
    if (its.Integer(-1) == index) names.push_back(name);
  }
  const char* told = Library().TensorName(tensor);
  std::string name = told == nullptr ? "" : told;
  names.push_back(name);
  name = name.substr(0, name.find(':'));
  constexpr char kPrefix[] = "serving_default_";
  if (name.rfind(kPrefix, 0) == 0) name = name.substr(sizeof kPrefix - 1);
  names.push_back(name);
  return names;
}

std::vector<int64_t> Model::ShapeOf(const TfLiteTensor* tensor) {
  std::vector<int64_t> shape;
  for (int32_t axis = 0; axis < Library().TensorNumDims(tensor); ++axis) {
    shape.push_back(Library().TensorDim(tensor, axis));
  }
  return shape;
}

std::vector<int64_t> Model::WantedShape(const TfLiteTensor* tensor, const Json& request) {
  for (const std::string& name : NamesOf(tensor, "inputs")) {
    const Json& given = request["shapes"][name];
    if (given.IsNull()) continue;
    std::vector<int64_t> shape;
    for (const Json& size : given.Items()) shape.push_back(size.Integer());
    return shape;
  }
  std::vector<int64_t> shape = ShapeOf(tensor);
  const TfLiteIntArray* open = tensor->dims_signature;
  if (open == nullptr || open->size != static_cast<int>(shape.size())) return shape;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    // An unknown first size is the batch.
    if (open->data[axis] < 0) shape[axis] = axis == 0 ? 1 : request["time"].Integer();
  }
  return shape;
}

void Model::CheckNames(const Json& request) {
  const InterpreterLibrary& api = Library();
  std::vector<std::string> known;
  std::string there;
  for (int32_t i = 0; i < api.InterpreterGetInputTensorCount(interpreter_); ++i) {
    const auto names = NamesOf(api.InterpreterGetInputTensor(interpreter_, i), "inputs");
    known.insert(known.end(), names.begin(), names.end());
    there += (there.empty() ? "" : ", ") + names[0];
  }
  for (const char* key : {"shapes", "integer_ranges"}) {
    for (const auto& [name, ignored] : request[key].Members()) {
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        throw AgentError("input", "no input is named '" + name + "' (there are: " + there + ")");
      }
    }
  }
}

Json::Object Model::Allocate(const Json& request) {
  const InterpreterLibrary& api = Library();
  TfLiteInterpreter* interpreter = Loaded();
  CheckNames(request);
  const int32_t count = api.InterpreterGetInputTensorCount(interpreter);
  for (int32_t i = 0; i < count; ++i) {
    const TfLiteTensor* tensor = api.InterpreterGetInputTensor(interpreter, i);
    const auto shape = WantedShape(tensor, request);
    if (shape == ShapeOf(tensor)) continue;
    const std::vector<int> sizes(shape.begin(), shape.end());
    g_complaint.clear();
    if (api.InterpreterResizeInputTensor(interpreter, i, sizes.data(),
                                         static_cast<int32_t>(sizes.size())) != kTfLiteOk) {
      throw AgentError("input", "input '" + NamesOf(tensor, "inputs")[0] + "' refuses " +
                                    Json::List(shape).Dump() + ": " + g_complaint);
    }
  }
  g_complaint.clear();
  const int64_t started = NowNs();
  if (api.InterpreterAllocateTensors(interpreter) != kTfLiteOk) {
    Refuse("unsupported", "the tensors cannot be allocated");
  }
  const int64_t spent = NowNs() - started;
  std::mt19937_64 random(static_cast<uint64_t>(request["seed"].Integer()));
  inputs_.clear();
  Json::Array described;
  for (int32_t i = 0; i < count; ++i) {
    TfLiteTensor* tensor = api.InterpreterGetInputTensor(interpreter, i);
    const auto names = NamesOf(tensor, "inputs");
    const ElementType& type = ElementOf(api.TensorType(tensor), names[0]);
    std::optional<Limits> limits;
    for (const std::string& name : names) {
      const auto& pair = request["integer_ranges"][name].Items();
      if (pair.size() == 2 && !limits) limits = Limits{pair[0].Integer(), pair[1].Integer()};
    }
    const auto shape = ShapeOf(tensor);
    inputs_.push_back({tensor, Draw(type, shape, tensor->params.scale != 0, limits, &random)});
    described.push_back(Json::Object{{"name", names[0]},
                                     {"index", graph_->IndexOf(tensor)},
                                     {"shape", Json::List(shape)},
                                     {"dtype", type.name}});
  }
  const auto codes = graph_->Codes();
  const bool delegated = std::count(codes.begin(), codes.end(), kTfLiteBuiltinDelegate) != 0;
  if (kind_ == "cpu" && delegated) {
    throw AgentError("unsupported",
                     "this library always applies XNNPACK: measure the delegate xnnpack");
  }
  return {{"allocate_ns", spent},
          {"inputs", described},
          {"ops", Json::List(codes)},
          {"parts", delegate_ == nullptr ? Json(nullptr) : Json(graph_->PartsOf(delegate_))},
          {"taken", Taken()}};
}

Json Model::Taken() {
  if (external_ == nullptr) return nullptr;
  const auto function = [this](const char* name) { return dlsym(external_, name); };
  void* const claimed = function("edgelstm_delegate_claimed");
  void* const refused = function("edgelstm_delegate_refused");
  void* const reason = function("edgelstm_delegate_reason");
  if (claimed == nullptr || refused == nullptr || reason == nullptr) return nullptr;
  using Number = int64_t (*)(TfLiteDelegate*);
  const char* why = reinterpret_cast<const char* (*)(TfLiteDelegate*)>(reason)(delegate_);
  return Json::Object{{"ops", reinterpret_cast<Number>(claimed)(delegate_)},
                      {"left", reinterpret_cast<Number>(refused)(delegate_)},
                      {"reason", why == nullptr ? "" : why}};
}

void Model::Reset() {
  const InterpreterLibrary& api = Library();
  if (api.InterpreterResetVariableTensors == nullptr) {
    throw AgentError("unsupported", "the library has no function "
                                    "TfLiteInterpreterResetVariableTensors to reset states with");
  }
  api.InterpreterResetVariableTensors(Loaded());
}

void Model::Feed() {
  for (const Input& input : inputs_) {
    void* data = Library().TensorData(input.tensor);
    if (data != nullptr) std::memcpy(data, input.data.bytes.data(), input.data.bytes.size());
  }
}

void Model::Invoke() {
  if (Library().InterpreterInvoke(interpreter_) != kTfLiteOk) {
    Refuse("unsupported", "the inference failed");
  }
}

Array Model::Output(const TfLiteTensor* tensor, const std::string& name) {
  const InterpreterLibrary& api = Library();
  const ElementType& type = ElementOf(api.TensorType(tensor), name);
  const auto* data = static_cast<const uint8_t*>(api.TensorData(tensor));
  if (data == nullptr) throw AgentError("unsupported", "output '" + name + "' has no data");
  return {&type, ShapeOf(tensor), {data, data + api.TensorByteSize(tensor)}};
}

Json::Object Model::Compare(const Json& request) {
  const InterpreterLibrary& api = Library();
  TfLiteInterpreter* interpreter = Loaded();
  const auto golden = ReadNpz(request["path"].Text());
  for (Input& input : inputs_) {
    const auto names = NamesOf(input.tensor, "inputs");
    const Array* given = nullptr;
    for (const std::string& name : names) {
      const auto found = golden.find("in:" + name);
      if (given == nullptr && found != golden.end()) given = &found->second;
    }
    if (given == nullptr) {
      throw AgentError("input", "the golden data have no input '" + names[0] + "'");
    }
    Array data = Converted(*given, *input.data.type);
    if (data.bytes.size() != api.TensorByteSize(input.tensor)) {
      throw AgentError("input", "the golden input '" + names[0] + "' has another size");
    }
    input.data = std::move(data);
  }
  g_complaint.clear();
  Reset();
  Feed();
  Invoke();
  std::map<std::string, const TfLiteTensor*> outputs;
  std::string there;
  for (int32_t i = 0; i < api.InterpreterGetOutputTensorCount(interpreter); ++i) {
    const TfLiteTensor* tensor = api.InterpreterGetOutputTensor(interpreter, i);
    const std::string name = NamesOf(tensor, "outputs")[0];
    outputs.emplace(name, tensor);
    there += (there.empty() ? "" : ", ") + name;
  }
  std::vector<std::pair<std::string, const Array*>> expected;
  for (const auto& [name, array] : golden) {
    if (name.rfind("out:", 0) == 0) expected.emplace_back(name.substr(4), &array);
  }
  const bool single = outputs.size() == 1 && expected.size() == 1;
  Json::Array results;
  for (const auto& [name, truth] : expected) {
    auto found = outputs.find(name);
    if (found == outputs.end() && single) found = outputs.begin();  // one has no need of a name
    if (found == outputs.end()) {
      throw AgentError("input", "the model has no output '" + name + "' (it has: " + there + ")");
    }
    const Array here = Output(found->second, found->first);
    if (here.shape != truth->shape) {
      throw AgentError("input", "output '" + name + "' has shape " + Json::List(here.shape).Dump() +
                                    ", the truth " + Json::List(truth->shape).Dump());
    }
    results.push_back(Difference(found->first, here, *truth, request["tolerance"].Number(),
                                 request["time"].Integer()));
  }
  return {{"outputs", results}};
}
