// SPDX-License-Identifier: Apache-2.0
//
// The load generator of E7. Closed loop on keep-alive connections, one thread, its own epoll set per
// server. It keeps connections to *every* server open for the whole run and drives one server at a
// time for a slice of some 60 ms: servers that are compared then share the machine's slow and fast
// moments, and a ratio taken within one cycle does not see drifts that move both sides.
//
// Rejected: one long run per server (the drift of a shared machine, 5 % and more within a minute, is
// larger than the effect), and wrk for the ratio (it starts anew for each run; its figures are
// printed beside ours).
#pragma once

#include "bench/support/histogram.hpp"
#include "bench/support/unique_fd.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bench {

struct slice {
  std::uint64_t in_time = 0;    ///< responses until the slice was over
  std::uint64_t in_all = 0;     ///< and those of the requests then still under way
  double seconds = 0;           ///< length of the slice, as measured
  double seconds_in_all = 0;    ///< until the last response
  double load_cpu_seconds = 0;  ///< CPU time of the loader over seconds_in_all
};

class load_target {
 public:
  /// Connects to 127.0.0.1:port and learns the size of a response from a first exchange on each
  /// connection. Throws std::runtime_error naming the server.
  load_target(std::string name, std::uint16_t port, unsigned connections, unsigned pipeline);

  /// Drives the server for `length`, then waits for what is outstanding. Every response is checked to
  /// start where one must and to be a 200.
  slice drive(std::chrono::nanoseconds length, latency_histogram& latencies);

 private:
  struct connection {
    unique_fd fd;
    std::uint64_t sent_at = 0;
    std::size_t awaited = 0;  ///< bytes of the outstanding batch not yet received
  };

  void open(std::span<connection> some, std::uint16_t port, unsigned source);
  void send_batch(connection& c, std::uint64_t now);
  std::size_t receive(connection& c);
  [[noreturn]] void fail(const std::string& what) const;

  std::string name_;
  unsigned pipeline_;
  unique_fd epoll_;
  std::string batch_;
  std::size_t response_bytes_ = 0;
  std::vector<connection> connections_;
};

}  // namespace bench
