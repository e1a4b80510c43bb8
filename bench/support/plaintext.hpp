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
#include <span>
#include <string_view>

namespace bench::plaintext {

inline constexpr std::string_view request = "GET /plaintext HTTP/1.1\r\nHost: tendril-bench\r\n\r\n";
inline constexpr std::string_view response_start = "HTTP/1.1 200 OK\r\n";

/// The bytes of one connection that have arrived but do not yet make a whole request.
class request_buffer {
 public:
  static constexpr std::size_t capacity = 4096;
  static constexpr int malformed = -1;

  /// Where the next read goes. Never empty: a head that fills the buffer is malformed.
  std::span<char> space() noexcept { return {data_.data() + used_, capacity - used_}; }

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

/// Renders responses. The Date header changes once a second, so a batch is kept rendered and copied
/// out; the copy is what lets a server that waits in the middle of a write keep its bytes. One
/// responder per thread.
class responder {
 public:
  static constexpr std::size_t max_batch = 32;
  static constexpr std::size_t max_bytes = max_batch * 160;
  using buffer = std::array<char, max_bytes>;

  /// Fills `out` with min(count, max_batch) responses, subtracts them from `count`.
  std::string_view render(int& count, buffer& out) noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != second_) prepare(now.tv_sec);
    const std::size_t n = std::min<std::size_t>(static_cast<std::size_t>(count), max_batch);
    count -= static_cast<int>(n);
    std::memcpy(out.data(), batch_.data(), n * one_);
    return {out.data(), n * one_};
  }

 private:
  void prepare(std::time_t second) noexcept {
    second_ = second;
    std::tm parts{};
    ::gmtime_r(&second, &parts);
    constexpr std::string_view before = "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: ";
    constexpr std::string_view after = "\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
    char* p = std::copy(before.begin(), before.end(), batch_.data());
    p += std::strftime(p, 64, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    p = std::copy(after.begin(), after.end(), p);
    one_ = static_cast<std::size_t>(p - batch_.data());
    for (std::size_t i = 1; i < max_batch; ++i) std::memcpy(batch_.data() + i * one_, batch_.data(), one_);
  }

  std::array<char, max_bytes> batch_;
  std::size_t one_ = 0;
  std::time_t second_ = -1;
};

}  // namespace bench::plaintext
