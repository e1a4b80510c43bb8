// SPDX-License-Identifier: Apache-2.0
//
// The kernel called by its number, as far as that waits for a futex: what std::atomic's wait(), latches, barriers and
// counting semaphores of C++20, guards of local statics, Rust's library and many others wait by.
//
// A fiber that is to wait stands in the parking lot's line of its word; whoever wakes waiters of that word by
// syscall(), on a thread or a fiber, wakes there and in the kernel. What is asked of the kernel is what it says: it checks
// the word and the address before a fiber parks (by a call that does nothing else), and gives the errors.
//
//   FUTEX_WAIT, WAIT_BITSET      park. The word is compared in the lock of the line, so that a change and a wake-up that
//                                come later find the fiber there.
//   FUTEX_WAKE, WAKE_BITSET      at most n in all: threads first and fibers first by turns, for neither is to starve.
//   FUTEX_REQUEUE, CMP_REQUEUE   the kernel moves its threads; fibers that would be moved are woken, and counted with the
//                                others. Their wait returns 0, as it may at any time.
//   FUTEX_WAKE_OP                the kernel does it with its threads; of fibers up to n are woken in each of the two
//                                lines, whatever the operation has found.
//   LOCK_PI, LOCK_PI2,           block the thread, whose worker is with another one: the owner of such a lock is a
//   WAIT_REQUEUE_PI, futex_waitv thread.
//
// A handler that wakes may have interrupted whoever has the lock of a line, on this very thread. There the kernel's
// threads are woken at once, and who is left of n in the lines by the attendant (interruptions.hpp), uncounted.
//
// Some who wake call the kernel by instructions of their own (libc; the kernel itself at the end of a thread).
// A parked fiber is not found by them. So it looks at its word now and then, and if that has changed its wait returns 0.
// The time between two looks doubles up to a tenth of a second, or, where more than a thousand are parked, so much
// longer that they make no more than some ten thousand looks a second together. It keeps its place in line meanwhile.
//
// Words that are in memory that is shared (MAP_SHARED), and are not said to be private, are waited for in the kernel, on
// a thread of the call's own: other processes wake there. The key of a line has the private flag in it, as the
// kernel's has.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <optional>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/clocks.hpp"
#include "intercept/in_place.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/parking_lot.hpp"
#include "intercept/shared_memory.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

/// The arguments of a call on a futex, as the kernel names them.
struct futex_call {
  std::uint32_t* word;
  int operation;
  std::uint32_t value;
  const timespec* timeout;  ///< or a second number
  std::uint32_t* word2;
  std::uint32_t value3;

  int command() const noexcept { return operation & FUTEX_CMD_MASK; }
  bool is_private() const noexcept { return (operation & FUTEX_PRIVATE_FLAG) != 0; }
  bool real_time() const noexcept { return (operation & FUTEX_CLOCK_REALTIME) != 0; }
  int first() const noexcept { return static_cast<int>(value); }
  int second() const noexcept { return static_cast<int>(reinterpret_cast<std::intptr_t>(timeout)); }
};

futex_call call_of(long a, long b, long c, long d, long e, long f) noexcept {
  return {reinterpret_cast<std::uint32_t*>(a), static_cast<int>(b),
          static_cast<std::uint32_t>(c),       reinterpret_cast<const timespec*>(d),
          reinterpret_cast<std::uint32_t*>(e), static_cast<std::uint32_t>(f)};
}

/// The kernel's answer, an errno negated.
[[gnu::noinline]] long ask_kernel(long number, long a, long b, long c, long d, long e,
                                  long f) noexcept {
  const long result = real().syscall(number, a, b, c, d, e, f);
  return result >= 0 ? result : -errno;
}
long ask_kernel(const futex_call& c) noexcept {
  return ask_kernel(SYS_futex, reinterpret_cast<long>(c.word), c.operation,
                    static_cast<long>(c.value), reinterpret_cast<long>(c.timeout),
                    reinterpret_cast<long>(c.word2), static_cast<long>(c.value3));
}

/// Words are aligned to four bytes: there is room for what kind of line it is, apart from that of a lock at the same
/// address.
const void* key_of(const std::uint32_t* word, bool is_private) noexcept {
  return reinterpret_cast<const char*>(word) + (is_private ? 1 : 2);
}

std::uint32_t load(std::uint32_t* word) noexcept {
  // Pairs with whatever order the program changes it in; between us and who wakes the lock of the line is what counts.
  return std::atomic_ref(*word).load(std::memory_order_seq_cst);
}

// ---- waiting

/// 0: the word is as expected. Else what the kernel says of a wait that has not begun: EAGAIN, EFAULT, EINVAL.
long check(const futex_call& c) noexcept {
  futex_call nothing = c;  // of nobody, to nowhere
  nothing.operation = FUTEX_CMP_REQUEUE | (c.operation & FUTEX_PRIVATE_FLAG);
  nothing.value = 0;
  nothing.timeout = nullptr;
  nothing.word2 = c.word;
  nothing.value3 = c.value;
  return ask_kernel(nothing);
}

/// How many are parked.
std::atomic<unsigned> parked{0};

class looks {
 public:
  time_point next() noexcept {
    const auto then = clock::now() + interval_;
    const unsigned others = parked.load(std::memory_order_relaxed);
    const auto most = std::max<std::chrono::microseconds>(longest, others * each);
    interval_ = std::min(2 * interval_, most);
    return then;
  }

 private:
  static constexpr std::chrono::microseconds longest{100'000};
  static constexpr std::chrono::microseconds each{100};
  std::chrono::microseconds interval_{1000};
};

/// False: the time is none (EINVAL). To be called once it has been read.
bool deadline_of(const futex_call& c, const timespec& time, clock_deadline& to) noexcept {
  if (!is_valid(time) || time.tv_sec < 0) return false;
  if (c.command() == FUTEX_WAIT_BITSET) {
    to = clock_deadline::of(c.real_time() ? CLOCK_REALTIME : CLOCK_MONOTONIC, time);
    return true;
  }
  timespec at{};
  ::clock_gettime(CLOCK_MONOTONIC, &at);
  if (__builtin_add_overflow(at.tv_sec, time.tv_sec, &at.tv_sec)) return true;  // never
  at.tv_nsec += time.tv_nsec;
  if (at.tv_nsec >= 1'000'000'000) {
    at.tv_nsec -= 1'000'000'000;
    if (__builtin_add_overflow(at.tv_sec, 1, &at.tv_sec)) return true;
  }
  to = clock_deadline::of(CLOCK_MONOTONIC, at);
  return true;
}

/// A wait with a time is not restarted, says signal(7).
interruptible breaks_of(const clock_deadline& deadline) noexcept {
  return deadline.never ? interruptible::unless_restarted : interruptible::always;
}

long park(const futex_call& c, std::uint32_t bits, const clock_deadline& deadline) {
  const thread_stay here;
  const interruptible_call call(breaks_of(deadline));
  const void* const key = key_of(c.word, c.is_private());
  lot_bucket& b = parking_lot::bucket_of(key);
  b.lock.lock();
  wait_node& n = b.enlist(key, false, bits);
  if (load(c.word) != c.value) {
    b.delist(n);
    b.lock.unlock();
    return -EAGAIN;
  }
  b.lock.unlock();
  parked.fetch_add(1, std::memory_order_relaxed);
  const auto woken = [](const void* node) noexcept {
    return static_cast<const wait_node*>(node)->result.load(std::memory_order_acquire) !=
           outcome::waiting;
  };
  looks look;
  long result = 0;
  do {
    const time_point until = std::min(deadline.for_wait(), look.next());
    const outcome how = wait_until_done(woken, &n,
                                        {.deadline = until,
                                         .cancelable = false,
                                         .reason = "futex",
                                         .on_context = false,
                                         .interruption = call.call()});
    if (how == outcome::interrupted) result = -EINTR;
    else if (!woken(&n) && deadline.over()) result = -ETIMEDOUT;
  } while (!woken(&n) && result == 0 && check(c) == 0);
  parked.fetch_sub(1, std::memory_order_relaxed);
  b.lock.lock();
  if (woken(&n)) result = 0;  // whoever did that has counted us
  b.delist(n);
  b.lock.unlock();
  return result;
}

long wait(const futex_call& c) {
  // As the kernel does: the time first, then the word.
  clock_deadline deadline;
  if (timespec time; c.timeout != nullptr) {
    if (!fetch_time(time, c.timeout)) return -EFAULT;
    if (!deadline_of(c, time, deadline)) return -EINVAL;
  }
  const std::uint32_t bits = c.command() == FUTEX_WAIT ? FUTEX_BITSET_MATCH_ANY : c.value3;
  if (bits == 0) return -EINVAL;
  if (const long no = check(c); no != 0) return no;
  if (in_other_process()) return ask_kernel(c);
  if (c.is_private() || !is_shared_memory(c.word)) return park(c, bits, deadline);
  futex_call there = c;
  there.operation = FUTEX_WAIT_BITSET | (c.operation & FUTEX_CLOCK_REALTIME);
  there.value3 = bits;
  return on_thread(symbol::syscall, breaks_of(deadline), [there, deadline]() mutable {
    there.timeout = deadline.never ? nullptr : &deadline.at;
    return ask_kernel(there);
  });
}

// ---- waking

unsigned wake_parked(const std::uint32_t* word, bool is_private, std::uint32_t bits,
                     long most) noexcept {
  const bool aligned = reinterpret_cast<std::uintptr_t>(word) % sizeof *word == 0;
  if (!aligned || most <= 0) return 0;
  return parking_lot::wake_some(key_of(word, is_private), bits,
                                static_cast<unsigned>(std::min<long>(most, UINT_MAX)));
}

long wake(futex_call c) noexcept {
  const std::uint32_t bits = c.command() == FUTEX_WAKE ? FUTEX_BITSET_MATCH_ANY : c.value3;
  // One at least, as the kernel has it.
  const long most = std::max(c.first(), 1);
  lot_bucket& b = parking_lot::bucket_of(key_of(c.word, c.is_private()));
  b.lock.lock();
  const bool kernel_first = b.next_turn();
  b.lock.unlock();
  long fibers = 0;
  if (!kernel_first && bits != 0) {
    fibers = wake_parked(c.word, c.is_private(), bits, most);
    if (fibers == most) return fibers;
  }
  c.value = static_cast<std::uint32_t>(most - fibers);
  const long threads = ask_kernel(c);
  if (threads < 0) return fibers != 0 ? fibers : threads;
  if (kernel_first) fibers = wake_parked(c.word, c.is_private(), bits, most - threads);
  return threads + fibers;
}

long requeue(const futex_call& c) noexcept {
  const long threads = ask_kernel(c);
  if (threads < 0) return threads;
  const long most = static_cast<long>(c.first()) + c.second();
  return threads + wake_parked(c.word, c.is_private(), FUTEX_BITSET_MATCH_ANY, most - threads);
}

long wake_both(const futex_call& c) noexcept {
  const long threads = ask_kernel(c);
  if (threads < 0) return threads;
  return threads + wake_parked(c.word, c.is_private(), FUTEX_BITSET_MATCH_ANY, c.first()) +
         wake_parked(c.word2, c.is_private(), FUTEX_BITSET_MATCH_ANY, c.second());
}

long on_futex(const futex_call& c) {
  switch (c.command()) {
    case FUTEX_WAIT:
      // With FUTEX_CLOCK_REALTIME it depends on the kernel's version what it is.
      return c.real_time() ? block_in_place([&] { return ask_kernel(c); }) : wait(c);
    case FUTEX_WAIT_BITSET:
      return wait(c);
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
      return c.real_time() ? ask_kernel(c) : wake(c);
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
      return c.real_time() ? ask_kernel(c) : requeue(c);
    case FUTEX_WAKE_OP:
      return c.real_time() ? ask_kernel(c) : wake_both(c);
    default:
      return block_in_place([&] { return ask_kernel(c); });
  }
}

/// The part of the parking lot, when it is a handler that wakes.
void leave_parked(const std::uint32_t* word, bool is_private, std::uint32_t bits,
                  long most) noexcept {
  const bool aligned = reinterpret_cast<std::uintptr_t>(word) % sizeof *word == 0;
  if (aligned && most > 0)
    wake_later(key_of(word, is_private), bits,
               static_cast<unsigned>(std::min<long>(most, UINT_MAX)));
}

}  // namespace

long futex_in_handler(long word, long operation, long value, long timeout, long word2,
                      long value3) noexcept {
  const int before = errno_now();
  const futex_call c = call_of(word, operation, value, timeout, word2, value3);
  const long threads = ask_kernel(c);
  if (threads < 0 || c.real_time()) return finish(threads, before);
  constexpr std::uint32_t any = FUTEX_BITSET_MATCH_ANY;
  switch (c.command()) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
      leave_parked(c.word, c.is_private(), c.command() == FUTEX_WAKE ? any : c.value3,
                   std::max(c.first(), 1) - threads);
      break;
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
      leave_parked(c.word, c.is_private(), any,
                   static_cast<long>(c.first()) + c.second() - threads);
      break;
    case FUTEX_WAKE_OP:
      leave_parked(c.word, c.is_private(), any, c.first());
      leave_parked(c.word2, c.is_private(), any, c.second());
      break;
    default:
      break;
  }
  return finish(threads, before);
}

namespace calls {

/// The front sends what is about futexes: waits from fibers that can park, wake-ups from everywhere.
long syscall(long number, long a, long b, long c, long d, long e, long f) {
  const int before = errno_now();
  if (number != SYS_futex)
    return finish(block_in_place([=] { return ask_kernel(number, a, b, c, d, e, f); }), before);
  return finish(on_futex(call_of(a, b, c, d, e, f)), before);
}

}  // namespace calls
}  // namespace tendril::detail
