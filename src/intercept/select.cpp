// SPDX-License-Identifier: Apache-2.0
//
// select(2) and pselect(2), by the watching that poll(2) uses. The sets may be larger than an fd_set: programs
// that have more than FD_SETSIZE descriptors allocate them; so they are taken as arrays of words here.
#include <poll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "intercept/calls.hpp"
#include "intercept/copy_in.hpp"
#include "intercept/install.hpp"
#include "intercept/polling.hpp"

namespace tendril::detail {
namespace {

constexpr int word_bits = sizeof(unsigned long) * CHAR_BIT;
constexpr short set_events[3] = {POLLIN, POLLOUT, POLLPRI};

class select_looker final : public looker {
 public:
  select_looker(int count, fd_set* const (&sets)[3], const sigset_t* mask) noexcept
      : looker(mask),
        count_(count),
        words_(static_cast<std::size_t>((count + word_bits - 1) / word_bits)) {
    for (int i = 0; i != 3; ++i) sets_[i] = reinterpret_cast<unsigned long*>(sets[i]);
  }

  /// 0, or an errno.
  int prepare() noexcept {
    // Asked for, and found: three sets each.
    words_of_.reset(new (std::nothrow) unsigned long[words_ * 6 + 1]());
    if (words_of_ == nullptr) return ENOMEM;
    for (int i = 0; i != 3; ++i)
      if (sets_[i] != nullptr && words_ != 0 &&
          !copy_in(asked(i), sets_[i], words_ * sizeof(unsigned long)))
        return EFAULT;
    polled_.reset(new (std::nothrow) pollfd[static_cast<std::size_t>(count_) + 1]);
    if (polled_ == nullptr) return ENOMEM;
    for (int fd = 0; fd != count_; ++fd) {
      short events = 0;
      for (int i = 0; i != 3; ++i)
        if (has(asked(i), fd)) events = static_cast<short>(events | set_events[i]);
      if (events != 0) polled_[polled_count_++] = {fd, events, 0};
    }
    return 0;
  }
  pollfd* polled() noexcept { return polled_.get(); }
  nfds_t polled_count() const noexcept { return polled_count_; }

  /// Into the program's sets.
  void give_back() noexcept {
    for (int i = 0; i != 3; ++i)
      if (sets_[i] != nullptr) std::copy_n(found(i), words_, sets_[i]);
  }

 private:
  unsigned long* asked(int i) noexcept {
    return words_of_.get() + words_ * static_cast<unsigned>(i);
  }
  unsigned long* found(int i) noexcept {
    return words_of_.get() + words_ * static_cast<unsigned>(3 + i);
  }
  static bool has(const unsigned long* set, int fd) noexcept {
    return (set[fd / word_bits] >> (fd % word_bits) & 1) != 0;
  }
  fd_set* found_set(int i) noexcept {
    return sets_[i] != nullptr ? reinterpret_cast<fd_set*>(found(i)) : nullptr;
  }

  [[gnu::noinline]] long once(int timeout) noexcept override {
    for (int i = 0; i != 3; ++i) std::copy_n(asked(i), words_, found(i));
    const timespec limit{timeout / 1000, timeout % 1000 * 1'000'000L};
    const int n = real().pselect(count_, found_set(0), found_set(1), found_set(2),
                                 timeout < 0 ? nullptr : &limit, mask());
    if (n < 0) return -errno;
    for (nfds_t k = 0; k != polled_count_; ++k) {
      pollfd& p = polled_[k];
      p.revents = 0;
      for (int i = 0; i != 3; ++i)
        if (n > 0 && has(found(i), p.fd)) p.revents = static_cast<short>(p.revents | set_events[i]);
    }
    return n;
  }

  int count_;
  std::size_t words_;
  unsigned long* sets_[3];
  std::unique_ptr<unsigned long[]> words_of_;
  std::unique_ptr<pollfd[]> polled_;
  nfds_t polled_count_ = 0;
};

long select_until(int count, fd_set* readable, fd_set* writable, fd_set* except,
                  time_point deadline, const sigset_t* mask, const char* reason) {
  fd_set* const sets[3] = {readable, writable, except};
  select_looker look(count, sets, mask);
  if (const int error = look.prepare(); error != 0) return -error;
  const long n = wait_for_any(look.polled(), look.polled_count(), deadline, reason, look);
  if (n >= 0) look.give_back();
  return n;
}

}  // namespace

namespace calls {

int select(int count, fd_set* readable, fd_set* writable, fd_set* except, timeval* timeout) {
  const int before = errno_now();
  time_point deadline = no_deadline;
  if (timeout != nullptr) {
    timeval limit;
    if (!copy_in(&limit, timeout, sizeof limit)) return static_cast<int>(finish(-EFAULT, 0));
    // The kernel takes more than a million microseconds for what it is.
    const bool valid =
        limit.tv_sec >= 0 && limit.tv_usec >= 0 &&
        deadline_of({limit.tv_sec + limit.tv_usec / 1'000'000, limit.tv_usec % 1'000'000 * 1000},
                    deadline);
    if (!valid || (limit.tv_sec == 0 && limit.tv_usec == 0))
      return real().select(count, readable, writable, except, timeout);
  }
  if (count < 0) return real().select(count, readable, writable, except, timeout);  // EINVAL
  const long n = select_until(count, readable, writable, except, deadline, nullptr, "select");
  if (timeout != nullptr) {
    const auto left =
        std::max(std::chrono::ceil<std::chrono::microseconds>(
                     deadline == no_deadline ? clock::duration::zero() : deadline - clock::now()),
                 std::chrono::microseconds::zero());
    timeout->tv_sec = static_cast<time_t>(left.count() / 1'000'000);
    timeout->tv_usec = static_cast<suseconds_t>(left.count() % 1'000'000);
  }
  return static_cast<int>(finish(n, before));
}

int pselect(int count, fd_set* readable, fd_set* writable, fd_set* except, const timespec* timeout,
            const sigset_t* mask) {
  const int before = errno_now();
  time_point deadline = no_deadline;
  timespec limit;
  if (timeout != nullptr && !copy_in(&limit, timeout, sizeof limit))
    return static_cast<int>(finish(-EFAULT, 0));
  if (count < 0 || (timeout != nullptr && !deadline_of(limit, deadline)))
    return real().pselect(count, readable, writable, except, timeout, mask);
  return static_cast<int>(
      finish(select_until(count, readable, writable, except, deadline, mask, "pselect"), before));
}

}  // namespace calls
}  // namespace tendril::detail
