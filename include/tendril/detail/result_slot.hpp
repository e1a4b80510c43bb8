// SPDX-License-Identifier: Apache-2.0
//
// Where a result lies: nothing yet, a value (or a reference, or void's), an exception. When it is
// empty it remembers why, so that misuse can be told from misuse.
#pragma once

#include <tendril/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril::detail {

enum class slot_kind : std::uint8_t {
  empty,     ///< never had a result
  moved,     ///< it was moved to another slot
  consumed,  ///< it was read
  value,
  exception,
};

template <class T>
class result_slot {
  using stored =
      std::conditional_t<std::is_void_v<T>, std::tuple<>,
                         std::conditional_t<std::is_reference_v<T>, std::add_pointer_t<T>, T>>;

 public:
  result_slot() noexcept {}
  result_slot(const result_slot&) = delete;
  result_slot& operator=(const result_slot&) = delete;
  ~result_slot() { reset(); }

  bool empty() const noexcept { return kind_ < slot_kind::value; }
  slot_kind kind() const noexcept { return kind_; }
  /// Precondition: empty.
  void mark(slot_kind why) noexcept { kind_ = why; }

  template <class... U>
  void emplace(U&&... value) {
    if constexpr (std::is_reference_v<T>) ::new (raw()) stored(std::addressof(value)...);
    else ::new (raw()) stored(std::forward<U>(value)...);
    kind_ = slot_kind::value;
  }
  void fail(std::exception_ptr e) noexcept {
    ::new (raw()) std::exception_ptr(std::move(e));
    kind_ = slot_kind::exception;
  }
  /// Empty afterwards, also when it throws.
  T take() {
    const cleared at_end{*this};
    if (kind_ == slot_kind::exception) std::rethrow_exception(std::move(exception()));
    if constexpr (std::is_reference_v<T>) return static_cast<T>(*value());
    else if constexpr (!std::is_void_v<T>) return std::move(value());
  }
  /// As take, but the result stays. Any number of readers at a time.
  std::add_lvalue_reference_t<const T> peek() const {
    auto& self = const_cast<result_slot&>(*this);
    if (kind_ == slot_kind::exception) std::rethrow_exception(self.exception());
    if constexpr (std::is_reference_v<T>) return static_cast<T&>(*self.value());
    else if constexpr (!std::is_void_v<T>) return self.value();
  }
  /// Null: it has none.
  std::exception_ptr error() const noexcept {
    return kind_ == slot_kind::exception ? const_cast<result_slot&>(*this).exception() : nullptr;
  }
  /// Precondition: empty. When a value's move constructor throws, nothing has changed.
  void move_from(result_slot& other) noexcept(std::is_nothrow_move_constructible_v<stored>) {
    if (other.kind_ == slot_kind::exception) {
      fail(std::move(other.exception()));
    } else if (other.kind_ == slot_kind::value) {
      ::new (raw()) stored(std::move(other.value()));
      kind_ = slot_kind::value;
    } else {
      kind_ = other.kind_;
    }
    other.reset(slot_kind::moved);
  }
  void reset(slot_kind why = slot_kind::empty) noexcept {
    if (kind_ == slot_kind::exception) std::destroy_at(&exception());
    else if (kind_ == slot_kind::value) std::destroy_at(std::addressof(value()));
    kind_ = why;
  }

  /// While it is empty, its room is its owner's: a pointer's worth.
  void lend_room(void* p) noexcept { std::memcpy(storage_, &p, sizeof p); }
  void* lent() const noexcept {
    void* p;
    std::memcpy(&p, storage_, sizeof p);
    return p;
  }

 private:
  struct cleared {
    result_slot& slot;
    ~cleared() { slot.reset(slot_kind::consumed); }
  };

  void* raw() noexcept { return static_cast<void*>(storage_); }
  stored& value() noexcept { return *std::launder(reinterpret_cast<stored*>(storage_)); }
  std::exception_ptr& exception() noexcept {
    return *std::launder(reinterpret_cast<std::exception_ptr*>(storage_));
  }

  static constexpr std::size_t bytes = sizeof(stored) > sizeof(std::exception_ptr)
                                           ? sizeof(stored)
                                           : sizeof(std::exception_ptr);
  static constexpr std::size_t alignment = alignof(stored) > alignof(std::exception_ptr)
                                               ? alignof(stored)
                                               : alignof(std::exception_ptr);
  static_assert(bytes >= sizeof(void*));

  alignas(alignment) std::byte storage_[bytes];
  slot_kind kind_ = slot_kind::empty;
};

}  // namespace tendril::detail
