// SPDX-License-Identifier: Apache-2.0
#include "http_session.hpp"

#include <tendril/buffer.hpp>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

namespace http_hello {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

// Room for a batch of pipelined requests, and for bodies to be dropped in pieces of this size.
constexpr std::size_t least_buffer_bytes = 16 * 1024;
// How long, and how much of, what the client still sends is read after the last response.
constexpr auto lingering_time = 1s;
constexpr std::size_t lingering_bytes = 1024 * 1024;

}  // namespace

http_session::http_session(tendril::net::tcp_stream stream, const options& chosen)
    : stream_(std::move(stream)),
      options_(chosen),
      limits_{.header_bytes = chosen.header_bytes, .body_bytes = chosen.body_bytes},
      capacity_(std::max<std::size_t>(least_buffer_bytes, chosen.header_bytes + std::size_t{1})),
      in_(std::make_unique_for_overwrite<char[]>(capacity_)) {
  stream_.set_read_timeout(options_.idle_timeout);
  stream_.set_write_timeout(options_.idle_timeout);
}

void http_session::run() {
  while (read_more()) {
    const bool stay = answer_what_is_complete();
    if (!flush()) return;
    if (!stay) return close_gently();
  }
}

/// False: the connection shall be closed when what is in out_ has been sent.
bool http_session::answer_what_is_complete() {
  date_.refresh();
  for (;;) {
    if (!request_) {
      if (unread().empty() || !skip_blank_line()) return true;
      request_.emplace(limits_);
      told_to_continue_ = false;
    }

    std::size_t used = 0;
    const auto progress = request_->feed(unread(), used);
    begin_ += used;
    switch (progress) {
      case request_parser::progress::rejected:
        answer(request_->answer(), false);
        return false;

      case request_parser::progress::complete: {
        const bool stay = request_->keeps_alive() && !is_stopping();
        answer(request_->answer(), stay);
        if (!stay) return false;
        request_.reset();
        set_request_deadline(tendril::net::no_deadline);
        if (unread().empty()) return true;
        break;
      }

      case request_parser::progress::incomplete:
        if (request_->is_header_complete() && request_->awaits_continue() && !told_to_continue_) {
          // A client that asks first need not send a body that would change nothing.
          if (static_cast<unsigned>(request_->answer().code) >= 300) {
            answer(request_->answer(), false);
            return false;
          }
          out_ += continue_response;
          told_to_continue_ = true;
        }
        if (request_deadline_ == tendril::net::no_deadline) {
          set_request_deadline(steady_clock::now() + options_.request_timeout);
        }
        return true;
    }
  }
}

void http_session::answer(const response& r, bool stay) {
  const bool old = request_ && request_->is_http_1_0();
  render(out_, r,
         !stay ? persistence::closing
         : old ? persistence::to_be_told
               : persistence::implied,
         date_.view());
}

/// Before a request, one empty line is forgiven (RFC 9112, 2.2). False: more bytes must be seen.
bool http_session::skip_blank_line() noexcept {
  if (unread().starts_with("\r\n")) begin_ += 2;
  return !unread().empty() && unread() != "\r";
}

/// Adds at least one byte to what is unread. False: the connection has ended, or has to.
bool http_session::read_more() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ != 0) {
    std::memmove(in_.get(), in_.get() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }

  const auto space = tendril::buffer(in_.get() + end_, capacity_ - end_);
  std::error_code ec;
  std::size_t n = stream_.read_some(space, ec);
  if (ec == std::errc::operation_canceled && is_stopping()) {
    // Once more: what has arrived meanwhile is not lost, and what belongs to a request may arrive.
    n = stream_.read_some(space, ec);
  }
  end_ += n;
  if (n != 0) return true;
  if (ec == std::errc::timed_out && request_) {
    date_.refresh();
    answer(plain(status::request_timeout), false);
    if (flush()) close_gently();
  }
  return false;
}

/// Sends what has been answered. False: the connection is broken.
bool http_session::flush() {
  if (out_.empty()) return true;
  std::error_code ec;
  const std::size_t n = stream_.write_all(tendril::buffer(out_), ec);
  if (ec == std::errc::operation_canceled && is_stopping()) {
    stream_.write_all(tendril::buffer(out_).subspan(n), ec);
  }
  out_.clear();
  return !ec;
}

/// Closing while unread bytes lie in the socket, or arrive, resets the connection, and a reset makes
/// the client's system drop the response that the client has not read yet. So the client is told that
/// nothing more will come, and what it still sends is read: for a while, and not without limit.
void http_session::close_gently() {
  std::error_code ec;
  stream_.shutdown(tendril::net::shutdown_mode::send, ec);
  is_stopping();
  stream_.set_read_deadline(std::min(steady_clock::now() + lingering_time, drain_deadline_));
  std::size_t dropped = 0;
  while (!ec && dropped < lingering_bytes) {
    const std::size_t n = stream_.read_some(tendril::buffer(in_.get(), capacity_), ec);
    if (n == 0) break;
    dropped += n;
  }
}

/// Whether the fiber was requested to stop. The first time it is found so, that request is put aside:
/// what is left to do is done under a deadline.
bool http_session::is_stopping() {
  if (shield_) return true;
  if (!tendril::this_fiber::stop_requested()) return false;
  shield_.emplace();
  drain_deadline_ = steady_clock::now() + options_.drain_timeout;
  stream_.set_write_deadline(drain_deadline_);
  set_request_deadline(request_deadline_);
  // Between requests there is nothing to wait for: only what is there already is taken.
  if (!request_ && begin_ == end_) stream_.set_read_deadline(steady_clock::now());
  return true;
}

void http_session::set_request_deadline(time_point deadline) {
  if (deadline == request_deadline_ && !shield_) return;
  request_deadline_ = deadline;
  stream_.set_read_deadline(std::min(deadline, drain_deadline_));
}

}  // namespace http_hello
