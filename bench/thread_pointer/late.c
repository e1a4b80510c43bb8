// SPDX-License-Identifier: Apache-2.0
//
// A library that is loaded late and has a thread-local: with the model initial-exec one that libc has to initialize in
// all threads when the library is loaded, in the reserve of their static blocks; with global-dynamic one that comes into
// being when a thread first asks.

__attribute__((tls_model(LATE_MODEL))) __thread int late_value = 42;

int read_late_value(void) { return late_value; }
