/* Runs a model over frames of float32 from standard input, a chunk at a time, and writes its first
 * output to standard output.
 *
 *     stream MODEL.tflite FRAMES_PER_CHUNK < frames.f32 > outputs.f32
 *
 * The interpreter's library is found as EdgeLstmStreamOptions says: EDGELSTM_TFLITE=... names it;
 * EDGELSTM_DELEGATE=... names a delegate.
 */
#include <edgelstm/stream.h>
#include <stdio.h>
#include <stdlib.h>

static int Run(EdgeLstmStream* stream, int64_t chunk) {
  const EdgeLstmTensor* in = edgelstm_stream_input(stream, 0);
  const EdgeLstmTensor* out = edgelstm_stream_output(stream, 0);
  if (in == NULL || out == NULL || edgelstm_stream_input(stream, 1) != NULL) {
    fprintf(stderr, "this example runs models with one input and an output\n");
    return 2;
  }
  const size_t in_bytes = (size_t)in->frame_bytes, out_bytes = (size_t)out->frame_bytes;
  char* frames = malloc(in_bytes * (size_t)chunk);
  char* results = malloc(out_bytes * (size_t)chunk);
  int failed = frames == NULL || results == NULL;
  while (!failed) {
    const size_t got = fread(frames, in_bytes, (size_t)chunk, stdin);
    if (got == 0) break;
    const void* inputs[1] = {frames};
    void* outputs[8] = {results};
    failed = edgelstm_stream_sequence(stream, (int64_t)got, inputs, outputs) != 0;
    if (failed) {
      fprintf(stderr, "%s\n", edgelstm_stream_error(stream));
    } else {
      const size_t made = out->time_axis < 0 ? 1 : got;
      failed = fwrite(results, out_bytes, made, stdout) != made;
    }
  }
  free(frames);
  free(results);
  return failed ? 2 : 0;
}

int main(int count, char** arguments) {
  const int64_t chunk = count == 3 ? strtoll(arguments[2], NULL, 10) : 0;
  if (chunk < 1 || edgelstm_stream_abi() != EDGELSTM_STREAM_ABI) {
    fprintf(stderr, "usage: stream MODEL.tflite FRAMES_PER_CHUNK < frames.f32 > outputs.f32\n");
    return 2;
  }
  const EdgeLstmStreamOptions options = {NULL, getenv("EDGELSTM_DELEGATE"), 1};
  char error[512];
  EdgeLstmStream* stream = edgelstm_stream_open(arguments[1], &options, error, sizeof error);
  if (stream == NULL) {
    fprintf(stderr, "%s\n", error);
    return 2;
  }
  const int code = Run(stream, chunk);
  edgelstm_stream_close(stream);
  return code;
}
