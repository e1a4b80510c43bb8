// SPDX-License-Identifier: Apache-2.0
//
// The other end of a connection to an example: a blocking socket, so that the runtime under test is
// not its own judge, and as much of HTTP as it takes to know where a response ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace examples {

struct http_response {
  int status = 0;
  std::string head;  ///< with the status line, and the empty line behind it
  std::string body;

  bool has(std::string_view text) const { return head.find(text) != head.npos; }
};

class client {
 public:
  explicit client(std::uint16_t port);
  ~client();
  client(client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), unread_(std::move(other.unread_)) {}
  client& operator=(client&& other) noexcept {
    std::swap(fd_, other.fd_);
    unread_.swap(other.unread_);
    return *this;
  }

  /// Throws when the peer has gone.
  void send(std::string_view bytes);
  /// The same, false instead.
  bool try_send(std::string_view bytes);
  void end_sending();

  /// At least one byte; empty at the end. Throws when the connection was reset, or nothing comes.
  std::string receive_some();
  std::string receive(std::size_t bytes);
  std::string receive_all();
  /// Whether bytes, or the end, can be received now or within that time.
  bool is_readable(int milliseconds) const;

  /// \param head_only  the request was HEAD
  http_response response(bool head_only = false);
  /// True when the connection ends here, before any more bytes.
  bool ends() { return unread_.empty() && receive_some().empty(); }
  http_response ask(std::string_view request) {
    send(request);
    return response();
  }

  int native_handle() const noexcept { return fd_; }

 private:
  int fd_;
  std::string unread_;
};

inline constexpr std::string_view hello_request = "GET /plaintext HTTP/1.1\r\nHost: test\r\n\r\n";
inline constexpr std::string_view hello_body = "Hello, World!";

}  // namespace examples
