// SPDX-License-Identifier: Apache-2.0
//
// For the checker of binaries: never run. One call that is intercepted, one that is not, and in the library
// (INTERCEPT_CHECKED_LIBRARY) another one.
#include <unistd.h>

#include <cstdio>
#include <cwchar>

#if defined(INTERCEPT_CHECKED_LIBRARY)
int wait_for_wide() { return static_cast<int>(std::fgetwc(stdin)); }
#else
int wait_for_wide();
int main() {
  char c = 0;
  if (read(0, &c, 1) != 1) pause();
  return wait_for_wide();
}
#endif
