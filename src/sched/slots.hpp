// SPDX-License-Identifier: Apache-2.0
//
// The stacks of tasklets: slots, which many fibers share one after the other.
//
// Idea: a tasklet is bound to the addresses of one slot for life. When it parks it stays there, *resident*, and a
// resume costs what any fiber's does. Only when another one of the same slot is to run are the live bytes of the
// resident copied to the heap (stack_image), and copied back when it is its turn again, on whichever worker.
//
//                  enter(): the resident is parked                    departs, others wait here
//     away, runnable ---------------------------------> resident ------------------------------> away
//          |        the resident runs or will run          ^
//          '-----------> waits in the slot's list ---------'  handed over by whoever leaves
//
// Who may copy whom. There is no word that owns the slot, because the switch to a resident fiber would have to take
// and give it. A resident that is parked is *held* through its park word (park_word.hpp): until the copy is done
// nobody schedules it. One that runs or is queued cannot be held; who needs its slot queues itself in the slot and
// leaves the wish in the resident's core (slot_wanted), where its next departure finds it. The departure is
// committed first and the wish looked at second, the wish is written first and the hold tried second, whose
// read-modify-write of the park word is before or after the commit's: one of the two sees the other, and the wish
// itself is a plain store. So residents pay a test when they are picked (spot::away) and when they depart, in a line
// that the switch uses anyway, and a miss has no locked instructions but the slot's lock and the hold.
//
// Invariants
//  1. `resident`, the waiting list, and of fibers bound here spot::away and slot_wanted change under the slot's lock
//     only; both also by who alone knows of a fiber (its spawner). A wish may go to the core of a fiber that has ended
//     here, and be somebody else's: whoever finds one that nobody has drops it.
//  2. A fiber at spot::away does not run: who picks it calls enter() first. Its context and its bytes are changed
//     by enter() and leave(), while it is held or the caller's.
//  3. A resident that ended is recognized: its core may be somebody else's and parked by then, so a hold counts
//     only if the fiber held is bound here and not away. Between its end and retire() its slot has no other.
//  4. A waiter in the list is nobody's: who takes it out puts its bytes in place and gives it to its caller to queue.
//  5. An exclusive slot has one fiber bound to it, which runs, or is a shell (hot_start.hpp) that waits for its next
//     call. Nobody waits for it, for nobody would be told. A quarter of the slots at most are, because the
//     threads that keep shells may be idle; the calls beyond these share slots as other fibers do.
//
// A tasklet whose thread is blocked, that is hot on a host, or whose stack others use meanwhile (stack_hold.hpp), keeps
// its slot; those bound to the same slot wait.
// Copies are made on other stacks: by who wants to enter, or by who arrives after the departure. They are made under
// the slot's lock, which is a spinlock whose waiters yield their threads: mostly a kilobyte, a microsecond at most.
//
// Images that nobody wanted while others of the same slot were made are folded (stack_image.hpp): the slot keeps those
// that are whole in the order in which they were made, and of how many bytes it learns: at first of two kilobytes, and
// each time that a folded one is wanted again of one image more. So those that take turns are copied as they are, and
// crowds that wait take little memory, without a thread that looks for them. A block stays in the queue when its bytes
// are back in the slot, and when it is used again, which it notes; the queue is looked at when it grows, and who has
// noted that or is in the slot then goes to its other end. So turns that need no more blocks do not touch it. Rejected:
// so many images, whatever they have; ten thousand stacks of seven kilobytes took 20 MB more before they were known to be
// a crowd.
//
// What has been idle for long is looked for by the monitor, a portion at a time (slot_tending.cpp): residents are moved
// out, the memory of slots that are empty is given back, and images are folded, or, if they are like no other, packed.
//
// Which slot a tasklet gets: slot_pool.hpp.
//
// Who may call what: a slot_cache belongs to a worker, or is guarded by its user; the table: any thread.
#pragma once

#include "base/cacheline.hpp"
#include "base/spinlock.hpp"
#include "base/tally.hpp"
#include "context/image_patterns.hpp"
#include "context/stack_image.hpp"
#include "platform/switch.hpp"
#include "sched/fiber_core.hpp"
#include "sched/slot_pool.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/stack.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>

namespace tendril::detail {

/// The blocks of whole images of those bound to one slot, a clock; under its lock. Their owners are in it: a block is
/// taken out before it is freed.
struct image_queue {
  static constexpr std::size_t least = 2048;

  stack_image::block* oldest = nullptr;
  stack_image::block* newest = nullptr;
  std::size_t bytes = 0;      ///< of the blocks, which is about what their stacks have
  std::size_t limit = least;  ///< how many bytes are worth keeping whole, as far as is known

  void push(stack_image::block& b) noexcept {
    b.newer = nullptr;
    b.older = newest;
    (newest != nullptr ? newest->newer : oldest) = &b;
    newest = &b;
    bytes += b.capacity_bytes();
  }
  void remove(const stack_image::block& b) noexcept {
    (b.newer != nullptr ? b.newer->older : newest) = b.older;
    (b.older != nullptr ? b.older->newer : oldest) = b.newer;
    bytes -= b.capacity_bytes();
  }
  /// One of that size was not kept and is wanted: it would be there, were there room for one more of those that came later.
  void learn(std::size_t wanted, std::size_t most) noexcept {
    const std::size_t later = newest != nullptr ? newest->capacity_bytes() : 0;
    limit = std::min(limit + std::max(wanted, later), most);
  }
};

struct alignas(cacheline_bytes) slot {
  spinlock lock;
  bool listed = false;  ///< in a list of free ones; under the lock
  /// Kept for calls that start hot, one after the other: nobody else is bound to it. Changed under the lock.
  std::atomic<bool> exclusive{false};
  /// How many live tasklets are bound to it, and who is in it: changed under the lock, looked at without.
  std::atomic<std::uint32_t> bound{0};
  std::atomic<fiber_core*> resident{nullptr};
  std::uint32_t generation = 0;  ///< how often it got a resident
  std::byte* spoiled =
      nullptr;  ///< strict mode: [this, its top) was, and nobody has been there since
  fiber_core* waiting_first = nullptr;  ///< by fiber_core::next
  fiber_core* waiting_last = nullptr;
  stack_slice slice;
  slot* next_free = nullptr;
  image_queue images;
  image_queue unlike;  ///< those that could not be folded, by age
  /// What tend() has seen of it: unchanged since idle_since.
  enum class sight : std::uint8_t {
    busy,           ///< nothing, or something has changed
    resident_idle,  ///< its resident is at spot::idle
    empty,
    bare  ///< empty, and its memory was given back
  } seen = sight::busy;
  std::uint32_t idle_since = 0;
};

/// What a tasklet has for a frame: not on the stack, which others use meanwhile.
struct tasklet_frame : fiber_frame {
  explicit tasklet_frame(fiber_core* c) noexcept : fiber_frame(c, {}) {}
  ~tasklet_frame() {
    if (extras == nullptr) return;
    extras->~wait_extras();
    std::free(extras);
  }

  slot* home = nullptr;  ///< null until it first runs
  stack_image image;     ///< its bytes, while it is away
  wait_extras* extras = nullptr;
  bool started = false;  ///< there is a context to continue
  bool stays =
      false;  ///< in its slot, though it waits: stack_hold.hpp. Its own, and read while it is held
  std::uint16_t kind = 0;        ///< of its callable
  std::uint32_t generation = 0;  ///< its slot's, when it got there last
};
static_assert(TENDRIL_ASAN || TENDRIL_TSAN || sizeof(tasklet_frame) <= 224,
              "a million tasklets pay for every byte");

inline tasklet_frame& tasklet_frame_of(const fiber_core& c) noexcept {
  return *static_cast<tasklet_frame*>(c.the_frame());
}

template <class T>
image_owner::range range_of(const T& object) noexcept {
  return {reinterpret_cast<std::uintptr_t>(&object) + sizeof object, sizeof object};
}
/// What the words of its image are relative to.
inline image_owner image_owner_of(const tasklet_frame& f) noexcept {
  const stack_slice& slot = f.home->slice;  // not the frame's: pinned_stack.hpp
  return {
      {reinterpret_cast<std::uintptr_t>(slot.high), static_cast<std::size_t>(slot.high - slot.low)},
      range_of(*f.core),
      range_of(f)};
}

/// A worker's: slots that nobody is bound to; and what it did, for statistics.
struct slot_cache : free_slots {
  tally captures;      ///< stacks copied out
  tally restores;      ///< and back
  tally bytes_copied;  ///< in both directions
  tally conflicts;     ///< times a tasklet had to wait for a slot whose resident was about to run
  tally own_stacks;    ///< fibers that asked to be tasklets and got a stack of their own
  tally folds;         ///< images folded
  tally unfolds;       ///< and wanted again
  tally fold_input;    ///< bytes of those images
  tally fold_output;   ///< and of what was kept of them
  tally evictions;     ///< residents moved out because they were idle
  tally discards;      ///< times that the memory of an empty slot was given back
  tally packs;         ///< images packed
  tally unpacks;       ///< and wanted again
  tally pack_input;    ///< bytes of those images
  tally pack_output;   ///< and of what was kept of them
};

/// Whether c, a resident, has not come back since it started, or since the monitor's last look but one.
inline bool looks_idle(const fiber_core& c) noexcept { return c.is_at(spot::idle); }

/// From so many live bytes on a copy costs more than a stack of its own.
inline constexpr std::size_t deep_bytes = std::size_t{64} << 10;

/// The kind of a callable by what is common to its type: a number that few others have.
inline std::uint16_t kind_of(const void* ops) noexcept {
  return static_cast<std::uint16_t>(
      (reinterpret_cast<std::uintptr_t>(ops) * std::uint64_t{0x9E3779B97F4A7C15U}) >> 48);
}

/// The stack of its own for a fiber that asked to be a tasklet, where slots have that size class.
inline stack_choice own_stack_of(stack_choice asked, unsigned slot_class) noexcept {
  return reserved_of(std::max(size_class_of(asked), slot_class));
}

/// Fibers that an operation on a slot has made runnable: the caller queues them, in this order.
struct made_runnable {
  fiber_core* first = nullptr;
  fiber_core* second = nullptr;
};

struct slot_options {
  unsigned size_class;
  unsigned most;
  unsigned at_first;
  stack_guard guard;
  bool strict;  ///< copy out at every departure, and spoil what is left behind
  platform::entry_function entry;
  static constexpr std::uint32_t never = ~std::uint32_t{0};
  std::uint32_t evict_after;  ///< of the coarse clock
  std::uint32_t pack_after;
};

/// \throws std::system_error  errc::invalid_option, naming the option or variable and its value
slot_options choose_slot_options(tasklet_options options, std::chrono::nanoseconds pack_cold_after,
                                 stack_guard guard, platform::entry_function entry);

/// By which tend() tells how long something has been idle: milliseconds, which wrap.
inline std::uint32_t slot_clock_now() noexcept {
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(clock::now().time_since_epoch())
          .count());
}

class slot_table {
 public:
  explicit slot_table(const slot_options& options);
  slot_table(const slot_table&) = delete;
  slot_table& operator=(const slot_table&) = delete;

  unsigned size_class() const noexcept { return pool_.arena().size_class(); }
  bool strict() const noexcept { return strict_; }
  bool crowded(const slot_cache& mine) const noexcept { return pool_.crowded(mine); }
  unsigned made() const noexcept { return pool_.made(); }

  enum class entrance : std::uint8_t {
    in,       ///< its stack is in place
    waits,    ///< for its slot: it is the caller's no more
    no_slot,  ///< there is none for it, and none can be made; only for one that starts
  };
  /// c is the caller's, away, and has its frame. Binds it to a slot if it starts.
  entrance enter(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept;
  /// Binds c, which has a frame and starts by a call (hot_start.hpp), to a slot that it can use at once, exclusively
  /// if it may. False: there is none.
  bool enter_now(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept;
  /// c is the caller's, resident and not running, and is wanted: makes room if somebody waits.
  void leave(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept;
  /// The same when the departure of s's resident has been committed: whoever that is by now, if it is parked.
  void leave_parked(slot& s, slot_cache& mine, made_runnable& out) noexcept;
  /// The resident, whose frame f is, has ended, and nobody stands on its stack. f is the caller's to destroy then.
  void retire(tasklet_frame& f, slot_cache& mine, made_runnable& out) noexcept;

  /// Null: the address is in no slot.
  slot* find(const void* address) noexcept { return pool_.find(address); }

  /// Whether one of that kind was seen with deep_bytes on its stack when it was copied. Those that start later get a
  /// stack of their own; a few of other kinds may be taken for such.
  bool is_deep(std::uint16_t kind) const noexcept {
    return any_deep() &&
           ((deep_[kind / 64].load(std::memory_order_relaxed) >> (kind % 64)) & 1) != 0;
  }
  bool any_deep() const noexcept { return any_deep_.load(std::memory_order_relaxed); }

  std::size_t patterns() const noexcept { return patterns_.size(); }

  /// The resident has ended, whose frame f is, and the caller still stands on its stack. True: c, which has a frame and
  /// starts, is the resident now. False: the slot is wanted, or in strict mode; nothing has changed.
  bool succeed(tasklet_frame& f, fiber_core& c) noexcept;

  // One thread, with a cache of its own: the monitor.
  /// now: of slot_clock_now(). Looks at the next slot if a look is due, and queues by `queue` whom that has
  /// made runnable. Returns how many bytes were worked on; `done` when there is nothing to look at before the next
  /// call that has a later `now`.
  static constexpr std::size_t done = ~std::size_t{0};
  std::size_t tend(std::uint32_t now, slot_cache& mine, made_runnable& out) noexcept;
  /// Whether all that does not change will stay as it is, however long nobody looks.
  bool settled() const noexcept { return settled_ && end_ == made(); }

  // A worker that ends gives its free slots back.
  void take_back(slot_cache& mine) noexcept { pool_.take_back(mine); }

 private:
  std::unique_lock<spinlock> bind(tasklet_frame& f, slot_cache& mine) noexcept;
  bool hold_resident(slot& s, fiber_core& r, made_runnable& out) noexcept;
  void note_deep(std::uint16_t kind) noexcept;
  void settle(slot& s, fiber_core& c) noexcept;
  void move_out(slot& s, fiber_core& r, slot_cache& mine,
                image_size size = image_size::roomy) noexcept;
  void put_in(slot& s, fiber_core& c, slot_cache& mine) noexcept;
  fiber_core* next_waiting(slot& s) noexcept;
  void enqueue(slot& s, tasklet_frame& f, slot_cache& mine) noexcept;
  static void dequeue(slot& s, tasklet_frame& f) noexcept;
  static stack_image::block* next_unused(image_queue& q, bool drop) noexcept;
  bool fold_oldest(slot& s, slot_cache& mine) noexcept;
  void pack_oldest(slot& s, slot_cache& mine) noexcept;
  bool tend_stack(slot& s, std::uint32_t now, slot_cache& mine, made_runnable& out) noexcept;
  std::size_t tend_image(slot& s, std::uint32_t now, slot_cache& mine) noexcept;

  const bool strict_;
  const platform::entry_function entry_;
  const std::uint32_t evict_after_;
  const std::uint32_t pack_after_;
  const std::size_t most_whole_;  ///< bytes of images, of a slot
  slot_pool pool_;
  image_patterns patterns_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> deep_;  ///< a bit for each kind
  std::atomic<bool> any_deep_{false};
  /// From the beginning on, for who parks before the first look is not to be taken for idle since the machine's start.
  std::atomic<std::uint32_t> clock_{slot_clock_now()};
  // tend()'s own: the round of all slots that it is in.
  unsigned next_ = 0;
  unsigned end_ = 0;
  std::uint32_t round_began_ = 0;
  bool aging_ = false;
  bool settled_ = true;
};

}  // namespace tendril::detail
