// SPDX-License-Identifier: Apache-2.0
//
// Several buffers that are written as one: what is left of them after a part has been written. The caller's
// array is his, and stays as it is; a copy of it is made when a buffer has been written in part.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <new>

namespace tendril::detail {

inline std::size_t total_bytes(const iovec* parts, std::size_t count) noexcept {
  std::size_t sum = 0;
  for (std::size_t i = 0; i != count; ++i) sum += parts[i].iov_len;
  return sum;
}

class rest_of_parts {
 public:
  rest_of_parts(const iovec* parts, std::size_t count) noexcept : parts_(parts), count_(count) {}
  ~rest_of_parts() { delete[] copy_; }
  rest_of_parts(const rest_of_parts&) = delete;
  rest_of_parts& operator=(const rest_of_parts&) = delete;

  /// What follows the first `done` bytes of all; `done` never goes back. False: no memory.
  bool skip_to(std::size_t done) noexcept {
    if (done == done_) return true;
    if (copy_ == nullptr) {
      copy_ = new (std::nothrow) iovec[count_];
      if (copy_ == nullptr) return false;
      for (std::size_t i = 0; i != count_; ++i) copy_[i] = parts_[i];
      parts_ = copy_;
    }
    std::size_t skip = done - done_;
    done_ = done;
    auto* first = const_cast<iovec*>(parts_);
    while (count_ != 0 && skip >= first->iov_len) {
      skip -= first->iov_len;
      ++first;
      --count_;
    }
    if (count_ != 0) {
      first->iov_base = static_cast<char*>(first->iov_base) + skip;
      first->iov_len -= skip;
    }
    parts_ = first;
    return true;
  }
  const iovec* parts() const noexcept { return parts_; }
  std::size_t count() const noexcept { return count_; }

 private:
  const iovec* parts_;
  std::size_t count_;
  std::size_t done_ = 0;
  iovec* copy_ = nullptr;
};

}  // namespace tendril::detail
