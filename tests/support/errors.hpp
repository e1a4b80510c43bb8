// SPDX-License-Identifier: Apache-2.0
//
// What a call throws, as a value: fibers record it, and the test's thread checks.
#pragma once

#include <exception>
#include <future>
#include <string>
#include <system_error>

namespace tendril::test {

/// The code of the std::system_error or std::future_error that f throws; no error when it returns. Others pass through.
template <class F>
std::error_code error_of(F&& f) {
  try {
    f();
  } catch (const std::system_error& e) {
    return e.code();
  } catch (const std::future_error& e) {
    return e.code();
  }
  return {};
}

/// What the exception that f throws says; empty when it returns.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

}  // namespace tendril::test
