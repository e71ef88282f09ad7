#include "interpreter_library.h"

#include <dlfcn.h>

#include <cstdlib>

#include "agent_error.h"

namespace {

template <typename Function>
bool Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

std::string LastError(const std::string& otherwise) {
  const char* said = dlerror();
  return said == nullptr ? otherwise : said;
}

// An external delegate reports why it cannot be made.
std::string g_reported;
void Report(const char* message) { g_reported = message; }

}  // namespace

InterpreterLibrary InterpreterLibrary::Open(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw AgentError("library", "the TensorFlow Lite library does not load: " + LastError(path));
  }
  InterpreterLibrary api;
  const char* missing = nullptr;
#define EDGELSTM_FIND(result, name, arguments) \
  if (!Find(library, "TfLite" #name, &api.name)) missing = "TfLite" #name;
  EDGELSTM_TFLITE_FUNCTIONS(EDGELSTM_FIND)
  EDGELSTM_RUNNER_FUNCTIONS(EDGELSTM_FIND)
#undef EDGELSTM_FIND
  if (missing != nullptr) {
    throw AgentError("library", std::string("the library has no function ") + missing +
                                    ": it is no TensorFlow Lite C library");
  }
#define EDGELSTM_FIND(result, name, arguments) Find(library, "TfLite" #name, &api.name);
  EDGELSTM_RUNNER_OPTIONAL_FUNCTIONS(EDGELSTM_FIND)
#undef EDGELSTM_FIND
  return api;
}

TfLiteDelegate* ExternalDelegate(const std::string& path,
                                 const std::map<std::string, std::string>& options,
                                 void** library) {
  *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (*library == nullptr) throw AgentError("delegate", LastError(path));
  TfLiteDelegate* (*create)(const char**, const char**, size_t, void (*)(const char*));
  if (!Find(*library, "tflite_plugin_create_delegate", &create)) {
    throw AgentError("delegate", "the library has no function tflite_plugin_create_delegate");
  }
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  TfLiteDelegate* made = create(keys.data(), values.data(), keys.size(), Report);
  if (made == nullptr) {
    throw AgentError("delegate", g_reported.empty() ? "it makes no delegate" : g_reported);
  }
  return made;
}

TfLiteDelegate* NnapiDelegate(const InterpreterLibrary& api,
                              const std::map<std::string, std::string>& options) {
  if (api.NnapiDelegateCreate == nullptr) {
    throw AgentError("delegate", "the library has no function TfLiteNnapiDelegateCreate");
  }
  if (dlopen("libneuralnetworks.so", RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    throw AgentError("delegate", "this device has no NNAPI: " + LastError("libneuralnetworks.so"));
  }
  const auto option = [&](const char* key, const char* otherwise) {
    const auto found = options.find(key);
    return found == options.end() ? otherwise : found->second.c_str();
  };
  TfLiteNnapiDelegateOptions wanted{};
  wanted.execution_preference = std::atoi(option("execution_preference", "-1"));
  wanted.accelerator_name = option("accelerator_name", nullptr);
  wanted.disallow_nnapi_cpu = std::atoi(option("disallow_nnapi_cpu", "1"));
  wanted.allow_fp16 = std::atoi(option("allow_fp16", "0"));
  wanted.max_number_delegated_partitions =
      std::atoi(option("max_number_delegated_partitions", "3"));
  TfLiteDelegate* made = api.NnapiDelegateCreate(&wanted);
  if (made == nullptr) throw AgentError("delegate", "NNAPI makes no delegate");
  return made;
}
