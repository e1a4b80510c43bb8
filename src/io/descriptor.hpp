// SPDX-License-Identifier: Apache-2.0
//
// The table of open descriptors: one entry a number, where operations, events and close() meet.
//
// Entries are type-stable: allocated in chunks when a number is first seen and never freed, so that a
// late event or a late close finds valid memory. What they are *about* is told by the generation.
//
// The word:   63          32 31      30    29       0
//            | generation   |closing|keep | users    |
//
//  1. An operation enters (users + 1) before its first system call on the number and leaves after its
//     last. close() sets closing; from then on nobody enters. Whoever makes users zero with closing set
//     closes the number. So no system call of ours can hit a number that has been given to another file.
//  2. Generations of one entry only grow; handles, events and users carry theirs. Events of another
//     generation are dropped.
//
// Each direction has a state of two bits:
//
//     ready     a *token*: a system call may find something to do. Who wants to try takes it.
//     waiting   somebody may be in the list: never clear with a full one. Set by the first wait, cleared by
//               a giver that finds the list empty, so that waiting again and again costs nothing.
//
//  3. The token is given back unless the call has *drained* the direction: EAGAIN, or by the short-read
//     rule. An event gives it, too. So without the token there is either nothing to do, or another is
//     trying right now and will give it back: parking without a system call is safe.
//  4. Short-read rule: on a stream socket a read that returned less than asked for has drained it. Not
//     after a hangup has been seen: the end of the stream causes no further event.
//  5. Who has a token to give while somebody waits hands it to one waiter, and that one on giving it
//     back to the next: many accepting fibers are not all woken for one connection. A token that is
//     handed over is not put down in between. One too many (an event while another was trying, a
//     changed deadline) costs a system call that finds nothing.
//  6. A waiter sets `waiting` under the lock (or finds it set), sees then that there is no token, and is
//     in the list when the lock is released (wait_locked). The giver's fetch_or comes before: the waiter
//     sees the token; or after: the giver sees `waiting` and takes the lock. One word, one order: no
//     wake-up is lost. `waiting` is cleared under the lock only.
//
// A thread that is no fiber neither takes tokens nor registers: it calls, and blocks in poll(2) on the
// descriptor and on a pipe of its own through which close() and changed deadlines wake it. Its reads
// can take what a token promised (the fiber sees EAGAIN), but never hide anything: new data, new event.
//
// home_ and everything about registration is guarded by the lock. A loop that ends detaches its entries.
//
// Rejected: closing the number at once and hoping (a parked reader would then read another's socket);
// reference counts in the handles (the handle is what the fibers share, so its count is the same word);
// waking all waiters per event (measured elsewhere: the herd costs a system call each).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>

#include <tendril/detail/descriptor_ref.hpp>
#include <tendril/detail/waiting.hpp>

namespace tendril::detail {

class io_loop;
struct portable_watch;

enum class direction : unsigned { read = 0, write = 1 };

/// Why a handle's number counts as what.
enum class descriptor_kind : std::uint8_t {
  stream,  ///< a stream socket: the short-read rule holds
  other,   ///< datagram and listening sockets, pipes, anything else
  // The program's, which may close the number by itself, and at once (share_descriptor):
  shared_stream,
  shared_other,
};

/// What has become of a number whose file the program itself closes.
enum class drop_result : std::uint8_t {
  unknown,  ///< the table has nothing about it
  dropped,  ///< the table has no more, and nobody uses it: to be closed
  closing,  ///< somebody else is closing it right now
};

class alignas(64) descriptor {
 public:
  descriptor() noexcept = default;
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;

  int fd() const noexcept { return fd_; }

  /// True: the number stays open, and means this generation's file, until leave().
  bool enter(std::uint32_t generation) noexcept;
  void leave(std::uint32_t generation) noexcept;

  /// A look: the table has the number, in whichever generation.
  bool is_adopted() const noexcept {
    return (word_.load(std::memory_order_acquire) & closing_bit) == 0;
  }

  /// A look: nobody uses the number by the table.
  bool is_idle() const noexcept {
    const auto word = word_.load(std::memory_order_acquire);
    return (word & closing_bit) != 0 && (word & users_mask) == 0;
  }

  /// Takes the token; false: wait.
  bool take_token(direction d) noexcept {
    // Relaxed look: missing an event here only leads to wait(), which looks under the lock.
    // Acquire on the exchange: pairs with the giver's release; the system call comes after.
    auto& state = side_of(d).state;
    return (state.load(std::memory_order_relaxed) & ready) != 0 &&
           (state.fetch_and(~ready, std::memory_order_acq_rel) & ready) != 0;
  }
  void give_token(direction d) noexcept {
    if ((side_of(d).state.fetch_or(ready, std::memory_order_acq_rel) & waiting) != 0) wake_one(d);
  }
  /// After a call on a stream that moved less than asked for.
  bool may_have_drained() const noexcept {
    return (kind_ == descriptor_kind::stream || kind_ == descriptor_kind::shared_stream) &&
           !hangup_.load(std::memory_order_acquire);
  }

  /// Parks the calling fiber until the direction may be worth a try. An empty code: the caller holds the
  /// token, try again.
  /// Precondition: entered, or nothing is done to the number before it has been. `retried`: the caller was woken
  /// before and found the token gone.
  ///
  /// \switch yes
  std::error_code wait(std::uint32_t generation, direction d, const wait_options& how,
                       bool retried);

  /// For waits for several descriptors: puts `node`, which is no fiber's own_node(), into the list. 0, or an
  /// errno: EBADF when closed, else what registering failed with; the node is not in the list then.
  /// `took_token`: there was one, which is now the caller's.
  int enlist(std::uint32_t generation, direction d, wait_node& node, bool& took_token) noexcept;
  /// Takes the node out again. True: it had been completed before; with `signalled` that is a token.
  bool delist(direction d, wait_node& node) noexcept;

  /// Parks until the deadline, whatever the readiness; close() and cancellation end it early, with an error.
  std::error_code pause(std::uint32_t generation, direction d, const wait_options& how);

  /// The same two for threads.
  std::error_code block(std::uint32_t generation, direction d, time_point deadline);
  std::error_code block_until(std::uint32_t generation, time_point until);

  /// The instant after which a wait that begins now, of an operation that began at `begun`, gives up.
  time_point deadline_of(direction d, time_point& begun) const noexcept;
  void set_deadline(std::uint32_t generation, direction d, time_point deadline) noexcept;
  void set_timeout(std::uint32_t generation, direction d,
                   std::chrono::nanoseconds timeout) noexcept;

  /// Counts an operation that did not wait; true every `fair_share` of them: the caller should yield.
  static constexpr std::uint32_t fair_share = 32;
  bool used_up_share() noexcept {
    // Racy increments by several fibers lose counts, which only makes the share a little larger.
    const auto n = streak_.load(std::memory_order_relaxed) + 1;
    streak_.store(n < fair_share ? n : 0, std::memory_order_relaxed);
    return n >= fair_share;
  }
  bool share_is_ending() const noexcept {
    return streak_.load(std::memory_order_relaxed) + 1 >= fair_share;
  }
  void restart_share() noexcept { streak_.store(0, std::memory_order_relaxed); }

  /// An event of `generation`'s registration. The loop's thread; no lock held.
  void deliver(std::uint32_t generation, bool readable, bool writable, bool hangup) noexcept;
  /// Wakes who is parked, without an event: for those who must look at a changed deadline.
  void wake_all(std::uint32_t generation, direction d, outcome result) noexcept;

  /// For the loops; all under the lock.
  tiny_lock& lock() noexcept { return lock_; }
  io_loop* home() const noexcept { return home_; }
  std::uint32_t generation() const noexcept {
    return static_cast<std::uint32_t>(word_.load(std::memory_order_acquire) >> 32);
  }
  bool is_shared() const noexcept { return kind_ >= descriptor_kind::shared_stream; }
  bool has_waiters(direction d) const noexcept { return !sides_[index(d)].waiters.empty(); }
  portable_watch* watch = nullptr;  ///< the portable loop's

  /// The loop ends: forgets it, and wakes everybody, to register elsewhere.
  void abandon(io_loop& loop) noexcept;

 private:
  friend descriptor_ref adopt_descriptor(int fd, descriptor_kind kind);
  friend std::error_code close_descriptor(descriptor_ref) noexcept;
  friend int release_descriptor(descriptor_ref) noexcept;
  friend descriptor_ref share_descriptor(int fd, descriptor_kind (*kind)(int));
  friend drop_result drop_descriptor(int fd) noexcept;

  static constexpr std::uint32_t ready = 1;
  static constexpr std::uint32_t waiting = 2;
  static constexpr std::uint64_t closing_bit = std::uint64_t{1} << 31;
  static constexpr std::uint64_t keep_bit = std::uint64_t{1} << 30;
  static constexpr std::uint64_t users_mask = keep_bit - 1;
  static constexpr std::uint64_t word_of(std::uint32_t generation) noexcept {
    return std::uint64_t{generation} << 32;
  }

  struct side {
    std::atomic<std::uint32_t> state{ready};
    wait_list waiters;  // guarded by lock_
    std::atomic<time_point::rep> deadline{no_deadline.time_since_epoch().count()};
    std::atomic<std::chrono::nanoseconds::rep> timeout{0};  // of each operation; 0: none
  };
  /// A thread in poll(2); on its stack.
  struct blocked_thread {
    blocked_thread* next;
    int wake_fd;
  };

  static constexpr unsigned index(direction d) noexcept { return static_cast<unsigned>(d); }
  side& side_of(direction d) noexcept { return sides_[index(d)]; }
  /// Under the lock.
  bool is_open(std::uint32_t generation) const noexcept {
    // Acquire: pairs with close()'s release; close() sets the bit before it takes the lock to wake.
    const auto word = word_.load(std::memory_order_acquire);
    return static_cast<std::uint32_t>(word >> 32) == generation && (word & closing_bit) == 0;
  }
  void wake_one(direction d) noexcept;
  /// Under the lock, with somebody in the list: completes the first with the caller's token.
  static waiter* hand_over(side& s) noexcept;
  int attach_here() noexcept;
  /// Sets closing; false when that has happened before. The caller has entered as by enter().
  bool begin_close(std::uint32_t generation, std::uint64_t bits) noexcept;
  void wake_everybody(std::uint32_t generation) noexcept;
  int finish_close(bool keep) noexcept;
  std::error_code sleep_in_poll(std::uint32_t generation, int fd, short events,
                                time_point deadline);

  std::atomic<std::uint64_t> word_{closing_bit};
  tiny_lock lock_;
  int fd_ = -1;
  side sides_[2];
  io_loop* home_ = nullptr;
  blocked_thread* threads_ = nullptr;  // guarded by lock_
  std::atomic<std::uint32_t> streak_{0};
  std::uint16_t away_ = 0;  // waits in a row on other workers than home_'s; guarded by lock_
  descriptor_kind kind_ = descriptor_kind::other;
  std::atomic<bool> hangup_{false};
};

/// Moves on when flags of a file that may be the program's have changed: O_NONBLOCK, for a moment, or by the program.
inline constinit std::atomic<std::uint64_t> file_flags_epoch{1};

/// The entry of a number that has been adopted once; else null.
descriptor* find_descriptor(int fd) noexcept;

/// Brings the entry of a number into the cache.
void prefetch_descriptor(int fd) noexcept;

/// Puts an open descriptor under the table's care.
///
/// \throws std::bad_alloc, std::system_error (EMFILE: beyond the table); fd is the caller's then
descriptor_ref adopt_descriptor(int fd, descriptor_kind kind);

/// Wakes everybody who waits on it with EBADF, and closes it as soon as the last operation has left.
/// bad_file_descriptor when it has been closed already.
std::error_code close_descriptor(descriptor_ref) noexcept;

/// Ends the table's care without closing; returns the descriptor, -1 when it was closed already. With
/// the portable poller it may be a duplicate. No operation may be in progress.
int release_descriptor(descriptor_ref) noexcept;

/// The generation of a number that several use who know nothing of each other: its present one, if it is open
/// by the table, else a new one, of the kind that kind(fd) says.
///
/// \throws as above
descriptor_ref share_descriptor(int fd, descriptor_kind (*kind)(int));

/// The program is about to close the number, or has been given it as a new one: whoever waits on it gets EBADF,
/// and calls in progress are waited for, but not for long: they block only where the kernel has no
/// call that does not.
drop_result drop_descriptor(int fd) noexcept;

/// The present generation of an adopted number: for those who know numbers only.
descriptor_ref current_descriptor(int fd) noexcept;

/// Calls f for every entry ever used.
void for_each_descriptor(void (*f)(descriptor&, void*), void* argument) noexcept;

/// Calls f for every number in the range that the table has.
void for_each_adopted(unsigned first, unsigned last, void (*f)(int fd) noexcept) noexcept;

/// Enters for a scope.
class descriptor_use {
 public:
  explicit descriptor_use(descriptor_ref ref) noexcept
      : entry_(ref.valid() ? find_descriptor(ref.fd) : nullptr), generation_(ref.generation) {
    if (entry_ != nullptr && !entry_->enter(generation_)) entry_ = nullptr;
  }
  ~descriptor_use() { leave(); }
  void leave() noexcept {
    if (entry_ != nullptr) std::exchange(entry_, nullptr)->leave(generation_);
  }
  descriptor_use(const descriptor_use&) = delete;
  descriptor_use& operator=(const descriptor_use&) = delete;

  explicit operator bool() const noexcept { return entry_ != nullptr; }
  descriptor& operator*() const noexcept { return *entry_; }
  descriptor* operator->() const noexcept { return entry_; }
  std::uint32_t generation() const noexcept { return generation_; }

 private:
  descriptor* entry_;
  std::uint32_t generation_;
};

}  // namespace tendril::detail
