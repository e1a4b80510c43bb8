// SPDX-License-Identifier: Apache-2.0
//
// The poller on the platform's readiness set: one system call a poll. libuv's own set is a member of
// ours, so that the same call waits for pool work, resolving and signals; uv_run is called only when
// that member is readable, when a timer of libuv's is due, or when a request was started since (libuv
// registers descriptors only inside uv_run).
//
// Rejected: the other way round, our set nested in libuv's loop: measured, two system calls a poll and
// 4 % of the throughput.
#include <array>
#include <system_error>

#include "io/io_loop.hpp"
#include "platform/readiness.hpp"
#include "sched/stopped_threads.hpp"

namespace tendril::detail {
namespace {

constexpr std::uint64_t tag_of(std::uint32_t generation, int fd) noexcept {
  return std::uint64_t{generation} << 32 | static_cast<std::uint32_t>(fd);
}
constexpr std::uint64_t uv_tag = tag_of(0, 0);  // generations begin at 1

class native_loop final : public io_loop {
 public:
  native_loop() {
    if (const int error = set_.add_level(uv_backend_fd(&uv_), uv_tag); error != 0)
      throw std::system_error(error, std::system_category(), "watching libuv's loop");
  }
  ~native_loop() override { shut_down(); }

  void poll(std::chrono::nanoseconds timeout) override;

  void wake() noexcept override {
    // Only the first of several wakers pays for the system call. The others' posts are seen: their
    // exchange comes before the one in poll(), which comes before looking into the mailbox.
    if (!woken_.exchange(true, std::memory_order_acq_rel)) set_.wake();
  }

  int attach(descriptor& d) noexcept override {
    const int error = set_.add(d.fd(), tag_of(d.generation(), d.fd()));
    if (error == 0) registered_.fetch_add(1, std::memory_order_relaxed);
    return error;
  }
  void arm(descriptor&, direction) noexcept override {}  // always, both
  bool can_move() const noexcept override { return true; }
  void forget(descriptor& d) noexcept override {
    set_.remove(d.fd());
    registered_.fetch_sub(1, std::memory_order_relaxed);
  }
  int detach(descriptor& d, bool keep) noexcept override {
    // Closing removes the number from the set; should the open file live on in a duplicate or in
    // another process, its events carry a generation that nobody has any more.
    if (keep) set_.remove(d.fd());
    registered_.fetch_sub(1, std::memory_order_relaxed);
    return d.fd();
  }

 private:
  platform::readiness_set set_;
  std::atomic<bool> woken_{false};
  std::array<platform::readiness_event, 256> events_;
};

void native_loop::poll(std::chrono::nanoseconds timeout) {
  using namespace std::chrono;
  // What these make runnable the worker wants to run at once: no blocking after them.
  if (run_posted()) timeout = nanoseconds::zero();
  bool timer_due = false;
  if (touched_) {
    touched_ = false;
    uv_run(&uv_, UV_RUN_NOWAIT);
    timeout = nanoseconds::zero();
  } else if (requests_.load(std::memory_order_relaxed) != 0 && timeout.count() != 0) {
    if (const int ms = uv_backend_timeout(&uv_); ms >= 0) {
      if (timeout.count() < 0 || milliseconds(ms) < timeout) timeout = milliseconds(ms);
      timer_due = true;
    }
  }

  bool woken = false;
  std::size_t count = 0;
  const auto wait = [&] { count = set_.wait(events_, timeout, woken); };
  if (timeout.count() == 0) wait();
  else rest(wait);
  bool uv_ready = timer_due;
  for (std::size_t i = 0; i < count; ++i) {
    // A server's descriptors and fibers have left the cache between two events; asking for the entries
    // early overlaps the misses.
    if (i + 4 < count)
      prefetch_descriptor(static_cast<int>(static_cast<std::uint32_t>(events_[i + 4].tag)));
    const auto& e = events_[i];
    if (e.tag == uv_tag) {
      uv_ready = true;
    } else if (descriptor* d =
                   find_descriptor(static_cast<int>(static_cast<std::uint32_t>(e.tag)))) {
      d->deliver(static_cast<std::uint32_t>(e.tag >> 32), e.readable, e.writable, e.hangup);
    }
  }
  if (uv_ready) uv_run(&uv_, UV_RUN_NOWAIT);
  if (woken) {
    woken_.exchange(false, std::memory_order_acq_rel);
    run_posted();
  }
}

}  // namespace

std::unique_ptr<poller> make_native_poller() { return std::make_unique<native_loop>(); }

}  // namespace tendril::detail
