// SPDX-License-Identifier: Apache-2.0
//
// The readiness set on epoll. The wake-up is an eventfd that is itself registered edge-triggered: each
// write to it is an edge, so that nobody ever has to read it (a system call saved per wake-up); its
// counter would overflow after 2^64 - 2 of them.
#include "platform/readiness.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <system_error>

namespace tendril::platform {
namespace {

constexpr std::uint64_t wake_tag = ~std::uint64_t{0};
constexpr std::size_t batch = 256;

// Nanosecond timeouts need Linux 5.11; before that milliseconds, rounded up.
std::atomic<bool> have_pwait2{true};

int wait_events(int set, epoll_event* events, int count,
                std::chrono::nanoseconds timeout) noexcept {
  if (timeout.count() <= 0) return ::epoll_wait(set, events, count, timeout.count() < 0 ? -1 : 0);
#if defined(SYS_epoll_pwait2)
  if (have_pwait2.load(std::memory_order_relaxed)) {
    // The kernel's own type: 64 bits everywhere, which timespec is not.
    struct {
      long long seconds, nanoseconds;
    } limit{timeout.count() / 1'000'000'000, timeout.count() % 1'000'000'000};
    const long n = ::syscall(SYS_epoll_pwait2, set, events, count, &limit, nullptr, 0);
    if (n >= 0 || errno != ENOSYS) return static_cast<int>(n);
    have_pwait2.store(false, std::memory_order_relaxed);
  }
#endif
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  return ::epoll_wait(set, events, count, ms > INT_MAX ? INT_MAX : static_cast<int>(ms));
}

}  // namespace

readiness_set::readiness_set() {
  set_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (set_ < 0) throw std::system_error(errno, std::system_category(), "epoll_create1");
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event e{};
  e.events = EPOLLIN | EPOLLET;
  e.data.u64 = wake_tag;
  if (wake_ < 0 || ::epoll_ctl(set_, EPOLL_CTL_ADD, wake_, &e) != 0) {
    const int error = errno;
    if (wake_ >= 0) ::close(wake_);
    ::close(set_);
    throw std::system_error(error, std::system_category(), "eventfd");
  }
}

readiness_set::~readiness_set() {
  ::close(wake_);
  ::close(set_);
}

int readiness_set::add(int fd, std::uint64_t tag) noexcept {
  epoll_event e{};
  e.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
  e.data.u64 = tag;
  if (::epoll_ctl(set_, EPOLL_CTL_ADD, fd, &e) == 0) return 0;
  if (errno != EEXIST) return errno;
  return ::epoll_ctl(set_, EPOLL_CTL_MOD, fd, &e) == 0 ? 0 : errno;
}

int readiness_set::add_level(int fd, std::uint64_t tag) noexcept {
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.u64 = tag;
  return ::epoll_ctl(set_, EPOLL_CTL_ADD, fd, &e) == 0 ? 0 : errno;
}

int readiness_set::remove(int fd) noexcept {
  epoll_event unused{};  // kernels before 2.6.9 want a pointer
  return ::epoll_ctl(set_, EPOLL_CTL_DEL, fd, &unused) == 0 ? 0 : errno;
}

std::size_t readiness_set::wait(std::span<readiness_event> events, std::chrono::nanoseconds timeout,
                                bool& woken) noexcept {
  std::array<epoll_event, batch> raw;
  const std::size_t room = events.size() < batch ? events.size() : batch;
  const int n = wait_events(set_, raw.data(), static_cast<int>(room), timeout);
  woken = false;
  std::size_t count = 0;
  for (int i = 0; i < n; ++i) {
    const epoll_event& e = raw[static_cast<std::size_t>(i)];
    if (e.data.u64 == wake_tag) {
      woken = true;
      continue;
    }
    events[count++] = {.tag = e.data.u64,
                       .readable = (e.events & (EPOLLIN | EPOLLPRI)) != 0,
                       .writable = (e.events & EPOLLOUT) != 0,
                       // With urgent data, too, a short read need not have found everything.
                       .hangup = (e.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) != 0};
  }
  return count;
}

void readiness_set::wake() noexcept {
  const int saved = errno;  // a signal handler may call this
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_, &one, sizeof one);
  errno = saved;
}

}  // namespace tendril::platform
