// Packed weights of which equal ones are in memory once, whichever layers and interpreters use
// them: interpreters of one file map it at addresses of their own, so content tells.
#pragma once

#include <cstddef>

namespace edgelstm {

// Zeroed memory to pack weights into, aligned to pages; null if memory is short. It is mapped apart
// from the heap, where what only served to be compared would leave holes.
void* MapWeights(size_t bytes);

// Takes `packed` of `MapWeights` and returns memory of the same content: itself, or that of an
// earlier call. It must not be written to any more. Null if memory is short; `packed` is freed
// then. May be called by several threads.
const void* ShareWeights(void* packed, size_t bytes);

// Gives back what `ShareWeights` returned; the last user's call frees it. Null does nothing.
void ReleaseWeights(const void* packed);

}  // namespace edgelstm
