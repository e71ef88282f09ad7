#include "contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME 4096
static const char kEntry[] = "edgelstm.stream";
static const char kSignature[] = "serving_default";

/* --- flatbuffers: every read is held to the file's size; `bad` stays set once one is not --- */

typedef struct File {
  const uint8_t* data;
  size_t size;
  int bad;
} File;

typedef struct Vector {
  size_t start; /* of the first element */
  uint32_t count;
} Vector;

static uint32_t U32(File* file, size_t at) {
  if (at > file->size || file->size - at < 4) {
    file->bad = 1;
    return 0;
  }
  const uint8_t* p = file->data + at;
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t U16(File* file, size_t at) {
  if (at > file->size || file->size - at < 2) {
    file->bad = 1;
    return 0;
  }
  return (uint32_t)file->data[at] | (uint32_t)file->data[at + 1] << 8;
}

/* Where a field of a table stands; 0 where the table does not have it. */
static size_t Field(File* file, size_t table, int slot) {
  const int32_t back = (int32_t)U32(file, table);
  if (file->bad || (back >= 0 ? (size_t)back > table : (size_t)(-(int64_t)back) > file->size)) {
    file->bad = 1;
    return 0;
  }
  const size_t vtable = (size_t)((int64_t)table - back);
  const uint32_t bytes = U16(file, vtable);
  const uint32_t entry = 4 + 2 * (uint32_t)slot;
  if (file->bad || entry + 2 > bytes) return 0;
  const uint32_t offset = U16(file, vtable + entry);
  return offset == 0 || file->bad ? 0 : table + offset;
}

/* What an offset stored at `at` points to; 0 where it leads out of the file. */
static size_t Follow(File* file, size_t at) {
  const uint32_t offset = U32(file, at);
  if (file->bad || offset == 0 || offset > file->size - at) {
    file->bad = 1;
    return 0;
  }
  return at + offset;
}

static Vector VectorAt(File* file, size_t table, int slot, size_t element_bytes) {
  Vector vector = {0, 0};
  const size_t field = Field(file, table, slot);
  if (field == 0) return vector;
  const size_t at = Follow(file, field);
  if (at == 0) return vector;
  const uint32_t count = U32(file, at);
  if (file->bad || count > (file->size - at - 4) / element_bytes) {
    file->bad = 1;
    return vector;
  }
  vector.start = at + 4;
  vector.count = count;
  return vector;
}

static size_t TableIn(File* file, Vector vector, uint32_t index) {
  if (index >= vector.count) {
    file->bad = 1;
    return 0;
  }
  return Follow(file, vector.start + 4 * (size_t)index);
}

static uint32_t Scalar(File* file, size_t table, int slot) {
  const size_t field = Field(file, table, slot);
  return field == 0 ? 0 : U32(file, field);
}

static int Is(File* file, Vector text, const char* wanted) {
  const size_t length = strlen(wanted);
  return !file->bad && text.count == length &&
         memcmp(file->data + text.start, wanted, length) == 0;
}

/* --- the contract --- */

static char* Copy(const uint8_t* text, size_t length) {
  char* made = length > MAX_NAME ? NULL : malloc(length + 1);
  if (made != NULL) {
    memcpy(made, text, length);
    made[length] = '\0';
  }
  return made;
}

static int32_t Find(const Port* ports, int32_t count, const char* name) {
  for (int32_t i = 0; i < count; ++i) {
    if (strcmp(ports[i].name, name) == 0) return i;
  }
  return -1;
}

/* The ports of one side of the signature, in its order. */
static int ReadPorts(
    File* file, size_t graph, size_t signature, int outputs, Port** ports, int32_t* count) {
  const Vector entries = VectorAt(file, signature, outputs ? 1 : 0, 4);
  const Vector indices = VectorAt(file, graph, outputs ? 2 : 1, 4);
  if (file->bad || entries.count == 0) return -1;
  *ports = calloc(entries.count, sizeof(Port));
  if (*ports == NULL) return -1;
  for (uint32_t i = 0; i < entries.count; ++i) {
    const size_t entry = TableIn(file, entries, i);
    const Vector name = VectorAt(file, entry, 0, 1);
    const uint32_t tensor = Scalar(file, entry, 1);
    if (file->bad) return -1;
    Port* port = &(*ports)[i];
    *port = (Port){Copy(file->data + name.start, name.count), -1, -1, 0, 0};
    *count = (int32_t)i + 1;
    if (port->name == NULL) return -1;
    for (uint32_t k = 0; k < indices.count; ++k) {
      if (U32(file, indices.start + 4 * (size_t)k) == tensor) port->position = (int32_t)k;
    }
    if (port->position < 0) return -1;
  }
  return 0;
}

/* Whether the file leaves a tensor's size along an axis open. */
static int IsOpen(File* file, size_t graph, int outputs, const Port* port) {
  const Vector indices = VectorAt(file, graph, outputs ? 2 : 1, 4);
  const Vector tensors = VectorAt(file, graph, 0, 4);
  const uint32_t index = U32(file, indices.start + 4 * (size_t)port->position);
  const size_t tensor = TableIn(file, tensors, index);
  const Vector signature = VectorAt(file, tensor, 7, 4);
  if (file->bad || (uint32_t)port->time_axis >= signature.count) return 0;
  return U32(file, signature.start + 4 * (size_t)port->time_axis) == 0xFFFFFFFFu;
}

/* The content of the metadata entry. */
static int FindEntry(File* file, size_t model, const uint8_t** text, size_t* length) {
  const Vector entries = VectorAt(file, model, 6, 4);
  const Vector buffers = VectorAt(file, model, 4, 4);
  for (uint32_t i = 0; i < entries.count && !file->bad; ++i) {
    const size_t entry = TableIn(file, entries, i);
    if (!Is(file, VectorAt(file, entry, 0, 1), kEntry)) continue;
    const size_t buffer = TableIn(file, buffers, Scalar(file, entry, 1));
    const Vector content = VectorAt(file, buffer, 0, 1);
    if (file->bad) return -1;
    *text = file->data + content.start;
    *length = content.count;
    return 0;
  }
  return -1;
}

/* One line: state NAME INPUT OUTPUT, or input|output NAME AXIS, separated by tabs. */
static int ReadLine(File* file, size_t graph, Contract* contract, char* line) {
  char* parts[4] = {line, NULL, NULL, NULL};
  int count = 1;
  for (char* p = line; *p != '\0'; ++p) {
    if (*p != '\t') continue;
    *p = '\0';
    if (count == 4) return -1;
    parts[count++] = p + 1;
  }
  if (strcmp(parts[0], "state") == 0 && count == 4) {
    Pair* pair = &contract->pairs[contract->pair_count];
    pair->input = Find(contract->inputs, contract->input_count, parts[2]);
    pair->output = Find(contract->outputs, contract->output_count, parts[3]);
    pair->name = Copy((const uint8_t*)parts[1], strlen(parts[1]));
    ++contract->pair_count;
    if (pair->input < 0 || pair->output < 0 || pair->name == NULL) return -1;
    contract->inputs[pair->input].is_state = 1;
    contract->outputs[pair->output].is_state = 1;
    return 0;
  }
  if (count != 3) return -1;
  const int outputs = strcmp(parts[0], "output") == 0;
  if (!outputs && strcmp(parts[0], "input") != 0) return -1;
  Port* ports = outputs ? contract->outputs : contract->inputs;
  const int32_t at = Find(
      ports, outputs ? contract->output_count : contract->input_count, parts[1]);
  if (at < 0 || strlen(parts[2]) != 1 || parts[2][0] < '0' || parts[2][0] > '7') return -1;
  ports[at].time_axis = parts[2][0] - '0';
  ports[at].open_time = IsOpen(file, graph, outputs, &ports[at]);
  return 0;
}

static int ReadEntry(
    File* file, size_t graph, Contract* contract, const uint8_t* text, size_t length) {
  int32_t lines = 1;
  for (size_t i = 0; i < length; ++i) lines += text[i] == '\n';
  contract->pairs = calloc((size_t)lines, sizeof(Pair));
  if (contract->pairs == NULL) return -1;
  for (size_t start = 0; start < length;) {
    const uint8_t* end = memchr(text + start, '\n', length - start);
    const size_t size = end == NULL ? length - start : (size_t)(end - (text + start));
    char* line = memchr(text + start, '\0', size) == NULL ? Copy(text + start, size) : NULL;
    const int failed = line == NULL || ReadLine(file, graph, contract, line) != 0;
    free(line);
    if (failed || file->bad) return -1;
    start += size + 1;
  }
  return 0;
}

static const char* ReadModel(File* file, Contract* contract) {
  static const char kDamaged[] = "the file is damaged, or no TFLite model";
  if (file->size < 8 || memcmp(file->data + 4, "TFL3", 4) != 0) {
    return "this is no TFLite model: the identifier TFL3 is missing";
  }
  const size_t model = Follow(file, 0);
  const Vector graphs = VectorAt(file, model, 2, 4);
  const Vector signatures = VectorAt(file, model, 7, 4);
  const size_t graph = TableIn(file, graphs, 0);
  if (file->bad) return kDamaged;
  size_t signature = 0;
  for (uint32_t i = 0; i < signatures.count && !file->bad; ++i) {
    const size_t each = TableIn(file, signatures, i);
    if (Is(file, VectorAt(file, each, 2, 1), kSignature) && Scalar(file, each, 4) == 0) {
      signature = each;
    }
  }
  const uint8_t* text = NULL;
  size_t length = 0;
  if (file->bad) return kDamaged;
  if (signature == 0 || FindEntry(file, model, &text, &length) != 0) {
    return "the file does not say how its states are paired: write it with edgelstm convert "
           "--state explicit, or --step-only";
  }
  if (ReadPorts(file, graph, signature, 0, &contract->inputs, &contract->input_count) != 0 ||
      ReadPorts(file, graph, signature, 1, &contract->outputs, &contract->output_count) != 0 ||
      ReadEntry(file, graph, contract, text, length) != 0) {
    return kDamaged;
  }
  return NULL;
}

static uint8_t* ReadAll(const char* path, size_t* size) {
  FILE* stream = fopen(path, "rb");
  if (stream == NULL) return NULL;
  uint8_t* data = NULL;
  if (fseek(stream, 0, SEEK_END) == 0) {
    const long end = ftell(stream);
    if (end > 0 && fseek(stream, 0, SEEK_SET) == 0) {
      data = malloc((size_t)end);
      if (data != NULL && fread(data, 1, (size_t)end, stream) != (size_t)end) {
        free(data);
        data = NULL;
      }
      *size = (size_t)end;
    }
  }
  fclose(stream);
  return data;
}

int edgelstm_contract_read(const char* path, Contract* contract, char* error, size_t error_bytes) {
  memset(contract, 0, sizeof *contract);
  File file = {NULL, 0, 0};
  uint8_t* data = ReadAll(path, &file.size);
  if (data == NULL) {
    snprintf(error, error_bytes, "%s: the file cannot be read, or is empty", path);
    return -1;
  }
  file.data = data;
  const char* what = ReadModel(&file, contract);
  free(data);
  if (what == NULL) return 0;
  snprintf(error, error_bytes, "%s: %s", path, what);
  edgelstm_contract_free(contract);
  return -1;
}

static void FreePorts(Port* ports, int32_t count) {
  for (int32_t i = 0; i < count; ++i) free(ports[i].name);
  free(ports);
}

void edgelstm_contract_free(Contract* contract) {
  FreePorts(contract->inputs, contract->input_count);
  FreePorts(contract->outputs, contract->output_count);
  for (int32_t i = 0; i < contract->pair_count; ++i) free(contract->pairs[i].name);
  free(contract->pairs);
  memset(contract, 0, sizeof *contract);
}
