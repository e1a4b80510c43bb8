// SPDX-License-Identifier: Apache-2.0
//
// The foreign functions of the tests. Each notes where it runs.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>

namespace tendril::test {

struct foreign_error : std::runtime_error {
  explicit foreign_error(int n) : std::runtime_error("foreign " + std::to_string(n)), number(n) {}
  int number;
};

extern "C" {
int foreign_add(int a, int b);
int foreign_add_noexcept(int a, int b) noexcept;
/// a + b, by way of 12 KiB of stack; throws foreign_error(a) where b is negative.
int foreign_hungry(int a, int b);
void foreign_fail_with(int error) noexcept;  ///< sets errno
int foreign_print(char* to, std::size_t bytes, const char* format, ...)
    __attribute__((format(printf, 3, 4)));
int foreign_print_noexcept(char* to, std::size_t bytes, const char* format, ...) noexcept
    __attribute__((format(printf, 3, 4)));
/// Twice what the callback returns.
int foreign_call_back(int (*callback)(void*), void* argument);
int foreign_call_back_noexcept(int (*callback)(void*) noexcept, void* argument) noexcept;
}

[[noreturn]] void foreign_throw(int number);

/// What the callback returns, or the negative number of the foreign_error that it throws.
int foreign_catch(int (*callback)(void*), void* argument);

/// A destructor in a foreign frame.
void foreign_unwind(void (*callback)(void*), void* argument, int& destroyed);

}  // namespace tendril::test
