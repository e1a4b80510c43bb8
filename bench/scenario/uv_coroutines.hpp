// SPDX-License-Identifier: Apache-2.0
//
// Coroutines on libuv: what a loop's streams look like when they are awaited instead of called back from.
// For the experiments: the same libuv, the same system calls and the same loop as the servers written with
// callbacks, so that a difference is the coroutines'.
//
// An operation resumes the coroutine that awaits it from libuv's callback, on the loop's thread. Coroutines
// of any type may await.
//
//  1. Reading stays armed from one read to the next: starting and stopping it would change the loop's set of
//     descriptors twice a request. Only data that comes while nobody reads disarms it.
//  2. A write is tried at once; what the socket refuses is left to the loop, from the caller's memory.
//  3. One coroutine at a time reads a stream, and one writes it. A stream is destroyed by the coroutine that
//     uses it, never while another waits for it.
//
// Results are libuv's: a count, 0 at the end of a stream, or a negative error.
//
// \threads the loop's only
#pragma once

#include "bench/scenario/resumption.hpp"

#include <uv.h>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace bench::uv {

inline void check(int status, const char* what) {
  if (status < 0) throw std::runtime_error(std::string(what) + ": " + uv_strerror(status));
}

class loop {
 public:
  loop() { check(uv_loop_init(&loop_), "uv_loop_init"); }
  /// What was closed is freed first; streams must be gone.
  ~loop() {
    uv_run(&loop_, UV_RUN_DEFAULT);
    uv_loop_close(&loop_);
  }
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  uv_loop_t* get() noexcept { return &loop_; }
  /// Until there is nothing left to wait for.
  void run() { uv_run(&loop_, UV_RUN_DEFAULT); }

 private:
  uv_loop_t loop_;
};

/// A connected TCP socket.
class stream {
  struct state {
    uv_tcp_t tcp;
    uv_write_t request;
    uv_buf_t space{};
    resumption reader{};
    resumption writer{};
    ssize_t got = 0;
    int written = 0;
    int ended = 0;  // what a stream that nobody was reading ended with
    bool armed = false;

    uv_stream_t* base() noexcept { return reinterpret_cast<uv_stream_t*>(&tcp); }
  };

  struct read_awaiter {
    state& s;
    std::span<char> space;

    bool await_ready() const noexcept { return s.ended != 0; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> h) {
      s.space = uv_buf_init(space.data(), static_cast<unsigned>(space.size()));
      if (!s.armed) {
        s.got = uv_read_start(s.base(), give_space, on_read);
        s.armed = s.got == 0;
      }
      if (s.armed) s.reader = resumption(h);
      return s.armed;
    }
    ssize_t await_resume() const noexcept {
      const ssize_t n = s.ended != 0 ? s.ended : s.got;
      return n == UV_EOF ? 0 : n;
    }
  };

  struct write_awaiter {
    state& s;
    std::string_view bytes;

    bool await_ready() noexcept {
      const uv_buf_t all = to_buffer(bytes);
      const int n = uv_try_write(s.base(), &all, 1);
      s.written = n < 0 && n != UV_EAGAIN ? n : 0;
      if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
      return s.written < 0 || bytes.empty();
    }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> h) {
      const uv_buf_t rest = to_buffer(bytes);
      s.written = uv_write(&s.request, s.base(), &rest, 1, on_written);
      if (s.written == 0) s.writer = resumption(h);
      return s.written == 0;
    }
    int await_resume() const noexcept { return s.written; }
  };

 public:
  explicit stream(loop& l) : s_(std::make_unique<state>().release()) {
    uv_tcp_init(l.get(), &s_->tcp);
    s_->tcp.data = s_;
    s_->request.data = s_;
  }
  /// Takes over a connected socket.
  stream(loop& l, int fd) : stream(l) { check(uv_tcp_open(&s_->tcp, fd), "uv_tcp_open"); }
  stream(stream&& other) noexcept : s_(std::exchange(other.s_, nullptr)) {}
  stream& operator=(stream&&) = delete;
  ~stream() {
    if (s_ == nullptr) return;
    s_->reader.reset();
    s_->writer.reset();
    uv_close(reinterpret_cast<uv_handle_t*>(&s_->tcp),
             [](uv_handle_t* h) { delete static_cast<state*>(h->data); });
  }

  void no_delay() { check(uv_tcp_nodelay(&s_->tcp, 1), "uv_tcp_nodelay"); }

  /// What has arrived, at least one byte; 0 at the end; a negative error.
  read_awaiter read_some(std::span<char> space) noexcept { return {*s_, space}; }

  /// All of `bytes`, which stay the caller's; 0 or a negative error.
  write_awaiter write_all(std::string_view bytes) noexcept { return {*s_, bytes}; }

 private:
  friend class listener;

  static uv_buf_t to_buffer(std::string_view bytes) noexcept {
    return uv_buf_init(const_cast<char*>(bytes.data()), static_cast<unsigned>(bytes.size()));
  }
  static void give_space(uv_handle_t* handle, std::size_t, uv_buf_t* space) {
    const state& s = *static_cast<state*>(handle->data);
    *space = s.reader ? s.space : uv_buf_init(nullptr, 0);
  }
  static void on_read(uv_stream_t* base, ssize_t n, const uv_buf_t*) {
    state& s = *static_cast<state*>(base->data);
    if (n == 0) return;  // nothing there after all
    if (n < 0) {
      s.armed = false;
      uv_read_stop(base);
    }
    if (n == UV_ENOBUFS) return;  // nobody reads: the next reader arms it again
    if (!s.reader) {
      s.ended = static_cast<int>(n);
      return;
    }
    s.got = n;
    s.reader.resume();
  }
  static void on_written(uv_write_t* request, int status) {
    state& s = *static_cast<state*>(request->data);
    s.written = status;
    if (s.writer) s.writer.resume();
  }

  state* s_;
};

/// Listens on 127.0.0.1.
class listener {
  struct accept_awaiter {
    listener& l;

    bool await_ready() const noexcept { return l.waiting_ != 0; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> h) {
      l.acceptor_ = resumption(h);
    }
    stream await_resume() const {
      --l.waiting_;
      stream s(l.loop_);
      check(uv_accept(l.base(), s.s_->base()), "uv_accept");
      return s;
    }
  };

 public:
  listener(loop& l, std::uint16_t port) : loop_(l) {
    check(uv_tcp_init(l.get(), &tcp_), "uv_tcp_init");
    tcp_.data = this;
    sockaddr_in address{};
    check(uv_ip4_addr("127.0.0.1", port, &address), "uv_ip4_addr");
    check(uv_tcp_bind(&tcp_, reinterpret_cast<const sockaddr*>(&address), 0), "uv_tcp_bind");
    check(uv_listen(base(), 4096, on_connection), "uv_listen");
    int size = sizeof address;
    check(uv_tcp_getsockname(&tcp_, reinterpret_cast<sockaddr*>(&address), &size),
          "uv_tcp_getsockname");
    port_ = ntohs(address.sin_port);
  }
  listener(const listener&) = delete;
  listener& operator=(const listener&) = delete;
  /// Lives as long as its loop: servers are ended by a signal.
  ~listener() = default;

  std::uint16_t port() const noexcept { return port_; }

  /// The next connection. \throws std::runtime_error
  accept_awaiter accept() noexcept { return {*this}; }

 private:
  uv_stream_t* base() noexcept { return reinterpret_cast<uv_stream_t*>(&tcp_); }
  static void on_connection(uv_stream_t* base, int status) {
    if (status < 0) return;
    listener& l = *static_cast<listener*>(base->data);
    ++l.waiting_;
    if (l.acceptor_) l.acceptor_.resume();
  }

  loop& loop_;
  uv_tcp_t tcp_;
  std::uint16_t port_ = 0;
  unsigned waiting_ = 0;
  resumption acceptor_{};
};

}  // namespace bench::uv
