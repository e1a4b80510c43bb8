// SPDX-License-Identifier: Apache-2.0
//
// syscall(): the kernel called by its number.
//
// It has the seven arguments that libc's has, in the same places (the calling conventions here pass variable arguments as
// they do named ones), and passes them on as they are, whether the caller has given them or not: so does libc's. A number
// that is nothing to us costs a look into a table of bits.
//
// On a fiber the numbers of calls that park go to the functions of those names. Where the kernel's call is not like
// libc's function, what differs is put right here, or the call is made as it is: masks of signals have another size. Times
// that are left are not written back. Numbers that close or change descriptors do so on every thread.
// sched_yield is not among them: by its number the runtime gives up the processor.
#include "platform/linux/intercept/front.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>

#include <type_traits>

// What not every kernel, nor every version of its headers, has.
#if !defined(SYS_poll)
#define SYS_poll (-1)
#define SYS_select (-2)
#define SYS_epoll_wait (-3)
#define SYS_open (-4)
#define SYS_dup2 (-5)
#endif
#if !defined(SYS_futex_waitv)
#define SYS_futex_waitv 449
#endif
#if !defined(SYS_futex_wait)
#define SYS_futex_wait 455
#endif

using namespace tendril::platform;
using namespace tendril::platform::front;

namespace {

/// An argument, of whatever type it is.
struct word {
  long value;
  template <class T>
  operator T*() const noexcept {
    return reinterpret_cast<T*>(value);
  }
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) operator T() const noexcept {
    return static_cast<T>(value);
  }
};

int as_errno(int error) noexcept {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

bool is_about_timeouts(int level, int option) noexcept {
  return level == SOL_SOCKET && (option == SO_RCVTIMEO || option == SO_SNDTIMEO);
}
bool waits_or_counts(int command) noexcept {
  return command == F_SETLKW || command == F_OFD_SETLKW || command == F_SETFL;
}

// ON_FIBER(number, when it is made as it is, the call); EVERYWHERE likewise.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define TENDRIL_NUMBERS(ON_FIBER, EVERYWHERE)                                                 \
  ON_FIBER(SYS_read, false, front_read(a, b, c))                                              \
  ON_FIBER(SYS_write, false, front_write(a, b, c))                                            \
  ON_FIBER(SYS_readv, false, front_readv(a, b, c))                                            \
  ON_FIBER(SYS_writev, false, front_writev(a, b, c))                                          \
  ON_FIBER(SYS_preadv2, false, front_preadv2(a, b, c, d, f))                                  \
  ON_FIBER(SYS_pwritev2, false, front_pwritev2(a, b, c, d, f))                                \
  ON_FIBER(SYS_splice, false, front_splice(a, b, c, d, e, f))                                 \
  ON_FIBER(SYS_tee, false, front_tee(a, b, c, d))                                             \
  ON_FIBER(SYS_vmsplice, false, front_vmsplice(a, b, c, d))                                   \
  ON_FIBER(SYS_sendfile, false, front_sendfile(a, b, c, d))                                   \
  ON_FIBER(SYS_recvfrom, false, front_recvfrom(a, b, c, d, e, f))                             \
  ON_FIBER(SYS_recvmsg, false, front_recvmsg(a, b, c))                                        \
  ON_FIBER(SYS_recvmmsg, false, front_recvmmsg(a, b, c, d, e))                                \
  ON_FIBER(SYS_sendto, false, front_sendto(a, b, c, d, e, f))                                 \
  ON_FIBER(SYS_sendmsg, false, front_sendmsg(a, b, c))                                        \
  ON_FIBER(SYS_sendmmsg, false, front_sendmmsg(a, b, c, d))                                   \
  ON_FIBER(SYS_accept, false, front_accept(a, b, c))                                          \
  ON_FIBER(SYS_accept4, false, front_accept4(a, b, c, d))                                     \
  ON_FIBER(SYS_connect, false, front_connect(a, b, c))                                        \
  ON_FIBER(SYS_poll, false, front_poll(a, b, c))                                              \
  ON_FIBER(SYS_ppoll, d.value != 0, front_ppoll(a, b, c, nullptr))                            \
  ON_FIBER(SYS_select, false, front_select(a, b, c, d, e))                                    \
  ON_FIBER(SYS_pselect6, f.value != 0, front_pselect(a, b, c, d, e, nullptr))                 \
  ON_FIBER(SYS_epoll_wait, false, front_epoll_wait(a, b, c, d))                               \
  ON_FIBER(SYS_epoll_pwait, e.value != 0, front_epoll_wait(a, b, c, d))                       \
  ON_FIBER(SYS_epoll_pwait2, e.value != 0, front_epoll_pwait2(a, b, c, d, nullptr))           \
  ON_FIBER(SYS_nanosleep, false, front_nanosleep(a, b))                                       \
  ON_FIBER(SYS_clock_nanosleep, false, as_errno(front_clock_nanosleep(a, b, c, d)))           \
  ON_FIBER(SYS_open, false, front_open(a, b, c))                                              \
  ON_FIBER(SYS_openat, false, front_openat(a, b, c, d))                                       \
  ON_FIBER(SYS_fsync, false, front_fsync(a))                                                  \
  ON_FIBER(SYS_fdatasync, false, front_fdatasync(a))                                          \
  ON_FIBER(SYS_flock, false, front_flock(a, b))                                               \
  ON_FIBER(SYS_wait4, false, front_wait4(a, b, c, d))                                         \
  ON_FIBER(SYS_waitid, e.value != 0, front_waitid(a, b, c, d))                                \
  ON_FIBER(SYS_msgsnd, false, front_msgsnd(a, b, c, d))                                       \
  ON_FIBER(SYS_msgrcv, false, front_msgrcv(a, b, c, d, e))                                    \
  ON_FIBER(SYS_semop, false, front_semop(a, b, c))                                            \
  ON_FIBER(SYS_semtimedop, false, front_semtimedop(a, b, c, d))                               \
  ON_FIBER(SYS_mq_timedsend, false, front_mq_timedsend(a, b, c, d, e))                        \
  ON_FIBER(SYS_mq_timedreceive, false, front_mq_timedreceive(a, b, c, d, e))                  \
  EVERYWHERE(SYS_close, false, front_close(a))                                                \
  EVERYWHERE(SYS_close_range, false, front_close_range(a, b, c))                              \
  EVERYWHERE(SYS_dup, false, front_dup(a))                                                    \
  EVERYWHERE(SYS_dup2, false, front_dup2(a, b))                                               \
  EVERYWHERE(SYS_dup3, false, front_dup3(a, b, c))                                            \
  EVERYWHERE(SYS_fcntl, !waits_or_counts(b), front_fcntl(a, b, c))                            \
  EVERYWHERE(SYS_ioctl, static_cast<unsigned long>(b.value) != FIONBIO, front_ioctl(a, b, c)) \
  EVERYWHERE(SYS_setsockopt, !is_about_timeouts(b, c), front_setsockopt(a, b, c, d, e))
// NOLINTEND(bugprone-macro-parentheses)

struct bit_table {
  static constexpr unsigned long size = 512;
  unsigned long words[size / 64]{};
  constexpr void add(long number) noexcept {
    if (number >= 0) words[number / 64] |= 1UL << number % 64;
  }
  bool has(long number) const noexcept {
    const auto n = static_cast<unsigned long>(number);
    return n < size && (words[n / 64] >> n % 64 & 1) != 0;
  }
};
constexpr bit_table known = [] {
  bit_table t;
#define TENDRIL_ADD(number, plain, call) t.add(number);
  TENDRIL_NUMBERS(TENDRIL_ADD, TENDRIL_ADD)
#undef TENDRIL_ADD
  t.add(SYS_futex);
  t.add(SYS_futex_waitv);
  t.add(SYS_futex_wait);
  return t;
}();

/// By syscall() no thread is cancelled.
class not_cancelled {
 public:
  not_cancelled() noexcept { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  void end() noexcept { pthread_setcancelstate(before_, nullptr); }

 private:
  int before_ = 0;
};

/// Passes a result through, so that the call it comes from is no jump: then the last argument would be stored once more
/// where it is, on the stack. A caller that gave fewer has something of its own there, which others may be changing.
inline long called(long result) noexcept {
  asm volatile("" : "+r"(result));
  return result;
}

bool wakes(long operation) noexcept {
  switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
    case FUTEX_WAKE_OP:
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
      return true;
    default:
      return false;
  }
}
bool waits(long operation) noexcept {
  switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_WAIT_REQUEUE_PI:
      return true;
    default:
      return false;
  }
}

/// The hooks, if they have to do with it.
const intercept_hooks* hooks_for_futex(long operation) noexcept {
  if (waits(operation)) return hooks_on_fiber();
  const intercept_hooks* const h = hooks_here();
  if (h == nullptr || !wakes(operation)) return nullptr;
  // The word was changed before we look whether any fiber waits; as the kernel does before it looks. Pairs with the
  // fence of who stands in line.
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return __atomic_load_n(h->locks_in_use, __ATOMIC_RELAXED) != 0 ? h : nullptr;
}

[[gnu::noinline]] long call_known(long number, long first, long second, long third, long fourth,
                                  long fifth, long sixth) {
  const word a{first}, b{second}, c{third}, d{fourth}, e{fifth}, f{sixth};
  const intercept_hooks* h = nullptr;
  switch (number) {
    case SYS_futex:
      h = hooks_for_futex(second);
      // As sem_post() in locks.cpp: the handler may have interrupted whoever wakes.
      if (h != nullptr && handlers_running != 0 && wakes(second))
        return h->futex_in_handler(first, second, third, fourth, fifth, sixth);
      break;
    case SYS_futex_waitv:
    case SYS_futex_wait:
      h = hooks_on_fiber();
      break;
#define TENDRIL_ON_FIBER(number, plain, call)                 \
  case number:                                                \
    if (hooks_on_fiber() != nullptr && !(plain)) return call; \
    break;
#define TENDRIL_EVERYWHERE(number, plain, call)     \
  case number:                                      \
    if (hooks_here() != nullptr && !(plain)) {      \
      if (hooks_on_fiber() != nullptr) return call; \
      not_cancelled here;                           \
      const long result = call;                     \
      here.end();                                   \
      return result;                                \
    }                                               \
    break;
      TENDRIL_NUMBERS(TENDRIL_ON_FIBER, TENDRIL_EVERYWHERE)
#undef TENDRIL_ON_FIBER
#undef TENDRIL_EVERYWHERE
    default:
      break;
  }
  return called(h != nullptr ? h->syscall(number, first, second, third, fourth, fifth, sixth)
                             : real.syscall(number, first, second, third, fourth, fifth, sixth));
}

}  // namespace

extern "C" long front_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (known.has(number)) return called(call_known(number, a, b, c, d, e, f));
  return called(real.syscall(number, a, b, c, d, e, f));
}
