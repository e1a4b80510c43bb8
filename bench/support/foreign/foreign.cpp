// SPDX-License-Identifier: Apache-2.0
#include "bench/support/foreign/foreign.hpp"

extern "C" {

int foreign_trivial(int x) { return x + 1; }

int foreign_declared(int x) { return x + 1; }

double foreign_mix(int i, double d, const void* p) {
  return i + d + (p != nullptr ? *static_cast<const int*>(p) : 0);
}

int foreign_callback(int (*callback)(void*), void* argument) { return callback(argument) + 1; }

int foreign_throw(int x) {
  if (x != 0) throw x;
  return x;
}
}
