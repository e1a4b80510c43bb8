// SPDX-License-Identifier: Apache-2.0
//
// The schedulers of the process, by the index that each fiber's flags carry, and what is done to all
// fibers of one: stopping and listing. Fibers are found by walking the core pool, so that spawning
// keeps no list.
#pragma once

#include "sched/fiber_core.hpp"

#include <atomic>
#include <cstdint>
#include <string>
#include <type_traits>

namespace tendril {
class runtime;
}

namespace tendril::detail {

/// \throws std::system_error when 256 runtimes are running
unsigned register_scheduler(scheduler& s, std::uint64_t& serial);
void unregister_scheduler(scheduler& s) noexcept;
scheduler* scheduler_at(unsigned index) noexcept;
/// The one started last that is still registered; null when there is none.
scheduler* latest_scheduler() noexcept;
/// Its serial number; 0 when there is none.
extern std::atomic<std::uint64_t> serial_of_latest;
inline std::uint64_t latest_serial() noexcept {
  return serial_of_latest.load(std::memory_order_acquire);
}

/// use(s, argument) for the scheduler of that serial number, which stays registered meanwhile. False: there is
/// none (any more).
bool with_scheduler(std::uint64_t serial, void (*use)(scheduler&, void*), void* argument);
template <class F>
bool with_scheduler(std::uint64_t serial, F& use) {
  return with_scheduler(
      serial, [](scheduler& s, void* f) { (*static_cast<F*>(f))(s); },
      const_cast<void*>(static_cast<const void*>(&use)));
}

/// Calls f(scheduler&) for each, which stay registered meanwhile.
void for_each_scheduler(void (*f)(scheduler&, void*), void* argument);
template <class F>
void for_each_scheduler(F&& f) {
  for_each_scheduler(
      [](scheduler& s, void* a) { (*static_cast<std::remove_reference_t<F>*>(a))(s); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

/// Requests every fiber of s to stop.
void stop_all_fibers(scheduler& s) noexcept;
/// One line a fiber: id, name, what it waits for.
std::string list_fibers(const scheduler& s);

}  // namespace tendril::detail
