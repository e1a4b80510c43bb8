// SPDX-License-Identifier: Apache-2.0
//
// ambient<T>: a value that a flow of control carries along and its children inherit, without being passed as
// an argument: a request's id, a locale, a tenant. Others call it AsyncLocal or a context variable.
//
//     tendril::ambient<std::string> request;
//
//     request.set("GET /");
//     tendril::spawn([] { log(request.get()); });  // "GET /", whatever the parent sets from now on
//
// Each flow (fiber or plain thread) has its values. A child starts with its parent's at that moment, sharing
// them: starting a child costs one atomic increment when there are any, and nothing when there are none, nor
// for a thunk that does not wait.
// Setting copies the table of values (not the values), so nobody else's change.
//
// What becomes of what a *callee* sets is a choice of the caller's:
//
//   flow up   the caller sees it: a plain call. Fits fibers, where a callee is nothing special.
//   restore   the caller does not: ambient_flow::restoring(f), ambient_scope. What async methods of today's
//             languages do at every call.
//   capture   the values are taken as an object that outlives the flow (ambient_values), and put in force
//             again by whoever continues: ambient_flow::capturing(f), captured(f). For callbacks,
//             continuations, coroutines.
//
// Rejected: a scope that counts a reference to the snapshot that it saves: two atomic operations a call, when
// the flow's own reference can be lent (detail/flow.hpp). A hash table for many variables: programs have a
// few, and copying is what setting costs.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/ambient_snapshot.hpp>
#include <tendril/detail/flow.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

namespace tendril {

/// A variable of which each flow has its own value.
///
/// T is copied by get(). Its values are shared by flows that inherit them, are never changed, and are destroyed
/// by whoever gives up the last reference: T's destructor must not wait. The variable may be destroyed at any
/// time when nobody calls its members; values of it that are still carried go when their flows end or change,
/// those that a thunk had from its caller at its end.
///
/// \threads each flow its own value; any number of flows
template <class T>
class ambient {
  static_assert(std::is_object_v<T> && !std::is_const_v<T> && !std::is_array_v<T>);

 public:
  ambient() requires std::is_default_constructible_v<T> : initial_() {}
  /// \param initial  what get() returns in a flow in which nothing has been set
  explicit ambient(T initial) : initial_(std::move(initial)) {}
  ambient(const ambient&) = delete;
  ambient& operator=(const ambient&) = delete;

  /// \switch no
  /// \cost   one thread-local read, and a search of the flow's few variables
  T get() const {
    const T* const found = get_if();
    return found != nullptr ? *found : initial_;
  }
  /// The value set in this flow or inherited; null: none. Valid until this flow sets the variable, or leaves
  /// the scope in which it was set.
  const T* get_if() const {
    const std::uintptr_t word = detail::this_flow().ambient;
    if (word == 0) return nullptr;
    const detail::ambient_box* const box = detail::snapshot_in(word)->find(key_);
    return box != nullptr ? &static_cast<const value_box*>(box)->value : nullptr;
  }
  /// From now on, for this flow and the children it starts from now on.
  ///
  /// \throws std::bad_alloc; what T's constructor throws. Nothing has changed then.
  /// \cost   two allocations; O(variables set)
  void set(T value) {
    detail::set_ambient(detail::this_flow(), key_, new value_box(std::move(value)));
  }
  /// get() returns the initial value again.
  /// \throws std::bad_alloc
  void clear() { detail::set_ambient(detail::this_flow(), key_, nullptr); }

 private:
  struct value_box : detail::ambient_box {
    explicit value_box(T v) : ambient_box(&destroy_box), value(std::move(v)) {}
    static void destroy_box(ambient_box* b) noexcept { delete static_cast<value_box*>(b); }
    const T value;
  };

  const std::uint64_t key_ = detail::new_ambient_key();
  const T initial_;
};

/// What is set while it lives is undone at its end, for all variables: the values are those that they were.
///
/// Lives and dies in one flow, nested, on its stack. Not in a coroutine across a co_await: the coroutine may be
/// continued by another flow (a task keeps its values itself).
///
/// \cost  one thread-local read; no allocation, no atomic operation
class ambient_scope {
 public:
  ambient_scope() : flow_(detail::this_flow()), saved_(flow_.ambient) {
    flow_.ambient = detail::borrowed(saved_);
  }
  ~ambient_scope() {
    const std::uintptr_t now = std::exchange(flow_.ambient, saved_);
    if (now != detail::borrowed(saved_)) [[unlikely]]
      detail::release_ambient(now);  // runs destructors, which find the values put back
  }
  ambient_scope(const ambient_scope&) = delete;
  ambient_scope& operator=(const ambient_scope&) = delete;
  static void* operator new(std::size_t) = delete;

 private:
  friend class ambient_values;
  detail::flow_locals& flow_;
  const std::uintptr_t saved_;
};

/// All ambient values of a flow at one moment.
///
/// \threads as any value; several flows may run() in one object at once
class ambient_values {
 public:
  /// None set.
  ambient_values() noexcept = default;
  ambient_values(const ambient_values& other) noexcept
      : word_(detail::share_ambient(other.word_)) {}
  ambient_values(ambient_values&& other) noexcept : word_(std::exchange(other.word_, 0)) {}
  ambient_values& operator=(ambient_values other) noexcept {
    std::swap(word_, other.word_);
    return *this;
  }
  ~ambient_values() { detail::release_ambient(word_); }

  /// The calling flow's; none under suppress_flow.
  ///
  /// \cost  one thread-local read; an atomic increment when there are any
  static ambient_values capture() {
    ambient_values result;
    result.word_ = detail::ambient_for_child(detail::this_flow());
    return result;
  }

  bool empty() const noexcept { return word_ == 0; }

  /// The calling flow's are these from now on.
  void restore() const& {
    detail::replace_ambient(detail::this_flow(), detail::share_ambient(word_));
  }
  void restore() && {
    detail::flow_locals& flow = detail::this_flow();
    detail::replace_ambient(flow, std::exchange(word_, 0));
  }

  /// f() in these values; afterwards the flow has its own again. Lvalues: *this outlives the call.
  template <class F>
  decltype(auto) run(F&& f) const& {
    const ambient_scope around;
    around.flow_.ambient = detail::borrowed(word_);
    return std::invoke(std::forward<F>(f));
  }
  /// The same where f may destroy what *this is part of.
  template <class F>
  decltype(auto) run(F&& f) && {
    const ambient_scope around;
    around.flow_.ambient = std::exchange(word_, 0);
    return std::invoke(std::forward<F>(f));
  }

 private:
  friend struct ambient_flow;
  static ambient_values current() {
    ambient_values result;
    result.word_ = detail::share_ambient(detail::this_flow().ambient);
    return result;
  }
  std::uintptr_t word_ = 0;  // owned
};

/// While it lives, children and captures of this flow get no ambient values.
class suppress_flow {
 public:
  suppress_flow()
      : flow_(detail::this_flow()), outer_(std::exchange(flow_.ambient_suppressed, true)) {}
  ~suppress_flow() { flow_.ambient_suppressed = outer_; }
  suppress_flow(const suppress_flow&) = delete;
  suppress_flow& operator=(const suppress_flow&) = delete;
  static void* operator new(std::size_t) = delete;

 private:
  detail::flow_locals& flow_;
  const bool outer_;
};

/// What becomes of the ambient values that a callee sets.
enum class ambient_mode {
  flow_up,  ///< the caller sees them
  restore,  ///< the caller has its own again, when the call is over
  capture,  ///< the same, by a counted copy of the caller's, which are put in force in whichever flow is then
            ///< the caller's
};

/// Calls in the three modes.
struct ambient_flow {
  template <class F>
  static decltype(auto) flowing_up(F&& f) {
    return std::invoke(std::forward<F>(f));
  }
  /// \cost  <= 3 ns more than the call
  template <class F>
  static decltype(auto) restoring(F&& f) {
    const ambient_scope around;
    return std::invoke(std::forward<F>(f));
  }
  template <class F>
  static decltype(auto) capturing(F&& f) {
    const restored_at_end around{ambient_values::current()};
    return std::invoke(std::forward<F>(f));
  }
  template <ambient_mode Mode, class F>
  static decltype(auto) call(F&& f) {
    if constexpr (Mode == ambient_mode::flow_up) return flowing_up(std::forward<F>(f));
    else if constexpr (Mode == ambient_mode::restore) return restoring(std::forward<F>(f));
    else return capturing(std::forward<F>(f));
  }

  /// A callable that runs f in the values that the calling flow has now, whichever flow calls it.
  template <class F>
  static auto captured(F&& f) {
    return [values = ambient_values::capture(),
            f = std::decay_t<F>(std::forward<F>(f))](auto&&... a) mutable -> decltype(auto) {
      return values.run(
          [&]() -> decltype(auto) { return std::invoke(f, std::forward<decltype(a)>(a)...); });
    };
  }

 private:
  struct restored_at_end {
    ambient_values values;
    ~restored_at_end() { std::move(values).restore(); }
  };
};

}  // namespace tendril
