// SPDX-License-Identifier: Apache-2.0
//
// Loopback sockets for the reference servers, the loader and the ping-pong baseline, by plain system
// calls.
#pragma once

#include "bench/support/unique_fd.hpp"

#include <cstdint>

namespace bench {

struct listening_socket {
  unique_fd fd;
  std::uint16_t port;
};

/// Listens on 127.0.0.1; port 0 takes a free one. `extra_flags` as for socket(2), SOCK_NONBLOCK say.
listening_socket listen_on_loopback(std::uint16_t port, int extra_flags);

/// Blocking, TCP_NODELAY. Ports for connections to one address are found slowly when most are taken: who opens many
/// takes another source for each few thousand, 127.0.0.1 + source.
unique_fd connect_to_loopback(std::uint16_t port, unsigned source = 0);

void set_no_delay(int fd);

/// Raises the soft limit of open descriptors to the hard one; throws if that is below `needed`.
void want_descriptors(unsigned needed);

}  // namespace bench
