// SPDX-License-Identifier: Apache-2.0
//
// What can be chosen on the command line. Parsing neither prints nor exits: a wrong value is an
// exception whose text names the option, the value and what would have been right.
#pragma once

#include <tendril/net.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace http_hello {

struct options {
  tendril::net::endpoint address = tendril::net::endpoint::loopback(8080);
  unsigned workers = 0;  ///< 0: one per processor
  /// A connection on which nothing moves for so long is closed.
  std::chrono::nanoseconds idle_timeout = std::chrono::seconds(60);
  /// From the first byte of a request to its last.
  std::chrono::nanoseconds request_timeout = std::chrono::seconds(30);
  /// After SIGTERM or SIGINT: what requests in flight get to finish.
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(10);
  std::uint32_t header_bytes = 8 * 1024;   ///< largest request line and header fields
  std::uint64_t body_bytes = 1024 * 1024;  ///< largest request body
  bool help = false;
};

struct bad_option : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// \throws bad_option
options parse_options(int argc, const char* const* argv);

extern const char* const usage;

}  // namespace http_hello
