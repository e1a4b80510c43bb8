// SPDX-License-Identifier: Apache-2.0
//
// The poller on nothing but libuv: a uv_poll_t for each descriptor, kept armed while reads follow each
// other (starting and stopping it for each operation costs three epoll_ctl a request), a uv_async_t to
// wake it, a uv_timer_t for the timeout.
//
// uv_poll_t is level-triggered. A direction that reports while nobody waits and the token is there
// already is disarmed, else an unread byte would spin the loop; the next wait arms it again.
//
// Handles belong to the owner's thread, but a wait may begin and a descriptor may be closed elsewhere.
// Then the watch is posted to the owner, which brings it up to date (`update`). A number that is closed
// elsewhere must not be reused before the owner has stopped watching it: its place is taken by a
// duplicate of an idle pipe's end (dup3 closes the socket in the same step), and the owner closes that.
//
// The program's own descriptors, which it may close or replace at any moment, are watched by a duplicate that is the
// loop's: libuv then never looks at a number that means another file by now.
//
// Registrations do not move: that would want two owners at once. A fiber far from the watch's home is
// woken across workers.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <mutex>
#include <new>
#include <system_error>

#include "base/check.hpp"
#include "io/io_loop.hpp"

namespace tendril::detail {

struct portable_watch {
  uv_poll_t handle{};  // first: its data is the watch
  loop_task update{};
  portable_watch* next = nullptr;
  portable_watch* prev = nullptr;
  descriptor* entry = nullptr;
  std::uint32_t generation = 0;
  // Below: under the entry's lock.
  bool queued = false;  // in the mailbox
  bool orphan = false;  // the entry is done with it: the owner stops and frees it
  int close_fd = -1;    // and closes this
  int duplicate = -1;   // what is watched, if it is not the entry's number
  int wanted = 0;       // UV_READABLE | UV_WRITABLE
  // The owner's.
  int armed = 0;
};

namespace {

class portable_loop final : public io_loop {
 public:
  portable_loop() {
    uv_.data = this;
    if (const int status = uv_async_init(&uv_, &async_, [](uv_async_t*) {}); status != 0)
      throw_uv(status, "uv_async_init");
    uv_timer_init(&uv_, &timer_);
    if (::pipe2(idle_, O_CLOEXEC | O_NONBLOCK) != 0) {
      const int error = errno;
      end_handles();
      throw std::system_error(error, std::system_category(), "pipe2");
    }
  }
  ~portable_loop() override {
    // Not to be waited for at the end, but there until nobody posts any more.
    uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
    uv_unref(reinterpret_cast<uv_handle_t*>(&timer_));
    shut_down();
    end_handles();
    ::close(idle_[0]);
    ::close(idle_[1]);
  }

  void poll(std::chrono::nanoseconds timeout) override;
  void wake() noexcept override { uv_async_send(&async_); }

  int attach(descriptor& d) noexcept override;
  void arm(descriptor& d, direction way) noexcept override;
  bool can_move() const noexcept override { return false; }
  void forget(descriptor& d) noexcept override;
  int detach(descriptor& d, bool keep) noexcept override;

 private:
  static void on_event(uv_poll_t* handle, int status, int events);
  static void update(loop_task& task) noexcept;
  void stop(portable_watch& w) noexcept;
  void set_mask(portable_watch& w, int mask) noexcept;
  /// Under the entry's lock: has the owner look at the watch, now if that is us.
  void changed(portable_watch& w) noexcept;
  void end_handles() noexcept {
    uv_close(reinterpret_cast<uv_handle_t*>(&async_), nullptr);
    uv_close(reinterpret_cast<uv_handle_t*>(&timer_), nullptr);
    uv_run(&uv_, UV_RUN_NOWAIT);
  }

  uv_async_t async_{};
  uv_timer_t timer_{};
  int idle_[2] = {-1, -1};
};

portable_loop& loop_of(const portable_watch& w) noexcept {
  return *static_cast<portable_loop*>(w.handle.loop->data);
}

void portable_loop::poll(std::chrono::nanoseconds timeout) {
  using namespace std::chrono;
  if (run_posted() || timeout.count() == 0) {
    uv_run(&uv_, UV_RUN_NOWAIT);
  } else if (timeout.count() < 0) {
    uv_run(&uv_, UV_RUN_ONCE);
  } else {
    // libuv counts from a clock it rounds down: one millisecond more, never to be early.
    uv_update_time(&uv_);
    const auto ms = static_cast<std::uint64_t>(ceil<milliseconds>(timeout).count()) + 1;
    uv_timer_start(
        &timer_, [](uv_timer_t*) {}, ms, 0);
    uv_run(&uv_, UV_RUN_ONCE);
    uv_timer_stop(&timer_);
  }
  touched_ = false;
  run_posted();
}

int portable_loop::attach(descriptor& d) noexcept {
  auto* w = new (std::nothrow) portable_watch;
  if (w == nullptr) return ENOMEM;
  // uv_poll_init makes the open file non-blocking, for everybody who shares it. Undone: our own
  // sockets have chosen, and other people's files are none of our business.
  int number = d.fd();
  const int flags = ::fcntl(number, F_GETFL);
  if (d.is_shared()) {
    number = w->duplicate = ::fcntl(number, F_DUPFD_CLOEXEC, 0);
    if (number < 0) {
      delete w;
      return errno;
    }
  }
  if (const int status = uv_poll_init(&uv_, &w->handle, number); status != 0) {
    if (w->duplicate >= 0) ::close(w->duplicate);
    delete w;
    return -status;
  }
  if (flags >= 0 && (flags & O_NONBLOCK) == 0) {
    ::fcntl(number, F_SETFL, flags);
    // Whoever looked in between saw what is not so.
    file_flags_epoch.fetch_add(1, std::memory_order_acq_rel);
  }
  w->handle.data = w;
  w->update.run = &portable_loop::update;
  w->entry = &d;
  w->generation = d.generation();
  d.watch = w;
  registered_.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

void portable_loop::set_mask(portable_watch& w, int mask) noexcept {
  if (mask == w.armed) return;
  w.armed = mask;
  touched_ = true;
  if (mask == 0) uv_poll_stop(&w.handle);
  else uv_poll_start(&w.handle, mask, &portable_loop::on_event);
}

void portable_loop::changed(portable_watch& w) noexcept {
  if (const owner_use owner(*this); owner) {
    set_mask(w, w.wanted);
  } else if (!w.queued) {
    w.queued = true;
    post(w.update);
  }
}

void portable_loop::arm(descriptor& d, direction way) noexcept {
  portable_watch& w = *d.watch;
  const int bit = way == direction::read ? UV_READABLE : UV_WRITABLE;
  if ((w.wanted & bit) != 0) return;
  w.wanted |= bit;
  changed(w);
}

void portable_loop::on_event(uv_poll_t* handle, int status, int events) {
  auto& w = *static_cast<portable_watch*>(handle->data);
  portable_loop& self = loop_of(w);
  {
    std::lock_guard hold(w.entry->lock());
    if (w.orphan) return;
    int mask = w.wanted;
    if (status < 0) {
      mask = w.armed = 0;  // libuv has stopped it
    } else {
      // Room to write would be reported for ever. Reads follow each other: that stays armed, unless
      // this report finds nobody waiting.
      if ((events & UV_WRITABLE) != 0) mask &= ~UV_WRITABLE;
      if ((events & UV_READABLE) != 0 && !w.entry->has_waiters(direction::read))
        mask &= ~UV_READABLE;
    }
    w.wanted = mask;
    self.set_mask(w, mask);
  }
  // An end of the stream behind the data is not told apart, nor needs it be: the level is reported
  // again to whoever waits after a short read.
  const bool broken = status < 0;
  w.entry->deliver(w.generation, (events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0, broken);
}

void portable_loop::stop(portable_watch& w) noexcept {
  touched_ = true;
  uv_poll_stop(&w.handle);
  uv_close(reinterpret_cast<uv_handle_t*>(&w.handle),
           [](uv_handle_t* h) { delete static_cast<portable_watch*>(h->data); });
  registered_.fetch_sub(1, std::memory_order_relaxed);
}

void portable_loop::update(loop_task& task) noexcept {
  auto& w = *reinterpret_cast<portable_watch*>(reinterpret_cast<char*>(&task) -
                                               offsetof(portable_watch, update));
  portable_loop& self = loop_of(w);
  int close_fd = -1;
  {
    std::lock_guard hold(w.entry->lock());
    w.queued = false;
    if (!w.orphan) {
      self.set_mask(w, w.wanted);
      return;
    }
    close_fd = w.duplicate >= 0 ? w.duplicate : w.close_fd;
  }
  self.stop(w);
  if (close_fd >= 0) ::close(close_fd);
}

void portable_loop::forget(descriptor& d) noexcept {
  portable_watch& w = *d.watch;
  const owner_use owner(*this);
  d.watch = nullptr;
  w.orphan = true;
  if (!w.queued && owner) {
    stop(w);
    if (w.duplicate >= 0) ::close(w.duplicate);  // the watch lives until the loop runs
  } else if (!w.queued) {
    w.queued = true;
    post(w.update);
  }
}

int portable_loop::detach(descriptor& d, bool keep) noexcept {
  portable_watch& w = *d.watch;
  const owner_use owner(*this);  // the same answer for forget() below
  int mine = d.fd();
  if (w.duplicate >= 0) {
    // The open file goes at once; the duplicate's number when the owner has stopped watching it.
    if (w.queued || !owner) ::dup3(idle_[0], w.duplicate, O_CLOEXEC);
  } else if (w.queued || !owner) {
    // The number goes over to the owner; what it stood for is closed, or handed out, right now.
    w.close_fd = mine;
    int handed_out = -1;
    if (keep) handed_out = ::fcntl(mine, F_DUPFD_CLOEXEC, 0);
    ::dup3(idle_[0], mine, O_CLOEXEC);
    mine = handed_out;
  }
  forget(d);
  return mine;
}

}  // namespace

std::unique_ptr<poller> make_portable_poller() { return std::make_unique<portable_loop>(); }

}  // namespace tendril::detail
