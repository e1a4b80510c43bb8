// SPDX-License-Identifier: Apache-2.0
//
// The reference server: libuv's streams as a careful author uses them. Reads land in the
// connection's own buffer; a write is tried at once (no request object, no second trip through the
// loop) and only what the socket refuses is copied and queued, with reading stopped meanwhile so that
// a slow client cannot make it queue without bound.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/support/plaintext.hpp"

#include <uv.h>

#include <memory>
#include <stdexcept>
#include <string>

namespace bench {
namespace {

struct server {
  uv_loop_t loop;
  uv_tcp_t listener;
  plaintext::responder responder;
};

struct connection {
  uv_tcp_t stream;
  uv_write_t write;
  server* owner;
  std::string unsent;
  plaintext::request_buffer in;
};

void check(int status, const char* what) {
  if (status < 0) throw std::runtime_error(std::string(what) + ": " + uv_strerror(status));
}

uv_stream_t* stream_of(connection& c) { return reinterpret_cast<uv_stream_t*>(&c.stream); }

void close_connection(connection& c) {
  const auto handle = reinterpret_cast<uv_handle_t*>(&c.stream);
  if (uv_is_closing(handle) != 0) return;
  uv_close(handle, [](uv_handle_t* h) { delete static_cast<connection*>(h->data); });
}

void give_space(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
  const auto space = static_cast<connection*>(handle->data)->in.space();
  *buffer = uv_buf_init(space.data(), static_cast<unsigned>(space.size()));
}

void on_read(uv_stream_t* stream, ssize_t n, const uv_buf_t*);

void on_written(uv_write_t* request, int status) {
  auto& c = *static_cast<connection*>(request->data);
  c.unsent.clear();
  if (status < 0 || uv_read_start(stream_of(c), give_space, on_read) < 0) close_connection(c);
}

void on_read(uv_stream_t* stream, ssize_t n, const uv_buf_t*) {
  auto& c = *static_cast<connection*>(stream->data);
  if (n == 0) return;
  int requests =
      n < 0 ? plaintext::request_buffer::malformed : c.in.arrived(static_cast<std::size_t>(n));
  if (requests < 0) return close_connection(c);
  while (requests > 0) {
    const plaintext::responder::batch batch = c.owner->responder.take(requests);
    std::string_view bytes = batch.bytes();
    if (c.unsent.empty()) {
      const uv_buf_t buffer =
          uv_buf_init(const_cast<char*>(bytes.data()), static_cast<unsigned>(bytes.size()));
      const int sent = uv_try_write(stream, &buffer, 1);
      if (sent < 0 && sent != UV_EAGAIN) return close_connection(c);
      if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    c.unsent += bytes;
  }
  if (c.unsent.empty()) return;
  uv_read_stop(stream);
  const uv_buf_t buffer = uv_buf_init(c.unsent.data(), static_cast<unsigned>(c.unsent.size()));
  if (uv_write(&c.write, stream, &buffer, 1, on_written) < 0) close_connection(c);
}

void on_connection(uv_stream_t* listener, int status) {
  if (status < 0) return;
  auto& s = *static_cast<server*>(listener->data);
  auto c = std::make_unique<connection>();
  check(uv_tcp_init(&s.loop, &c->stream), "uv_tcp_init");
  c->owner = &s;
  c->stream.data = c.get();
  c->write.data = c.get();
  connection& accepted = *c.release();  // close_connection deletes it
  if (uv_accept(listener, stream_of(accepted)) < 0 || uv_tcp_nodelay(&accepted.stream, 1) < 0 ||
      uv_read_start(stream_of(accepted), give_space, on_read) < 0)
    close_connection(accepted);
}

}  // namespace

void serve_callbacks(std::uint16_t port, const port_callback& ready) {
  const auto s = std::make_unique<server>();
  check(uv_loop_init(&s->loop), "uv_loop_init");
  check(uv_tcp_init(&s->loop, &s->listener), "uv_tcp_init");
  s->listener.data = s.get();
  sockaddr_in address{};
  check(uv_ip4_addr("127.0.0.1", port, &address), "uv_ip4_addr");
  check(uv_tcp_bind(&s->listener, reinterpret_cast<const sockaddr*>(&address), 0), "uv_tcp_bind");
  check(uv_listen(reinterpret_cast<uv_stream_t*>(&s->listener), 4096, on_connection), "uv_listen");
  int size = sizeof address;
  check(uv_tcp_getsockname(&s->listener, reinterpret_cast<sockaddr*>(&address), &size),
        "uv_tcp_getsockname");
  ready(ntohs(address.sin_port));
  uv_run(&s->loop, UV_RUN_DEFAULT);
}

}  // namespace bench
