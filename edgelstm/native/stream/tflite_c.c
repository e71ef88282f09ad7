#include "tflite_c.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char kEnvironment[] = "EDGELSTM_TFLITE";
static const char kProbe[] = "TfLiteInterpreterCreate";
/* As distributors name it, and as the Android packages do. */
static const char* const kNames[] = {
    "libtensorflowlite_c.so", "libtensorflow-lite.so", "libtensorflowlite_jni.so",
    "libtensorflowlite_c.dylib"};

/* A function pointer from dlsym, without the cast that ISO C forbids. */
static int Load(void* library, const char* name, void* function, size_t bytes) {
  void* found = dlsym(library, name);
  if (found == NULL) return -1;
  memcpy(function, &found, bytes);
  return 0;
}

static void* OpenDefault(void) {
  void* process = dlopen(NULL, RTLD_NOW);
  if (process != NULL && dlsym(process, kProbe) != NULL) return process;
  if (process != NULL) dlclose(process);
  for (size_t i = 0; i < sizeof kNames / sizeof *kNames; ++i) {
    void* library = dlopen(kNames[i], RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) return library;
  }
  return NULL;
}

int edgelstm_tflite_find(const char* path, TfLiteC* api, char* error, size_t error_bytes) {
  memset(api, 0, sizeof *api);
  if (path == NULL) path = getenv(kEnvironment);
  const int named = path != NULL && *path != '\0';
  api->library = named ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : OpenDefault();
  if (api->library == NULL) {
    if (named) {
      const char* why = dlerror();
      snprintf(error, error_bytes, "the interpreter's library does not load: %s", why ? why : path);
    } else {
      snprintf(error, error_bytes,
               "no library with the TensorFlow Lite C API was found: name one in the options or "
               "in %s",
               kEnvironment);
    }
    return -1;
  }
  const char* missing = NULL;
#define EDGELSTM_FIND(result, name, arguments)                                             \
  if (Load(api->library, "TfLite" #name, (void*)&api->name, sizeof api->name) != 0) {      \
    missing = "TfLite" #name;                                                              \
  }
  EDGELSTM_TFLITE_FUNCTIONS(EDGELSTM_FIND)
  EDGELSTM_STREAM_FUNCTIONS(EDGELSTM_FIND)
#undef EDGELSTM_FIND
  if (missing == NULL) return 0;
  snprintf(error, error_bytes, "%s has no function %s: it is no TensorFlow Lite C library",
           named ? path : "the interpreter's library", missing);
  dlclose(api->library);
  api->library = NULL;
  return -1;
}

int edgelstm_delegate_find(
    const char* path, DelegateLibrary* delegate, char* error, size_t error_bytes) {
  memset(delegate, 0, sizeof *delegate);
  delegate->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (delegate->library == NULL) {
    const char* why = dlerror();
    snprintf(error, error_bytes, "the delegate's library does not load: %s", why ? why : path);
    return -1;
  }
  if (Load(delegate->library, "tflite_plugin_create_delegate", (void*)&delegate->create,
           sizeof delegate->create) == 0 &&
      Load(delegate->library, "tflite_plugin_destroy_delegate", (void*)&delegate->destroy,
           sizeof delegate->destroy) == 0) {
    return 0;
  }
  snprintf(error, error_bytes, "%s is no external delegate", path);
  dlclose(delegate->library);
  delegate->library = NULL;
  return -1;
}

void edgelstm_library_close(void* library) {
  if (library != NULL) dlclose(library);
}
