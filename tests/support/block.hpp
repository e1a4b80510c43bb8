// SPDX-License-Identifier: Apache-2.0
//
// Something on which a fiber blocks its thread in the kernel, until somebody ends it.
#pragma once

#include <unistd.h>

#include <cstdlib>

namespace tendril::test {

class block {
 public:
  block() {
    if (::pipe(ends_) != 0) std::abort();
  }
  ~block() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  block(const block&) = delete;
  block& operator=(const block&) = delete;

  /// Named in traces: out of line, and no tail call.
  [[gnu::noinline]] void enter() const {
    char byte;
    [[maybe_unused]] const auto n = ::read(ends_[0], &byte, 1);
    asm volatile("" : : : "memory");
  }
  void release() const { [[maybe_unused]] const auto n = ::write(ends_[1], "", 1); }

 private:
  int ends_[2];
};

}  // namespace tendril::test
