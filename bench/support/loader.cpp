// SPDX-License-Identifier: Apache-2.0
#include "bench/support/loader.hpp"

#include "bench/support/plaintext.hpp"
#include "bench/support/socket.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <span>
#include <stdexcept>

namespace bench {
namespace {

std::uint64_t now_ns(clockid_t clock = CLOCK_MONOTONIC) noexcept {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
         static_cast<std::uint64_t>(t.tv_nsec);
}

/// The first request on a blocking socket. In two parts, so that every run also exercises a request split across
/// packets.
bool ask(int fd) {
  const timeval patience{60, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const std::string_view whole = plaintext::request;
  const std::string_view parts[] = {whole.substr(0, whole.size() - 2),
                                    whole.substr(whole.size() - 2)};
  for (std::string_view part : parts)
    if (::send(fd, part.data(), part.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(part.size()))
      return false;
  return true;
}

/// The size of the whole response to it, 0 if it makes no sense.
std::size_t first_response(int fd) {
  std::string text;
  for (;;) {
    if (const auto head = text.find("\r\n\r\n"); head != std::string::npos) {
      const auto length = text.find("Content-Length: ");
      if (text.rfind(plaintext::response_start, 0) != 0 || length == std::string::npos ||
          length > head)
        return 0;
      const std::size_t size = head + 4 + std::stoul(text.substr(length + 16));
      if (text.size() == size) return size;
      if (text.size() > size) return 0;
    }
    char chunk[1024];
    const ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n <= 0) return 0;
    text.append(chunk, static_cast<std::size_t>(n));
  }
}

}  // namespace

load_target::load_target(std::string name, std::uint16_t port, unsigned connections,
                         unsigned pipeline)
    : name_(std::move(name)), pipeline_(pipeline), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  for (unsigned i = 0; i < pipeline; ++i) batch_ += plaintext::request;
  connections_.resize(connections);
  // Some hundreds at a time, or each would wait for the server to be scheduled.
  constexpr std::size_t at_a_time = 256;
  constexpr std::size_t of_a_source = 16 * at_a_time;
  for (std::size_t begin = 0; begin < connections_.size(); begin += at_a_time)
    open(std::span(connections_).subspan(begin, std::min(at_a_time, connections_.size() - begin)),
         port, static_cast<unsigned>(begin / of_a_source));
}

void load_target::open(std::span<connection> some, std::uint16_t port, unsigned source) {
  for (connection& c : some) {
    c.fd = connect_to_loopback(port, source);
    if (!ask(c.fd.get())) fail(std::string("send: ") + std::strerror(errno));
  }
  for (connection& c : some) {
    const std::size_t size = first_response(c.fd.get());
    if (size == 0 || (response_bytes_ != 0 && response_bytes_ != size))
      fail("unexpected response to the first request");
    response_bytes_ = size;
    epoll_event interest{};
    interest.events = EPOLLIN;
    interest.data.ptr = &c;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, c.fd.get(), &interest) != 0) fail("epoll_ctl");
  }
}

void load_target::fail(const std::string& what) const {
  throw std::runtime_error("server " + name_ + ": " + what);
}

void load_target::send_batch(connection& c, std::uint64_t now) {
  c.sent_at = now;
  c.awaited = pipeline_ * response_bytes_;
  // A batch is far smaller than a socket buffer that is empty: a short write is an error.
  const ssize_t n = ::send(c.fd.get(), batch_.data(), batch_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n != static_cast<ssize_t>(batch_.size())) fail(std::string("send: ") + std::strerror(errno));
}

/// Reads once; returns how many responses have become complete.
std::size_t load_target::receive(connection& c) {
  std::array<char, 16 * 1024> bytes;
  const ssize_t n = ::recv(c.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (n <= 0) fail(n == 0 ? "closed a connection" : std::string("recv: ") + std::strerror(errno));
  const auto got = static_cast<std::size_t>(n);
  if (got > c.awaited) fail("sent more than was asked for");

  const std::size_t before = (c.awaited + response_bytes_ - 1) / response_bytes_;
  // awaited % size is what is left of the response that the last read broke off, if it did.
  for (std::size_t at = c.awaited % response_bytes_; at + plaintext::response_start.size() <= got;
       at += response_bytes_)
    if (std::memcmp(bytes.data() + at, plaintext::response_start.data(),
                    plaintext::response_start.size()) != 0)
      fail("sent something else than a 200 response");
  c.awaited -= got;
  return before - (c.awaited + response_bytes_ - 1) / response_bytes_;
}

slice load_target::drive(std::chrono::nanoseconds length, latency_histogram& latencies) {
  constexpr int patience_ms = 5000;
  slice result;
  std::array<epoll_event, 256> events;
  const std::uint64_t cpu_begin = now_ns(CLOCK_THREAD_CPUTIME_ID);
  const std::uint64_t begin = now_ns();
  const std::uint64_t end = begin + static_cast<std::uint64_t>(length.count());
  for (connection& c : connections_) send_batch(c, now_ns());

  std::size_t busy = connections_.size();
  bool sending = true;
  while (busy != 0) {
    const int n =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), patience_ms);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(n == 0 ? "no response for 5 seconds"
                  : std::string("epoll_wait: ") + std::strerror(errno));
    for (int i = 0; i < n; ++i) {
      auto& c = *static_cast<connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      const std::size_t responses = receive(c);
      const std::uint64_t now = now_ns();
      if (responses != 0) latencies.record(now - c.sent_at, responses);
      if (sending && now >= end) {
        sending = false;
        result.in_time = result.in_all;
        result.seconds = static_cast<double>(now - begin) * 1e-9;
      }
      result.in_all += responses;
      if (c.awaited != 0) continue;
      if (sending) send_batch(c, now);
      else --busy;
    }
  }
  result.seconds_in_all = static_cast<double>(now_ns() - begin) * 1e-9;
  result.load_cpu_seconds = static_cast<double>(now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_begin) * 1e-9;
  return result;
}

}  // namespace bench
