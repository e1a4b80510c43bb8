// SPDX-License-Identifier: Apache-2.0
//
// For the checker of binaries: never run. One call that is intercepted, one that is not, and in the library
// (INTERCEPT_CHECKED_LIBRARY) another one, and one that waits for a disk.
#include <stdio.h>
#include <unistd.h>

#if defined(INTERCEPT_CHECKED_LIBRARY)
int wait_for_all() {
  char c = 0;
  return pread(0, &c, 1, 0) == 1 ? fcloseall() : 0;
}
#else
int wait_for_all();
int main() {
  char c = 0;
  if (read(0, &c, 1) != 1) pause();
  return wait_for_all();
}
#endif
