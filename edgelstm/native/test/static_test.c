/* The public header in C, and the library linked into a program. */
#include <stdio.h>
#include <string.h>

#include "edgelstm/edgelstm.h"

int main(void) {
  EdgeLstmDelegateOptions options = EdgeLstmDelegateOptionsDefault();
  struct TfLiteDelegate* delegate = EdgeLstmDelegateCreate(&options);
  if (delegate == NULL || edgelstm_delegate_claimed(delegate) != 0) return 1;
  EdgeLstmDelegateDelete(delegate);
  delegate = EdgeLstmDelegateCreate(NULL);
  if (delegate == NULL) return 1;
  EdgeLstmDelegateDelete(delegate);
  EdgeLstmDelegateDelete(NULL);
  options.kernels = "scalar";
  options.claim_required = 1;
  delegate = EdgeLstmDelegateCreate(&options);
  if (delegate == NULL) return 1;
  EdgeLstmDelegateDelete(delegate);
  options.kernels = "no such kernels";
  if (EdgeLstmDelegateCreate(&options) != NULL) return 1;
  printf("static: %s, kernels %s\n", edgelstm_version(), edgelstm_kernels_chosen(NULL));
  return 0;
}
