// SPDX-License-Identifier: Apache-2.0
//
// A descriptor that a call has opened for itself, to wait on; closed at the end as a program would close it, so that the
// table of descriptors forgets it. The program may have closed it before: all numbers, as daemons do. Who finds that
// out gives it up.
#pragma once

#include "intercept/calls.hpp"

namespace tendril::detail {

class owned_number {
 public:
  /// Negative: none.
  explicit owned_number(int number) noexcept : number_(number) {}
  ~owned_number() {
    if (number_ < 0) return;
    const int before = errno_now();
    calls::close(number_);
    finish(0, before);
  }
  owned_number(const owned_number&) = delete;
  owned_number& operator=(const owned_number&) = delete;

  int number() const noexcept { return number_; }
  /// It is no longer ours.
  void give_up() noexcept { number_ = -1; }

 private:
  int number_;
};

}  // namespace tendril::detail
