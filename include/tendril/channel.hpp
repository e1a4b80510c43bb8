// SPDX-License-Identifier: Apache-2.0
//
// channel<T>: values handed from fiber to fiber (or thread), in order, with a bounded buffer or none.
// Waiting on several channels: <tendril/select.hpp>.
//
// What the implementation rests on
//  1. One spinlock guards the ring, the two lists and `closed`. Under it values are only moved, and
//     only by moves that cannot throw: a T whose move may throw, or that is larger than a waiter's
//     cell, travels as a pointer to the heap, boxed before the lock is taken. So no exception ever
//     finds the channel half changed, and no user code that could wait runs under the lock.
//  2. Who waits lends a cell of its own wait block: a receiver an empty one, a sender one with its
//     value in it. Nobody ever writes to or reads from another's stack.
//  3. Receivers wait only while the buffer and the senders' list are empty; senders only while the
//     buffer is full; neither after close(), which completes them all with outcome::closed. (Nodes of
//     a select that was won elsewhere may still stand in a list: they cannot be claimed, and are
//     passed over.)
//  4. A completed wait counts, even when it was cancelled meanwhile: a value in a receiver's cell is
//     returned, and a sender whose value is still in its cell gets it back.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/error.hpp>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <system_error>
#include <type_traits>
#include <utility>

namespace tendril {

template <class T>
class channel;

namespace detail {

/// What the nodes of one select share; node.claim points at its first member.
struct select_group {
  std::atomic<std::uint32_t> claim{0};
  completion done;
};
static_assert(std::is_standard_layout_v<select_group>);  // so that claim's address is the group's

/// How a T lies in the ring and in cells: itself, or boxed.
template <class T>
struct channel_slot {
  static constexpr bool direct = sizeof(T) <= own_cell_bytes && alignof(T) <= 16 &&
                                 std::is_nothrow_move_constructible_v<T> &&
                                 std::is_nothrow_destructible_v<T>;
  using type = std::conditional_t<direct, T, std::unique_ptr<T>>;

  template <class U>
  static type wrap(U&& value) {
    if constexpr (direct) return T(std::forward<U>(value));
    else return std::make_unique<T>(std::forward<U>(value));
  }
  static std::optional<T> unwrap(std::optional<type>&& slot) {
    if constexpr (direct) return std::move(slot);
    else return slot ? std::optional<T>(std::move(**slot)) : std::nullopt;
  }
  /// Undoes a move out of `source`.
  static void give_back(type&& slot, T& source) {
    if constexpr (direct) {
      std::destroy_at(std::addressof(source));
      std::construct_at(std::addressof(source), std::move(slot));
    } else if constexpr (std::is_move_assignable_v<T>) {
      source = std::move(*slot);
    }
  }
};

/// What does not depend on the element.
class TENDRIL_API channel_base {
 public:
  channel_base(const channel_base&) = delete;
  channel_base& operator=(const channel_base&) = delete;

  /// Senders fail from now on, those that wait included; receivers drain what is buffered, then learn
  /// of the end. Closing twice does nothing. Never switches.
  void close() noexcept;
  bool is_closed() const noexcept;
  /// Values buffered right now.
  std::size_t size() const noexcept;
  std::size_t capacity() const noexcept { return capacity_; }

 protected:
  explicit channel_base(std::size_t capacity) noexcept : capacity_(capacity) {}
  ~channel_base();

  /// The first node that can be completed, unlinked; null if there is none. Lock held.
  static wait_node* take_partner(wait_list& list) noexcept {
    for (wait_node* n = list.front(); n != nullptr; n = n->next) {
      if (n->try_claim()) {
        list.remove(*n);
        return n;
      }
    }
    return nullptr;
  }
  /// As complete(), for nodes of selects too; may return null.
  static waiter* finish(wait_node& node, outcome result) noexcept {
    if (node.claim == nullptr) return complete(node, result);
    auto* const group = reinterpret_cast<select_group*>(node.claim);
    node.result.store(result, std::memory_order_release);
    return group->done.set();  // the group lives until its owner has taken our lock
  }
  void unlock_and_unpark(waiter* who) noexcept {
    lock_.unlock();
    if (who != nullptr) unpark(who);
  }
  /// errc::channel_closed, operation_canceled or timed_out.
  [[noreturn]] static void fail(outcome result, const char* what);
  static std::error_code error_of(outcome result) noexcept;

  std::size_t wrap(std::size_t i) const noexcept { return i >= capacity_ ? i - capacity_ : i; }

  friend class select_case;
  friend class select_wait;

  mutable tiny_lock lock_;
  bool closed_ = false;
  const std::size_t capacity_;
  std::size_t head_ = 0;
  std::size_t count_ = 0;
  wait_list receivers_;
  wait_list senders_;
};

template <class T>
class send_case;
template <class T, class F>
class receive_case;

}  // namespace detail

/// A queue of at most `capacity` values; with capacity 0 each send meets a receive (rendezvous).
///
///     tendril::channel<int> numbers(8);
///     tendril::fiber producer([&] { for (int i = 0; i != 100; ++i) numbers.send(i); numbers.close(); });
///     for (int n : numbers) consume(n);
///
/// Any number of senders and receivers, fibers and threads; each side is served first come, first
/// served. Must outlive every operation on it, with one exception: who has received the last value may
/// destroy it while that send is still returning (but not while it is being cancelled, or a select).
///
/// \cost  a meeting: one lock, one move, one unpark; no allocation for elements of up to 64 bytes
///        that move without throwing, else one per value
template <class T>
class channel : public detail::channel_base {
  static_assert(std::is_object_v<T> && std::is_same_v<T, std::remove_cv_t<T>>,
                "channel<T>: T is a plain object type");
  static_assert(std::is_move_constructible_v<T>, "channel<T>: T must be movable");
  using slots = detail::channel_slot<T>;
  using slot = typename slots::type;

 public:
  using value_type = T;

  explicit channel(std::size_t capacity = 0)
      : channel_base(capacity),
        ring_(capacity != 0 ? std::allocator<slot>().allocate(capacity) : nullptr) {}
  ~channel() {
    for (; count_ != 0; --count_, head_ = wrap(head_ + 1)) std::destroy_at(ring_ + head_);
    if (ring_ != nullptr) std::allocator<slot>().deallocate(ring_, capacity_);
  }

  // ---- sending ------------------------------------------------------------------------------------
  // Forms that take T& or T&& move from it only when they succeed; when they fail the argument is as
  // it was (for a T that travels boxed: if it is move-assignable). Forms that take T by value destroy
  // it when they fail.

  /// Waits until the value is in the buffer or taken by a receiver.
  ///
  /// \throws std::system_error  errc::channel_closed; operation_canceled; timed_out (deadline_scope)
  /// \switch yes, when nobody receives and the buffer is full
  void send(T value) { send_or_throw(value, {.reason = what_send}); }
  void send(T value, std::stop_token stop) {
    send_or_throw(value, {.stop = &stop, .reason = what_send});
  }
  void send(T& value, std::error_code& ec) {
    ec = error_of(send_lvalue(value, {.reason = what_send}));
  }
  void send(T& value, std::stop_token stop, std::error_code& ec) {
    ec = error_of(send_lvalue(value, {.stop = &stop, .reason = what_send}));
  }

  /// False when it would have to wait or the channel is closed. Never switches.
  bool try_send(T&& value) { return try_send_lvalue(value); }
  bool try_send(const T& value) requires std::is_copy_constructible_v<T> {
    T copy(value);
    return try_send_lvalue(copy);
  }

  /// False when the time has passed. \throws as send()
  template <class Clock, class Duration>
  bool send_until(T&& value, const std::chrono::time_point<Clock, Duration>& t,
                  std::stop_token stop = {}) {
    return detail::attempt_until(t, [&](detail::time_point d) {
      return in_time(send_lvalue(value, {.deadline = d, .stop = &stop, .reason = what_send}),
                     what_send);
    });
  }
  template <class Clock, class Duration>
  bool send_until(const T& value, const std::chrono::time_point<Clock, Duration>& t,
                  std::stop_token stop = {}) requires std::is_copy_constructible_v<T> {
    return send_until(T(value), t, std::move(stop));
  }
  template <class Rep, class Period>
  bool send_for(T&& value, const std::chrono::duration<Rep, Period>& d, std::stop_token stop = {}) {
    return send_until(std::move(value), detail::deadline_after(d), std::move(stop));
  }
  template <class Rep, class Period>
  bool send_for(const T& value, const std::chrono::duration<Rep, Period>& d,
                std::stop_token stop = {}) requires std::is_copy_constructible_v<T> {
    return send_until(T(value), detail::deadline_after(d), std::move(stop));
  }

  // ---- receiving ----------------------------------------------------------------------------------

  /// The next value; nullopt when the channel is closed and drained. A value once handed over is
  /// returned, even if a stop was requested meanwhile.
  ///
  /// \throws std::system_error  operation_canceled; timed_out (deadline_scope); nothing is taken then
  /// \switch yes, when there is no value
  std::optional<T> receive() { return receive_or_throw({.reason = what_receive}); }
  std::optional<T> receive(std::stop_token stop) {
    return receive_or_throw({.stop = &stop, .reason = what_receive});
  }
  /// nullopt with the reason in ec: errc::channel_closed, operation_canceled, timed_out.
  std::optional<T> receive(std::error_code& ec) { return receive_ec({.reason = what_receive}, ec); }
  std::optional<T> receive(std::stop_token stop, std::error_code& ec) {
    return receive_ec({.stop = &stop, .reason = what_receive}, ec);
  }

  /// nullopt when there is none now. Never switches.
  std::optional<T> try_receive() {
    std::error_code ec;
    return try_receive(ec);
  }
  /// ec: resource_unavailable_try_again, or errc::channel_closed when there will never be one.
  std::optional<T> try_receive(std::error_code& ec) {
    std::optional<slot> got;
    detail::waiter* wake = nullptr;
    lock_.lock();
    const bool taken = take_locked(got, wake);
    const bool closed = closed_;
    unlock_and_unpark(wake);
    ec = taken    ? std::error_code()
         : closed ? make_error_code(errc::channel_closed)
                  : std::make_error_code(std::errc::resource_unavailable_try_again);
    return slots::unwrap(std::move(got));
  }

  /// nullopt when the time has passed, or the channel is closed and drained; ec tells which.
  /// The forms without ec throw for a stop request.
  template <class Clock, class Duration>
  std::optional<T> receive_until(const std::chrono::time_point<Clock, Duration>& t,
                                 std::stop_token stop = {}) {
    return unwrap_timed(receive_before(t, stop));
  }
  template <class Clock, class Duration>
  std::optional<T> receive_until(const std::chrono::time_point<Clock, Duration>& t,
                                 std::error_code& ec) {
    return receive_until(t, std::stop_token(), ec);
  }
  template <class Clock, class Duration>
  std::optional<T> receive_until(const std::chrono::time_point<Clock, Duration>& t,
                                 std::stop_token stop, std::error_code& ec) {
    auto [got, result] = receive_before(t, stop);
    ec = error_of(result);
    return slots::unwrap(std::move(got));
  }
  template <class Rep, class Period>
  std::optional<T> receive_for(const std::chrono::duration<Rep, Period>& d,
                               std::stop_token stop = {}) {
    return receive_until(detail::deadline_after(d), std::move(stop));
  }
  template <class Rep, class Period>
  std::optional<T> receive_for(const std::chrono::duration<Rep, Period>& d, std::error_code& ec) {
    return receive_until(detail::deadline_after(d), std::stop_token(), ec);
  }
  template <class Rep, class Period>
  std::optional<T> receive_for(const std::chrono::duration<Rep, Period>& d, std::stop_token stop,
                               std::error_code& ec) {
    return receive_until(detail::deadline_after(d), std::move(stop), ec);
  }

  /// Receives until the channel is closed and drained: for (T& value : channel).
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = T*;
    using reference = T&;

    iterator() = default;
    explicit iterator(channel& from) : from_(&from), value_(from.receive()) {}
    reference operator*() const { return *value_; }
    pointer operator->() const { return std::addressof(*value_); }
    iterator& operator++() {
      // Not assigned: that would ask T for more than moving.
      value_.reset();
      if (std::optional<T> next = from_->receive()) value_.emplace(std::move(*next));
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator& it, std::default_sentinel_t) { return !it.value_; }

   private:
    channel* from_ = nullptr;
    mutable std::optional<T> value_;
  };
  iterator begin() { return iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  template <class>
  friend class detail::send_case;
  template <class, class>
  friend class detail::receive_case;

  static constexpr const char* what_send = "channel::send";
  static constexpr const char* what_receive = "channel::receive";

  static slot* in_cell(void* cell) noexcept { return std::launder(static_cast<slot*>(cell)); }

  /// Lock held. False when there is nothing to take.
  bool take_locked(std::optional<slot>& out, detail::waiter*& wake) noexcept {
    if (count_ != 0) {
      slot* const front = ring_ + head_;
      out.emplace(std::move(*front));
      std::destroy_at(front);
      head_ = wrap(head_ + 1);
      --count_;
      if (detail::wait_node* const sender = take_partner(senders_)) {
        append(*in_cell(sender->cell));
        std::destroy_at(in_cell(sender->cell));
        wake = finish(*sender, detail::outcome::signalled);
      }
      return true;
    }
    if (detail::wait_node* const sender = take_partner(senders_)) {
      out.emplace(std::move(*in_cell(sender->cell)));
      std::destroy_at(in_cell(sender->cell));
      wake = finish(*sender, detail::outcome::signalled);
      return true;
    }
    return false;
  }

  /// Lock held, not closed. False when there is no room; the value is untouched then.
  bool give_locked(slot& value, detail::waiter*& wake) noexcept {
    if (detail::wait_node* const receiver = take_partner(receivers_)) {
      ::new (receiver->cell) slot(std::move(value));
      wake = finish(*receiver, detail::outcome::signalled);
      return true;
    }
    if (count_ == capacity_) return false;
    append(value);
    return true;
  }

  void append(slot& value) noexcept {
    ::new (static_cast<void*>(ring_ + wrap(head_ + count_))) slot(std::move(value));
    ++count_;
  }

  /// The value is moved from when signalled, and untouched or moved back otherwise.
  detail::outcome send_slot(slot& value, const detail::wait_options& options) {
    detail::waiter* const self = detail::current_waiter();  // may allocate: not under the lock
    detail::waiter* wake = nullptr;
    lock_.lock();
    if (closed_) [[unlikely]] {
      lock_.unlock();
      return detail::outcome::closed;
    }
    if (give_locked(value, wake)) {
      unlock_and_unpark(wake);
      return detail::outcome::signalled;
    }
    detail::wait_node& node = detail::own_node(self);
    void* const cell = detail::own_cell(self);
    node.cell = ::new (cell) slot(std::move(value));
    senders_.push_back(node);
    const detail::outcome result = detail::wait_locked(lock_, senders_, node, options);
    if (result != detail::outcome::signalled) {
      std::destroy_at(std::addressof(value));
      std::construct_at(std::addressof(value), std::move(*in_cell(cell)));
      std::destroy_at(in_cell(cell));
    }
    // Signalled: our value was taken, and the receiver may have destroyed the channel. Not touched.
    return result;
  }

  detail::outcome receive_slot(std::optional<slot>& out, const detail::wait_options& options) {
    detail::waiter* const self = detail::current_waiter();
    detail::waiter* wake = nullptr;
    lock_.lock();
    if (take_locked(out, wake)) {
      unlock_and_unpark(wake);
      return detail::outcome::signalled;
    }
    if (closed_) [[unlikely]] {
      lock_.unlock();
      return detail::outcome::closed;
    }
    detail::wait_node& node = detail::own_node(self);
    void* const cell = detail::own_cell(self);
    node.cell = cell;
    receivers_.push_back(node);
    const detail::outcome result = detail::wait_locked(lock_, receivers_, node, options);
    if (result == detail::outcome::signalled) {
      out.emplace(std::move(*in_cell(cell)));
      std::destroy_at(in_cell(cell));
    }
    detail::await_waker(lock_);
    return result;
  }

  detail::outcome send_lvalue(T& value, const detail::wait_options& options) {
    if constexpr (slots::direct) {
      return send_slot(value, options);
    } else {
      slot boxed = slots::wrap(std::move(value));
      const detail::outcome result = send_slot(boxed, options);
      if (result != detail::outcome::signalled) slots::give_back(std::move(boxed), value);
      return result;
    }
  }

  bool try_send_lvalue(T& value) {
    const auto attempt = [this](slot& s) {
      detail::waiter* wake = nullptr;
      lock_.lock();
      const bool given = !closed_ && give_locked(s, wake);
      unlock_and_unpark(wake);
      return given;
    };
    if constexpr (slots::direct) {
      return attempt(value);
    } else {
      slot boxed = slots::wrap(std::move(value));
      if (attempt(boxed)) return true;
      slots::give_back(std::move(boxed), value);
      return false;
    }
  }

  void send_or_throw(T& value, const detail::wait_options& options) {
    if constexpr (slots::direct) {
      const detail::outcome result = send_slot(value, options);
      if (result != detail::outcome::signalled) [[unlikely]]
        fail(result, what_send);
    } else {
      slot boxed = slots::wrap(std::move(value));
      const detail::outcome result = send_slot(boxed, options);
      if (result != detail::outcome::signalled) [[unlikely]]
        fail(result, what_send);
    }
  }

  std::optional<T> receive_or_throw(const detail::wait_options& options) {
    if constexpr (slots::direct) {
      std::optional<T> got;
      const detail::outcome result = receive_slot(got, options);
      if (result != detail::outcome::signalled && result != detail::outcome::closed) [[unlikely]]
        fail(result, what_receive);
      return got;
    } else {
      std::optional<slot> got;
      const detail::outcome result = receive_slot(got, options);
      if (result != detail::outcome::signalled && result != detail::outcome::closed) [[unlikely]]
        fail(result, what_receive);
      return slots::unwrap(std::move(got));
    }
  }

  std::optional<T> receive_ec(const detail::wait_options& options, std::error_code& ec) {
    std::optional<slot> got;
    ec = error_of(receive_slot(got, options));
    return slots::unwrap(std::move(got));
  }

  /// False for timed_out; throws for what else is not signalled.
  static bool in_time(detail::outcome result, const char* what) {
    if (result == detail::outcome::signalled) return true;
    if (result != detail::outcome::timed_out) fail(result, what);
    return false;
  }

  struct received {
    std::optional<slot> got;
    detail::outcome result;
  };
  template <class Clock, class Duration>
  received receive_before(const std::chrono::time_point<Clock, Duration>& t,
                          const std::stop_token& stop) {
    received r{std::nullopt, detail::outcome::timed_out};
    detail::attempt_until(t, [&](detail::time_point d) {
      r.result = receive_slot(r.got, {.deadline = d, .stop = &stop, .reason = what_receive});
      return r.result != detail::outcome::timed_out;
    });
    return r;
  }
  static std::optional<T> unwrap_timed(received&& r) {
    const bool told = r.result == detail::outcome::closed || r.result == detail::outcome::timed_out;
    if (!told && r.result != detail::outcome::signalled) fail(r.result, what_receive);
    return slots::unwrap(std::move(r.got));
  }

  slot* const ring_;
};

}  // namespace tendril
