// SPDX-License-Identifier: Apache-2.0
//
// The protocol half of every plaintext server in E7. The comparison is about I/O, so all servers run
// exactly this code on requests and send exactly these bytes; what differs is who reads and writes.
//
// Only what the experiment needs of HTTP/1.1: GET requests without a body on a keep-alive connection,
// pipelined or not, split or coalesced by TCP in any way. Anything else ends the connection.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <ctime>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace bench::plaintext {

inline constexpr std::string_view request =
    "GET /plaintext HTTP/1.1\r\nHost: tendril-bench\r\n\r\n";
inline constexpr std::string_view response_start = "HTTP/1.1 200 OK\r\n";

/// The bytes of one connection that have arrived but do not yet make a whole request.
class request_buffer {
 public:
  static constexpr std::size_t capacity = 4096;
  static constexpr int malformed = -1;

  /// Where the next read goes. Never empty: a head that fills the buffer is malformed.
  std::span<char> space() noexcept { return {data_.data() + used_, capacity - used_}; }

  bool holds_a_part() const noexcept { return used_ != 0; }

  /// `n` bytes were read into space(). Returns how many requests they complete, or malformed.
  int arrived(std::size_t n) noexcept {
    // The terminator may straddle the old end, by three bytes at most.
    std::size_t from = used_ - std::min<std::size_t>(used_, 3);
    used_ += n;
    std::size_t begin = 0;
    int complete = 0;
    while (const void* end = ::memmem(data_.data() + from, used_ - from, "\r\n\r\n", 4)) {
      if (std::memcmp(data_.data() + begin, "GET ", 4) != 0) return malformed;
      begin = from = static_cast<std::size_t>(static_cast<const char*>(end) - data_.data()) + 4;
      ++complete;
    }
    if (begin != 0) {
      used_ -= begin;
      if (used_ != 0) std::memmove(data_.data(), data_.data() + begin, used_);
    }
    return used_ == capacity ? malformed : complete;
  }

 private:
  std::array<char, capacity> data_;
  std::size_t used_ = 0;
};

/// Responses, ready to be sent. The Date header changes once a second, so a block of identical
/// responses is rendered once a second and everybody sends from it, without a copy. A batch pins its
/// block: a server that waits in the middle of a write keeps its bytes while the clock moves on.
///
/// \threads one; a responder outlives its batches
class responder {
 public:
  static constexpr std::size_t max_batch = 32;

 private:
  struct block {
    std::array<char, max_batch * 160> bytes;
    std::size_t one = 0;
    unsigned pins = 0;
  };

 public:
  class batch {
   public:
    batch(const batch&) = delete;
    batch& operator=(const batch&) = delete;
    ~batch() { --block_.pins; }
    std::string_view bytes() const noexcept { return {block_.bytes.data(), count_ * block_.one}; }

   private:
    friend class responder;
    batch(block& b, std::size_t count) noexcept : block_(b), count_(count) { ++block_.pins; }
    block& block_;
    std::size_t count_;
  };

  /// min(count, max_batch) responses; subtracts them from `count`.
  batch take(int& count) {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != second_) render(now.tv_sec);
    const std::size_t n = std::min<std::size_t>(static_cast<std::size_t>(count), max_batch);
    count -= static_cast<int>(n);
    return batch(*current_, n);
  }

 private:
  void render(std::time_t second) {
    current_ = nullptr;
    for (const auto& b : blocks_)
      if (b->pins == 0) current_ = b.get();
    if (current_ == nullptr) current_ = blocks_.emplace_back(std::make_unique<block>()).get();
    second_ = second;

    std::tm parts{};
    ::gmtime_r(&second, &parts);
    constexpr std::string_view before = "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: ";
    constexpr std::string_view after =
        "\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
    char* const start = current_->bytes.data();
    char* p = std::copy(before.begin(), before.end(), start);
    p += std::strftime(p, 64, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    p = std::copy(after.begin(), after.end(), p);
    current_->one = static_cast<std::size_t>(p - start);
    for (std::size_t i = 1; i < max_batch; ++i)
      std::memcpy(start + i * current_->one, start, current_->one);
  }

  std::vector<std::unique_ptr<block>> blocks_;
  block* current_ = nullptr;
  std::time_t second_ = -1;
};

}  // namespace bench::plaintext
