// SPDX-License-Identifier: Apache-2.0
//
// Looking into fibers that do not run: where their memory is, for garbage collectors and leak finders.
//
//     tendril::for_each_parked([&](const void* low, const void* high) { scan(low, high); });
//
// The visitor is given every range of memory in which a fiber that does not run keeps the values of its code:
//
//   started     its stack, from the saved stack pointer (registers lie there, too) to its first frame; of a segmented
//               stack the used part of each segment, and what alloca took elsewhere; of a tasklet whose stack is
//               copied away, the copy, perhaps in pieces, each of which is in memory that is there for one call of the
//               visitor only. A callable that was too large for the control block. The control block's
//               cell, in which a value waits that is handed over. The values of its fiber_local variables.
//   not yet     the callable with what it captures
//
// Fibers that are runnable are reported as parked ones are. One that runs is on a thread, whose stack whoever stops
// threads looks through himself; it may be reported with what it last had when it was switched away from, which is
// memory of its stack in any case. Ranges may overlap and come in any order. Not reported: what is on the heap and
// belongs to values, as elements of a vector or of a channel, states of futures, ambient values.
//
// When. No thread may run fibers, start them, or create or destroy runtimes while ranges are visited. Threads may be
// stopped at any instruction: nothing is locked or allocated, and what the runtime writes is found whole between any
// two instructions. Where all fibers are of one runtime with one worker, a fiber of it may call as well.
//
// Epochs. A parked stack does not change. A collector that has seen one need not look again until the fiber has run:
//
//     parked_epoch epoch = for_each_parked(visitor, parked_epoch::none);   // everything
//     epoch = for_each_parked(visitor, epoch);   // what has been started or has run since, and is not running
//
// Fibers that were reported while parked and have not run since cost nothing then but a byte to pass by. A number that
// is not the latest for some runtime, because somebody else has begun an epoch since, gives everything.
//
// How that is known: a parked fiber that is reported gets a bit in a word that whoever runs it next looks at anyway
// (flag::old in src/sched/fiber_core.hpp), and only where the bit is set the fiber is entered among those to be
// visited. Rejected: a log of all departures (a store for every switch, and it can overflow); a number in each
// control block (no room); walking the queues of workers (they change while their threads are stopped).
#pragma once

#include <tendril/config.hpp>

#include <cstdint>
#include <memory>
#include <type_traits>

namespace tendril {

class runtime;

/// Names an epoch. Numbers grow and are never used again.
enum class parked_epoch : std::uint64_t {
  none = 0,  ///< everything is newer
};

namespace detail {

struct range_visitor {
  void (*call)(void* argument, const void* low, const void* high);
  void* argument;
  void operator()(const void* low, const void* high) const { call(argument, low, high); }
};
template <class F>
range_visitor visitor_of(F& f) noexcept {
  if constexpr (std::is_function_v<F>)
    return {[](void* argument, const void* low, const void* high) {
              reinterpret_cast<F*>(argument)(low, high);
            },
            reinterpret_cast<void*>(&f)};
  else
    return {[](void* argument, const void* low, const void* high) {
              (*static_cast<F*>(argument))(low, high);
            },
            const_cast<void*>(static_cast<const void*>(std::addressof(f)))};
}

/// r == null: of all runtimes.
TENDRIL_API void visit_parked(const runtime* r, range_visitor visit);
TENDRIL_API parked_epoch visit_parked_since(const runtime* r, parked_epoch since,
                                            range_visitor visit);

template <class F>
concept visits_ranges = std::is_invocable_v<F&, const void*, const void*>;

}  // namespace detail

/// Calls visitor(low, high) for the memory [low, high) of every fiber that does not run, of all runtimes. Begins no
/// epoch.
///
/// \switch  no, nor may the visitor
/// \threads see above
/// \cost    O(fibers that ever lived at once); no allocation, no lock
template <detail::visits_ranges F>
void for_each_parked(F&& visitor) {
  detail::visit_parked(nullptr, detail::visitor_of(visitor));
}
/// The same, of one runtime.
template <detail::visits_ranges F>
void for_each_parked(const runtime& r, F&& visitor) {
  detail::visit_parked(&r, detail::visitor_of(visitor));
}

/// The same for fibers that have been started or have run since the epoch began, and begins another.
///
/// \return  the new epoch, for the next call of who calls with the same runtimes
/// \cost    O(those fibers), and a byte for each 512 others; fibers reported while they are parked pay once for
///          it, about 20 ns, when they run again. From the first call on a start pays one store more
template <detail::visits_ranges F>
[[nodiscard]] parked_epoch for_each_parked(F&& visitor, parked_epoch since) {
  return detail::visit_parked_since(nullptr, since, detail::visitor_of(visitor));
}
template <detail::visits_ranges F>
[[nodiscard]] parked_epoch for_each_parked(const runtime& r, F&& visitor, parked_epoch since) {
  return detail::visit_parked_since(&r, since, detail::visitor_of(visitor));
}

}  // namespace tendril
