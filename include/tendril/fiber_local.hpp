// SPDX-License-Identifier: Apache-2.0
//
// fiber_local<T>: thread_local for flows of control. A variable of which each fiber, and each plain thread, has
// its own, made when it is first used there and destroyed at the fiber's or thread's end.
//
//     tendril::fiber_local<std::vector<char>> scratch([] { return std::vector<char>(4096); });
//
//     scratch->resize(0);   // this fiber's, on whatever thread it runs
//
// Idea: a variable is an index into a table that the flow has once it uses any, and a generation that tells
// it from earlier variables with the same index. Values are blocks of their own, linked from the newest to
// the oldest.
//
// The end of a flow. Values are destroyed from the newest to the oldest, by the fiber itself, which may wait in
// their destructors. A destructor may use other variables, those that are destroyed already, too: they are
// made again, and destroyed next. A value made while another is destroyed is of the next *round*; at round
// 16 the process ends with a message, since destructors that make each other's variables anew never end
// (pthread keys leak after four). An exception in a destructor terminates. fiber::join() returns after all
// this; the future of an async() may be ready before.
//
// Variables are meant to live as long as the program, but need not: one that is destroyed leaves its values
// where they are until their flows end; its index, used again, has another generation.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

/// Heads the block of a value.
struct local_value {
  local_value* older = nullptr;
  local_value* newer = nullptr;
  void (*destroy)(local_value*) noexcept = nullptr;
  std::uint64_t generation = 0;
  std::uint32_t index = 0;
  std::uint32_t round = 0;
  std::size_t bytes = 0;  ///< of the block
};

struct local_slot {
  std::uint64_t generation = 0;  ///< of `value`; 0: none; busy_bit: it is being made
  local_value* value = nullptr;
};

struct local_table {
  std::uint32_t size = 0;
  std::uint32_t round = 0;  ///< of values made now
  local_value* newest = nullptr;
  local_slot* slots = nullptr;
};

inline constexpr std::uint64_t local_busy_bit = std::uint64_t{1} << 63;

struct local_key {
  std::uint64_t generation;
  std::uint32_t index;
};
TENDRIL_API local_key new_local_key();
TENDRIL_API void free_local_key(local_key) noexcept;

/// Makes room for key's value and marks it as being made.
/// \throws std::system_error errc::would_deadlock if it is being made already; std::bad_alloc
TENDRIL_API void begin_local(flow_locals& flow, local_key key);
/// Then either: there it is; or: it could not be made.
TENDRIL_API void finish_local(flow_locals& flow, local_key key, local_value* value) noexcept;
TENDRIL_API void abandon_local(flow_locals& flow, local_key key) noexcept;
/// Destroys the flow's value of key, if there is one.
TENDRIL_API void reset_local(flow_locals& flow, local_key key) noexcept;

inline local_value* find_local(const flow_locals& flow, local_key key) noexcept {
  const local_table* const t = flow.locals;
  if (t == nullptr || key.index >= t->size) return nullptr;
  const local_slot& slot = t->slots[key.index];
  return slot.generation == key.generation ? slot.value : nullptr;
}

}  // namespace detail

/// \threads each flow its own value; any number of flows
template <class T>
class fiber_local {
  static_assert(std::is_object_v<T> && !std::is_array_v<T>);

 public:
  /// Values start as T().
  fiber_local() requires std::is_default_constructible_v<T> : fiber_local([] { return T(); }) {}
  /// Values start as what make() returns, called by the flow at its first use. make may wait, and may use
  /// other fiber_locals.
  template <class F>
  requires(std::is_invocable_r_v<T, F&> &&
           !std::is_same_v<std::remove_cvref_t<F>, fiber_local>) explicit fiber_local(F make)
      : make_(std::move(make)) {}
  ~fiber_local() { detail::free_local_key(key_); }
  fiber_local(const fiber_local&) = delete;
  fiber_local& operator=(const fiber_local&) = delete;

  /// This flow's. The reference holds until the flow ends or calls reset(), and is the flow's own: it is
  /// the same variable after a switch.
  ///
  /// \throws  at the flow's first use: std::bad_alloc; what make throws, then the next use tries again;
  ///          std::system_error errc::would_deadlock when make uses the variable that it makes
  /// \switch  if make does
  /// \cost    one thread-local read and an indexed one; the first use allocates
  T& get() const {
    detail::flow_locals& flow = detail::this_flow();
    if (detail::local_value* const v = detail::find_local(flow, key_)) [[likely]]
      return static_cast<block*>(v)->value;
    return create(flow);
  }
  T& operator*() const { return get(); }
  T* operator->() const { return std::addressof(get()); }

  /// Null: this flow has not used it.
  T* get_if() const {
    detail::local_value* const v = detail::find_local(detail::this_flow(), key_);
    return v != nullptr ? std::addressof(static_cast<block*>(v)->value) : nullptr;
  }
  /// Destroys this flow's value; the next use makes a new one.
  void reset() const { detail::reset_local(detail::this_flow(), key_); }

 private:
  struct block : detail::local_value {
    explicit block(const std::function<T()>& make) : value(make()) {
      destroy = [](detail::local_value* v) noexcept { delete static_cast<block*>(v); };
      bytes = sizeof(block);
    }
    T value;
  };

  [[gnu::noinline]] T& create(detail::flow_locals& flow) const {
    detail::begin_local(flow, key_);
    block* fresh;
    try {
      fresh = new block(make_);
    } catch (...) {
      detail::abandon_local(flow, key_);
      throw;
    }
    detail::finish_local(flow, key_, fresh);
    return fresh->value;
  }

  const std::function<T()> make_;
  const detail::local_key key_ = detail::new_local_key();
};

}  // namespace tendril
