// SPDX-License-Identifier: Apache-2.0
//
// Memory to read into and to write from: std::span of bytes, and buffer(), which makes one of what
// usually holds bytes.
#pragma once

#include <cstddef>
#include <ranges>
#include <span>
#include <type_traits>

namespace tendril {

using mutable_buffer = std::span<std::byte>;
using const_buffer = std::span<const std::byte>;

namespace detail {
template <class R>
concept byte_range = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
    std::is_trivially_copyable_v<std::ranges::range_value_t<R>>;
}  // namespace detail

/// The bytes of an array, vector, string, string_view or span; mutable if the elements are.
///
/// A string literal is an array with its terminating zero: say std::string_view for text.
///
///     char data[4096];
///     auto n = stream.read_some(tendril::buffer(data));
///     stream.write_all(tendril::buffer(data, n));
template <detail::byte_range R>
auto buffer(R&& range) noexcept {
  using element = std::remove_reference_t<std::ranges::range_reference_t<R>>;
  const std::span<element> all(std::ranges::data(range), std::ranges::size(range));
  if constexpr (std::is_const_v<element>) return const_buffer(std::as_bytes(all));
  else return mutable_buffer(std::as_writable_bytes(all));
}

/// The same, at most the first `bytes` of it.
template <detail::byte_range R>
auto buffer(R&& range, std::size_t bytes) noexcept {
  auto all = tendril::buffer(range);
  return all.first(bytes < all.size() ? bytes : all.size());
}

inline mutable_buffer buffer(void* data, std::size_t bytes) noexcept {
  return {static_cast<std::byte*>(data), bytes};
}
inline const_buffer buffer(const void* data, std::size_t bytes) noexcept {
  return {static_cast<const std::byte*>(data), bytes};
}

}  // namespace tendril
