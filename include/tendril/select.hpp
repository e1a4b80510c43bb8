// SPDX-License-Identifier: Apache-2.0
//
// select: one of several channel operations, whichever can be done first.
//
//     tendril::select(
//         tendril::on_receive(requests, [&](std::optional<request> r) { ... }),  // nullopt: closed
//         tendril::on_send(replies, std::move(answer), [&] { ... }),
//         tendril::on_timeout(5s, [&] { ... }));
//
// Among operations that are ready at once each is chosen with the same probability. Otherwise the
// caller waits on all and exactly one of them happens. The protocol is in src/sync/select.cpp.
#pragma once

#include <tendril/channel.hpp>
#include <tendril/config.hpp>
#include <tendril/detail/timed.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <stop_token>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

/// One operation as the algorithm sees it. Lives in the selecting function; others only ever see the
/// node and the cell, which are on the heap.
class select_case {
 public:
  channel_base& on() const noexcept { return channel_; }

  /// Lock held. Does it if it can be done now, or can never be done (closed).
  virtual bool try_locked(waiter*& wake) noexcept = 0;
  /// Lock held: prepares the cell for whoever will complete the node.
  virtual void offer(void* cell) noexcept = 0;
  /// The wait is over and the node is unlinked. `waiting`: another case was chosen, or none.
  virtual void conclude(void* cell, outcome result) noexcept = 0;

 protected:
  select_case(channel_base& channel, bool sends) noexcept : channel_(channel), sends_(sends) {}
  virtual ~select_case() = default;

 private:
  friend class select_wait;
  wait_list& list() const noexcept { return sends_ ? channel_.senders_ : channel_.receivers_; }

  channel_base& channel_;
  const bool sends_;
};

inline constexpr std::size_t no_case = static_cast<std::size_t>(-1);

/// Returns the index of the case that was done; no_case when none could be done (with `poll`) or the
/// deadline passed.
/// \throws std::system_error  operation_canceled, timed_out (deadline_scope); std::bad_alloc
TENDRIL_API std::size_t select_among(select_case* const* cases, std::size_t count, bool poll,
                                     time_point deadline, const std::stop_token* stop);

template <class T>
class send_case final : public select_case {
  using slots = channel_slot<T>;
  using slot = typename slots::type;

 public:
  send_case(channel<T>& to, T& source)
      : select_case(to, true), to_(to), source_(source), value_(slots::wrap(std::move(source))) {}
  ~send_case() override {
    if (!sent_) slots::give_back(std::move(value_), source_);
  }
  send_case(const send_case&) = delete;
  send_case& operator=(const send_case&) = delete;

  bool try_locked(waiter*& wake) noexcept override {
    closed_ = to_.closed_;
    if (closed_) return true;
    return sent_ = to_.give_locked(value_, wake);
  }
  void offer(void* cell) noexcept override { ::new (cell) slot(std::move(value_)); }
  void conclude(void* cell, outcome result) noexcept override {
    if (result == outcome::signalled) {
      sent_ = true;  // the receiver has emptied the cell
      return;
    }
    closed_ = result == outcome::closed;
    slot* const own = std::launder(static_cast<slot*>(cell));
    std::destroy_at(std::addressof(value_));
    std::construct_at(std::addressof(value_), std::move(*own));
    std::destroy_at(own);
  }
  bool closed() const noexcept { return closed_; }

 private:
  channel<T>& to_;
  T& source_;
  slot value_;
  bool sent_ = false;
  bool closed_ = false;
};

template <class T, class F>
class receive_case final : public select_case {
  using slots = channel_slot<T>;
  using slot = typename slots::type;

 public:
  explicit receive_case(channel<T>& from) noexcept : select_case(from, false), from_(from) {}

  bool try_locked(waiter*& wake) noexcept override {
    return from_.take_locked(got_, wake) || from_.closed_;
  }
  void offer(void*) noexcept override {}
  void conclude(void* cell, outcome result) noexcept override {
    if (result != outcome::signalled) return;
    slot* const full = std::launder(static_cast<slot*>(cell));
    got_.emplace(std::move(*full));
    std::destroy_at(full);
  }
  std::optional<T> take() { return slots::unwrap(std::move(got_)); }

 private:
  channel<T>& from_;
  std::optional<slot> got_;
};

// What the user writes, before it is turned into cases: plain aggregates that can be returned and
// stored. begin() makes the case in place; then either finish() runs the handler or pass_over()
// undoes what begin() did.

template <class T, class F>
struct receive_clause {
  channel<T>& from;
  F handler;
  std::optional<receive_case<T, F>> run{};

  select_case* begin() { return &run.emplace(from); }
  void pass_over() noexcept {}
  void finish() { std::invoke(handler, run->take()); }
};

template <class T, class F>
struct send_clause {
  channel<T>& to;
  T* source;               // null: own
  std::optional<T> own{};  // when the value was given as an rvalue
  F handler;
  std::optional<send_case<T>> run{};

  select_case* begin() { return &run.emplace(to, source != nullptr ? *source : *own); }
  void pass_over() noexcept { run.reset(); }
  void finish() {
    if (run->closed()) throw std::system_error(make_error_code(errc::channel_closed), "select");
    std::invoke(handler);
  }
};

template <class F>
struct deadline_clause {
  time_point deadline;
  F handler;

  select_case* begin() { return nullptr; }
  void pass_over() noexcept {}
  void finish() { std::invoke(handler); }
};

template <class F>
struct default_clause {
  F handler;

  select_case* begin() { return nullptr; }
  void pass_over() noexcept {}
  void finish() { std::invoke(handler); }
};

template <class Clause>
inline constexpr bool is_deadline = false;
template <class F>
inline constexpr bool is_deadline<deadline_clause<F>> = true;
template <class Clause>
inline constexpr bool is_default = false;
template <class F>
inline constexpr bool is_default<default_clause<F>> = true;

template <class... Clauses>
std::size_t select_clauses(const std::stop_token* stop, Clauses&... clauses) {
  constexpr std::size_t count = sizeof...(Clauses);
  static_assert(count != 0, "select: no cases");
  static_assert((0 + ... + int(is_default<Clauses>)) <= 1, "select: more than one on_default");
  constexpr bool poll = (false || ... || is_default<Clauses>);

  std::array<select_case*, count> cases{};
  std::array<std::size_t, count> places{};
  std::size_t channels = 0;
  std::size_t place = 0;
  std::size_t otherwise = no_case;  // what happens when no channel case does
  time_point deadline = no_deadline;
  const auto enter = [&](auto& clause) {
    using clause_type = std::remove_reference_t<decltype(clause)>;
    if constexpr (is_deadline<clause_type>) {
      if (!poll && (otherwise == no_case || clause.deadline < deadline)) {
        deadline = clause.deadline;
        otherwise = place;
      }
    } else if constexpr (is_default<clause_type>) {
      otherwise = place;
    } else {
      places[channels] = place;
      cases[channels++] = clause.begin();
    }
    ++place;
  };
  (enter(clauses), ...);

  const std::size_t done = select_among(cases.data(), channels, poll, deadline, stop);
  const std::size_t chosen = done == no_case ? otherwise : places[done];
  // Values that were not sent are back where they came from before any handler runs.
  place = 0;
  ((place++ != chosen ? clauses.pass_over() : void()), ...);
  place = 0;
  (void)((place++ == chosen ? (clauses.finish(), true) : false) || ...);
  return chosen;
}

}  // namespace detail

/// handler(std::optional<T>): the value, or nullopt when the channel is closed and drained.
template <class T, class F>
auto on_receive(channel<T>& from, F&& handler) {
  return detail::receive_clause<T, std::decay_t<F>>{.from = from,
                                                    .handler = std::forward<F>(handler)};
}

/// The value is moved from only if this case is chosen. Choosing it on a closed channel makes select
/// throw errc::channel_closed.
template <class T, class F>
auto on_send(channel<T>& to, T& value, F&& handler) {
  return detail::send_clause<T, std::decay_t<F>>{
      .to = to, .source = std::addressof(value), .handler = std::forward<F>(handler)};
}
/// The value is destroyed with the case if another is chosen.
template <class T, class F>
auto on_send(channel<T>& to, std::type_identity_t<T>&& value, F&& handler) {
  return detail::send_clause<T, std::decay_t<F>>{
      .to = to, .source = nullptr, .own = std::move(value), .handler = std::forward<F>(handler)};
}

/// Chosen when nothing else could be done until then; of several the earliest.
template <class Rep, class Period, class F>
auto on_timeout(const std::chrono::duration<Rep, Period>& d, F&& handler) {
  return detail::deadline_clause<std::decay_t<F>>{detail::deadline_after(d),
                                                  std::forward<F>(handler)};
}
template <class Clock, class Duration, class F>
auto on_deadline(const std::chrono::time_point<Clock, Duration>& t, F&& handler) {
  return detail::deadline_clause<std::decay_t<F>>{detail::deadline_at(t), std::forward<F>(handler)};
}
/// Chosen when nothing else can be done at once: select does not wait.
template <class F>
auto on_default(F&& handler) {
  return detail::default_clause<std::decay_t<F>>{std::forward<F>(handler)};
}

/// Does one of the operations, runs its handler, and returns its index. The handler runs after
/// everything else is settled, so it may use the same channels.
///
/// \throws std::system_error  operation_canceled, timed_out (deadline_scope): nothing was done then;
///         errc::channel_closed: a send was chosen whose channel is closed; what the handler throws
/// \switch yes, unless something can be done at once
/// \cost   ready: one lock a case tried; waiting: one allocation
template <class... Clauses>
std::size_t select(Clauses... clauses) {
  return detail::select_clauses(nullptr, clauses...);
}
template <class... Clauses>
std::size_t select(std::stop_token stop, Clauses... clauses) {
  return detail::select_clauses(&stop, clauses...);
}

}  // namespace tendril
