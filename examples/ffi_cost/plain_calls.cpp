// SPDX-License-Identifier: Apache-2.0
#include "plain_calls.hpp"

[[gnu::noinline]] long plain_call(foreign_function f, const foreign_arguments& a) {
  return f(a[0], a[1], a[2], a[3], a[4], a[5]);
}

long plain_loop(foreign_function f, const foreign_arguments& a, long count) {
  long result = 0;
  for (long i = 0; i < count; ++i) result = plain_call(f, a);
  return result;
}
