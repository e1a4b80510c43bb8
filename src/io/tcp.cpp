// SPDX-License-Identifier: Apache-2.0
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

#include <tendril/net.hpp>

#include "io/address.hpp"
#include "io/operation.hpp"

namespace tendril::net {

using detail::descriptor_kind;
using detail::socket_address;

namespace {

[[noreturn]] void throw_about(std::error_code ec, const char* what, const std::string& where) {
  throw std::system_error(ec, std::string(what) + ' ' + where);
}

}  // namespace

// ---- tcp_stream

tcp_stream tcp_stream::from_native(int fd) {
  return tcp_stream(detail::adopt_descriptor(fd, descriptor_kind::stream));
}

tcp_stream tcp_stream::connect(const endpoint& peer, std::error_code& ec,
                               const connect_options& options) {
  const socket_address address(peer);
  tcp_stream stream(
      detail::open_socket(address.family(), SOCK_STREAM, descriptor_kind::stream, ec));
  if (ec) return {};
  stream.set_no_delay(true);
  detail::connect_socket(stream.ref_, address.get(), address.length, detail::deadline_of(options),
                         ec);
  if (ec) return {};
  return stream;
}

tcp_stream tcp_stream::connect(const endpoint& peer, const connect_options& options) {
  std::error_code ec;
  tcp_stream stream = connect(peer, ec, options);
  if (ec) throw_about(ec, "connect to", peer.to_string());
  return stream;
}

tcp_stream tcp_stream::connect(std::string_view host, std::uint16_t port, std::error_code& ec,
                               const connect_options& options) {
  // The deadline covers all tries together, so that it is fixed first.
  const connect_options fixed{.deadline = detail::deadline_of(options)};
  for (const endpoint& peer : resolve(host, port, ec)) {
    tcp_stream stream = connect(peer, ec, fixed);
    if (!ec || ec == std::errc::operation_canceled || ec == std::errc::timed_out) return stream;
  }
  return {};
}

tcp_stream tcp_stream::connect(std::string_view host, std::uint16_t port,
                               const connect_options& options) {
  std::error_code ec;
  tcp_stream stream = connect(host, port, ec, options);
  if (ec) throw_about(ec, "connect to", std::string(host) + ':' + std::to_string(port));
  return stream;
}

endpoint tcp_stream::local_endpoint(std::error_code& ec) const noexcept {
  return detail::endpoint_of(ref_, detail::socket_end::local, ec);
}
endpoint tcp_stream::local_endpoint() const {
  return detail::or_throw("local_endpoint", ref_,
                          [&](std::error_code& ec) { return local_endpoint(ec); });
}
endpoint tcp_stream::remote_endpoint(std::error_code& ec) const noexcept {
  return detail::endpoint_of(ref_, detail::socket_end::remote, ec);
}
endpoint tcp_stream::remote_endpoint() const {
  return detail::or_throw("remote_endpoint", ref_,
                          [&](std::error_code& ec) { return remote_endpoint(ec); });
}

void tcp_stream::set_no_delay(bool on) {
  detail::set_option(ref_, IPPROTO_TCP, TCP_NODELAY, on ? 1 : 0, "set_no_delay");
}
void tcp_stream::set_keep_alive(bool on) {
  detail::set_option(ref_, SOL_SOCKET, SO_KEEPALIVE, on ? 1 : 0, "set_keep_alive");
}

// ---- tcp_listener

struct tcp_listener::shared {
  std::atomic<std::uint64_t> episodes{0};
  std::function<void(std::error_code)> handler;
};

tcp_listener::tcp_listener(const endpoint& local, const listen_options& options)
    : shared_(std::make_shared<shared>()) {
  const socket_address address(local);
  std::error_code ec;
  ref_ = detail::open_socket(address.family(), SOCK_STREAM, descriptor_kind::other, ec);
  if (ec) throw_about(ec, "listen on", local.to_string());
  const auto set = [&](int level, int name, bool on) {
    const int value = on ? 1 : 0;
    if (!ec && ::setsockopt(ref_.fd, level, name, &value, sizeof value) != 0)
      ec = {errno, std::system_category()};
  };
  set(SOL_SOCKET, SO_REUSEADDR, options.reuse_address);
  if (options.reuse_port) set(SOL_SOCKET, SO_REUSEPORT, true);
  if (local.is_v6()) set(IPPROTO_IPV6, IPV6_V6ONLY, options.v6_only);
  // Accepted sockets inherit it: one system call for all of them.
  set(IPPROTO_TCP, TCP_NODELAY, true);
  if (!ec && ::bind(ref_.fd, address.get(), address.length) != 0)
    ec = {errno, std::system_category()};
  if (!ec && ::listen(ref_.fd, options.backlog) != 0) ec = {errno, std::system_category()};
  if (ec) {
    close();
    throw_about(ec, "listen on", local.to_string());
  }
}

tcp_listener::~tcp_listener() = default;

tcp_stream tcp_listener::accept_one(endpoint* peer, std::error_code& ec) {
  socket_address from;
  const std::shared_ptr<shared> kept = shared_;
  const auto exhausted = [&](std::error_code why) {
    const auto episode = kept->episodes.fetch_add(1, std::memory_order_relaxed) + 1;
    if (kept->handler) {
      kept->handler(why);
    } else {
      std::fprintf(stderr, "tendril: accept on %s: %s; waiting for resources (episode %llu)\n",
                   detail::describe_socket(ref_).c_str(), why.message().c_str(),
                   static_cast<unsigned long long>(episode));
    }
  };
  const int fd = detail::accept_descriptor(ref_, peer != nullptr ? &from : nullptr, exhausted, ec);
  if (fd < 0) return {};
  if (peer != nullptr) *peer = detail::to_endpoint(from.get());
  return tcp_stream(detail::adopt_or_close(fd, descriptor_kind::stream, ec));
}

tcp_stream tcp_listener::accept(std::error_code& ec) { return accept_one(nullptr, ec); }
tcp_stream tcp_listener::accept(endpoint& peer, std::error_code& ec) {
  return accept_one(&peer, ec);
}
tcp_stream tcp_listener::accept() {
  return detail::or_throw("accept", ref_,
                          [&](std::error_code& ec) { return accept_one(nullptr, ec); });
}
tcp_stream tcp_listener::accept(endpoint& peer) {
  return detail::or_throw("accept", ref_,
                          [&](std::error_code& ec) { return accept_one(&peer, ec); });
}

endpoint tcp_listener::local_endpoint(std::error_code& ec) const noexcept {
  return detail::endpoint_of(ref_, detail::socket_end::local, ec);
}
endpoint tcp_listener::local_endpoint() const {
  return detail::or_throw("local_endpoint", ref_,
                          [&](std::error_code& ec) { return local_endpoint(ec); });
}

std::uint64_t tcp_listener::exhausted_count() const noexcept {
  return shared_ ? shared_->episodes.load(std::memory_order_relaxed) : 0;
}
void tcp_listener::on_exhausted(std::function<void(std::error_code)> handler) {
  if (shared_) shared_->handler = std::move(handler);
}

}  // namespace tendril::net
