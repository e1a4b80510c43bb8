// SPDX-License-Identifier: Apache-2.0
//
// What is remembered of a fiber that stays on its thread (thread_stay.hpp): not in its frame, which is full, nor on
// its stack, which may be copied away while others read this. Belongs to the thread: taken and given back there.
#pragma once

#include <cstdint>

namespace tendril::detail {

struct worker_thread;

struct stay_record {
  worker_thread* home = nullptr;
  unsigned depth = 0;
  std::int8_t affinity = 0;  ///< what it has when it does not stay
  stay_record* next_free = nullptr;
  stay_record* next_made = nullptr;
};

/// A thread's.
class stay_records {
 public:
  stay_records() = default;
  stay_records(const stay_records&) = delete;
  stay_records& operator=(const stay_records&) = delete;
  ~stay_records();

  stay_record& take() noexcept;
  void give(stay_record& r) noexcept;
  /// Whether some fiber stays, or has ended while it did.
  bool any() const noexcept { return used_ != 0; }

 private:
  stay_record* free_ = nullptr;
  stay_record* made_ = nullptr;  ///< all
  unsigned used_ = 0;
};

}  // namespace tendril::detail
