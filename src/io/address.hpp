// SPDX-License-Identifier: Apache-2.0
//
// Endpoints as the system wants them, and sockets for messages.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include <tendril/net.hpp>

#include "io/descriptor.hpp"

namespace tendril::detail {

struct socket_address {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);

  socket_address() noexcept = default;
  explicit socket_address(const net::endpoint& e) noexcept;

  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const noexcept { return storage.ss_family; }
};

/// The none endpoint for other families.
net::endpoint to_endpoint(const sockaddr* address) noexcept;

/// The peer's address, else the local one, else the number; never of a number that is closed.
std::string describe_socket(descriptor_ref ref);

/// A socket with close-on-exec and non-blocking set, under the table's care.
descriptor_ref open_socket(int family, int type, descriptor_kind kind, std::error_code& ec);

/// setsockopt of an int.
void set_option(descriptor_ref ref, int level, int name, int value, const char* what);

/// getsockname or getpeername.
enum class socket_end { local, remote };
net::endpoint endpoint_of(descriptor_ref ref, socket_end which, std::error_code& ec) noexcept;

/// Connects a fresh non-blocking socket; waits at most until the deadline.
void connect_socket(descriptor_ref ref, const sockaddr* peer, socklen_t length, time_point deadline,
                    std::error_code& ec);
time_point deadline_of(const net::connect_options& options);

/// Accepts one, waiting for it; -1 with ec. `exhausted(ec)` is called when descriptors or memory have run
/// out, at the first of a row of failures.
int accept_descriptor(descriptor_ref ref, socket_address* peer,
                      const std::function<void(std::error_code)>& exhausted, std::error_code& ec);

/// Adopts or, if that fails, closes.
descriptor_ref adopt_or_close(int fd, descriptor_kind kind, std::error_code& ec) noexcept;

}  // namespace tendril::detail
