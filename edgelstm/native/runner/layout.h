// A process whose addresses are the same at every start (agent/layout.py says why).
#pragma once

#include "json.h"

// Starts the program again without random addresses, where the system lets it; returns where it
// does not, and in the second start.
void FixLayout(char** arguments);

Json Layout();  // "fixed" or "random"; null where the system does not tell
