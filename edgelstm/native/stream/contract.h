/* What the converter wrote into a file about its signature, read from the file itself. */
#ifndef EDGELSTM_STREAM_CONTRACT_H_
#define EDGELSTM_STREAM_CONTRACT_H_

#include <stddef.h>
#include <stdint.h>

/* A named input or output of the file's own signature. */
typedef struct Port {
  char* name;
  int32_t position;   /* among the graph's inputs or outputs */
  int32_t time_axis;  /* -1: none */
  int32_t open_time;  /* whether the file leaves the number of frames open */
  int32_t is_state;
} Port;

/* A state: which input and which output, as indices of the ports. */
typedef struct Pair {
  char* name;
  int32_t input, output;
} Pair;

typedef struct Contract {
  Port* inputs;
  Port* outputs;
  Pair* pairs;
  int32_t input_count, output_count, pair_count;
} Contract;

/* Reads the contract of a .tflite file; the file is not trusted. Returns 0, or -1 with a message
 * in `error` (of `error_bytes`); the contract is empty then. */
int edgelstm_contract_read(const char* path, Contract* contract, char* error, size_t error_bytes);
void edgelstm_contract_free(Contract* contract);

#endif /* EDGELSTM_STREAM_CONTRACT_H_ */
