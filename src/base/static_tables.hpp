// SPDX-License-Identifier: Apache-2.0
//
// The library's large tables in static memory. None holds a reference to an object of the program's, so a collector
// that looks through static memory is told to pass them by (<tendril/detail/stopped_threads.hpp>).
//
// A table is noted beside its definition:
//
//     constinit std::array<slab, most_slabs> slabs;
//     const static_table slabs_noted(slabs);
//
// Static initialization makes the list, and nobody changes it afterwards. Small variables are not worth a note.
#pragma once

#include <cstddef>
#include <span>

namespace tendril::detail {

class static_table {
 public:
  template <class Table>
  explicit static_table(const Table& table) noexcept
      : bytes_(std::as_bytes(std::span(table))), next_(first_) {
    first_ = this;
  }
  static_table(const static_table&) = delete;
  static_table& operator=(const static_table&) = delete;

  /// Calls visit(bytes of a table) for each.
  template <class Visit>
  static void for_each(Visit visit) {
    for (const static_table* t = first_; t != nullptr; t = t->next_) visit(t->bytes_);
  }

 private:
  static inline constinit const static_table* first_ = nullptr;
  std::span<const std::byte> bytes_;
  const static_table* next_;
};

}  // namespace tendril::detail
