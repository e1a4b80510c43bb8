// SPDX-License-Identifier: Apache-2.0
//
// The control block of a fiber, in two parts.
//
//   fiber_core   128 bytes, from the process-wide pool (core_pool). Exists from spawn to join. All a
//                fiber needs before it has started and after it has ended: links, park word,
//                completion, closure.
//   fiber_frame  at the top of the fiber's stack slice, above the first byte the fiber's code can use;
//                exists from the first run to the end. What only a running or parked fiber needs: its
//                wait_block (node, timer), its ambient state, and the cell for a value handed over.
//                It shares the page that every parked fiber commits anyway, so a parked fiber costs
//                one page and one core; what is rare is not in it, or fewer calls would fit into
//                that page. A tasklet's lies elsewhere, since its stack is copied away, and
//                has no cell until it needs one: no code may assume more than that core->frame
//                points to it.
//
//     spawn            pick            return
//    ------> runnable ------> running --------> done
//              ^  ^-- yield ----'  |
//              +----- unpark --- parked     (parked only once its context is saved: see worker)
//
// Cores are type-stable: they are recycled but never unmapped, and the park word is never reset. A
// waker may therefore unpark a fiber that has just ended; at worst its successor gets a permit.
#pragma once

#include "base/cacheline.hpp"
#include "context/context.hpp"
#include "sched/park_word.hpp"
#include "sched/timer_wheel.hpp"
#include "stack/stack_cache.hpp"

#include <tendril/detail/closure.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

namespace tendril::detail {

class scheduler;
class thread_waiter;
class worker;
struct hot_call;
struct stay_record;
struct worker_thread;

/// What parks: a fiber (fiber_core) or a plain thread (thread_waiter).
class waiter {
 public:
  enum class kind : std::uint8_t { fiber, thread };

  park_word park;
  std::atomic<std::uint16_t> flags{0};
  std::atomic<std::uint8_t> places{0};   ///< bits of namespace spot
  std::atomic<bool> slot_wanted{false};  ///< of tasklets, see slots.hpp: the slot, by another one
  kind what;
  std::uint8_t stack_class = 0xFF;  ///< a size class, or stack_class_default
  std::int8_t affinity = -1;        ///< a worker's index, or one of affinity_...
  std::uint8_t shields = 0;         ///< depth of uncancelable scopes; its own flow of control alone

  bool is_at(std::uint8_t place) const noexcept {
    return (places.load(std::memory_order_relaxed) & place) != 0;
  }
  /// Relaxed, as all that happens to a fiber before it runs is ordered by what hands it on: a park word, a queue, the
  /// lock of its slot. Release is for visits (parked.hpp).
  void enter(std::uint8_t place, std::memory_order order = std::memory_order_relaxed) noexcept {
    places.store(places.load(std::memory_order_relaxed) | place, order);
  }
  void leave(std::uint8_t place) noexcept {
    places.store(places.load(std::memory_order_relaxed) & ~place, std::memory_order_relaxed);
  }

 protected:
  explicit waiter(kind k) noexcept : what(k) {}
};

/// In a core: no class was asked for, the runtime's default applies.
inline constexpr std::uint8_t stack_class_default = 0xFF;

/// In waiter::affinity, besides a worker's index: any worker, and (while a pinned fiber is parked) none: its
/// thread is to be woken, see thread_pin.hpp.
inline constexpr std::int8_t affinity_any = -1;
inline constexpr std::int8_t affinity_thread = -2;
/// Or the worker of one thread: it stays there, see thread_stay.hpp.
inline constexpr std::int8_t affinity_stay = -3;

/// Bits of waiter::flags, which many threads change.
namespace flag {
using word = std::uint16_t;
inline constexpr word stop_requested = 1;
inline constexpr word alive = 2;        ///< queued or started, not ended
inline constexpr word has_context = 4;  ///< its waits are synchronization contexts' affair, too
inline constexpr word resumed = 8;      ///< its context has run what was posted for it
/// Of tasklets: the code that runs is not in the slot, see pinned_stack.hpp.
inline constexpr word elsewhere = 16;
/// It waits on an object in its own slot, see slot_contract.hpp.
inline constexpr word own_place = 32;
/// It stays on its thread, see thread_stay.hpp.
inline constexpr word stays = 64;
inline constexpr word old = 128;  ///< reported in this epoch, has not run since: parked.hpp
inline constexpr unsigned scheduler_shift = 8;
inline constexpr word scheduler_mask = 0xFF00;  ///< index in the table of schedulers
}  // namespace flag

/// Bits of waiter::places: what is to be done before it runs again. Whoever has the fiber changes them by a load and a
/// store, with no locked instruction: it runs, or is about to, or is held (park_word.hpp), and is his alone. (flag::old
/// is no such bit: who stops threads to look at fibers sets it, and the monitor, which is not stopped, may hold one.)
namespace spot {
inline constexpr std::uint8_t away = 1;     ///< its stack is not in its slot: slots.hpp
inline constexpr std::uint8_t guarded = 2;  ///< it is, with canaries below: slot_guard.hpp
/// It was found parked in its slot, and has not run since: slots.hpp.
inline constexpr std::uint8_t idle = 4;
}  // namespace spot

struct wait_timer : timer_node {
  waiter* who = nullptr;
};

/// Unparks on a stop request; the callable of the stop_callbacks in wait blocks.
struct unpark_on_stop {
  waiter* who;
  void operator()() const noexcept { unpark(who); }
};

/// What it waits for, for dumps. A dump may look at the frame of a fiber that ends just then, whose memory
/// is the next fiber's when it is read; hence every access is atomic, the first one too, which a
/// std::atomic's construction is not.
class wait_reason {
 public:
  wait_reason() noexcept { store(nullptr); }
  void store(const char* text) noexcept {
    std::atomic_ref(text_).store(text, std::memory_order_relaxed);
  }
  const char* load() const noexcept {
    return std::atomic_ref(const_cast<const char*&>(text_)).load(std::memory_order_relaxed);
  }

 private:
  const char* text_;
};

/// See waiting.hpp. One per waiter, outside its stack. The first cache line is all that a wait without a
/// deadline touches: with a thousand connections every line is a miss.
struct wait_block {
  wait_node node;
  time_point ambient_deadline =
      no_deadline;  ///< of the innermost deadline_scope; inherited by what is called
  wait_reason reason;

  wait_timer timer;
  flow_locals flow;  ///< last: in a frame, beside what is read at the end
};
static_assert(sizeof(wait_node) + sizeof(time_point) + sizeof(wait_reason) <= cacheline_bytes);

/// Where a value is handed over.
struct alignas(16) value_cell {
  std::byte bytes[own_cell_bytes];  // its user's to construct
};

/// Of a wait that a stop token may end.
using wait_stop = std::optional<std::stop_callback<unpark_on_stop>>;

/// What some waits of a tasklet need besides, which cannot be on its stack.
struct wait_extras {
  wait_extras() noexcept {}

  value_cell cell;
  wait_stop stop_callback;
};

/// Rare attributes, allocated when first needed.
struct fiber_extras {
  fiber_extras() = default;
  fiber_extras(const fiber_extras&) = delete;
  fiber_extras& operator=(const fiber_extras&) = delete;
  ~fiber_extras() { release_ambient(ambient); }

  char name[32] = {};
  std::size_t stack_bytes = 0;
  time_point ambient_deadline = no_deadline;  ///< inherited from the spawner
  std::uintptr_t ambient =
      0;  ///< the same: until the fiber starts, or of a hot one until it ends; an owned word (detail/flow.hpp)
  std::stop_source stop{std::nostopstate};
  struct on_stop {
    fiber_core* core;
    void operator()() const noexcept;
  };
  std::optional<std::stop_callback<on_stop>>
      relay;  ///< a stop requested through a copied stop_source
};

struct fiber_frame {
  explicit fiber_frame(fiber_core* c, stack_slice s) noexcept : core(c), slice(s) {}

  wait_block block;  ///< first, and the frame is aligned to a cache line
  fiber_core* core;
  stack_slice slice;
  union {
    thread_waiter* thread = nullptr;  ///< to be woken while affinity is affinity_thread
    stay_record* stay;                ///< while affinity is affinity_stay
  };
};

/// The frame of a fiber that has a stack of its own.
struct own_frame : fiber_frame {
  own_frame(fiber_core* c, stack_slice s) noexcept : fiber_frame(c, s) {}

  value_cell cell;
};
static_assert(sizeof(void*) != 8 || sizeof(own_frame) == 256,
              "blocking libraries use the rest of the page nearly to its end");

/// Where a core's extras are. A fiber that has none, but inherits ambient values, carries these in the same
/// word until it starts, so that starting a child in an ambient takes no allocation.
class extras_word {
 public:
  /// Null: none, or only inherited values.
  fiber_extras* get() const noexcept {
    const std::uintptr_t w = word_.load(std::memory_order_acquire);
    return (w & inherited_bit) == 0 ? reinterpret_cast<fiber_extras*>(w) : nullptr;
  }
  bool empty() const noexcept { return word_.load(std::memory_order_relaxed) == 0; }
  /// Made if there are none; any thread.
  /// \throws std::bad_alloc
  fiber_extras& make();
  /// By the spawner, before others know of the fiber: it inherits an owned word. Or by the host of a hot
  /// fiber that leaves it (hot_start.cpp): the fiber takes it at its end.
  void inherit(std::uintptr_t ambient) noexcept {
    if (fiber_extras* const e = get()) e->ambient = ambient;
    else word_.store(ambient | inherited_bit, std::memory_order_relaxed);
  }
  /// By who starts the fiber: what it has inherited, owned.
  std::uintptr_t take_inherited() noexcept;
  /// Makes it empty; the caller deletes the result. Not while values are inherited.
  fiber_extras* take() noexcept {
    return reinterpret_cast<fiber_extras*>(word_.exchange(0, std::memory_order_relaxed));
  }

 private:
  static constexpr std::uintptr_t inherited_bit = 1;
  std::atomic<std::uintptr_t> word_{0};
};

struct alignas(cacheline_bytes) fiber_core : waiter {
  fiber_core() noexcept : waiter(kind::fiber) {}

  // The first cache line is all that a switch and a wake-up touch.
  context ctx;                 ///< valid while it has a frame and does not run
  fiber_core* next = nullptr;  ///< in whichever queue holds it
  union {
    fiber_core* prev = nullptr;  ///< in the queue of those that have not started
    hot_call* host;              ///< once it runs: whom it was started by and has not yet left
  };
  std::atomic<fiber_frame*> frame{nullptr};
  completion done;
  const closure_ops* ops = nullptr;

  extras_word extras;
  std::atomic<std::uint64_t> id{0};  ///< relaxed: a dump may read it while the core is recycled
  alignas(16) std::byte closure[inline_closure_bytes];

  /// After the start the closure's place holds the exception that left the function.
  std::exception_ptr& error() noexcept {
    return *std::launder(reinterpret_cast<std::exception_ptr*>(closure));
  }

  fiber_frame* the_frame() const noexcept { return frame.load(std::memory_order_relaxed); }
  /// For release_core alone: `next` seen from a free list of another thread is published by its lock.
  unsigned scheduler_index() const noexcept {
    return (flags.load(std::memory_order_relaxed) & flag::scheduler_mask) >> flag::scheduler_shift;
  }
  bool stop_requested() const noexcept {
    return (flags.load(std::memory_order_acquire) & flag::stop_requested) != 0;
  }
};

static_assert(TENDRIL_ASAN || TENDRIL_TSAN || sizeof(fiber_core) == 128,
              "a million fibers pay for every byte: keep the core at two cache lines");

/// Marks completion words of fibers that nobody joins.
inline waiter* detached_marker() noexcept {
  alignas(16) static constinit char marker = 0;
  return reinterpret_cast<waiter*>(&marker);
}

/// The first half of request_stop(c), for who can keep c from ending for a few instructions only. The second
/// half is to request the returned source to stop, whose callbacks are users' code.
std::stop_source begin_stop(fiber_core* c) noexcept;

/// The id of c, which gets one if it has none. Any thread, while c is somebody's fiber.
std::uint64_t ensure_id(fiber_core* c) noexcept;

/// Triggers the stop source of c, if it has one.
void trigger_stop_source(fiber_core* c) noexcept;

/// Name for messages; "" when it has none. For who keeps c alive.
const char* name_of(const fiber_core* c) noexcept;
/// The same of a fiber that may be ending.
std::string copy_name_of(const fiber_core* c);
/// Terminated, cut off at `size`.
void copy_name_of(const fiber_core* c, char* out, std::size_t size) noexcept;
/// \throws std::bad_alloc
void set_name(fiber_core* c, std::string_view name);
/// \throws std::system_error  errc::invalid_option
std::int8_t checked_affinity(int affinity);

// Shells, see hot_start.hpp. t: the thread they belong to.
/// What a call may have left behind: as good as new afterwards.
void reset_shell_core(fiber_core* c) noexcept;
void free_shell_core(fiber_core* c, worker_thread& t) noexcept;

/// The wait block of any waiter, and its cell. What a tasklet needs besides is allocated the first time; without
/// memory the process ends.
wait_block& block_of(waiter* w) noexcept;
value_cell& value_cell_of(waiter* w) noexcept;
wait_extras& wait_extras_of_tasklet(fiber_core& c) noexcept;

}  // namespace tendril::detail
