// SPDX-License-Identifier: Apache-2.0
//
// Waiting for several futures.
//
//   when_all(futures...)          future of a tuple of the values; fails if any fails, with all exceptions
//   when_all_settled(futures...)  future of a tuple of the futures, all ready; never fails
//   when_any(futures...)          future of {index of a ready one, tuple of all the futures}
//
// and each for a std::vector or two iterators. A std::future's when_all gives the futures, not the
// values, so that every use ends in a loop of get() that stops at the first exception and loses the
// others. Here the plain name gives what one wants: values. It waits for all even when one has failed
// early: the others may use the caller's variables, and their exceptions count too. One failure is
// thrown as it is, several as aggregate_error. Rejected: a list of results that are value-or-exception,
// as a ready future is just that (when_all_settled); void left out of the tuple, which shifts indices.
//
// How: one block that is the state of the future returned and has a link for each input. when_all
// counts arrivals. In when_any the first to arrive takes the links out of the other futures again, which
// are then as they were; a link that is being run meanwhile finds itself too late and only lets go of
// the block. Nothing is allocated when nothing has to be waited for (a vector's result excepted).
#pragma once

#include <tendril/config.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace tendril {

/// Several exceptions at once. what() lists them all.
class TENDRIL_API aggregate_error : public std::exception {
 public:
  /// \param errors  none of them null
  explicit aggregate_error(std::vector<std::exception_ptr> errors);
  aggregate_error(const aggregate_error&) noexcept;
  aggregate_error& operator=(const aggregate_error&) noexcept;
  ~aggregate_error() override;

  const char* what() const noexcept override;
  /// In the order of what failed.
  const std::vector<std::exception_ptr>& errors() const noexcept;

 private:
  struct content;
  std::shared_ptr<const content> content_;  // copying an exception must not throw
};

/// \param index    of one that is ready
/// \param futures  all of them, valid; more than one may be ready
template <class Sequence>
struct when_any_result {
  std::size_t index = 0;
  Sequence futures;
};

namespace detail {

[[noreturn]] TENDRIL_API void throw_nothing_to_wait_for(const char* what);
/// The exception for what failed: the one, or the aggregate. Precondition: not empty.
TENDRIL_API std::exception_ptr combine_errors(std::vector<std::exception_ptr> errors) noexcept;

template <class>
struct source_traits {
  static constexpr bool is_source = false;
};
template <class T>
struct source_traits<future<T>> {
  static constexpr bool is_source = true;
  using type = T;
};
template <class T>
struct source_traits<shared_future<T>> {
  static constexpr bool is_source = true;
  using type = T;
};
template <class S>
concept source = source_traits<S>::is_source;

/// In a tuple, and in a vector.
template <source S>
using tuple_value = std::conditional_t<std::is_void_v<typename source_traits<S>::type>,
                                       std::monostate, typename source_traits<S>::type>;
template <source S>
using vector_value =
    std::conditional_t<std::is_reference_v<tuple_value<S>>,
                       std::reference_wrapper<std::remove_reference_t<tuple_value<S>>>,
                       tuple_value<S>>;

template <class T>
auto take_value(future<T>& f) -> tuple_value<future<T>> {
  if constexpr (std::is_void_v<T>) return future_access::take(f), std::monostate();
  else return future_access::take(f);
}
template <class T>
auto take_value(shared_future<T>& f) -> tuple_value<shared_future<T>> {
  if constexpr (std::is_void_v<T>) return std::monostate();
  else return future_access::result(f).peek();
}

/// One of the futures and what is attached to it.
template <source S>
struct input : chain_link {
  explicit input(S&& s) : from(std::move(s)) {}

  bool attach(void* block, std::size_t own_index, continuation* (*arrived)(chain_link*) noexcept) {
    owner = block;
    index = own_index;
    step = arrived;
    return future_access::on_ready(from, *this, node);
  }
  bool withdraw() noexcept {
    if constexpr (std::is_same_v<S, shared_future<typename source_traits<S>::type>>)
      return future_access::withdraw(from, node);
    else return future_access::withdraw(from, *this);
  }
  /// In place of a future that cannot be waited for.
  void fail(std::exception_ptr e) {
    if constexpr (std::is_same_v<S, future<typename source_traits<S>::type>>)
      from = make_exceptional_future<typename source_traits<S>::type>(std::move(e));
  }

  S from;
  void* owner = nullptr;
  std::size_t index = 0;
  bool attached = false;
  [[no_unique_address]] source_node<S> node;
};

/// The futures of a call. each(f) calls f(index, input) for all, until one returns false.
template <class Sequence>
class inputs;

template <class... S>
class inputs<std::tuple<S...>> {
 public:
  using values = std::tuple<tuple_value<S>...>;

  explicit inputs(std::tuple<S...>&& from)
      : all_(std::apply([](S&... s) { return std::tuple<input<S>...>(std::move(s)...); }, from)) {}
  static constexpr std::size_t size() noexcept { return sizeof...(S); }
  template <class F>
  void each(F f) {
    std::size_t i = 0;
    std::apply([&](auto&... in) { static_cast<void>((f(i++, in) && ...)); }, all_);
  }
  void values_into(result_slot<values>& slot) {
    std::apply([&](auto&... in) { slot.emplace(values{take_value(in.from)...}); }, all_);
  }
  std::tuple<S...> take_sources() {
    return std::apply([](auto&... in) { return std::tuple<S...>{std::move(in.from)...}; }, all_);
  }

 private:
  std::tuple<input<S>...> all_;
};

template <class S>
class inputs<std::vector<S>> {
  static constexpr bool nothing = std::is_void_v<typename source_traits<S>::type>;

 public:
  using values = std::conditional_t<nothing, void, std::vector<vector_value<S>>>;

  explicit inputs(std::vector<S>&& from) {
    all_.reserve(from.size());
    for (S& s : from) all_.emplace_back(std::move(s));
  }
  std::size_t size() const noexcept { return all_.size(); }
  template <class F>
  void each(F f) {
    std::size_t i = 0;
    for (input<S>& in : all_)
      if (!f(i++, in)) return;
  }
  void values_into(result_slot<values>& slot) {
    if constexpr (nothing) {
      slot.emplace();
    } else {
      values result;
      result.reserve(all_.size());
      for (input<S>& in : all_) result.push_back(take_value(in.from));
      slot.emplace(std::move(result));
    }
  }
  std::vector<S> take_sources() {
    std::vector<S> result;
    result.reserve(all_.size());
    for (input<S>& in : all_) result.push_back(std::move(in.from));
    return result;
  }

 private:
  std::vector<input<S>> all_;
};

// ---- What the result is ----------------------------------------------------------------------

/// The values, or what failed.
struct give_values {
  template <class Sequence>
  using result = typename inputs<Sequence>::values;

  template <class Sequence>
  static void assemble(inputs<Sequence>& in, result_slot<result<Sequence>>& slot) {
    std::vector<std::exception_ptr> errors;
    in.each([&](std::size_t, auto& one) {
      if (std::exception_ptr e = future_access::result(one.from).error())
        errors.push_back(std::move(e));
      return true;
    });
    if (errors.empty()) in.values_into(slot);
    else slot.fail(combine_errors(std::move(errors)));
  }
};

struct give_futures {
  template <class Sequence>
  using result = Sequence;

  template <class Sequence>
  static void assemble(inputs<Sequence>& in, result_slot<Sequence>& slot) {
    slot.emplace(in.take_sources());
  }
};

template <class Give, class Sequence>
void assemble_or_fail(inputs<Sequence>& in,
                      result_slot<typename Give::template result<Sequence>>& slot) noexcept {
  try {
    Give::assemble(in, slot);
  } catch (...) {
    slot.fail(std::current_exception());
  }
}

/// What both kinds of block do about their inputs.
template <class Result, class Sequence>
class inputs_state : public future_state<Result> {
 public:
  future_state_base* source(std::size_t index, source_use use) noexcept override {
    if (!this->life.lock_if_open()) return nullptr;
    future_state_base* found = nullptr;
    std::size_t seen = 0;
    // Those that have no state (born ready, or not to be stopped) are not counted.
    in_.each([&](std::size_t, auto& one) {
      future_state_base* const s = future_access::state(one.from, use);
      if (s != nullptr && seen++ == index) found = s;
      return found == nullptr;
    });
    if (found != nullptr) found->life.add_reader();
    this->life.unlock();
    return found;
  }

 protected:
  explicit inputs_state(inputs<Sequence>&& in) : in_(std::move(in)) {}
  ~inputs_state() = default;

  inputs<Sequence> in_;
};

// ---- when_all --------------------------------------------------------------------------------

template <class Give, class Sequence>
class all_state final : public inputs_state<typename Give::template result<Sequence>, Sequence> {
  using base = inputs_state<typename Give::template result<Sequence>, Sequence>;

 public:
  explicit all_state(inputs<Sequence>&& in) : base(std::move(in)), missing_(this->in_.size() + 1) {}

  /// Whoever arrives last may have destroyed this when it returns.
  void attach() noexcept {
    std::size_t here = 1;  // ourselves
    this->in_.each([&](std::size_t i, auto& one) {
      try {
        here += one.attach(this, i, &arrived<std::remove_reference_t<decltype(one)>>) ? 0U : 1U;
      } catch (...) {
        one.fail(std::current_exception());
        ++here;
      }
      return true;
    });
    if (continuation* const next = arrive(here)) next->run(next);
  }

 private:
  template <class Input>
  static continuation* arrived(chain_link* link) noexcept {
    return static_cast<all_state*>(static_cast<Input*>(link)->owner)->arrive(1);
  }
  continuation* arrive(std::size_t count) noexcept {
    // Acquire, for the last: the others' results. Release, for the others: theirs.
    if (missing_.fetch_sub(count, std::memory_order_acq_rel) != count) return nullptr;
    this->life.close();
    assemble_or_fail<Give>(this->in_, this->result);
    continuation* const next = this->ready.complete_and_take();
    this->release_producer();
    return next;
  }
  void destroy() noexcept override { delete this; }

  std::atomic<std::size_t> missing_;
};

template <class Give, class Sequence>
auto start_all(Sequence&& sources) -> future<typename Give::template result<Sequence>> {
  using result = typename Give::template result<Sequence>;
  inputs<Sequence> in(std::move(sources));
  bool ready = true;
  in.each([&](std::size_t, auto& one) {
    future_access::require_valid(one.from);
    ready = ready && one.from.is_ready();
    return true;
  });
  if (ready) {
    future<result> out;
    assemble_or_fail<Give>(in, future_access::result(out));
    return out;
  }
  auto* const s = new all_state<Give, Sequence>(std::move(in));
  auto out = future_access::make<result>(s);
  s->attach();
  return out;
}

// ---- when_any --------------------------------------------------------------------------------

/// Who has won, and whether all links are in place: what lets exactly one finish, and not too early.
///
///   nothing --arm--> armed --win--> finish      nothing --win--> won --arm--> finish
template <class Word = std::atomic<std::size_t>>
class basic_race_word {
 public:
  enum class win_result { too_late, first, finish };

  win_result win(std::size_t index) noexcept {
    std::size_t w = word_.load(std::memory_order_relaxed);
    do {
      if ((w & ~armed) != 0) return win_result::too_late;
      // Acquire pairs with arm()'s release: who finishes sees which links are in place.
    } while (!word_.compare_exchange_weak(w, w | ((index + 1) << 1), std::memory_order_acq_rel,
                                          std::memory_order_relaxed));
    return (w & armed) != 0 ? win_result::finish : win_result::first;
  }
  /// True: somebody has won before; the caller finishes.
  bool arm() noexcept {
    // Acquire pairs with win()'s release: the winner's result.
    return word_.fetch_add(armed, std::memory_order_acq_rel) != 0;
  }
  std::size_t winner() const noexcept { return (word_.load(std::memory_order_relaxed) >> 1) - 1; }

 private:
  static constexpr std::size_t armed = 1;
  Word word_{0};
};

template <class Sequence>
class any_state final : public inputs_state<when_any_result<Sequence>, Sequence> {
  using base = inputs_state<when_any_result<Sequence>, Sequence>;
  using race_word = basic_race_word<>;

 public:
  explicit any_state(inputs<Sequence>&& in) : base(std::move(in)) {}
  bool needs_every_source() const noexcept override { return false; }

  /// Whoever finishes may have destroyed this when it returns.
  void attach() noexcept {
    this->in_.each([&](std::size_t i, auto& one) {
      this->life.add_reader();  // the link's
      try {
        one.attached = true;  // first: it may run at once
        if (one.attach(this, i, &arrived<std::remove_reference_t<decltype(one)>>)) return true;
      } catch (...) {
        one.fail(std::current_exception());
      }
      one.attached = false;
      this->release_reader();
      static_cast<void>(race_.win(i));  // not armed, so not to finish; perhaps a link was faster
      return false;
    });
    if (!race_.arm()) return;
    if (continuation* const next = finish()) next->run(next);
  }

 private:
  template <class Input>
  static continuation* arrived(chain_link* link) noexcept {
    auto* const in = static_cast<Input*>(link);
    auto* const self = static_cast<any_state*>(in->owner);
    continuation* next = nullptr;
    if (self->race_.win(in->index) == race_word::win_result::finish) next = self->finish();
    self->release_reader();
    return next;
  }
  continuation* finish() noexcept {
    this->life.close();
    this->in_.each([&](std::size_t, auto& one) {
      // Not those that run or have run: they let go by themselves, of the block alone.
      if (one.attached && one.withdraw()) this->release_reader();
      return true;
    });
    try {
      this->result.emplace(when_any_result<Sequence>{race_.winner(), this->in_.take_sources()});
    } catch (...) {
      this->result.fail(std::current_exception());
    }
    continuation* const next = this->ready.complete_and_take();
    this->release_producer();
    return next;
  }
  void destroy() noexcept override { delete this; }

  race_word race_;
};

template <class Sequence>
future<when_any_result<Sequence>> start_any(Sequence&& sources) {
  inputs<Sequence> in(std::move(sources));
  if (in.size() == 0) throw_nothing_to_wait_for("tendril::when_any");
  std::size_t ready = in.size();
  in.each([&](std::size_t i, auto& one) {
    future_access::require_valid(one.from);
    if (ready == in.size() && one.from.is_ready()) ready = i;
    return true;
  });
  if (ready != in.size())
    return make_ready_future<when_any_result<Sequence>>(
        when_any_result<Sequence>{ready, in.take_sources()});
  auto* const s = new any_state<Sequence>(std::move(in));
  auto out = future_access::make<when_any_result<Sequence>>(s);
  s->attach();
  return out;
}

template <class Iterator>
auto moved_range(Iterator first, Iterator last) {
  using type = typename std::iterator_traits<Iterator>::value_type;
  std::vector<type> v;
  v.reserve(static_cast<std::size_t>(std::distance(first, last)));
  for (; first != last; ++first) {
    if constexpr (std::is_copy_constructible_v<type>) v.push_back(*first);
    else v.push_back(std::move(*first));
  }
  return v;
}

template <class Iterator>
concept source_iterator = source<typename std::iterator_traits<Iterator>::value_type>;

}  // namespace detail

/// The values of all, once all are ready: a tuple of T, T& and, for void, std::monostate; of a vector of
/// futures a vector (references as std::reference_wrapper), of future<void> nothing.
///
///     auto [user, orders] = tendril::when_all(tendril::async(load_user), tendril::async(load_orders)).get();
///
/// get() throws what failed: the exception of the one, or aggregate_error of several in the order of the
/// futures. A stop request goes to all that are not shared. One that somebody else waits for already
/// counts as failed by future_already_retrieved.
///
/// \param futures  future<T> (moved in) and shared_future<T> (values are copied out)
/// \throws std::future_error  no_state: one is not valid
/// \switch no
/// \cost   one allocation, two for a vector; none for a tuple when all are ready
template <detail::source... Futures>
auto when_all(Futures... futures) -> future<std::tuple<detail::tuple_value<Futures>...>> {
  return detail::start_all<detail::give_values>(std::tuple<Futures...>(std::move(futures)...));
}
template <detail::source Future>
auto when_all(std::vector<Future> futures) {
  return detail::start_all<detail::give_values>(std::move(futures));
}
/// Futures are moved out of the range, shared ones copied.
template <detail::source_iterator Iterator>
auto when_all(Iterator first, Iterator last) {
  return detail::start_all<detail::give_values>(detail::moved_range(first, last));
}

/// The futures themselves, once all are ready, however they ended: a tuple or a vector. Otherwise as when_all.
template <detail::source... Futures>
auto when_all_settled(Futures... futures) -> future<std::tuple<Futures...>> {
  return detail::start_all<detail::give_futures>(std::tuple<Futures...>(std::move(futures)...));
}
template <detail::source Future>
auto when_all_settled(std::vector<Future> futures) {
  return detail::start_all<detail::give_futures>(std::move(futures));
}
template <detail::source_iterator Iterator>
auto when_all_settled(Iterator first, Iterator last) {
  return detail::start_all<detail::give_futures>(detail::moved_range(first, last));
}

/// Which is ready first, and all the futures: the others are as they were, and can be waited for, or be given
/// to when_any again.
///
/// get() throws only when moving the futures did. A stop request goes to all that are not shared.
///
/// \throws std::future_error  no_state: one is not valid
/// \throws std::system_error  invalid_argument: there are none, so none would ever be ready
/// \switch no
/// \cost   as when_all; O(number of futures)
template <detail::source... Futures>
auto when_any(Futures... futures) -> future<when_any_result<std::tuple<Futures...>>> {
  return detail::start_any(std::tuple<Futures...>(std::move(futures)...));
}
template <detail::source Future>
auto when_any(std::vector<Future> futures) {
  return detail::start_any(std::move(futures));
}
template <detail::source_iterator Iterator>
auto when_any(Iterator first, Iterator last) {
  return detail::start_any(detail::moved_range(first, last));
}

}  // namespace tendril
