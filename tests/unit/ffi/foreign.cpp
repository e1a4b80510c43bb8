// SPDX-License-Identifier: Apache-2.0
#include "foreign.hpp"

#include "places.hpp"

#include <cerrno>
#include <cstdarg>
#include <cstdio>

namespace tendril::test {

extern "C" {

int foreign_add(int a, int b) {
  note_foreign_call();
  return a + b;
}

int foreign_add_noexcept(int a, int b) noexcept { return foreign_add(a, b); }

int foreign_hungry(int a, int b) {
  volatile char stack[12 << 10];
  for (std::size_t i = 0; i < sizeof stack; i += 64) stack[i] = 1;
  if (b < 0) throw foreign_error(a);
  return a + b + stack[64] - 1;
}

void foreign_fail_with(int error) noexcept {
  note_foreign_call();
  errno = error;
}

int foreign_print(char* to, std::size_t bytes, const char* format, ...) {
  note_foreign_call();
  std::va_list arguments;
  va_start(arguments, format);
  const int n = std::vsnprintf(to, bytes, format, arguments);
  va_end(arguments);
  return n;
}

int foreign_print_noexcept(char* to, std::size_t bytes, const char* format, ...) noexcept {
  note_foreign_call();
  std::va_list arguments;
  va_start(arguments, format);
  const int n = std::vsnprintf(to, bytes, format, arguments);
  va_end(arguments);
  return n;
}

int foreign_call_back(int (*callback)(void*), void* argument) {
  note_foreign_call();
  return 2 * callback(argument);
}

int foreign_call_back_noexcept(int (*callback)(void*) noexcept, void* argument) noexcept {
  note_foreign_call();
  return 2 * callback(argument);
}
}

void foreign_throw(int number) {
  note_foreign_call();
  throw foreign_error(number);
}

int foreign_catch(int (*callback)(void*), void* argument) {
  note_foreign_call();
  try {
    return callback(argument);
  } catch (const foreign_error& e) {
    return -e.number;
  }
}

void foreign_unwind(void (*callback)(void*), void* argument, int& destroyed) {
  struct guard {
    int& count;
    ~guard() { ++count; }
  };
  note_foreign_call();
  const guard g{destroyed};
  callback(argument);
}

}  // namespace tendril::test
