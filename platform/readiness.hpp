// SPDX-License-Identifier: Apache-2.0
//
// Contract: a set of descriptors whose changes of readiness one thread waits for.
//
// Edge-triggered: a descriptor is reported when it becomes ready, and again when more arrives, but not
// for merely staying so. add() counts as such a change: what is ready already is reported once. A
// report may be stale or repeated, never missing.
//
// wait() belongs to one thread; everything else may be called from any.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tendril::platform {

struct readiness_event {
  std::uint64_t tag = 0;
  bool readable = false;
  bool writable = false;
  bool hangup = false;  ///< the peer has closed one direction or both, or an error is pending
};

class readiness_set {
 public:
  /// \throws std::system_error  what the system refused the set with
  readiness_set();
  ~readiness_set();
  readiness_set(const readiness_set&) = delete;
  readiness_set& operator=(const readiness_set&) = delete;

  /// Watches both directions of fd, edge-triggered; events carry `tag`. A descriptor that is in the
  /// set already gets the new tag. Returns 0, or the errno: EPERM for what is always ready (files).
  ///
  /// Closing the last descriptor of the open file removes it from the set.
  int add(int fd, std::uint64_t tag) noexcept;

  /// Watches for reading, level-triggered: reported by every wait() until it has been read.
  int add_level(int fd, std::uint64_t tag) noexcept;

  int remove(int fd) noexcept;

  /// Waits until something is ready, wake() is called or the timeout has passed (zero: not at all;
  /// negative: no limit; rounded up). Returns how many of `events` were filled; `woken` tells of wake().
  /// An interruption by a signal counts as the timeout.
  std::size_t wait(std::span<readiness_event> events, std::chrono::nanoseconds timeout,
                   bool& woken) noexcept;

  /// Makes the present or the next wait() return. Async-signal-safe.
  void wake() noexcept;

 private:
  int set_ = -1;
  int wake_ = -1;
};

}  // namespace tendril::platform
