// SPDX-License-Identifier: Apache-2.0
//
// Sockets: blocking to look at, parking the calling fiber. On a plain thread the same calls block it.
//
// Every operation has a throwing form (std::system_error whose text names the operation and the
// address) and one that reports through a std::error_code. Besides the system's errors:
//   operation_canceled   the fiber was requested to stop
//   timed_out            the operation's deadline or timeout, or that of an enclosing deadline_scope
//   bad_file_descriptor  the handle was closed, possibly while the operation waited
//
// \switch   operations that cannot finish at once do; others yield now and then, so that a connection
//           which is always ready does not keep its worker to itself
// \threads  any number of fibers and threads may operate on one object; moving and destroying it is
//           for one alone. close() may be called while others are parked in an operation.
#pragma once

#include <tendril/buffer.hpp>
#include <tendril/config.hpp>
#include <tendril/detail/descriptor_ref.hpp>
#include <tendril/detail/waiting.hpp>

#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace tendril::net {

using time_point = std::chrono::steady_clock::time_point;
inline constexpr time_point no_deadline = time_point::max();

/// An IPv4 or IPv6 address and a port.
class TENDRIL_API endpoint {
 public:
  enum class family : std::uint8_t { none, v4, v6 };

  endpoint() noexcept = default;
  /// "192.0.2.1", "2001:db8::1", "fe80::1%eth0"; not a host name, see resolve().
  ///
  /// \throws std::system_error  invalid_argument, naming the address
  endpoint(std::string_view address, std::uint16_t port);
  endpoint(const std::array<std::uint8_t, 4>& v4, std::uint16_t port) noexcept;
  endpoint(const std::array<std::uint8_t, 16>& v6, std::uint16_t port,
           std::uint32_t scope = 0) noexcept;

  /// "192.0.2.1:80", "[2001:db8::1]:80".
  static endpoint parse(std::string_view text, std::error_code& ec) noexcept;
  static endpoint parse(std::string_view text);

  static endpoint loopback(std::uint16_t port) noexcept;  ///< 127.0.0.1
  static endpoint any(std::uint16_t port) noexcept;       ///< 0.0.0.0

  family get_family() const noexcept { return family_; }
  bool is_v4() const noexcept { return family_ == family::v4; }
  bool is_v6() const noexcept { return family_ == family::v6; }
  std::uint16_t port() const noexcept { return port_; }
  void set_port(std::uint16_t port) noexcept { port_ = port; }
  std::uint32_t scope() const noexcept { return scope_; }
  /// Network order; the first four count for v4.
  const std::array<std::uint8_t, 16>& bytes() const noexcept { return bytes_; }

  std::string address() const;
  std::string to_string() const;

  friend auto operator<=>(const endpoint&, const endpoint&) noexcept = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
  std::uint32_t scope_ = 0;
  std::uint16_t port_ = 0;
  family family_ = family::none;
};

TENDRIL_API std::ostream& operator<<(std::ostream&, const endpoint&);

/// The addresses of a host name or of an address in text, in the order to try them in.
///
/// \param service  "https", "443" or empty
/// \throws std::system_error  of resolve_category(), naming host and service
/// \switch yes: resolving happens on libuv's pool. Cancelling gives it up, even while it is under way
TENDRIL_API std::vector<endpoint> resolve(std::string_view host, std::string_view service);
TENDRIL_API std::vector<endpoint> resolve(std::string_view host, std::string_view service,
                                          std::error_code& ec);
TENDRIL_API std::vector<endpoint> resolve(std::string_view host, std::uint16_t port);
TENDRIL_API std::vector<endpoint> resolve(std::string_view host, std::uint16_t port,
                                          std::error_code& ec);
/// Of getaddrinfo's errors (EAI_...).
TENDRIL_API const std::error_category& resolve_category() noexcept;

enum class shutdown_mode { receive, send, both };

/// What connect() waits for at most: the earlier of the two.
struct connect_options {
  time_point deadline = no_deadline;
  std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max();
};

/// What sockets of all kinds share: the handle.
class TENDRIL_API socket_base {
 public:
  socket_base(const socket_base&) = delete;
  socket_base& operator=(const socket_base&) = delete;

  /// Opened or moved into, and not closed yet. Others may close it the next moment.
  bool is_open() const noexcept;
  explicit operator bool() const noexcept { return is_open(); }

  /// Wakes everybody who is parked on it with bad_file_descriptor; the descriptor itself is closed when
  /// the last operation has left. Closing twice is harmless.
  ///
  /// \switch no
  void close() noexcept;

  /// -1 when closed. Still the object's: for options; reading and writing it goes past the object.
  int native_handle() const noexcept;
  /// Gives the open descriptor away (it may have a new number); -1 when closed. No operation may be in
  /// progress.
  int release() noexcept;

  /// Waits that begin, or are under way, end at this instant with timed_out. Not what is done without
  /// waiting.
  void set_read_deadline(time_point deadline) noexcept;
  void set_write_deadline(time_point deadline) noexcept;
  /// Every operation gets this long, from its first wait on; zero or less: without limit.
  void set_read_timeout(std::chrono::nanoseconds timeout) noexcept;
  void set_write_timeout(std::chrono::nanoseconds timeout) noexcept;

 protected:
  socket_base() noexcept = default;
  explicit socket_base(detail::descriptor_ref ref) noexcept : ref_(ref) {}
  socket_base(socket_base&& other) noexcept : ref_(detail::take(other.ref_)) {}
  socket_base& operator=(socket_base&& other) noexcept {
    if (this != &other) {
      close();
      ref_ = detail::take(other.ref_);
    }
    return *this;
  }
  ~socket_base() {
    if (ref_.valid()) close();
  }

  detail::descriptor_ref ref_;
};

/// A connected stream socket of any family: reading and writing.
class TENDRIL_API stream_socket : public socket_base {
 public:
  /// Parks the calling fiber until a read would not wait: there are bytes, or the peer has ended its side, or the
  /// connection is broken, which the read then tells. Who waits for the next request by this holds no buffer
  /// meanwhile: a connection that idles costs its fiber's few frames. With several readers, another one may have
  /// taken the bytes by the time of the read.
  ///
  /// \param ec  timed_out by the read deadline, operation_canceled, bad_file_descriptor once closed
  /// \switch  yes, unless already readable; off a fiber, blocks the thread
  /// \threads any number of waiters
  /// \cost    one system call when readable, else two; no allocation
  /// \source  poll(2)
  void wait_readable();
  void wait_readable(std::error_code& ec);
  /// Waits for at least one byte. 0: the peer has ended its side (or the buffer is empty).
  std::size_t read_some(mutable_buffer to);
  std::size_t read_some(mutable_buffer to, std::error_code& ec);
  /// Fills the buffer; fewer only at the end of the stream, or with ec set.
  std::size_t read_exactly(mutable_buffer to);
  std::size_t read_exactly(mutable_buffer to, std::error_code& ec);

  /// Waits until at least one byte was accepted.
  std::size_t write_some(const_buffer from);
  std::size_t write_some(const_buffer from, std::error_code& ec);
  /// Returns what was written: all, or with ec set less. A broken connection is broken_pipe or
  /// connection_reset, never a signal.
  std::size_t write_all(const_buffer from);
  std::size_t write_all(const_buffer from, std::error_code& ec);
  /// The buffers one after the other, by as few system calls as possible.
  std::size_t write_all(std::span<const const_buffer> from);
  std::size_t write_all(std::span<const const_buffer> from, std::error_code& ec);
  std::size_t write_all(std::initializer_list<const_buffer> from) {
    return write_all(std::span(from.begin(), from.size()));
  }

  /// Ends one direction or both; operations parked in it end.
  void shutdown(shutdown_mode mode);
  void shutdown(shutdown_mode mode, std::error_code& ec) noexcept;

 protected:
  using socket_base::socket_base;
};

/// A TCP connection.
class TENDRIL_API tcp_stream : public stream_socket {
 public:
  tcp_stream() noexcept = default;
  /// Takes over a connected socket; no_delay is left as it is.
  static tcp_stream from_native(int fd);

  static tcp_stream connect(const endpoint& peer, const connect_options& options = {});
  static tcp_stream connect(const endpoint& peer, std::error_code& ec,
                            const connect_options& options = {});
  /// Resolves, and tries the addresses in turn; the options hold for all of it.
  static tcp_stream connect(std::string_view host, std::uint16_t port,
                            const connect_options& options = {});
  static tcp_stream connect(std::string_view host, std::uint16_t port, std::error_code& ec,
                            const connect_options& options = {});

  endpoint local_endpoint() const;
  endpoint local_endpoint(std::error_code& ec) const noexcept;
  endpoint remote_endpoint() const;
  endpoint remote_endpoint(std::error_code& ec) const noexcept;

  /// On from the start: small writes are sent at once.
  void set_no_delay(bool on);
  void set_keep_alive(bool on);

 private:
  friend class tcp_listener;
  using stream_socket::stream_socket;
};

struct listen_options {
  int backlog = 4096;  ///< the system cuts it to its own limit
  bool reuse_address = true;
  bool reuse_port = false;  ///< several listeners, among which the system spreads the connections
  bool v6_only = false;
};

/// Accepts TCP connections.
class TENDRIL_API tcp_listener : public socket_base {
 public:
  tcp_listener() noexcept = default;
  explicit tcp_listener(const endpoint& local, const listen_options& options = {});
  tcp_listener(tcp_listener&&) noexcept = default;
  tcp_listener& operator=(tcp_listener&&) noexcept = default;
  ~tcp_listener();

  /// Waits for a connection. Those that fail before they are accepted are skipped.
  ///
  /// When descriptors or memory have run out, waits (5 ms, doubling to 1 s) and tries again, and says so
  /// once an episode: to the handler, else to stderr. The read deadline and timeout hold.
  tcp_stream accept();
  tcp_stream accept(std::error_code& ec);
  tcp_stream accept(endpoint& peer);
  tcp_stream accept(endpoint& peer, std::error_code& ec);

  endpoint local_endpoint() const;
  endpoint local_endpoint(std::error_code& ec) const noexcept;

  /// How often accepting had to be put off for want of resources.
  std::uint64_t exhausted_count() const noexcept;
  /// Called at the beginning of each episode, on the accepting fiber. Set before accepting begins.
  void on_exhausted(std::function<void(std::error_code)> handler);

 private:
  struct shared;
  tcp_stream accept_one(endpoint* peer, std::error_code& ec);
  std::shared_ptr<shared> shared_;
};

/// Datagrams.
class TENDRIL_API udp_socket : public socket_base {
 public:
  udp_socket() noexcept = default;
  /// Bound to local; port 0: any.
  explicit udp_socket(const endpoint& local);

  /// From now on sends to, and receives from, this peer only.
  void connect(const endpoint& peer);

  std::size_t send_to(const_buffer datagram, const endpoint& peer);
  std::size_t send_to(const_buffer datagram, const endpoint& peer, std::error_code& ec);
  std::size_t send(const_buffer datagram);
  std::size_t send(const_buffer datagram, std::error_code& ec);
  /// What does not fit into the buffer is lost.
  std::size_t receive_from(mutable_buffer datagram, endpoint& peer);
  std::size_t receive_from(mutable_buffer datagram, endpoint& peer, std::error_code& ec);
  std::size_t receive(mutable_buffer datagram);
  std::size_t receive(mutable_buffer datagram, std::error_code& ec);

  endpoint local_endpoint() const;
};

/// A Unix-domain stream connection.
class TENDRIL_API unix_stream : public stream_socket {
 public:
  unix_stream() noexcept = default;
  static unix_stream from_native(int fd);
  /// A path; one that begins with a zero byte names the abstract namespace.
  static unix_stream connect(std::string_view path, const connect_options& options = {});
  static unix_stream connect(std::string_view path, std::error_code& ec,
                             const connect_options& options = {});
  /// Two connected ones.
  static std::pair<unix_stream, unix_stream> pair();

 private:
  friend class unix_listener;
  using stream_socket::stream_socket;
};

/// Accepts Unix-domain connections. The path is the caller's to remove.
class TENDRIL_API unix_listener : public socket_base {
 public:
  unix_listener() noexcept = default;
  explicit unix_listener(std::string_view path, int backlog = 4096);

  unix_stream accept();
  unix_stream accept(std::error_code& ec);
};

}  // namespace tendril::net

template <>
struct std::hash<tendril::net::endpoint> {
  std::size_t operator()(const tendril::net::endpoint& e) const noexcept {
    const auto* bytes = reinterpret_cast<const char*>(e.bytes().data());
    const std::size_t h = std::hash<std::string_view>()({bytes, e.bytes().size()});
    return h ^ (e.port() * std::size_t{0x9e3779b97f4a7c15}) ^ e.scope();
  }
};
