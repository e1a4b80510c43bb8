// SPDX-License-Identifier: Apache-2.0
//
// Where fibers wait for libc's locks: lines of fibers, found by the address of what they wait for.
//
// The locks stay libc's: their words tell who holds them, and threads wait for them in the kernel as ever. A
// fiber tries; if that fails it stands in line here, and whoever releases the lock wakes somebody here,
// besides whom libc wakes. So threads and fibers exclude each other, and neither knows of the other's way of
// waiting.
//
//   a fiber                                   who releases
//     stands in line, counted in `in_use`       releases libc's lock
//     full fence                                full fence (the release is one, see front.hpp)
//     tries                                     looks at in_use: nobody, then that was all
//     fails: parks; woken, again                wakes the first in line
//
// Invariants
//  1. Dekker's: the fiber counts itself and then tries, the other releases and then looks. One of them sees the other.
//  2. As long as somebody is in line for a lock, it is held, or somebody who was in line is on the way to try.
//     So a woken fiber that is overtaken stands in line again, in front, and whoever overtook it wakes it.
//     One release is told before it is made, for libc makes it: of a mutex, when somebody waits for a condition in libc
//     (`mark_silent`). Who is woken by that may look too early. So from the first such wait on with a mutex (by a hash, so
//     perhaps for others, too) who stands in front looks again by itself, after a tenth of a millisecond to a few. The
//     others need not: each that has been in front goes to its work by taking the mutex, and lets go of it by telling, or
//     gives up, and then it wakes the next.
//     Of a lock that many share those wake up who would share it, wherever they are in line; if nobody would, the first.
//     So nobody waits for others who share with him, whoever is in front, as with libc's locks as they are by default.
//  3. A fiber stands in one line at a time, by the node of its control block: its stack may be copied away.
//
// A fiber that parks lets others run on its thread. Libraries do not expect that at a lock: OpenSSL marks a
// thread-local as being set up, takes a lock for a few instructions, and sets it; whoever comes by on the same thread
// meanwhile finds the mark and fails. So a lock that is taken is first waited for on the thread, as a thread does
// (`patience`): its holder is mostly running on another one, and done at once. Who finds it taken still is held up by a
// lock that is kept over waits; it parks, and for some time (`forgiveness`) others do so at once (is_kept, by a hash).
//
// Mutexes whose owner is a thread (recursive, error-checking) have an *owner record* here while a fiber holds them:
// for libc two fibers of one thread are the same owner. That fiber stays on its thread until it has unlocked
// the mutex, since libc lets no other thread do that. Records are counted in `in_use`, so unlocking comes here.
#pragma once

#include <tendril/detail/waiting.hpp>

#include "base/cacheline.hpp"
#include "sched/fiber_core.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tendril::detail {

/// A fiber that holds a mutex whose owner is a thread.
struct owner_record {
  const void* key = nullptr;
  const fiber_core* owner = nullptr;
  unsigned depth = 0;
  owner_record* next = nullptr;
};

/// The lines for some addresses, and the owner records of those.
class alignas(cacheline_bytes) lot_bucket {
 public:
  tiny_lock lock;

  // Under the lock.
  /// The calling fiber's node, in line. `first`: in front of those who have not had their turn. `mark`: of locks,
  /// whether it would share; of futexes, their bits.
  wait_node& enlist(const void* key, bool first, std::uint32_t mark = 0) noexcept;
  void delist(wait_node& n) noexcept;
  /// Parks until woken or the deadline has passed (false); unlocks. The node is in no line afterwards.
  bool park(wait_node& n, time_point deadline, const char* reason) {
    return park(n, {.deadline = deadline,
                    .cancelable = false,
                    .reason = reason,
                    .on_context = false}) == outcome::signalled;
  }
  /// The same; how it ended.
  outcome park(wait_node& n, const wait_options& options);
  /// Takes the first of the line out; null: nobody is in it.
  waiter* take_first(const void* key) noexcept;
  /// Of a node in line: whether it is in front of all others of its key.
  bool is_first(const wait_node& n) const noexcept;
  /// Who may be woken first, the threads in the kernel or the fibers here: the other ones than the last time.
  bool next_turn() noexcept { return turn_ = !turn_; }
  owner_record* owner_of(const void* key) noexcept;
  void own(owner_record& r, const void* key, const fiber_core* owner) noexcept;
  /// r may be deleted.
  void disown(owner_record& r) noexcept;

 private:
  friend class parking_lot;
  /// Takes `most` out whose mark has one of the bits (0: whatever it is), in portions, and unparks them: how many. In
  /// the lock, which is free afterwards.
  unsigned wake_locked(const void* key, std::uint32_t bits, std::size_t most) noexcept;

  wait_list line_;
  owner_record* records_ = nullptr;
  bool turn_ = false;
};

class parking_lot {
 public:
  static lot_bucket& bucket_of(const void* key) noexcept;
  /// The first in the line of key.
  static void wake_first(const void* key) noexcept;
  /// Those in the line now.
  static void wake_all(const void* key) noexcept;
  /// Up to `most` of those in the line now whose mark has one of the bits: how many.
  static unsigned wake_some(const void* key, std::uint32_t bits, unsigned most) noexcept;
  /// Those of all keys: they look whether it is their turn, as any may do at any time.
  static void wake_everybody();
  /// All that would share the lock; if there are none, the first.
  static void wake_sharers(const void* key) noexcept;
  /// Whether key may be released silently. Asked when in line.
  static bool is_silent(const void* key) noexcept;
  /// Before each silent release, by who is about to make it.
  static void mark_silent(const void* key) noexcept;

  static constexpr std::chrono::microseconds patience{1000};
  static constexpr std::chrono::milliseconds forgiveness{1000};
  /// Whether key's lock was found to be kept for long lately, and that it was.
  static bool is_kept(const void* key) noexcept;
  static void mark_kept(const void* key) noexcept;

  /// Fibers in line and owner records, of all addresses. Changed by their owners; others look.
  /// Not a std::atomic, because the front looks at it, too.
  static std::uint32_t in_use;
  static std::atomic_ref<std::uint32_t> users() noexcept { return std::atomic_ref(in_use); }
};

}  // namespace tendril::detail
