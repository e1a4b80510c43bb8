// SPDX-License-Identifier: Apache-2.0
#include "io/descriptor.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.hpp"
#include "base/static_tables.hpp"
#include "base/yield.hpp"
#include "io/io_loop.hpp"

namespace tendril::detail {
namespace {

std::error_code from_errno(int error) noexcept { return {error, std::system_category()}; }

// The table: chunks of entries, allocated when a number of theirs is first adopted, never freed.
constexpr std::size_t chunk_bits = 10;
constexpr std::size_t chunk_entries = std::size_t{1} << chunk_bits;
constexpr std::size_t chunk_count = 4096;  // 4 M descriptors; Linux's default ceiling is 1 M

using chunk = std::array<descriptor, chunk_entries>;
std::array<std::atomic<chunk*>, chunk_count> chunks{};
const static_table chunks_noted(chunks);

descriptor& obtain_entry(int fd) {
  const auto number = static_cast<std::size_t>(fd);
  if (number >= chunk_count * chunk_entries)
    throw std::system_error(EMFILE, std::system_category(), "descriptor beyond tendril's table");
  auto& place = chunks[number >> chunk_bits];
  // Acquire pairs with the exchange below: the entries are constructed.
  chunk* c = place.load(std::memory_order_acquire);
  if (c == nullptr) {
    auto* fresh = new chunk;
    if (place.compare_exchange_strong(c, fresh, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
      c = fresh;
    else delete fresh;  // another was faster, c is its chunk
  }
  return (*c)[number & (chunk_entries - 1)];
}

/// The way to wake a thread out of poll(2): a pipe it listens to as well. One a thread, made at its
/// first blocking call.
class thread_pipe {
 public:
  thread_pipe() {
    if (::pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0)
      throw std::system_error(errno, std::system_category(), "pipe2");
  }
  ~thread_pipe() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  thread_pipe(const thread_pipe&) = delete;
  thread_pipe& operator=(const thread_pipe&) = delete;

  int listening_end() const noexcept { return ends_[0]; }
  int ringing_end() const noexcept { return ends_[1]; }
  void clear() const noexcept {
    char bytes[64];
    while (::read(ends_[0], bytes, sizeof bytes) > 0) {
    }
  }
  static void ring(int ringing_end) noexcept {
    const char byte = 0;
    // EAGAIN: the pipe is full of rings that nobody has answered yet.
    [[maybe_unused]] const auto n = ::write(ringing_end, &byte, 1);
  }

 private:
  int ends_[2];
};

}  // namespace

// ---- entering and leaving

bool descriptor::enter(std::uint32_t generation) noexcept {
  auto word = word_.load(std::memory_order_relaxed);
  do {
    if (static_cast<std::uint32_t>(word >> 32) != generation || (word & closing_bit) != 0)
      return false;
    // Acquire: what adopt() wrote about this generation.
  } while (!word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire,
                                        std::memory_order_relaxed));
  return true;
}

void descriptor::leave(std::uint32_t generation) noexcept {
  auto word = word_.load(std::memory_order_relaxed);
  do {
    // The number was closed behind our back and adopted again: nothing of the old count is left.
    if (static_cast<std::uint32_t>(word >> 32) != generation) return;
    // Release: our system calls stay before; acquire: the last one sees everybody's.
  } while (!word_.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel,
                                        std::memory_order_relaxed));
  if ((word & closing_bit) != 0 && (word & users_mask) == 1 && (word & keep_bit) == 0)
    finish_close(false);
}

bool descriptor::begin_close(std::uint32_t generation, std::uint64_t bits) noexcept {
  auto word = word_.load(std::memory_order_relaxed);
  do {
    if (static_cast<std::uint32_t>(word >> 32) != generation || (word & closing_bit) != 0)
      return false;
    // Counts the closer as a user, so that the number lives until it has woken everybody.
  } while (!word_.compare_exchange_weak(word, (word | bits) + 1, std::memory_order_acq_rel,
                                        std::memory_order_relaxed));
  return true;
}

/// Out of line: leave(), which every operation calls, must name no unsplit code (platform/split_stack.hpp).
[[gnu::noinline]] int descriptor::finish_close(bool keep) noexcept {
  int number;
  {
    std::lock_guard hold(lock_);
    number = fd_;
    if (home_ != nullptr) {
      number = home_->detach(*this, keep);
      home_ = nullptr;
    }
  }
  // The last thing: from here on the number may be open again, and adopted by another thread.
  if (!keep && number >= 0) ::close(number);
  return number;
}

// ---- waking

void descriptor::wake_one(direction d) noexcept {
  waiter* who = nullptr;
  {
    std::lock_guard hold(lock_);
    side& s = side_of(d);
    // The token goes to the waiter, unless another took it meanwhile: that one gives it back in turn.
    if (!s.waiters.empty() && (s.state.fetch_and(~ready, std::memory_order_acq_rel) & ready) != 0)
      who = hand_over(s);
    else if (s.waiters.empty()) s.state.fetch_and(~waiting, std::memory_order_relaxed);
  }
  if (who != nullptr) unpark(who);
}

waiter* descriptor::hand_over(side& s) noexcept {
  return complete(*s.waiters.pop_front());  // `waiting` stays: the next wait finds it set
}

void descriptor::deliver(std::uint32_t generation, bool readable, bool writable,
                         bool hangup) noexcept {
  waiter* who[2] = {nullptr, nullptr};
  {
    std::lock_guard hold(lock_);
    if (!is_open(generation)) return;
    if (hangup) {
      readable = writable = true;
      // Release pairs with may_have_drained(). Before the token: who reads by this token sees it.
      hangup_.store(true, std::memory_order_release);
    }
    const bool is_ready[2] = {readable, writable};
    for (unsigned i = 0; i < 2; ++i) {
      if (!is_ready[i]) continue;
      side& s = sides_[i];
      // The token is there already and nobody waits: nothing to tell. Whoever takes that token makes
      // its system call afterwards, and finds what this event is about. (Writability comes along with
      // every event; without this look it would cost a locked operation each time.)
      if (s.state.load(std::memory_order_acquire) == ready) continue;
      if (!s.waiters.empty()) who[i] = hand_over(s);
      else s.state.fetch_or(ready, std::memory_order_acq_rel);
    }
  }
  for (waiter* w : who)
    if (w != nullptr) unpark(w);
}

void descriptor::wake_all(std::uint32_t generation, direction d, outcome result) noexcept {
  // In portions, as unparking wants the lock released and nothing may be allocated. Who was woken to
  // look at something new and waits again is not woken twice: only as many as were there at first.
  std::size_t left = SIZE_MAX;
  while (left != 0) {
    std::array<waiter*, 16> who;
    std::size_t count = 0;
    {
      std::lock_guard hold(lock_);
      if (static_cast<std::uint32_t>(word_.load(std::memory_order_acquire) >> 32) != generation)
        return;
      side& s = side_of(d);
      if (left == SIZE_MAX) {
        left = 0;
        for (const wait_node* n = s.waiters.front(); n != nullptr; n = n->next) ++left;
        for (blocked_thread* t = threads_; t != nullptr; t = t->next) thread_pipe::ring(t->wake_fd);
      }
      for (; left != 0 && count < who.size(); --left) {
        wait_node* node = s.waiters.pop_front();
        if (node == nullptr) left = 1;  // the others gave up meanwhile
        else who[count++] = complete(*node, result);
      }
      if (s.waiters.empty()) s.state.fetch_and(~waiting, std::memory_order_relaxed);
    }
    for (std::size_t i = 0; i < count; ++i) unpark(who[i]);
  }
}

void descriptor::wake_everybody(std::uint32_t generation) noexcept {
  wake_all(generation, direction::read, outcome::closed);
  wake_all(generation, direction::write, outcome::closed);
}

void descriptor::abandon(io_loop& loop) noexcept {
  std::uint32_t generation;
  {
    std::lock_guard hold(lock_);
    if (home_ != &loop) return;
    loop.forget(*this);
    home_ = nullptr;
    generation = this->generation();
  }
  wake_all(generation, direction::read, outcome::signalled);
  wake_all(generation, direction::write, outcome::signalled);
}

// ---- waiting

int descriptor::attach_here() noexcept {
  io_loop& here = io_loop::here();
  if (home_ == &here) {
    away_ = 0;
    return 0;
  }
  constexpr std::uint16_t patience = 10;
  if (home_ != nullptr) {
    if (++away_ < patience || !here.can_move() || !home_->can_move()) return 0;
    home_->forget(*this);
    home_ = nullptr;
  }
  away_ = 0;
  const int error = here.attach(*this);
  if (error == 0) home_ = &here;
  return error;
}

std::error_code descriptor::wait(std::uint32_t generation, direction d, const wait_options& how,
                                 bool retried) {
  // Ends before the fiber parks. Should the worker change its thread in between, it keeps its loop.
  std::optional<worker_use> here(std::in_place, worker_use::may_move{});
  waiter* const self = current_waiter();
  side& s = side_of(d);
  lock_.lock();
  if (!is_open(generation)) {
    lock_.unlock();
    return std::make_error_code(std::errc::bad_file_descriptor);
  }
  if (const int error = attach_here(); error != 0) {
    lock_.unlock();
    return from_errno(error);
  }
  // Invariant 6. Where `waiting` is set already, whoever gives a token from here on comes to the lock;
  // where it is not, one read-modify-write announces us and looks for a token.
  std::uint32_t state = s.state.load(std::memory_order_acquire);
  if ((state & waiting) == 0) state = s.state.fetch_or(waiting, std::memory_order_acq_rel);
  while ((state & ready) != 0) {
    state = s.state.fetch_and(~ready, std::memory_order_acq_rel);
    if ((state & ready) == 0) break;  // another took it
    lock_.unlock();
    return {};
  }
  wait_node& node = own_node(self);
  // Who was woken for a token that another was quicker to take keeps its place.
  if (retried) s.waiters.push_front(node);
  else s.waiters.push_back(node);
  home_->arm(*this, d);
  io_loop::here().add_pending();
  here.reset();
  const outcome result = wait_locked(lock_, s.waiters, node, how);
  here.emplace(worker_use::may_move{});
  io_loop::here().remove_pending();  // perhaps another loop by now
  here.reset();
  if (result == outcome::signalled) return {};
  if (result == outcome::closed) return std::make_error_code(std::errc::bad_file_descriptor);
  return to_error(result);
}

int descriptor::enlist(std::uint32_t generation, direction d, wait_node& node,
                       bool& took_token) noexcept {
  const worker_use here{worker_use::may_move{}};
  std::lock_guard hold(lock_);
  if (!is_open(generation)) return EBADF;
  if (const int error = attach_here(); error != 0) return error;
  side& s = side_of(d);
  s.state.fetch_or(waiting, std::memory_order_acq_rel);  // invariant 6
  took_token = (s.state.fetch_and(~ready, std::memory_order_acq_rel) & ready) != 0;
  s.waiters.push_back(node);
  home_->arm(*this, d);
  return 0;
}

bool descriptor::delist(direction d, wait_node& node) noexcept {
  std::lock_guard hold(lock_);
  if (node.result.load(std::memory_order_acquire) != outcome::waiting) return true;
  side_of(d).waiters.remove(node);
  return false;
}

std::error_code descriptor::pause(std::uint32_t generation, direction d, const wait_options& how) {
  waiter* const self = current_waiter();
  side& s = side_of(d);
  for (;;) {
    lock_.lock();
    if (!is_open(generation)) {
      lock_.unlock();
      return std::make_error_code(std::errc::bad_file_descriptor);
    }
    s.state.fetch_or(waiting, std::memory_order_relaxed);
    wait_node& node = own_node(self);
    s.waiters.push_back(node);
    const outcome result = wait_locked(lock_, s.waiters, node, how);
    if (result == outcome::timed_out) return {};
    if (result == outcome::closed) return std::make_error_code(std::errc::bad_file_descriptor);
    if (result != outcome::signalled) return to_error(result);
    // An event: the token is put down, for when the pause is over.
    s.state.fetch_or(ready, std::memory_order_acq_rel);
  }
}

std::error_code descriptor::sleep_in_poll(std::uint32_t generation, int fd, short events,
                                          time_point deadline) {
  about_to_block("a descriptor");
  thread_local const thread_pipe
      mine;  // threads, and fibers pinned to theirs: nothing switches here
  blocked_thread self{nullptr, mine.ringing_end()};
  {
    std::lock_guard hold(lock_);
    if (!is_open(generation)) return std::make_error_code(std::errc::bad_file_descriptor);
    self.next = threads_;
    threads_ = &self;
  }
  std::array<pollfd, 2> both{pollfd{mine.listening_end(), POLLIN, 0}, pollfd{fd, events, 0}};
  timespec left{};
  if (deadline != no_deadline) {
    const auto ns = std::chrono::ceil<std::chrono::nanoseconds>(deadline - clock::now()).count();
    if (ns > 0) {
      left.tv_sec = static_cast<time_t>(ns / 1'000'000'000);
      left.tv_nsec = static_cast<long>(ns % 1'000'000'000);
    }
  }
  const int n =
      ::ppoll(both.data(), fd >= 0 ? 2 : 1, deadline == no_deadline ? nullptr : &left, nullptr);
  const int error = n < 0 ? errno : 0;
  {
    std::lock_guard hold(lock_);
    for (blocked_thread** link = &threads_; *link != nullptr; link = &(*link)->next) {
      if (*link == &self) {
        *link = self.next;
        break;
      }
    }
    if ((both[0].revents & POLLIN) != 0) mine.clear();
    if (!is_open(generation)) return std::make_error_code(std::errc::bad_file_descriptor);
  }
  if (n == 0) return std::make_error_code(std::errc::timed_out);
  if (error != 0 && error != EINTR) return from_errno(error);
  return {};
}

std::error_code descriptor::block(std::uint32_t generation, direction d, time_point deadline) {
  return sleep_in_poll(generation, fd_, d == direction::read ? POLLIN : POLLOUT, deadline);
}

std::error_code descriptor::block_until(std::uint32_t generation, time_point until) {
  for (;;) {
    const std::error_code ec = sleep_in_poll(generation, -1, 0, until);
    if (ec == std::errc::timed_out) return {};
    if (ec) return ec;
  }
}

// ---- deadlines

time_point descriptor::deadline_of(direction d, time_point& begun) const noexcept {
  const side& s = sides_[index(d)];
  time_point end{clock::duration(s.deadline.load(std::memory_order_acquire))};
  const std::chrono::nanoseconds timeout(s.timeout.load(std::memory_order_acquire));
  if (timeout.count() > 0) {
    if (begun == time_point{}) begun = clock::now();
    if (no_deadline - begun > timeout && begun + timeout < end) end = begun + timeout;
  }
  return end;
}

void descriptor::set_deadline(std::uint32_t generation, direction d, time_point deadline) noexcept {
  side_of(d).deadline.store(deadline.time_since_epoch().count(), std::memory_order_release);
  wake_all(generation, d, outcome::signalled);  // to look at it
}

void descriptor::set_timeout(std::uint32_t generation, direction d,
                             std::chrono::nanoseconds timeout) noexcept {
  side_of(d).timeout.store(timeout.count(), std::memory_order_release);
  wake_all(generation, d, outcome::signalled);
}

// ---- the table

descriptor* find_descriptor(int fd) noexcept {
  const auto number = static_cast<std::size_t>(fd);
  if (fd < 0 || number >= chunk_count * chunk_entries) return nullptr;
  chunk* c = chunks[number >> chunk_bits].load(std::memory_order_acquire);
  return c != nullptr ? &(*c)[number & (chunk_entries - 1)] : nullptr;
}

void prefetch_descriptor(int fd) noexcept {
  if (const descriptor* const d = find_descriptor(fd)) {
    __builtin_prefetch(d, 1);
    __builtin_prefetch(reinterpret_cast<const char*>(d) + 64, 1);
  }
}

descriptor_ref adopt_descriptor(int fd, descriptor_kind kind) {
  descriptor& d = obtain_entry(fd);
  auto word = d.word_.load(std::memory_order_acquire);
  // Open by the table, yet given to us as new: the number was closed behind our back. Its waiters get
  // EBADF; the count of its operations is dropped with the generation.
  if ((word & descriptor::closing_bit) == 0) {
    const auto old = static_cast<std::uint32_t>(word >> 32);
    if (d.begin_close(old, descriptor::closing_bit | descriptor::keep_bit)) d.wake_everybody(old);
    word = d.word_.load(std::memory_order_acquire);
  }
  auto generation = static_cast<std::uint32_t>(word >> 32) + 1;
  if (generation == 0) generation = 1;
  std::lock_guard hold(d.lock_);
  if (d.home_ != nullptr) {
    d.home_->forget(d);
    d.home_ = nullptr;
  }
  d.fd_ = fd;
  d.kind_ = kind;
  d.away_ = 0;
  d.hangup_.store(false, std::memory_order_relaxed);
  d.streak_.store(0, std::memory_order_relaxed);
  for (auto& s : d.sides_) {
    s.state.store(descriptor::ready, std::memory_order_relaxed);
    s.deadline.store(no_deadline.time_since_epoch().count(), std::memory_order_relaxed);
    s.timeout.store(0, std::memory_order_relaxed);
  }
  // Release: pairs with enter()'s acquire.
  d.word_.store(descriptor::word_of(generation), std::memory_order_release);
  return {fd, generation};
}

descriptor_ref share_descriptor(int fd, descriptor_kind (*kind)(int)) {
  static tiny_lock adopting;  // two who see a number for the first time must not adopt it in turn
  descriptor& d = obtain_entry(fd);
  auto word = d.word_.load(std::memory_order_acquire);
  if ((word & descriptor::closing_bit) != 0) {
    const descriptor_kind k = kind(fd);
    std::lock_guard hold(adopting);
    word = d.word_.load(std::memory_order_acquire);
    if ((word & descriptor::closing_bit) != 0) return adopt_descriptor(fd, k);
  }
  return {fd, static_cast<std::uint32_t>(word >> 32)};
}

drop_result drop_descriptor(int fd) noexcept {
  descriptor* const d = find_descriptor(fd);
  if (d == nullptr) return drop_result::unknown;
  const auto before = d->word_.load(std::memory_order_acquire);
  if ((before & descriptor::closing_bit) != 0)
    return (before & descriptor::users_mask) != 0 ? drop_result::closing : drop_result::unknown;
  const auto generation = static_cast<std::uint32_t>(before >> 32);
  if (!d->begin_close(generation, descriptor::closing_bit | descriptor::keep_bit))
    return drop_result::closing;
  d->wake_everybody(generation);
  for (int patience = 1000;
       (d->word_.load(std::memory_order_acquire) & descriptor::users_mask) != 1 && patience > 0;
       --patience)
    yield_thread();
  {
    std::lock_guard hold(d->lock_);
    if (d->home_ != nullptr) {
      d->home_->detach(*d, false);
      d->home_ = nullptr;
    }
  }
  // Whom we did not wait for finds another generation. Unless the number is somebody's anew already.
  const std::uint32_t next = generation + 1 != 0 ? generation + 1 : 1;
  auto word = d->word_.load(std::memory_order_relaxed);
  while (static_cast<std::uint32_t>(word >> 32) == generation &&
         !d->word_.compare_exchange_weak(word, descriptor::word_of(next) | descriptor::closing_bit,
                                         std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
  return drop_result::dropped;
}

std::error_code close_descriptor(descriptor_ref ref) noexcept {
  descriptor* d = ref.valid() ? find_descriptor(ref.fd) : nullptr;
  if (d == nullptr || !d->begin_close(ref.generation, descriptor::closing_bit))
    return std::make_error_code(std::errc::bad_file_descriptor);
  // Nobody in, nobody to wake: the common case of a connection closed by its only fiber.
  if ((d->word_.load(std::memory_order_acquire) & descriptor::users_mask) != 1)
    d->wake_everybody(ref.generation);
  d->leave(ref.generation);
  return {};
}

int release_descriptor(descriptor_ref ref) noexcept {
  descriptor* d = ref.valid() ? find_descriptor(ref.fd) : nullptr;
  if (d == nullptr ||
      !d->begin_close(ref.generation, descriptor::closing_bit | descriptor::keep_bit))
    return -1;
  d->wake_everybody(ref.generation);
  const int fd = d->finish_close(true);
  d->leave(ref.generation);
  return fd;
}

descriptor_ref current_descriptor(int fd) noexcept {
  const descriptor* d = find_descriptor(fd);
  return d != nullptr ? descriptor_ref{fd, d->generation()} : descriptor_ref{};
}

void for_each_descriptor(void (*f)(descriptor&, void*), void* argument) noexcept {
  for (auto& place : chunks)
    if (chunk* c = place.load(std::memory_order_acquire))
      for (descriptor& d : *c) f(d, argument);
}

void for_each_adopted(unsigned first, unsigned last, void (*f)(int fd) noexcept) noexcept {
  for (std::size_t c = first >> chunk_bits; c < chunk_count && c <= last >> chunk_bits; ++c) {
    if (chunks[c].load(std::memory_order_acquire) == nullptr) continue;
    for (std::size_t i = 0; i != chunk_entries; ++i) {
      const std::size_t fd = c << chunk_bits | i;
      if (fd >= first && fd <= last && find_descriptor(static_cast<int>(fd))->is_adopted())
        f(static_cast<int>(fd));
    }
  }
}

}  // namespace tendril::detail
