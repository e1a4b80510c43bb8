// SPDX-License-Identifier: Apache-2.0
//
// The foreign code of benchmarks and experiments: functions of a shared library of their own, built
// without split stacks or any knowledge of fibers, declared as a C library's header declares them
// (nothing says that they do not throw). Programs reach them through the PLT or by dlsym.
#pragma once

extern "C" {

/// x + 1: all that remains is the call.
int foreign_trivial(int x);
/// The same, for programs that declare it by tendril_foreign_functions().
int foreign_declared(int x);

/// i + d + the int that p points to; p may be null.
double foreign_mix(int i, double d, const void* p);

/// callback(argument) + 1. Exceptions of the callback pass through.
int foreign_callback(int (*callback)(void*), void* argument);

/// Throws x as an int unless it is 0, which it returns.
int foreign_throw(int x);
}
