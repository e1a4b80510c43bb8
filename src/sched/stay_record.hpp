// SPDX-License-Identifier: Apache-2.0
//
// What is remembered of a fiber that stays on its thread (thread_stay.hpp): not in its frame, which is full, nor on
// its stack, which may be copied away while others read this. Belongs to the thread: taken and given back there.
#pragma once

#include <atomic>
#include <cstdint>

namespace tendril::detail {

class fiber_core;
struct worker_thread;

struct stay_record {
  worker_thread* home = nullptr;
  unsigned depth = 0;
  std::int8_t affinity = 0;  ///< what it has when it does not stay
  /// Whether the fiber waits in a call that may be interrupted, and whose record this is: see interruption.hpp. Read by
  /// others.
  std::atomic<std::uint64_t> call{0};
  std::atomic<fiber_core*> who{nullptr};
  stay_record* next_free = nullptr;
  stay_record* next_made = nullptr;
};

/// A thread's.
class stay_records {
 public:
  stay_records() noexcept;
  stay_records(const stay_records&) = delete;
  stay_records& operator=(const stay_records&) = delete;
  ~stay_records();

  stay_record& take() noexcept;
  void give(stay_record& r) noexcept;
  /// Whether some fiber stays, or has ended while it did.
  bool any() const noexcept { return used_ != 0; }

  /// All, the newest first; none goes before the thread does. For others as well.
  stay_record* made() const noexcept { return made_.load(std::memory_order_acquire); }
  /// Moments of handlers of signals that were sent to this thread: see interruption.hpp.
  std::atomic<std::uint64_t> handled[2]{};
  stay_records* next = nullptr;  ///< in the list of all threads

 private:
  stay_record* free_ = nullptr;
  std::atomic<stay_record*> made_{nullptr};
  unsigned used_ = 0;
  void* home_;  ///< the list
};

}  // namespace tendril::detail
